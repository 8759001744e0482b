// The development mailbox: hears of new mail by an event stream, then asks for the list. No library, no build step.
"use strict";

const PAGE = 50;
const element = (id) => document.getElementById(id);
const list = element("mails");
const tabs = ["letter", "text", "source"];

let mails = [];
let total = 0;
let known = new Set();
let chosen = null; // the id of the mail that is shown
let shown = "letter"; // the tab that is shown
let filter = "";
let wanted = PAGE;
let latest = 0; // the number of the newest question: answers to older ones are too late

element("try").textContent =
  `curl ${location.origin}/v1/users/register \\\n` +
  "  -H 'Content-Type: application/json' \\\n" +
  `  -d '{"email": "alice@example.com", "password": "correct horse battery staple"}'`;

// The code is the only number of its length in a letter, alone on its line.
const codeOf = (mail) => (mail.text.match(/^[ \t]*(\d{4,10})[ \t]*$/m) || [])[1] || "";

function timeOf(at) {
  const time = new Date(at);
  const today = time.toDateString() === new Date().toDateString();
  return today ? time.toLocaleTimeString() : time.toLocaleDateString();
}

function made(tag, name, text) {
  const node = document.createElement(tag);
  node.className = name;
  node.textContent = text;
  return node;
}

function own(part) {
  try {
    return new URL(part).origin === location.origin;
  } catch {
    return false; // words
  }
}

// Links of this service can be followed here; those of others stay words.
function woven(text) {
  return text.split(/(https?:\/\/\S+)/).map((part) => {
    if (!own(part)) return part;
    const link = made("a", "", part);
    link.href = part;
    link.target = "_blank";
    link.rel = "noopener noreferrer";
    return link;
  });
}

async function refresh() {
  const question = ++latest;
  const query = new URLSearchParams({ limit: String(wanted) });
  if (filter) query.set("to", filter);
  const answer = await fetch(`/dev/mail/messages?${query}`);
  if (!answer.ok || question !== latest) return;
  const found = await answer.json();
  if (question !== latest) return;
  const atTop = chosen === null || (mails.length > 0 && chosen === mails[0].id);
  mails = found.items;
  total = found.total;
  if (!mails.some((mail) => mail.id === chosen) || atTop) chosen = mails.length ? mails[0].id : null;
  draw();
}

function draw() {
  const first = known.size === 0;
  list.replaceChildren(...mails.map((mail) => row(mail, !first && !known.has(mail.id))));
  known = new Set([...known, ...mails.map((mail) => mail.id)]);
  element("count").textContent = total ? String(total) : "";
  element("older").hidden = mails.length >= total || wanted >= 250;
  element("clear").disabled = total === 0;
  document.title = total ? `(${total}) Mailbox · regsvc` : "Mailbox · regsvc";
  show();
}

function row(mail, isNew) {
  const item = document.createElement("li");
  item.id = `mail-${mail.id}`;
  item.setAttribute("role", "option");
  item.setAttribute("aria-selected", String(mail.id === chosen));
  if (isNew) item.className = "new";
  item.append(
    made("span", "who", mail.to),
    made("time", "when", timeOf(mail.at)),
    made("span", "what", mail.subject),
    made("span", "digits", codeOf(mail)),
  );
  item.addEventListener("click", () => choose(mail.id));
  return item;
}

function choose(id) {
  chosen = id;
  for (const item of list.children) item.setAttribute("aria-selected", String(item.id === `mail-${id}`));
  element(`mail-${id}`)?.scrollIntoView({ block: "nearest" });
  show();
}

