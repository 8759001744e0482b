// Mails that the service gave up: why, and to have them tried again or thrown away, each after a question.

import { made } from "./ops-charts.js";
import { Away, SignedOut, ask, words } from "./ops-session.js";

const PAGE = 10;
const element = (id) => document.getElementById(id);
const dialog = element("ask");

let cursors = [null]; // where the pages so far begin, the last: the one that is shown
let next = null;
let latest = 0; // the newest question; answers to older ones are late

/** Show the page once more, as it is now. */
export async function refresh() {
  const question = (latest += 1);
  const query = new URLSearchParams({ state: "dead", limit: String(PAGE) });
  const cursor = cursors.at(-1);
  if (cursor) query.set("cursor", cursor);
  const answer = await tried(() => ask(`/v1/admin/mails?${query}`));
  if (!answer || question !== latest) return;
  const { mails, next: after } = await answer.json();
  if (question !== latest) return;
  if (!mails.length && cursors.length > 1) {
    cursors.pop(); // the last of its page is gone
    await refresh();
    return;
  }
  next = after;
  draw(mails);
}

async function tried(act) {
  try {
    const answer = await act();
    if (answer.ok) {
      if (element("letters-said").dataset.trouble) say("");
      return answer;
    }
    say(await words(answer), true);
  } catch (error) {
    if (error instanceof SignedOut) return null;
    say(error instanceof Away ? "The service cannot be reached; this may be old." : "The answer was cut short.", true);
  }
  return null;
}

function say(text, trouble = false) {
  element("letters-said").textContent = text;
  element("letters-said").dataset.trouble = trouble ? "yes" : "";
}

function draw(mails) {
  const focused = document.activeElement?.closest?.("#dead tr")?.dataset.id;
  const act = document.activeElement?.dataset?.act;
  const rows = mails.length ? mails.map(row) : [nothing()];
  element("dead").replaceChildren(...rows);
  element("page").textContent = `page ${cursors.length}`;
  element("newer").disabled = cursors.length === 1;
  element("older").disabled = next === null;
  if (!focused) return;
  const same = element("dead").querySelector(`[data-id="${CSS.escape(focused)}"] [data-act="${act}"]`);
  (same ?? element("letters-title")).focus(); // what had the focus is gone
}

function nothing() {
  const line = made("tr", "nothing");
  const cell = made("td", "", "No dead letters.");
  cell.colSpan = 6;
  line.append(cell);
  return line;
}

function row(mail) {
  const line = made("tr");
  line.dataset.id = mail.id;
  const name = made("th", "", mail.letter.replaceAll("_", " "));
  name.scope = "row";
  const at = made("td");
  const when = made("time", "", new Date(mail.created_at).toLocaleString());
  when.dateTime = mail.created_at;
  at.append(when);
  const subject = made("td");
  const id = made("code", "", mail.subject_id);
  subject.append(id);
  const acts = made("td");
  const both = made("span", "acts");
  both.append(button("Retry", mail, retrying), button("Discard", mail, discarding));
  acts.append(both);
  line.append(name, made("td", "why", mail.last_error ?? "not said"), made("td", "n", String(mail.attempts)), at, subject, acts);
  ["", "Why it died", "Tries", "Made", "For"].forEach((label, n) => (line.children[n].dataset.label = label));
  return line;
}

function button(text, mail, question) {
  const one = made("button", "plain", text);
  one.type = "button";
  one.dataset.act = text.toLowerCase();
  one.setAttribute("aria-label", `${text} the ${mail.letter} mail of ${new Date(mail.created_at).toLocaleString()}`);
  one.addEventListener("click", () => settle(mail, question));
  return one;
}

const retrying = {
  act: "retry",
  title: "Try this mail again?",
  yes: "Retry",
  done: "The mail is on its way again.",
  text: (mail) => `It died of “${mail.last_error ?? "an unknown cause"}” after ${mail.attempts} tries. It gets all of them anew, and a new code where it carries one.`,
};
const discarding = {
  act: "discard",
  title: "Discard this mail?",
  yes: "Discard",
  done: "The mail is gone.",
  text: (mail) => `It died of “${mail.last_error ?? "an unknown cause"}”. It is deleted for good; nobody gets it.`,
};

async function settle(mail, question) {
  if (!(await confirmed(question, mail))) return;
  const answer = await tried(() => ask(`/v1/admin/mails/${mail.id}/${question.act}`, { method: "POST" }));
  if (answer) say(question.done);
  await refresh();
}

/** Ask; resolves to whether it is wished. The dialog keeps the focus, and gives it back. */
function confirmed({ title, yes, text, act }, mail) {
  element("ask-title").textContent = title;
  element("ask-text").textContent = text(mail);
  element("ask-yes").textContent = yes;
  element("ask-yes").classList.toggle("danger", act === "discard");
  dialog.returnValue = "";
  dialog.showModal();
  element("ask-no").focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

/** Forget what was shown. */
export function clear() {
  cursors = [null];
  latest += 1;
  element("dead").replaceChildren();
  say("");
  if (dialog.open) dialog.close();
}

/** Listen to the buttons; called once. */
export function open() {
  element("ask-yes").addEventListener("click", () => dialog.close("yes"));
  element("ask-no").addEventListener("click", () => dialog.close(""));
  element("reload").addEventListener("click", refresh);
  element("older").addEventListener("click", () => {
    cursors.push(next);
    refresh();
  });
  element("newer").addEventListener("click", () => {
    cursors.pop();
    refresh();
  });
}
