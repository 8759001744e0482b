// Lines over the last ten minutes, as SVG: the style sheet colours them, so that light and dark are its business alone,
// and what is drawn can be looked at like all else on the page. One moment is pointed at on all charts together; the
// legends tell the values there, or else those of now.

import { SHOWN } from "./ops-metrics.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDE = 600; // units of the drawing
const HIGH = 100;
const SPANS = [60, 120, 180, 300, 420, SHOWN]; // seconds that a chart shows: no more than there is to be shown
const charts = new Set();
let pointed = null; // seconds before now
let span = SPANS[0];

const node = (tag, attributes = {}) => {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
};

export function made(tag, name = "", text = "") {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== "") element.textContent = text;
  return element;
}

/** Point at a moment on all charts; null: at now. */
function point(before) {
  pointed = before === null ? null : Math.min(span, Math.max(0, Math.round(before)));
  for (const chart of charts) chart.tell();
}

/** The smallest round multiple of `least` that is not below `value`. */
function rounded(value, least) {
  for (let ten = least; ; ten *= 10) {
    const found = [1, 2, 3, 4, 6, 8].find((times) => times * ten >= value);
    if (found) return found * ten;
  }
}

/** A chart in a panel. `series`: [{name, values, tone}]; stacked areas, or lines; `least`: the least height. */
export class Chart {
  constructor(host, { id, title, unit, series, format, stacked = false, least = 1 }) {
    Object.assign(this, { title, unit, series, format, stacked, least, times: [] });
    this.plot = made("div", "plot");
    this.plot.tabIndex = 0;
    this.plot.setAttribute("role", "img");
    const svg = node("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    for (const part of [0.5, 1]) svg.append(node("path", { class: "grid", d: `M0 ${HIGH * (1 - part)}H${WIDE}` }));
    this.paths = series.map(({ tone }) => node("path", { class: `${stacked ? "area" : "stroke"} ${tone}`, d: "" }));
    this.gap = node("path", { class: "gap", d: "" });
    this.cursor = node("path", { class: "cursor", d: "" });
    svg.append(this.gap, ...this.paths.toReversed(), this.cursor);
    this.top = made("span", "top");
    this.from = made("span", "from");
    this.plot.append(svg, this.top, this.from, made("span", "to", "now"));
    this.legend = made("ul", "legend");
    this.values = series.map(({ name, tone }) => this.entry(name, tone));
    const heading = made("header");
    const words = made("h3", "", title);
    words.id = `${id}-title`;
    this.when = made("p", "quiet", unit);
    heading.append(words, this.when);
    host.append(heading, this.plot, this.legend);
    host.setAttribute("aria-labelledby", words.id);
    this.listen();
    charts.add(this);
  }

  entry(name, tone) {
    const item = made("li", tone);
    const value = made("b", "", "–");
    item.append(made("span", "", name), value);
    this.legend.append(item);
    return value;
  }

  listen() {
    this.plot.addEventListener("pointermove", (event) => {
      const box = this.plot.getBoundingClientRect();
      point(span * (1 - (event.clientX - box.left) / box.width));
    });
    this.plot.addEventListener("pointerleave", () => point(null));
    this.plot.addEventListener("blur", () => point(null));
    this.plot.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: 5, ArrowRight: -5, PageUp: 60, PageDown: -60 }[event.key];
      if (step) point((pointed ?? 0) + step);
      else if (event.key === "Home") point(span);
      else if (event.key === "End" || event.key === "Escape") point(null);
      else return;
      event.preventDefault();
    });
  }

  draw(times) {
    this.times = times;
    const now = times.at(-1) ?? 0;
    span = SPANS.find((one) => one >= now - (times[0] ?? 0)) ?? SHOWN;
    this.from.textContent = `${span / 60} min ago`;
    const x = times.map((at) => Math.round((1 - (now - at) / span) * WIDE * 10) / 10);
    const heights = this.stacked ? stack(this.series.map((one) => one.values)) : this.series.map((one) => one.values);
    let most = 0;
    for (const line of heights) for (let n = 0; n < line.length; n += 1) if (x[n] >= 0 && line[n] > most) most = line[n];
    const top = rounded(most, this.least);
    this.top.textContent = this.format(top);
    heights.forEach((line, n) => this.paths[n].setAttribute("d", trace(x, line, top, this.stacked)));
    this.gap.setAttribute("d", gaps(x, heights[0]));
    this.tell();
  }

  /** Write the values of the moment pointed at. */
  tell() {
    const at = this.nearest();
    const texts = this.series.map(({ values }) => {
      const value = values[at];
      return value === null || value === undefined ? "–" : this.format(value);
    });
    texts.forEach((text, n) => {
      if (this.values[n].textContent !== text) this.values[n].textContent = text;
    });
    const shown = pointed !== null && at >= 0;
    const when = shown ? new Date(this.times[at] * 1000).toLocaleTimeString() : this.unit;
    if (this.when.textContent !== when) this.when.textContent = when;
    this.cursor.setAttribute("d", shown ? `M${(1 - pointed / span) * WIDE} 0V${HIGH}` : "");
    const said = this.series.map(({ name }, n) => `${name} ${texts[n]}`).join(", ");
    this.plot.setAttribute("aria-label", `${this.title}, ${this.unit}, ${shown ? `at ${when}` : "now"}: ${said}`);
  }

  nearest() {
    if (pointed === null || !this.times.length) return this.times.length - 1;
    const wanted = this.times.at(-1) - pointed;
    let best = 0;
    this.times.forEach((at, n) => {
      if (Math.abs(at - wanted) < Math.abs(this.times[best] - wanted)) best = n;
    });
    return Math.abs(this.times[best] - wanted) <= 5 ? best : -1;
  }
}

function stack(lines) {
  const sums = [];
  return lines.map((line) =>
    line.map((value, n) => {
      if (value === null) return null;
      sums[n] = (sums[n] ?? 0) + value;
      return sums[n];
    }),
  );
}

/** The outline of a line, or of the area under it, in pieces where there are gaps. */
function trace(x, line, top, filled) {
  let path = "";
  let from = null;
  let last = null;
  const close = () => (filled ? `V${HIGH}H${from}Z` : "");
  for (let n = 0; n < line.length; n += 1) {
    const value = line[n];
    if (value === null || value === undefined) {
      if (last !== null) path += close();
      from = last = null;
    } else {
      const y = Math.round((HIGH - (Math.min(value, top) / top) * HIGH) * 100) / 100;
      if (last === null) {
        from = x[n];
        path += filled ? `M${x[n]} ${HIGH}V${y}` : `M${x[n]} ${y}`;
      } else path += `L${x[n]} ${y}`;
      last = x[n];
    }
  }
  return last === null ? path : path + close();
}

/** Where there was no answer. */
function gaps(x, line) {
  let path = "";
  let from = null;
  for (let n = 1; n <= line.length; n += 1) {
    const missing = n < line.length && line[n] === null;
    if (missing && from === null) from = x[n - 1];
    if (!missing && from !== null) {
      const to = n < line.length ? x[n] : WIDE;
      path += `M${from} 0H${to}V${HIGH}H${from}Z`;
      from = null;
    }
  }
  return path;
}
