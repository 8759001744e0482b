"""Idempotency-Key at the front: what is kept, whose a key is, how one is written, and what can go wrong."""

from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import UUID

import pytest
import trio
import trio.testing

from regsvc.adapters.crypto import Keys, Seals
from regsvc.domain.account import DuplicatePolicy, Rules
from regsvc.domain.quota import policies
from regsvc.domain.values import Secret
from regsvc.flows.errand import Errand
from regsvc.http.caller import Caller
from regsvc.http.cookies import NAME as COOKIE
from regsvc.http.receipt import KEY_MAX, Slip
from regsvc.http.reply import Wording
from regsvc.ports import Slot, Ticket
from tests.flows.fakes import Hashing
from tests.flows.quota_fakes import Buckets, limited
from tests.http.doorstep import EMAIL, PASSWORD, Answer, Doorstep
from tests.http.stories import HOUR, KEY, TABLE, WHO, Asking, activate, asking, told
from tests.lines import Lines

# ------------------------------------------------------------------------------------------------ refusals


async def test_a_wrong_code_spends_one_try_however_often_it_is_sent(door: Doorstep) -> None:
    await activate(door)
    ask = Asking(door, TABLE["activate"], {"code": "9999"}, {"who": WHO})
    first = await ask()
    assert first.problem(400, "InvalidActivationCode")["attempts_left"] == 4
    for path in ("/v1/users/activate", "/v1/activation"):
        again = await ask(path=path)
        assert told(again) == told(first)
        assert again.json["instance"] == first.headers["X-Request-ID"]
    other = Asking(door, TABLE["activate"], {"code": "9998"}, {"who": WHO})
    assert (await other('"another"')).json["attempts_left"] == 3


async def test_a_refusal_is_told_again_in_the_dialect_of_who_asks(door: Doorstep, log: Lines) -> None:
    await activate(door)
    ask = Asking(door, TABLE["activate"], {"code": "9999"}, {"who": WHO})
    standard = (await ask()).json
    legacy = (await ask(path="/api/v1/users/activate")).json
    assert legacy.pop("detail") == {"error": "InvalidActivationCode", "message": standard.pop("detail")}
    assert legacy == standard
    assert [line.get("refusal") for line in log.of("http_request")][-2:] == ["invalid_activation_code"] * 2


async def test_an_answer_first_told_in_the_other_dialect_is_told_in_each(door: Doorstep) -> None:
    await activate(door)
    ask = Asking(door, TABLE["activate"], {"code": "9999"}, {"who": WHO})
    legacy = await ask(path="/api/v1/users/activate")
    assert told(await ask(path="/api/v1/users/activate")) == told(legacy)
    assert isinstance((await ask()).json["detail"], str)


async def test_a_refusal_that_changed_nothing_is_asked_again(door: Doorstep) -> None:
    await door.register()
    ask = Asking(door, TABLE["resend"], None, {"who": WHO})
    (await ask()).problem(429, "ResendTooSoon")
    door.shelf.now += HOUR
    again = await ask()
    assert (again.status, "Idempotency-Replayed" in again.headers) == (202, False)


async def test_one_who_may_try_until_he_may_is_let_in(door: Doorstep) -> None:
    ask = Asking(door, TABLE["login"], {"email": EMAIL, "password": PASSWORD})
    assert (await ask()).status == 401
    door.member()
    assert (await ask()).status == 200


async def test_a_uniform_service_answers_again_whether_or_not_there_is_an_account(door: Doorstep) -> None:
    door.rules = Rules(duplicates=DuplicatePolicy.UNIFORM)
    door.knobs = replace(door.knobs, uniform=True)
    door.member("there@example.com")
    for email in ("there@example.com", EMAIL):
        ask = Asking(door, TABLE["register"], {"email": email, "password": PASSWORD})
        first = await ask(f'"{email}"')
        again = await ask(f'"{email}"')
        assert first.status == 202
        assert told(again) == told(first)
        assert again.headers["Idempotency-Replayed"] == "true"


# ------------------------------------------------------------------------------------------------ whose key it is


async def test_a_key_is_of_its_route(door: Doorstep) -> None:
    await door.register()
    email = {"email": EMAIL}
    for name in ("send_code", "forgot_password"):
        answer = await Asking(door, TABLE[name], email)()
        assert "Idempotency-Replayed" not in answer.headers


