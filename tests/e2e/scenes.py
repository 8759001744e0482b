"""What brings about the successes, and the problems that are of one route or a few."""

from dataclasses import dataclass, field
from typing import Final

import httpx

from regsvc.http.cookies import NAME as COOKIE
from regsvc.http.routes import Route
from tests.chaos.ledger import PASSWORD
from tests.e2e.people import TOKEN, Person, digits, mail_with, new_email, somebody
from tests.e2e.provoking import (
    GOOD,
    MACHINE,
    NAME,
    Answers,
    Scene,
    ask,
    basic,
    brings,
    everywhere,
    form,
    too_short,
)

NEW: Final = "another password of some length"
NOBODY: Final = "nobody@example.test"

# ------------------------------------------------------------------------------------------------ register, activate


@dataclass
class Claimant:
    """Somebody who has registered, and no more."""

    http: httpx.AsyncClient
    email: str = field(default_factory=new_email)
    id: str = ""

    async def register(self) -> "Claimant":
        made = await Person(self.http, self.email).register()
        assert made.status_code == 201, made.text
        self.id = made.json()["id"]
        return self

    async def code(self, length: int = 4) -> str:
        return await mail_with(self.http, self.email, digits(length))


def missed(code: str) -> str:
    """Return another code."""
    return f"{(int(code) + 1) % 10 ** len(code):0{len(code)}}"


def outlived(scene: Scene, subject: str) -> None:
    """Let the codes of somebody be as old as they get."""
    over = f"UPDATE codes SET expires_at = clock_timestamp() WHERE subject_id = '{subject}' RETURNING 1"  # noqa: S608
    assert scene.sql(over)


@brings(GOOD, "register")
async def registers(scene: Scene, route: Route) -> Answers:
    alice = scene.known("alice")
    return [await ask(scene.http, route, {}, form(route, alice), path=path) for path in route.paths]


@brings("UserAlreadyExists", "register")
async def is_taken(scene: Scene, route: Route) -> Answers:
    alice, waiting = scene.known("alice"), await Claimant(scene.http).register()
    account = await ask(scene.http, route, {}, form(route, alice, email=alice.email))
    pending = await ask(scene.http, route, {}, form(route, alice, email=waiting.email))
    named = await ask(scene.http, route, {}, form(route, alice, username=NAME.upper()))
    assert 1 <= int(pending.headers["Retry-After"]) == pending.json()["retry_after_seconds"] <= 600
    assert [fault["field"] for fault in named.json()["errors"]] == ["username"]
    assert "Retry-After" not in account.headers
    return [account, pending, named]


@brings("RateLimitExceeded", "register")
async def too_many_mails(scene: Scene, route: Route) -> Answers:
    waiting = await Claimant(scene.http).register()
    mails = await ask(scene.strict, route, {}, form(route, scene.known("alice"), email=waiting.email))
    assert "mail" in mails.json()["detail"], "this client is heard once, so what it asks too often is another mail"
    return [mails, *[await ask(scene.strict, route, {}, path=path) for path in route.paths]]


@brings(GOOD, "activate")
async def activates(scene: Scene, route: Route) -> Answers:
    waiting = await Claimant(scene.http).register()
    return [await ask(scene.http, route, basic(waiting.email), {"activation_code": await waiting.code()})]


@brings("InvalidActivationCode", "activate")
async def not_the_code(scene: Scene, route: Route) -> Answers:
    waiting = await Claimant(scene.http).register()
    wrong = {"code": missed(await waiting.code())}
    answers = [await ask(scene.http, route, basic(waiting.email), wrong) for _ in range(2)]
    assert [answer.json()["attempts_left"] for answer in answers] == [1, 0]
    return answers


@brings("TooManyAttempts", "activate")
async def once_too_often(scene: Scene, route: Route) -> Answers:
    waiting = await Claimant(scene.http).register()
    code = await waiting.code()
    shown = [missed(code), missed(code), code]
    answers = [await ask(scene.http, route, basic(waiting.email), {"code": one}) for one in shown]
    assert answers[-1].json()["attempts_left"] == 0
    return answers[2:]


