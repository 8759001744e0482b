// The lines of the log as they are written, by all processes of the service. Lines come as fast as they like: they are
// drawn in batches, a few times a second, and the last thousand are kept.

import { made } from "./ops-charts.js";
import { rest } from "./ops-metrics.js";
import { Refused, SignedOut, ask, words } from "./ops-session.js";
import { messages } from "./ops-sse.js";

export const KEPT = 1000; // lines
const BATCH = 80; // ms between drawings
const SOON = 200; // ms; a worker that drains says bye, and another one answers
const SILENCE = 40_000; // ms; the service says something every 15 s
const element = (id) => document.getElementById(id);
const COMMON = new Set([
  "ts", "level", "event", "service", "version", "instance", "worker", "actor", "request_id", "trace_id", "span_id",
]);
const LEVELS = ["debug", "info", "warning", "error"];

const list = element("lines");
const known = new Set([...element("events").options].map((option) => option.value));
const paths = new Set();

let kept = []; // {line, id}, the oldest first
let arrived = []; // not drawn yet
let came = 0; // lines that ever came; makes their ids
let lost = 0;
let follow = true;
let paused = false;
let trace = "";
let current = null; // the id of the line chosen
let opened = null; // the line whose JSON is shown
let drawnAt = 0;
let asked = ""; // what the service was asked to leave out
let again = () => {}; // asks it anew
let scheduled = false;
let settled = ""; // the shape of the list when it was last drawn

// ------------------------------------------------------------------------------------------- what comes

/** Read the stream until `signal` is aborted; `tell` hears of each line. */
export async function watch(tell, signal) {
  let since = null; // when it was cut
  while (!signal.aborted) {
    const turn = new AbortController();
    again = () => turn.abort("other filters");
    try {
      await listen(tell, AbortSignal.any([signal, turn.signal]), () => {
        if (since) gap(since);
        since = null;
      });
      since ??= new Date();
      await rest(SOON, signal);
    } catch (error) {
      if (error instanceof SignedOut || signal.aborted) return;
      if (!turn.signal.aborted) {
        since ??= new Date();
        const why = error instanceof Refused ? `: ${error.message}` : "";
        say(`away since ${since.toLocaleTimeString()}${why}`, false);
        await rest(1000, signal);
      }
    }
  }
}

async function listen(tell, signal, begun) {
  asked = query();
  const silent = new AbortController();
  let timer = 0;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silent.abort("silence"), SILENCE);
  };
  try {
    heard();
    const stop = AbortSignal.any([signal, silent.signal]);
    const answer = await ask(`/v1/admin/logs/stream?${asked}`, { signal: stop, patience: 0 });
    if (!answer.ok) throw new Refused(await words(answer));
    for await (const message of messages(answer.body)) {
      heard();
      if (message?.event === "bye") return;
      if (message?.event === "hello") begun(hello(JSON.parse(message.data)));
      else if (message?.event === "line") tell(take(message.data));
      else if (message?.event === "lost") lose(JSON.parse(message.data).lines);
    }
  } finally {
    clearTimeout(timer);
  }
}

function hello({ instance, workers }) {
  say(`live · ${workers} ${workers === 1 ? "worker" : "workers"}`, true);
  element("stream").title = instance;
}

/** Take in a line, as JSON; returns it. */
export function take(json) {
  const line = JSON.parse(json);
  put({ line, id: (came += 1) });
  if (line.route && !paths.has(line.route) && paths.size < 500) {
    paths.add(line.route);
    const option = made("option");
    option.value = line.route;
    element("paths").append(option);
  }
  return line;
}

function put(one) {
  arrived.push(one);
  if (arrived.length > 2 * KEPT) arrived.splice(0, arrived.length - KEPT); // a hidden tab draws nothing
  schedule();
}

function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(draw);
}

function gap(since) {
  const words = `The stream was cut at ${since.toLocaleTimeString()} and is back; what was said meanwhile is not here.`;
  put({ gap: words, id: (came += 1) });
}

function lose(lines) {
  lost += lines;
  element("lost").textContent = `${lost} lost: they came faster than this page reads`;
}

function say(text, on) {
  element("stream").textContent = text;
  element("stream").classList.toggle("on", on);
}