async def test_a_key_is_of_the_credentials_that_the_route_takes(door: Doorstep) -> None:
    await activate(door)
    code = {"code": "0428"}
    ask = Asking(door, TABLE["activate"], code)
    (await ask(who=f"{EMAIL}:wrong")).problem(401, "InvalidCredentials")
    first = await ask(who=WHO)
    assert first.status == 200
    (await ask(who=f"{EMAIL}:wrong")).problem(401, "InvalidCredentials")
    (await ask()).problem(401, "InvalidCredentials")
    assert told(await ask(who=WHO)) == told(first)


async def test_credentials_that_a_route_does_not_take_are_no_part_of_a_request(door: Doorstep) -> None:
    ask = await asking(door, "register")
    first = await ask()
    assert told(await ask(who=WHO, headers=[("Cookie", "a=b")])) == told(first)


async def test_a_cookie_is_what_a_refresh_shows(door: Doorstep) -> None:
    door.knobs = replace(door.knobs, cookies=True)
    door.member()
    answer = await door.ask("POST", "/v1/auth/login", {"email": EMAIL, "password": PASSWORD})
    cookie = answer.headers["Set-Cookie"].partition(";")[0]
    ask = Asking(door, TABLE["refresh"], {})
    first = await ask(headers=[("Cookie", cookie)])
    assert first.status == 200
    again = await ask(headers=[("Cookie", f"more=1; {cookie}")])
    assert told(again) == told(first)
    assert again.headers["Set-Cookie"].startswith(f"{COOKIE}=")
    (await ask(headers=[("Cookie", f"{COOKIE}=another")])).problem(401, "InvalidRefreshToken")


async def test_a_path_that_names_something_else_is_another_content(door: Doorstep) -> None:
    ask = await asking(door, "staff_retry_mail")
    await ask()
    ask.named = {"mail_id": UUID(int=1)}
    (await ask()).problem(422, "IdempotencyKeyReused")


# ------------------------------------------------------------------------------------------------ limits


async def test_the_same_again_is_counted_as_a_request_and_not_as_what_it_asks(door: Doorstep) -> None:
    door.limits = limited(Buckets(), policies(registrations=2, activations=1, logins=1, requests=1000))
    ask = await asking(door, "register")
    first = await ask()
    for _ in range(3):
        again = await ask()
        assert told(again) == told(first)
        assert (first.headers["X-RateLimit-Remaining"], again.headers["X-RateLimit-Remaining"]) == ("1", "1")
    (await ask(body={"email": "other@example.com", "password": PASSWORD})).problem(422, "IdempotencyKeyReused")
    (await ask()).problem(429, "RateLimitExceeded")


# ------------------------------------------------------------------------------------------------ the header


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (f'"{KEY}"', KEY),
        (KEY, f'  "{KEY}" '),
        ('"a b, c; d!"', '"a b, c; d!"'),
        (r'"say \"a\\b\""', r'"say \"a\\b\""'),
        ('"' + "k" * KEY_MAX + '"', "k" * KEY_MAX),
        ("order:7/a.b_c~+=@-", '"order:7/a.b_c~+=@-"'),
    ],
)
async def test_a_key_is_a_string_with_or_without_its_quotes(door: Doorstep, first: str, again: str) -> None:
    ask = await asking(door, "register")
    answer = await ask(first)
    assert answer.status == 201
    assert told(await ask(again)) == told(answer)


NO_KEYS: Final = (
    "",
    '""',
    '"',
    '"open',
    'open"',
    '"a"b"',
    r'"a\b"',
    '"ä"',
    "ä",
    "a b",
    "a,b",
    '"a", "b"',
    '"a";b=1',
    "'a'",
    ":YQ==:!",
    '"a\tb"',
    '"' + "k" * (KEY_MAX + 1) + '"',
    "k" * (KEY_MAX + 1),
)


async def test_what_is_no_string_is_malformed(door: Doorstep) -> None:
    ask = await asking(door, "register")
    for key in NO_KEYS:
        problem = (await ask(key)).problem(400, "MalformedRequest")
        assert "Idempotency-Key" in problem["detail"]
    assert door.shelf.addresses == {}


async def test_two_keys_are_none(door: Doorstep) -> None:
    ask = await asking(door, "register")
    (await ask(headers=[("Idempotency-Key", '"another"')])).problem(400, "MalformedRequest")


# ------------------------------------------------------------------------------------------------ when all goes wrong


async def test_without_its_database_nothing_is_begun(door: Doorstep) -> None:
    ask = await asking(door, "register")
    door.counter.away = True
    (await ask()).problem(503, "ServiceUnavailable")
    assert door.shelf.addresses == {}