@brings("ActivationCodeExpired", "activate")
async def too_late(scene: Scene, route: Route) -> Answers:
    waiting = await Claimant(scene.http).register()
    code = await waiting.code()
    outlived(scene, waiting.id)
    return [await ask(scene.http, route, basic(waiting.email), {"code": code})]


@brings("UserAlreadyActivated", "activate", "resend", "standing")
async def active_already(scene: Scene, route: Route) -> Answers:
    alice = scene.known("alice")
    return [await ask(scene.http, route, basic(alice.email), form(route, alice), path=path) for path in route.paths]


@brings(GOOD, "resend")
async def has_another(scene: Scene, route: Route) -> Answers:
    waiting = await Claimant(scene.http).register()
    return [await ask(scene.http, route, basic(waiting.email))]


@brings("ResendTooSoon", "resend")
async def not_yet(scene: Scene, route: Route) -> Answers:
    waiting = await Claimant(scene.http).register()
    answers = [await ask(scene.http, route, basic(waiting.email)) for _ in range(2)]
    return answers[1:]  # one an hour


@brings(GOOD, "standing")
async def asks_how_it_stands(scene: Scene, route: Route) -> Answers:
    waiting = await Claimant(scene.http).register()
    answer = await ask(scene.http, route, basic(waiting.email), params={"wait": "10"})
    assert answer.json()["mail"] == "sent"
    return [answer]


# ------------------------------------------------------------------------------------------------ sessions, recovery


@brings(GOOD, "login")
async def logs_in(scene: Scene, route: Route) -> Answers:
    who = ({"email": scene.known("alice").email}, {"identifier": NAME})
    return [await ask(scene.http, route, {}, {**one, "password": PASSWORD}) for one in who]


@brings("NotActivated", "login")
async def too_early(scene: Scene, route: Route) -> Answers:
    waiting = await Claimant(scene.http).register()
    return [await ask(scene.http, route, {}, {"email": waiting.email, "password": PASSWORD})]


@brings("AccountDisabled", "login")
async def disabled(scene: Scene, route: Route) -> Answers:
    bob = await Person(scene.http, new_email()).sign_up()
    done = await scene.http.patch(f"/v1/admin/users/{bob.id}", json={"disabled": True}, headers=MACHINE)
    assert done.status_code == 200, done.text
    return [await ask(scene.http, route, {}, {"email": bob.email, "password": PASSWORD})]


@brings(GOOD, "verify")
async def proves_by_the_code_alone(scene: Scene, route: Route) -> Answers:
    waiting, code = await _long_code(scene)
    return [await ask(scene.http, route, {}, {"email": waiting.email, "code": code})]


@brings("InvalidActivationCode", "verify")
async def not_the_long_code(scene: Scene, route: Route) -> Answers:
    waiting, code = await _long_code(scene)
    return [await ask(scene.http, route, {}, {"email": who, "code": missed(code)}) for who in (waiting.email, NOBODY)]


@brings("ActivationCodeExpired", "verify")
async def too_late_with_it(scene: Scene, route: Route) -> Answers:
    waiting, code = await _long_code(scene)
    outlived(scene, waiting.id)
    return [await ask(scene.http, route, {}, {"email": waiting.email, "code": code})]


@brings("TooManyAttempts", "verify")
async def guesses(scene: Scene, route: Route) -> Answers:
    guess = {"email": new_email(), "code": "042813"}
    answers = [await ask(scene.http, route, {}, guess) for _ in range(4)]
    assert [answer.status_code for answer in answers[:3]] == [400] * 3
    return answers[3:]


async def _long_code(scene: Scene) -> tuple[Claimant, str]:
    waiting = await Claimant(scene.http).register()
    await waiting.code()  # else the shorter one could be minted later
    asked = await scene.http.post("/v1/auth/send-code", json={"email": waiting.email})
    assert asked.status_code == 202, asked.text
    return waiting, await waiting.code(6)


