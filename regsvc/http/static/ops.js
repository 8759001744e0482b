// The page for those who run the service: it lets administrators in, and keeps figures, log and dead letters going
// until they leave. No library, no build step; nothing but this service is asked.

import * as letters from "./ops-letters.js";
import * as log from "./ops-log.js";
import { History, poll } from "./ops-metrics.js";
import { Board, write } from "./ops-panels.js";
import { Away, Refused, showToken, signIn, signOut, whenEnded } from "./ops-session.js";

const element = (id) => document.getElementById(id);
const THEMES = ["system", "light", "dark"];
const LOOK = 15_000; // ms between looks at the dead letters, beside those that something happened
const history = new History();
const board = new Board(history);

let staying = null; // aborted when somebody leaves
let away = null; // since when the service is
let deadCount = null;

// ---------------------------------------------------------------------------------------- coming, going

function gate(words = "") {
  element("board").hidden = true;
  element("gate").hidden = false;
  for (const id of ["leave", "live", "parts"]) element(id).hidden = true;
  write(element("where"), "");
  element("gate-problem").textContent = words;
  document.title = "Operations · regsvc";
  (element("by-token").checked ? element("token") : element("email")).focus();
}

async function enter(event) {
  event.preventDefault();
  const byToken = element("by-token").checked;
  const [name, secret] = [element("email").value.trim(), element(byToken ? "token" : "password").value];
  if (element("enter").disabled) return;
  element("gate-problem").textContent = "";
  if (!secret || (!byToken && !name)) {
    element("gate-problem").textContent = byToken ? "Paste the token." : "Type your address and your password.";
    return;
  }
  element("enter").disabled = true;
  try {
    await (byToken ? showToken(secret.trim()) : signIn(name, secret));
    element("sign-in").reset();
    turn();
    stay();
  } catch (error) {
    if (!(error instanceof Refused || error instanceof Away)) throw error;
    element("gate-problem").textContent = error.message;
  } finally {
    element("enter").disabled = false;
  }
}

function stay() {
  element("gate").hidden = true;
  element("board").hidden = false;
  for (const id of ["leave", "live", "parts"]) element(id).hidden = false;
  element("main").focus();
  staying = new AbortController();
  poll(told, staying.signal);
  log.watch(heard, staying.signal);
  letters.refresh();
  const timer = setInterval(() => document.visibilityState === "visible" && letters.refresh(), LOOK);
  staying.signal.addEventListener("abort", () => clearInterval(timer));
}

function leave(words = "") {
  staying?.abort("signed out");
  log.clear();
  letters.clear();
  history.empty();
  [away, deadCount] = [null, null];
  gate(words);
}

function turn() {
  const byToken = element("by-token").checked;
  element("token-way").hidden = !byToken;
  element("password-way").hidden = byToken;
}

// -------------------------------------------------------------------------------------------- what comes

function told({ answer, off, away: why }, at) {
  element("no-figures").hidden = !off;
  element("charted").hidden = Boolean(off);
  if (off) {
    back("no metrics");
    return;
  }
  if (why) {
    away ??= new Date();
    history.miss(at);
    live(`away since ${away.toLocaleTimeString()}`, false);
  } else {
    history.take(answer, at);
    back("live");
    write(element("where"), `${answer.instance} · ${answer.version}`);
    const dead = answer.gauges.outbox_dead;
    if (deadCount !== null && dead !== deadCount) letters.refresh();
    deadCount = dead;
  }
  board.draw();
  judge(why);
}

function back(words) {
  away = null;
  live(words, true);
  if (words !== "live") verdict({ bad: [], warn: [] });
}

function live(words, on) {
  write(element("live"), words);
  element("live").classList.toggle("on", on);
  document.title = `${on ? "" : "(away) "}Operations · regsvc`;
}

function judge(why) {
  const cut = away ? `${why} It has been away since ${away.toLocaleTimeString()}; asking again every second.` : "";
  verdict(cut ? { bad: [cut], warn: [] } : board.troubles());
}

/** Say what is wrong, or that nothing is: once, for those who listen to the page. */
function verdict({ bad, warn }) {
  element("alerts").dataset.state = bad.length ? "bad" : warn.length ? "warn" : "good";
  write(element("alerts"), [...bad, ...warn].join(" ") || "All is well.");
}

let soon = 0;
function heard(line) {
  if (line.event !== "mail_dead") return;
  clearTimeout(soon);
  soon = setTimeout(letters.refresh, 300); // many may die together
}

// ---------------------------------------------------------------------------------------------- the theme

function theme(name) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  element("theme").textContent = `Theme: ${name}`;
}

function nextTheme() {
  const now = document.documentElement.dataset.theme ?? "system";
  const name = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
  theme(name);
  try {
    localStorage.setItem("regsvc-theme", name); // a taste, no secret
  } catch {
    // a browser that keeps nothing for us: then it is for this page only
  }
}

function lastTheme() {
  try {
    const name = localStorage.getItem("regsvc-theme");
    return THEMES.includes(name) ? name : "system";
  } catch {
    return "system";
  }
}

theme(lastTheme());
log.open();
letters.open();
whenEnded(leave);
element("theme").addEventListener("click", nextTheme);
element("sign-in").addEventListener("submit", enter);
for (const id of ["by-password", "by-token"]) element(id).addEventListener("change", turn);
element("leave").addEventListener("click", () => {
  signOut();
  leave("You are signed out.");
});
turn();
gate();
