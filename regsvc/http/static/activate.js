// Activates for whoever holds the link of the mail and knows the password; opening the link alone does nothing, for
// programs that read mail open links too. The token is in the fragment, which is sent to no server by itself: from
// here it goes into the body of one request, and nowhere else. No library, no build step.
"use strict";

const element = (id) => document.getElementById(id);
const form = element("form");
const fields = [element("email"), element("password")];

let token = "";

function begin() {
  token = location.hash.slice(1);
  form.reset();
  for (const field of fields) complain(field, "");
  element("problem").textContent = "";
  reveal(false);
  if (token) {
    form.hidden = false;
    say("Activate your account", "Show that it is yours: with the address and the password that you registered with.");
    element("email").focus();
  } else {
    end("This link is not whole", "Open the link in your mail once more, all of it, or use the code beside it.");
  }
}

function say(title, text) {
  element("title").textContent = title;
  element("said").textContent = text;
}

// The form is of no more use; the focus must not be lost with it.
function end(title, text) {
  token = "";
  history.replaceState(null, "", location.pathname);
  form.hidden = true;
  form.reset();
  say(title, text);
  element("title").focus();
}

function complain(field, message) {
  element(`${field.id}-problem`).textContent = message;
  if (message) field.setAttribute("aria-invalid", "true");
  else field.removeAttribute("aria-invalid");
}

function reveal(shown) {
  element("password").type = shown ? "text" : "password";
  element("show").textContent = shown ? "Hide" : "Show";
}

function checked() {
  const [email, password] = fields;
  complain(email, email.value.trim() ? "" : "Type your address.");
  complain(password, password.value ? "" : "Type your password.");
  const wrong = fields.find((field) => field.hasAttribute("aria-invalid"));
  if (wrong) wrong.focus();
  return !wrong;
}

// RFC 7617 with charset="UTF-8".
function credentials() {
  const [email, password] = fields;
  const octets = new TextEncoder().encode(`${email.value.trim()}:${password.value}`);
  return `Basic ${btoa(String.fromCharCode(...octets))}`;
}

async function send() {
  const answer = await fetch("/v1/users/activate", {
    method: "POST",
    headers: { "Content-Type": "application/json", Authorization: credentials() },
    credentials: "omit",
    body: JSON.stringify({ token }),
  });
  if (answer.ok) return end("Your account is active", "You can log in now, with the same password.");
  refuse(await answer.json());
}

const ENDS = {
  UserAlreadyActivated: ["Your account is active already", "There is nothing more to do: log in with your password."],
  InvalidActivationCode: [
    "This link is not good",
    "A newer mail replaces it, and it opens only the registration that it was mailed for. Use the newest mail.",
  ],
  ActivationCodeExpired: ["This link is too old", "Ask for a new mail where you registered."],
};

function refuse(problem) {
  if (ENDS[problem.error]) return end(...ENDS[problem.error]);
  if (problem.error === "InvalidCredentials") {
    complain(element("password"), "No registration has this address and this password.");
    element("password").focus();
  } else {
    element("problem").textContent = problem.message;
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  element("problem").textContent = "";
  if (element("send").disabled || !checked()) return;
  element("send").disabled = true;
  try {
    await send();
  } catch {
    element("problem").textContent = "The service cannot be reached. Nothing was changed; try again in a moment.";
  } finally {
    element("send").disabled = false;
  }
});
element("show").addEventListener("click", () => reveal(element("show").textContent === "Show"));
addEventListener("hashchange", () => location.hash && begin()); // another link, opened in the same tab
begin();