@brings(GOOD, "send_code", "forgot_password")
async def asks_for_a_letter(scene: Scene, route: Route) -> Answers:
    who = (scene.known("root").email, NOBODY)
    answers = [await ask(scene.http, route, {}, {"email": one}, path=path) for one in who for path in route.paths]
    assert len({answer.text for answer in answers}) == 1
    return answers


@brings(GOOD, "refresh")
async def refreshes(scene: Scene, route: Route) -> Answers:
    alice = await scene.known("alice").log_in()
    return [await ask(scene.http, route, {}, {"refresh_token": alice.refresh})]


@brings("InvalidRefreshToken", "refresh")
async def no_refresh_token(scene: Scene, route: Route) -> Answers:
    without = await ask(scene.full, route, {}, {})  # this one has cookies
    return [*await everywhere(scene, route, form(route, scene.known("alice"))), without]


@brings("Forbidden", "refresh")
async def from_elsewhere(scene: Scene, route: Route) -> Answers:
    alice = await scene.known("alice").log_in()
    told = {"Cookie": f"{COOKIE}={alice.refresh}", "Origin": "http://elsewhere.test"}
    answers = [await ask(scene.full, route, told, {}, path=path) for path in route.paths]
    assert (await alice.again()).status_code == 200, "and nothing came of it"
    return answers


@brings(GOOD, "logout", "logout_all", "end_sessions")
async def logs_out(scene: Scene, route: Route) -> Answers:
    bob = await somebody(scene.http)
    answer = await ask(scene.http, route, bob.bearer)
    assert (await bob.me()).status_code == 401
    return [answer]


@brings(GOOD, "session", "end_session")
async def one_of_his(scene: Scene, route: Route) -> Answers:
    bob = await somebody(scene.http)
    [his] = (await scene.http.get("/v1/sessions", headers=bob.bearer)).json()["sessions"]
    return [await ask(scene.http, route, bob.bearer, known=his["id"])]


@brings(GOOD, "reset_password")
async def resets(scene: Scene, route: Route) -> Answers:
    _, token = await _forgetful(scene)
    return [await ask(scene.http, route, {}, {"token": token, "new_password": NEW})]


@brings("InvalidResetToken", "reset_password")
async def twice_the_same(scene: Scene, route: Route) -> Answers:
    _, token = await _forgetful(scene)
    said = {"token": token, "new_password": NEW}
    assert (await ask(scene.http, route, {}, said)).status_code == 204
    return [
        await ask(scene.http, route, {}, one)
        for one in (said, form(route, scene.known("alice")), {**said, "token": "x"})
    ]


@brings("WeakPassword", "reset_password")
async def his_own_address(scene: Scene, route: Route) -> Answers:
    bob, token = await _forgetful(scene)
    own = await ask(scene.http, route, {}, {"token": token, "new_password": bob.email})
    return [own, *await too_short(scene, route)]


@brings("Overloaded", "reset_password")
async def no_room_for_the_new_one(scene: Scene, route: Route) -> Answers:
    _, token = await _forgetful(scene)
    said = {"token": token, "new_password": NEW}
    answer = await ask(scene.full, route, {}, said)
    assert (await ask(scene.http, route, {}, said)).status_code == 204, "nothing is half-done"
    return [answer]


async def _forgetful(scene: Scene) -> tuple[Person, str]:
    bob = await Person(scene.http, new_email()).sign_up()
    asked = await scene.http.post("/v1/auth/forgot-password", json={"email": bob.email})
    assert asked.status_code == 202, asked.text
    return bob, await mail_with(scene.http, bob.email, TOKEN)


# ------------------------------------------------------------------------------------------------ one's own account


@brings(GOOD, "change_me", "replace_me")
async def changes(scene: Scene, route: Route) -> Answers:
    bob = scene.known("bob")
    return [await ask(scene.http, route, bob.bearer, form(route, bob), path=path) for path in route.paths]