// ----------------------------------------------------------------------------------------- what is shown

const level = () => element("level").value;
const split = (id) => element(id).value.split(",").map((word) => word.trim()).filter(Boolean);

/** What the service can leave out by itself, so that rare lines are not pushed out by others. */
function query() {
  const wanted = new URLSearchParams({ level: level() });
  const events = split("event");
  if (events.length && events.every((name) => known.has(name))) wanted.set("event", events.join(","));
  const routes = split("route");
  if (routes.length && routes.every((path) => paths.has(path))) wanted.set("route", routes.join(","));
  return wanted.toString();
}

function matching() {
  const [events, routes, text] = [split("event"), split("route"), element("text").value.trim().toLowerCase()];
  const least = LEVELS.indexOf(level());
  const some = (words, value, whole, more = value) =>
    !words.length || words.some((word) => (whole.has(word) ? value === word : (more ?? "").includes(word)));
  return ({ line, gap: words }) =>
    Boolean(words) ||
    (LEVELS.indexOf(line.level) >= least &&
      (!trace || line.trace_id === trace) &&
      some(events, line.event, known) &&
      some(routes, line.route, paths, line.route && `${line.method} ${line.route}`) &&
      (!text || JSON.stringify(line).toLowerCase().includes(text)));
}

function draw(now) {
  if (now - drawnAt < BATCH) {
    requestAnimationFrame(draw);
    return;
  }
  scheduled = false;
  drawnAt = now;
  if (paused) {
    count();
    return;
  }
  const fresh = arrived.splice(0).slice(-KEPT);
  kept = [...kept, ...fresh].slice(-KEPT);
  const shown = fresh.filter(matching());
  const spare = list.childElementCount + shown.length - KEPT;
  for (let n = 0; n < spare && list.firstChild; n += 1) list.firstChild.remove();
  list.append(...shown.map(row));
  const oldest = kept[0]?.id ?? 0;
  while (list.firstChild && Number(list.firstChild.dataset.id) < oldest) list.firstChild.remove();
  settle();
}

function redraw() {
  list.replaceChildren(...kept.filter(matching()).map(row));
  settle();
}

const shape = () => `${list.clientHeight} ${list.scrollHeight}`;

function settle() {
  if (follow) list.scrollTop = list.scrollHeight;
  settled = shape();
  element("no-lines").hidden = list.childElementCount > 0;
  element("no-lines").textContent = kept.length ? "No line is like that." : "No line yet.";
  count();
}

function count() {
  const waiting = paused && arrived.length ? ` · ${Math.min(arrived.length, KEPT)} more wait` : "";
  const shown = list.childElementCount;
  element("kept").textContent = `${shown} shown of ${kept.length} kept${waiting}`;
  element("jump").hidden = follow || paused;
}

function row(one) {
  const item = made("li", one.gap ? "gapped" : one.line.level);
  item.id = `line-${one.id}`;
  item.dataset.id = String(one.id);
  item.setAttribute("role", "option");
  item.setAttribute("aria-selected", String(one.id === current));
  if (one.gap) {
    item.textContent = one.gap;
    return item;
  }
  const { ts, level: loud, event, worker, trace_id } = one.line;
  item.append(
    made("time", "", new Date(ts).toLocaleTimeString("en-GB") + ts.slice(19, 23)),
    made("span", "level", loud),
    made("span", "by", worker === undefined ? "sup" : `w${worker}`),
    made("span", "event", event),
    made("span", "what", summary(one.line)),
    made("span", "trace", trace_id ? trace_id.slice(0, 8) : ""),
  );
  return item;
}

function summary(line) {
  const { method, route, status, duration_ms, ...more } = line;
  const first = method ? [`${method} ${route ?? "no route"}`, status, duration_ms === undefined ? "" : `${duration_ms} ms`] : [];
  const others = Object.entries(more)
    .filter(([name]) => !COMMON.has(name) && name !== "traceback")
    .map(([name, value]) => `${name}=${typeof value === "object" ? JSON.stringify(value) : value}`);
  return [...first.filter(Boolean), ...others].join("  ");
}

// ------------------------------------------------------------------------------------- what people do

