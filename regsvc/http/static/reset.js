// A new password for whoever holds the link of the mail. Its token is in the fragment, which is sent to no server
// by itself: from here it goes into the body of one request, and nowhere else. No library, no build step.
"use strict";

const element = (id) => document.getElementById(id);
const form = element("form");
const fields = [element("new"), element("again")];

let token = "";

function begin() {
  token = new URLSearchParams(location.hash.slice(1)).get("token") || "";
  form.reset();
  for (const field of fields) complain(field, "");
  element("problem").textContent = "";
  reveal(false);
  if (token) {
    form.hidden = false;
    say("Choose a new password", "");
    element("new").focus();
  } else {
    end("This link is not whole", "Open the link in your mail once more, all of it, or ask for a new one.");
  }
}

function say(title, text) {
  element("title").textContent = title;
  element("said").textContent = text;
}

// The form is of no more use; the focus must not be lost with it.
function end(title, text) {
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
  for (const field of fields) field.type = shown ? "text" : "password";
  element("show").textContent = shown ? "Hide" : "Show";
}

// Tell what is wrong before anything is sent; the rules for passwords are the service's to tell.
function checked() {
  const [first, again] = fields;
  complain(first, first.value ? "" : "Type a password.");
  complain(again, first.value === again.value ? "" : "The two are not the same.");
  const wrong = fields.find((field) => field.hasAttribute("aria-invalid"));
  if (wrong) wrong.focus();
  return !wrong;
}

async function send() {
  const answer = await fetch("/v1/auth/reset-password", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    credentials: "omit",
    body: JSON.stringify({ token, new_password: element("new").value }),
  });
  if (answer.ok) {
    forget();
    return end("The password is set", "Log in with it. Wherever the account was logged in, it is logged out now.");
  }
  refuse(await answer.json());
}

function forget() {
  token = "";
  history.replaceState(null, "", location.pathname);
}

function refuse(problem) {
  if (problem.error === "InvalidResetToken") {
    forget();
    return end("This link is good no more", "It was used, or it is too old, or a newer one was mailed. Ask for a new one.");
  }
  const fault = (problem.errors || []).find((one) => one.field === "new_password");
  if (fault) {
    complain(element("new"), fault.message);
    element("new").focus();
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
