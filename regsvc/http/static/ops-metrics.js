// The figures of the last ten minutes: the service is asked once a second, and rates are differences of its counts.

import { Away, SignedOut, ask } from "./ops-session.js";

export const SHOWN = 600; // seconds on a chart
const EVERY = 1000; // ms
const SELDOM = 30_000; // ms, where there are no metrics to be had
const KEPT = SHOWN + 70; // seconds; the oldest minute shown is counted from the one before it
const MINUTE = 60;

const classes = ["2xx", "3xx", "4xx", "5xx"];

/** What is kept of one answer: the counts that are subtracted later, and what is shown as it is. */
function sample(answer, at) {
  const statuses = Object.fromEntries(classes.map((name) => [name, 0]));
  for (const [status, count] of Object.entries(answer.status_counts)) {
    const name = `${status[0]}xx`;
    if (name in statuses) statuses[name] += count;
  }
  return {
    at,
    up: answer.uptime_s,
    statuses,
    routes: answer.request_counts,
    business: answer.business_metrics,
    refusals: answer.refusals,
    gauges: answer.gauges,
    workers: answer.workers,
    timings: answer.timings,
    latencies: answer.latencies,
  };
}

/** The samples of the last ten minutes, and lines of figures made of them. */
export class History {
  constructor() {
    this.samples = []; // a null: the service was away, and lines have a gap there
    this.times = [];
    this.lines = new Map();
  }

  /** Keep a line of figures by this name: `of(now, before, minuteAgo)` is called with each sample. */
  line(name, of) {
    this.lines.set(name, { of, values: [] });
  }

  get now() {
    return this.samples.at(-1) ?? null;
  }

  take(answer, at) {
    const now = sample(answer, at);
    const last = this.samples.findLast(Boolean);
    // Counts go on with a worker's successor. Smaller ones are those of another service, with no past to subtract.
    if (last && (now.up < last.up - 1 || total(now.statuses) < total(last.statuses))) this.forget();
    this.push(at, now);
  }

  /** Note that there was no answer. */
  miss(at) {
    this.push(at, null);
  }

  /** Forget all of it, as when somebody signs out. */
  empty() {
    while (this.times.length) this.shift();
  }

  forget() {
    for (let n = 0; n < this.samples.length; n += 1) this.samples[n] = null; // what was drawn stays
  }

  push(at, now) {
    const before = this.samples.at(-1) ?? null;
    const minute = now && this.ago(at, MINUTE);
    this.times.push(at);
    this.samples.push(now);
    for (const line of this.lines.values()) line.values.push(now ? line.of(now, before, minute) : null);
    while (this.times[0] < at - KEPT) this.shift();
  }

  shift() {
    this.times.shift();
    this.samples.shift();
    for (const line of this.lines.values()) line.values.shift();
  }

  /** The sample from so many seconds before, or the oldest since; null where there is none. */
  ago(at, seconds) {
    return this.samples.find((one, n) => one && this.times[n] >= at - seconds - 0.5) ?? null;
  }
}

const total = (counts) => Object.values(counts).reduce((sum, count) => sum + count, 0);

/** How much a count grew a second between two samples; null where there is nothing to compare with. */
export function rate(now, before, count) {
  if (!now || !before) return null;
  const elapsed = now.up - before.up; // by the service's clock: how long the answer took does not matter
  return elapsed > 0 ? Math.max(0, count(now) - count(before)) / elapsed : null;
}

/** How much it grew in the last minute: less, while there is less than a minute to look back on. */
export const perMinute = (count) => (now, _before, minute) =>
  minute ? Math.max(0, count(now) - count(minute)) : null;

export const perSecond = (count) => (now, before) => rate(now, before, count);
export const gauge = (name) => (now) => now.gauges[name] ?? null;
export const business = (name) => (one) => one.business[name] ?? 0;
export const statusClass = (name) => (one) => one.statuses[name];

/** Ask for figures until `signal` is aborted; `tell` is called with {answer}, {away} or {off}. */
export async function poll(tell, signal) {
  while (!signal.aborted) {
    const began = performance.now();
    const told = await look(signal);
    if (signal.aborted || !told) return;
    try {
      tell(told, Date.now() / 1000);
    } catch (error) {
      reportError(error); // an answer of another version, say, in the midst of a replacement: the next may be whole
    }
    await rest((told.off ? SELDOM : EVERY) - (performance.now() - began), signal);
  }
}

async function look(signal) {
  try {
    const answer = await ask("/v1/metrics", { signal });
    if (answer.status === 404) return { off: true };
    if (!answer.ok) return { away: `The service answered ${answer.status}.` };
    return { answer: await answer.json() };
  } catch (error) {
    if (error instanceof SignedOut || signal.aborted) return null;
    return { away: error instanceof Away ? error.message : "The answer was cut short." };
  }
}

/** Wait; a tab that comes back to the front looks at once. */
export function rest(wait, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", seen);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const seen = () => document.visibilityState === "visible" && done();
    const timer = setTimeout(done, Math.max(0, wait));
    document.addEventListener("visibilitychange", seen);
    signal.addEventListener("abort", done);
  });
}
