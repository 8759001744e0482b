// Who is signed in, and how the service is asked. What one signs in with is in the memory of this module and nowhere
// else: not in a storage, which outlives the page and which every script of the origin reads. A reload asks again.

const EARLY = 60; // seconds before its end that an access token is renewed
const PATIENCE = 5000; // ms that an answer may take
const AGAIN = 2000; // ms between tries to renew while the service is away

let held = null; // {access, refresh, ends, name, token}; `refresh` is undefined where the service keeps it in a cookie
let renewing = null; // a refresh token is good once: those who want a new one at the same time share it
let timer = 0;
let ended = () => {};

/** The service said no, in words for people. */
export class Refused extends Error {}

/** Nobody is signed in any more; the words are shown at the gate. */
export class SignedOut extends Refused {}

/** The service cannot be reached, or cannot answer now. */
export class Away extends Error {}

export const who = () => (held ? held.name : "");

/** Have `then` called with a reason when the session ends by itself. */
export function whenEnded(then) {
  ended = then;
}

async function send(path, options = {}) {
  const { patience = PATIENCE, signal, ...rest } = options;
  const limits = [signal, patience ? AbortSignal.timeout(patience) : null].filter(Boolean);
  try {
    return await fetch(path, { cache: "no-store", ...rest, signal: limits.length ? AbortSignal.any(limits) : undefined });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Away("The service cannot be reached.");
  }
}

const post = (path, body, options = {}) =>
  send(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...options.headers },
    body: body === undefined ? undefined : JSON.stringify(body),
    patience: 30_000, // a password is hashed, and others may wait for theirs
  });

const words = async (answer) => {
  const problem = await answer.json().catch(() => ({}));
  return problem.message || problem.detail || `The service answered ${answer.status}.`;
};

/** Sign in as an administrator. Raises Refused with what is wrong. */
export async function signIn(email, password) {
  const answer = await post("/v1/auth/login", { identifier: email, password });
  if (!answer.ok) throw new Refused(await words(answer));
  const admitted = await answer.json();
  hold(admitted);
  if (admitted.user.role !== "admin") {
    await signOut(); // a session that is of no use here is not left behind
    throw new Refused(`${admitted.user.email} is no administrator. Whoever is one can make it so: regsvc user promote.`);
  }
}

/** Sign in with the token that the service was started with. Raises Refused where it is another. */
export async function showToken(token) {
  held = { access: token, token: true, name: "admin token" };
  try {
    const answer = await send("/v1/admin/mails?limit=1", { headers: bearer() });
    if (answer.ok) return;
    throw new Refused(
      [400, 401].includes(answer.status)
        ? "The service does not know this token. Perhaps it was started with another one, or with none."
        : await words(answer),
    );
  } catch (error) {
    held = null;
    throw error;
  }
}

/** Forget who was signed in, and end the session at the service if it can be reached. */
export async function signOut() {
  const last = held;
  forget();
  if (!last || last.token) return;
  const headers = { Authorization: `Bearer ${last.access}` };
  await post("/v1/auth/logout", undefined, { headers }).catch(() => {}); // it ends by itself in time
}

function forget() {
  clearTimeout(timer);
  held = null;
}

function hold(admitted) {
  held = {
    access: admitted.access_token,
    refresh: admitted.refresh_token ?? undefined,
    name: admitted.user.email,
    token: false,
  };
  const early = Math.min(EARLY, admitted.expires_in / 2);
  plan((admitted.expires_in - early) * 1000);
}

function plan(ms) {
  clearTimeout(timer);
  timer = setTimeout(() => renewed().catch(() => held && plan(AGAIN)), ms);
}

function renewed() {
  renewing ??= renew().finally(() => {
    renewing = null;
  });
  return renewing;
}

async function renew() {
  const before = held;
  const answer = await post("/v1/auth/refresh", before.refresh ? { refresh_token: before.refresh } : {});
  if (held !== before) return; // signed out meanwhile
  if (answer.ok) hold(await answer.json());
  else if (answer.status >= 500 || answer.status === 429) throw new Away(await words(answer));
  else end("The session is over. Sign in again.");
}

function end(reason) {
  forget();
  ended(reason);
  throw new SignedOut(reason);
}

const bearer = () => ({ Authorization: `Bearer ${held.access}` });

/** Ask as whoever is signed in. Returns the answer; raises Away, or SignedOut where that is nobody any more. */
export async function ask(path, options = {}) {
  if (!held) throw new SignedOut("Nobody is signed in.");
  let answer = await once(path, options);
  if (answer.status === 401 && held && !held.token) {
    await renewed(); // the machine slept, say, and the token's time went by
    answer = await once(path, options);
  }
  if (answer.status === 401) end("The service does not know you any more. Sign in again.");
  if (answer.status === 403) end(`${who()} is no administrator any more.`);
  return answer;
}

const once = (path, options) => {
  if (!held) throw new SignedOut("Nobody is signed in.");
  return send(path, { ...options, headers: { ...options.headers, ...bearer() } });
};

export { words };