const found = (id) => kept.find((one) => one.id === id && one.line);

function choose(item, open) {
  if (!item) return;
  element(`line-${current}`)?.setAttribute("aria-selected", "false");
  current = Number(item.dataset.id);
  item.setAttribute("aria-selected", "true");
  list.setAttribute("aria-activedescendant", item.id);
  item.scrollIntoView({ block: "nearest" });
  if (open || opened) show();
}

function show() {
  const one = found(current);
  if (!one) return;
  opened = one.line;
  element("detail").hidden = false;
  element("detail-title").textContent = one.line.event;
  element("only-trace").disabled = !one.line.trace_id;
  element("json").replaceChildren(...coloured(one.line));
}

function coloured(line) {
  const { traceback, ...more } = line;
  const parts = JSON.stringify(more, null, 2).split(/^(\s*"[^"]+":)/m);
  const shown = parts.map((part, n) => (n % 2 ? made("span", "name", part) : document.createTextNode(part)));
  return traceback ? [...shown, made("span", "traceback", `\n${traceback}`)] : shown;
}

function hide() {
  opened = null;
  element("detail").hidden = true;
  list.focus();
}

function only(wanted) {
  trace = wanted ?? "";
  element("trace").textContent = trace.slice(0, 8);
  element("trace-chip").hidden = !trace;
  redraw();
}

function pause(wish) {
  paused = wish;
  element("pause").setAttribute("aria-pressed", String(wish));
  element("pause").textContent = wish ? "Go on" : "Pause";
  follow ||= !wish;
  schedule();
}

function step(by) {
  const items = [...list.children];
  const at = items.findIndex((item) => Number(item.dataset.id) === current);
  const next = at < 0 ? items.length - 1 : Math.min(Math.max(at + by, 0), items.length - 1);
  if (next < items.length - 1) follow = false;
  choose(items[next], false);
}

const keys = {
  ArrowDown: () => step(1),
  ArrowUp: () => step(-1),
  PageDown: () => step(15),
  PageUp: () => step(-15),
  Home: () => step(-KEPT),
  End: () => newest(),
  Enter: () => show(),
  " ": () => pause(!paused),
  t: () => found(current)?.line.trace_id && only(trace ? "" : found(current).line.trace_id),
  Escape: () => hide(),
};

function newest() {
  follow = true;
  choose(list.lastElementChild, false);
  settle();
}

/** Forget every line, as when somebody signs out. */
export function clear() {
  [kept, arrived, lost, current] = [[], [], 0, null];
  element("lost").textContent = "";
  element("detail").hidden = true;
  opened = null;
  follow = true;
  redraw();
}

/** Listen to the fields and the list; called once. */
export function open() {
  list.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  list.addEventListener("click", (event) => {
    const item = event.target.closest("li");
    choose(item, !event.target.classList.contains("trace"));
    if (event.target.classList.contains("trace")) only(found(current)?.line.trace_id);
  });
  list.addEventListener("scroll", () => {
    if (follow && shape() !== settled) {
      settle(); // nobody scrolled: the window has another size
      return;
    }
    follow = list.scrollHeight - list.scrollTop - list.clientHeight < 30;
    element("jump").hidden = follow || paused;
  });
  new ResizeObserver(() => follow && settle()).observe(list);
  let waiting = 0;
  element("filters").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      redraw();
      if (query() !== asked) again();
    }, 150);
  });
  element("filters").addEventListener("submit", (event) => event.preventDefault());
  element("trace-off").addEventListener("click", () => only(""));
  element("only-trace").addEventListener("click", () => only(opened.trace_id));
  element("pause").addEventListener("click", () => pause(!paused));
  element("clear").addEventListener("click", clear);
  element("close").addEventListener("click", hide);
  element("jump").addEventListener("click", newest);
  element("copy").addEventListener("click", copy);
}

async function copy() {
  try {
    await navigator.clipboard.writeText(JSON.stringify(opened));
  } catch {
    getSelection().selectAllChildren(element("json")); // without TLS there is no clipboard: copy by hand
    document.execCommand("copy");
  }
  element("copy").textContent = "Copied";
  setTimeout(() => (element("copy").textContent = "Copy"), 1500);
}