@brings("UserAlreadyExists", "change_me", "replace_me")
async def a_name_that_is_taken(scene: Scene, route: Route) -> Answers:
    answer = await ask(scene.http, route, scene.known("bob").bearer, {"username": NAME})
    assert [fault["field"] for fault in answer.json()["errors"]] == ["username"]
    return [answer]


@brings(GOOD, "remove_me")
async def leaves(scene: Scene, route: Route) -> Answers:
    return [await ask(scene.http, route, (await somebody(scene.http)).bearer, {"password": PASSWORD})]


@brings("LastAdmin", "remove_me")
async def stays(scene: Scene, route: Route) -> Answers:
    root = scene.known("root")
    return [await ask(scene.http, route, root.bearer, {"password": PASSWORD}, path=path) for path in route.paths]


@brings(GOOD, "change_password")
async def takes_another(scene: Scene, route: Route) -> Answers:
    bob = await somebody(scene.http)
    return [await ask(scene.http, route, bob.bearer, {"current_password": PASSWORD, "new_password": NEW})]


@brings("WeakPassword", "change_password")
async def ones_own_address(scene: Scene, route: Route) -> Answers:
    alice = scene.known("alice")
    said = [{"current_password": PASSWORD, "new_password": weak} for weak in (alice.email, NAME)]
    return [*[await ask(scene.http, route, alice.bearer, one) for one in said], *await too_short(scene, route)]


@brings(GOOD, "propose_email")
async def proposes(scene: Scene, route: Route) -> Answers:
    alice = scene.known("alice")
    return [await ask(scene.http, route, alice.bearer, form(route, alice), path=path) for path in route.paths]


@brings("UserAlreadyExists", "propose_email")
async def proposes_another_s(scene: Scene, route: Route) -> Answers:
    alice = scene.known("alice")
    return await everywhere(scene, route, form(route, alice, new_email=scene.known("bob").email))


@brings("ResendTooSoon", "propose_email")
async def proposes_too_often(scene: Scene, route: Route) -> Answers:
    alice = scene.known("alice")
    said = form(route, alice)
    return [await ask(scene.http, route, alice.bearer, said) for _ in range(3)][2:]  # one more an hour


@brings(GOOD, "confirm_email")
async def confirms(scene: Scene, route: Route) -> Answers:
    bob, _, code = await _mover(scene)
    return [await ask(scene.http, route, bob.bearer, {"code": code})]


@brings("InvalidCode", "confirm_email")
async def another_code(scene: Scene, route: Route) -> Answers:
    bob, _, code = await _mover(scene)
    answers = [await ask(scene.http, route, bob.bearer, {"code": missed(code)}) for _ in range(2)]
    assert [answer.json()["attempts_left"] for answer in answers] == [1, 0]
    return answers


@brings("TooManyAttempts", "confirm_email")
async def another_code_too_often(scene: Scene, route: Route) -> Answers:
    bob, _, code = await _mover(scene)
    answers = [await ask(scene.http, route, bob.bearer, {"code": one}) for one in (missed(code), missed(code), code)]
    assert answers[-1].json()["attempts_left"] == 0
    return answers[2:]


@brings("CodeExpired", "confirm_email")
async def nothing_to_confirm(scene: Scene, route: Route) -> Answers:
    never = await ask(scene.http, route, scene.known("bob").bearer, {"code": "042813"})
    bob, _, code = await _mover(scene)
    outlived(scene, bob.id)
    return [never, await ask(scene.http, route, bob.bearer, {"code": code})]


@brings("UserAlreadyExists", "confirm_email")
async def somebody_was_quicker(scene: Scene, route: Route) -> Answers:
    bob, new, code = await _mover(scene)
    await Person(scene.http, new).sign_up()
    return [await ask(scene.http, route, bob.bearer, {"code": code})]


async def _mover(scene: Scene) -> tuple[Person, str, str]:
    bob, new = await somebody(scene.http), new_email("new")
    said = {"new_email": new, "password": PASSWORD}
    asked = await scene.http.post("/v1/users/me/email", json=said, headers=bob.bearer)
    assert asked.status_code == 202, asked.text
    return bob, new, await mail_with(scene.http, new, digits(6))
