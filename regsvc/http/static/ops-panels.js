// The board of figures: what is drawn where, when a figure is good news, and what is said about it.

import { Chart, made } from "./ops-charts.js";
import { SHOWN, business, gauge, perMinute, perSecond, rate, statusClass } from "./ops-metrics.js";

const element = (id) => document.getElementById(id);
const ROWS = 8; // of a list; always drawn, so that nothing moves when one fills
const SMOOTH = 5; // seconds that a figure in words is the mean of

export function number(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 100_000) return `${Math.round(value / 1000)}k`;
  if (value >= 10_000) return `${(value / 1000).toFixed(1)}k`;
  if (value >= 10 || Number.isInteger(value)) return String(Math.round(value));
  return value >= 1 ? value.toFixed(1) : value.toFixed(value >= 0.01 ? 2 : 3);
}

const inMs = (value) => `${number(value)} ms`;
const seconds = (value) => (value < 90 ? `${number(value)} s` : lasting(value));

export function lasting(value) {
  const units = [["d", 86_400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, size]) => value >= size);
  if (first < 0) return "0 s";
  const [[big, size], next] = [units[first], units[first + 1]];
  const whole = Math.floor(value / size);
  const more = next ? Math.floor((value - whole * size) / next[1]) : 0;
  return more ? `${whole} ${big} ${more} ${next[0]}` : `${whole} ${big}`;
}

const people = (name) => perMinute(business(name));
const lanes = (most) => (most > 1 ? `${most} at once in a thread` : "one by one in a thread");
const lag = (now) => (now.gauges.loop_lag_seconds ?? 0) * 1000;

const BOARD = [
  {
    id: "p-requests", title: "Requests", unit: "per second", stacked: true, least: 5,
    series: [["2xx", "t1", perSecond(statusClass("2xx"))], ["3xx", "t2", perSecond(statusClass("3xx"))],
      ["4xx", "t3", perSecond(statusClass("4xx"))], ["5xx", "t4", perSecond(statusClass("5xx"))]],
  },
  {
    id: "p-people", title: "People", unit: "per minute", least: 5,
    series: [["registered", "t1", people("registrations")], ["activated", "t2", people("activations")],
      ["logged in", "t5", people("logins")]],
  },
  {
    id: "p-mail", title: "Mail", unit: "per minute", least: 5,
    series: [["sent", "t1", people("mails_sent")], ["put off", "t3", people("mails_deferred")],
      ["dead", "t4", people("mails_dead")]],
  },
  {
    id: "p-hashing", title: "Password hashing", unit: "passwords", least: 5,
    series: [["at work", "t1", gauge("hash_queue_running")], ["waiting", "t3", gauge("hash_queue_waiting")]],
    note: ({ timings, gauges }) =>
      `wait ${spread(timings.hash_wait)}, work ${spread(timings.hash_duration)}; ${lanes(gauges.hash_lanes)}`,
  },
  {
    id: "p-outbox", title: "Outbox", unit: "mails", least: 5,
    series: [["ready", "t1", gauge("outbox_ready")], ["on the way", "t2", gauge("outbox_leased")],
      ["dead", "t4", gauge("outbox_dead")]],
    note: ({ timings }) => `accepted to sent ${spread(timings.mail_accept_to_sent)}`,
  },
  {
    id: "p-pool", title: "Database pool", unit: "connections", least: 5,
    series: [["in use", "t1", gauge("pool_in_use")], ["idle", "t2", gauge("pool_idle")],
      ["waited for", "t4", gauge("pool_waiting")]],
  },
  {
    id: "p-loop", title: "Loop lag", unit: "ms, the slowest worker", least: 5, format: inMs,
    series: [["lag", "t1", lag]],
  },
  {
    id: "p-connections", title: "Connections", unit: "at once", least: 5,
    series: [["open", "t1", gauge("connections")], ["requests in hand", "t5", gauge("requests_in_hand")]],
  },
];