function show() {
  const mail = mails.find((one) => one.id === chosen);
  element("mail").hidden = !mail;
  element("empty").hidden = Boolean(mail);
  element("empty").querySelector(".big").textContent = filter ? `No mail to ${filter}` : "No mail yet";
  if (!mail) {
    list.removeAttribute("aria-activedescendant");
    element("mail").dataset.id = "";
    return;
  }
  list.setAttribute("aria-activedescendant", `mail-${mail.id}`);
  if (element("mail").dataset.id === mail.id) return;
  element("mail").dataset.id = mail.id;
  element("subject").textContent = mail.subject || "(no subject)";
  element("to").textContent = mail.to;
  element("from").textContent = mail.sender;
  element("at").dateTime = mail.at;
  element("at").textContent = new Date(mail.at).toLocaleString();
  element("code").textContent = codeOf(mail);
  element("codebox").hidden = !codeOf(mail);
  element("copied").textContent = "";
  element("text").replaceChildren(...woven(mail.text));
  element("source").textContent = "";
  element("tab-letter").hidden = !mail.has_html;
  if (mail.has_html) element("letter").src = `/dev/mail/messages/${mail.id}/letter`;
  turn(shown === "letter" && !mail.has_html ? "text" : shown);
}

async function turn(name) {
  for (const tab of tabs) {
    const current = tab === name;
    element(tab).hidden = !current;
    element(`tab-${tab}`).setAttribute("aria-selected", String(current));
    element(`tab-${tab}`).tabIndex = current ? 0 : -1;
  }
  if (name === "source" && chosen && !element("source").textContent) {
    const id = chosen;
    const answer = await fetch(`/dev/mail/messages/${id}/source`);
    if (answer.ok && id === chosen) element("source").textContent = await answer.text();
  }
}

function pick(name) {
  if (element(`tab-${name}`).hidden) return;
  shown = name;
  turn(name);
}

async function copy() {
  const code = element("code").textContent;
  if (!code || element("mail").hidden) return;
  try {
    await navigator.clipboard.writeText(code);
  } catch {
    // Away from localhost a page without TLS has no clipboard: what is selected can still be copied by hand.
    getSelection().selectAllChildren(element("code"));
    document.execCommand("copy");
  }
  element("copied").textContent = "Copied";
}

function step(by) {
  if (!mails.length) return;
  const at = mails.findIndex((mail) => mail.id === chosen);
  choose(mails[Math.min(Math.max(at + by, 0), mails.length - 1)].id);
}

const keys = {
  ArrowDown: () => step(1),
  ArrowUp: () => step(-1),
  j: () => step(1),
  k: () => step(-1),
  Home: () => step(-mails.length),
  End: () => step(mails.length),
  c: copy,
  "/": () => element("search").focus(),
  1: () => pick("letter"),
  2: () => pick("text"),
  3: () => pick("source"),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const inSearch = event.target === element("search");
  if (inSearch) {
    if (event.key === "Escape") {
      element("search").value = "";
      element("search").dispatchEvent(new Event("input"));
      list.focus();
    }
    return;
  }
  const panel = event.target.closest?.("pre") && ["ArrowDown", "ArrowUp", "Home", "End"].includes(event.key);
  const tab = event.target.getAttribute?.("role") === "tab" && ["ArrowLeft", "ArrowRight"].includes(event.key);
  if (tab) {
    const there = tabs.filter((name) => !element(`tab-${name}`).hidden);
    const at = there.indexOf(event.target.id.slice(4)) + (event.key === "ArrowRight" ? 1 : -1);
    const name = there[(at + there.length) % there.length];
    pick(name);
    element(`tab-${name}`).focus();
  } else if (keys[event.key] && !panel) {
    keys[event.key]();
  } else {
    return;
  }
  event.preventDefault();
});

for (const tab of tabs) element(`tab-${tab}`).addEventListener("click", () => pick(tab));
element("copy").addEventListener("click", copy);
element("older").addEventListener("click", () => {
  wanted += PAGE;
  refresh();
});
element("search").addEventListener("input", () => {
  filter = element("search").value.trim();
  wanted = PAGE;
  refresh();
});
element("clear").addEventListener("click", async () => {
  if (!confirm("Delete all mails in the mailbox?")) return;
  await fetch("/api/v1/messages", { method: "DELETE" });
  refresh();
});

const stream = new EventSource("/dev/mail/events");
const say = (text, on) => {
  element("live").textContent = text;
  element("live").classList.toggle("on", on);
};
stream.addEventListener("open", () => say("live", true));
stream.addEventListener("error", () => say("connecting", false));
stream.addEventListener("mails", refresh);