async def test_a_key_that_cannot_be_given_back_does_not_change_the_answer(door: Doorstep) -> None:
    ask = await asking(door, "register")
    door.hashing.busy = lambda: setattr(door.counter, "away", True)
    door.shelf.usernames.add("taken")
    answer = await ask(body={"email": EMAIL, "password": PASSWORD, "username": "taken"})
    answer.problem(409, "UserAlreadyExists")
    door.member()
    door.counter.away = False
    door.hashing.busy = lambda: setattr(door.counter, "away", True)
    (await Asking(door, TABLE["login"], {"email": EMAIL, "password": "wrong"})()).problem(401, "InvalidCredentials")
    assert len(door.counter.given_back) == 2


async def test_of_three_at_work_one_is_heard(door: Doorstep) -> None:
    ask = await asking(door, "register")
    door.shelf.stall, door.counter.lapsed = trio.Event(), True
    answers: list[Answer] = []

    async def one() -> None:
        answers.append(await ask())

    async with trio.open_nursery() as nursery:
        for n in range(3):
            nursery.start_soon(one, name=f"try {n}")
        await trio.testing.wait_all_tasks_blocked()
        door.shelf.stall.set()
    others = {answer.json["error"] for answer in answers if answer.status != 201}
    assert others <= {"ServiceUnavailable", "IdempotencyKeyInUse"}, "who came too late is told to ask again"
    first = next(answer for answer in answers if answer.status == 201)
    assert told(await ask()) == told(first)
    assert len(door.shelf.effects) == 2  # a mail and an event


@dataclass
class Slow(Hashing):
    """Hashing that takes as long as one likes, the first time."""

    asked: trio.Event = field(default_factory=trio.Event)
    done: trio.Event = field(default_factory=trio.Event)

    async def hash(self, password: Secret, client: str | None = None) -> str:
        if not self.asked.is_set():
            self.asked.set()
            await self.done.wait()
        return await super().hash(password, client)


async def test_who_is_refused_for_what_his_successor_did_is_not_told_so(door: Doorstep) -> None:
    door.hashing, door.counter.lapsed = Slow(), True
    ask = await asking(door, "register")
    answers: list[Answer] = []

    async def late() -> None:
        answers.append(await ask())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(late, name="the late one")
        await door.hashing.asked.wait()
        first = await ask()
        assert first.status == 201
        door.hashing.done.set()
    answers[0].problem(409, "IdempotencyKeyInUse")
    assert told(await ask()) == told(first)


async def test_a_request_that_is_cancelled_gives_its_key_back(door: Doorstep) -> None:
    door.hashing = Slow()
    ask = await asking(door, "register")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, name="a request that takes too long")
        await door.hashing.asked.wait()
        assert len(door.shelf.kept) == 1
        nursery.cancel_scope.cancel(reason="it took too long")
    assert door.shelf.kept == {}
    assert len(door.counter.given_back) == 1
    assert (await ask()).status == 201


async def test_an_answer_that_was_sealed_for_another_request_is_a_bug(door: Doorstep, log: Lines) -> None:
    ask = await asking(door, "register")
    await ask()
    [(place, row)] = door.shelf.kept.items()
    door.shelf.kept[place] = replace(row, answer=b"\0" * 64)
    (await ask()).problem(500, "InternalError")
    assert len(log.of("http_bug")) == 1


async def test_nothing_that_is_kept_can_be_read(door: Doorstep) -> None:
    ask = await asking(door, "login")
    answer = await ask()
    [(place, row)] = door.shelf.kept.items()
    assert row.answer is not None
    whole = place + row.content + row.answer
    for secret in (KEY, EMAIL, PASSWORD, answer.json["access_token"], answer.json["refresh_token"], "login", "status"):
        assert secret.encode() not in whole


async def test_a_view_that_does_not_say_how_its_outcome_is_shown_is_a_bug(door: Doorstep) -> None:
    slot = Slot(b"place", b"content", b"k" * 32)
    seals = Seals(Keys.derive(Secret("a secret of the tests of the front")))
    asked: Any = type("Asked", (), {"caller": Caller("id", None)})()
    wording: Any = Wording(door.knobs.writer, frozenset())
    slip = Slip(asked, TABLE["register"], slot, Ticket(b"place", UUID(int=1)), seals, wording)
    with pytest.raises(LookupError, match="answered"):
        await Errand(receipt=slip).keep(None, None)  # type: ignore[arg-type]
    assert not slip.kept