const spread = (timing) => (timing?.count ? `${number(timing.p50)} / ${number(timing.p95)} / ${number(timing.p99)}` : "–");
const over = (value, warn, bad) => (value >= bad ? "bad" : value >= warn ? "warn" : "good");
const lately = (history, count) => mean(history, count, SMOOTH);

function mean(history, count, span) {
  const now = history.now;
  return now ? rate(now, history.ago(now.at, span), count) : null;
}

const grown = (history, count) => {
  const first = history.ago(history.now.at, SHOWN);
  return first ? count(history.now) - count(first) : 0;
};

const served = (one) => classesOf(one).reduce((sum, [, count]) => sum + count, 0);
const classesOf = (one) => Object.entries(one.statuses);

/** Label, and (now, history) -> [what is said, how good that is]. */
const VITALS = [
  ["Requests", (_, h) => [`${number(lately(h, served))} /s`, "good"]],
  ["5xx in 10 min", (_, h) => {
    const errors = grown(h, statusClass("5xx"));
    return [number(errors), errors ? "bad" : "good"];
  }],
  ["Workers", ({ workers: { alive, asked } }) => [`${alive} of ${asked}`, alive < asked ? (alive ? "warn" : "bad") : "good"]],
  ["Restarts", ({ workers }, h) => [number(workers.restarts), grown(h, (one) => one.workers.restarts) ? "warn" : "good"]],
  ["Database", ({ gauges }) => (gauges.database_up ? ["up", "good"] : ["down", "bad"])],
  ["Oldest mail", ({ gauges }) => [seconds(gauges.outbox_oldest_seconds), over(gauges.outbox_oldest_seconds, 30, 300)]],
  ["Dead letters", ({ gauges }) => [number(gauges.outbox_dead), gauges.outbox_dead ? "warn" : "good"]],
  ["Loop lag", (now) => [inMs(lag(now)), over(lag(now), 100, 1000)]],
  ["Sweeper lag", ({ gauges }) => [seconds(gauges.sweeper_lag_seconds), over(gauges.sweeper_lag_seconds, 120, 600)]],
  ["Memory", ({ gauges }) => [`${number(gauges.resident_memory_bytes / 1e6)} MB`, "good"]],
  ["Log lines lost", ({ gauges }) => [number(gauges.log_lines_dropped), gauges.log_lines_dropped ? "warn" : "good"]],
  ["Up for", ({ up }) => [lasting(up), "good"]],
];

const MEANING = { good: "", warn: "look at this", bad: "trouble" };

/** Draws a history. Made once; `draw` is called when there is something new. */
export class Board {
  constructor(history) {
    this.history = history;
    this.charts = BOARD.map((spec) => this.chart(spec));
    this.vitals = VITALS.map(([label]) => vital(label));
    this.routes = rows(element("routes"), 6);
    this.refusals = rows(element("refusals"), 3);
  }

  chart({ id, title, unit, series, format = number, stacked, least, note }) {
    const lines = series.map(([name, tone, of]) => {
      this.history.line(`${id} ${name}`, of);
      return { name, tone, values: this.history.lines.get(`${id} ${name}`).values };
    });
    const host = element(id);
    const chart = new Chart(host, { id, title, unit, series: lines, format, stacked, least });
    const said = note ? made("p", "quiet note-line", "\u00a0") : null;
    if (said) host.append(made("p", "quiet note-line", "p50 / p95 / p99 in ms since the start:"), said);
    return { chart, note, said };
  }

  draw() {
    for (const { chart } of this.charts) chart.draw(this.history.times);
    const now = this.history.now;
    if (!now) return;
    for (const { note, said } of this.charts) if (note) write(said, note(now));
    VITALS.forEach(([, of], n) => this.vitals[n](of(now, this.history)));
    this.list(now);
  }

  list(now) {
    const past = this.history.ago(now.at, 60);
    const busiest = Object.entries(now.routes)
      .map(([route, count]) => ({ route, count, rate: rate(now, past, (one) => one.routes[route] ?? 0) ?? 0 }))
      .sort((a, b) => b.rate - a.rate || b.count - a.count);
    const slowest = Math.max(1, ...busiest.slice(0, ROWS).map(({ route }) => now.latencies[route]?.p99 ?? 0));
    fill(this.routes, busiest, (cells, { route, rate: often }) => {
      const { p50, p95, p99 } = now.latencies[route] ?? {};
      [route, number(often), number(p50), number(p95), number(p99)].forEach((text, n) => write(cells[n], text));
      bars(cells[5], [p99, p95, p50], slowest);
    });
    const first = this.history.ago(now.at, SHOWN);
    const refusals = Object.entries(now.refusals)
      .map(([name, count]) => ({ name, count, lately: count - (first?.refusals[name] ?? 0) }))
      .sort((a, b) => b.lately - a.lately || b.count - a.count);
    fill(this.refusals, refusals, (cells, { name, count, lately: few }) =>
      [name, number(few), number(count)].forEach((text, n) => write(cells[n], text)),
    );
  }

  /** What somebody should know now: {bad, warn}, each a list of sentences; both empty: all is well. */
  troubles() {
    const now = this.history.now;
    if (!now) return { bad: [], warn: [] };
    const { asked, alive } = now.workers;
    const errors = grown(this.history, statusClass("5xx"));
    const { database_up: up, outbox_oldest_seconds: oldest, outbox_dead: dead } = now.gauges;
    return {
      bad: [
        up ? "" : "The database is down.",
        alive < asked ? `${asked - alive} of ${asked} workers ${asked - alive === 1 ? "is" : "are"} missing.` : "",
        oldest >= 300 ? "Mail is not getting out." : "",
      ].filter(Boolean),
      warn: [
        errors ? `Errors (5xx) in the last 10 minutes: ${number(errors)}.` : "",
        dead ? `Dead letters: ${number(dead)}.` : "",
      ].filter(Boolean),
    };
  }
}

export function write(where, text) {
  if (where.textContent !== text) where.textContent = text;
}

function vital(label) {
  const box = made("div", "vital");
  const value = made("dd", "", "–");
  const text = made("span", "", "–");
  const meaning = made("span", "away");
  value.replaceChildren(text, meaning);
  box.append(made("dt", "", label), value);
  element("vitals").append(box);
  return ([said, state]) => {
    write(text, said);
    write(meaning, MEANING[state] && ` (${MEANING[state]})`);
    if (box.dataset.state !== state) box.dataset.state = state;
  };
}

function rows(body, wide) {
  return Array.from({ length: ROWS }, () => {
    const row = made("tr");
    const cells = Array.from({ length: wide }, (_, n) => {
      const cell = made(n ? "td" : "th", n ? "n" : "", "\u00a0");
      if (!n) cell.scope = "row";
      return cell;
    });
    row.append(...cells);
    body.append(row);
    return { row, cells };
  });
}

function fill(list, found, put) {
  list.forEach(({ row, cells }, n) => {
    row.classList.toggle("none", !found[n]);
    if (found[n]) put(cells, found[n]);
    else for (const cell of cells) cell.replaceChildren("\u00a0");
  });
}

/** Three bars over each other, from the longest to the shortest, on a scale of roots: short ones are seen too. */
function bars(cell, values, most) {
  if (cell.firstElementChild?.tagName !== "svg") {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 100 10");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    for (let n = 0; n < 3; n += 1) {
      const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      bar.setAttribute("height", "10");
      bar.setAttribute("class", `bar${n}`);
      svg.append(bar);
    }
    cell.className = "spread";
    cell.replaceChildren(svg);
  }
  values.forEach((value, n) => {
    const wide = Math.sqrt(Math.max(0, value ?? 0) / most) * 100;
    cell.firstElementChild.children[n].setAttribute("width", wide.toFixed(1));
  });
}
