"""Register, activate, resend, and how it stands, as a client sees them: every row of the contract."""

import re
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
import trio

from regsvc.domain.account import DuplicatePolicy, Rules, Tally
from regsvc.ports import MailState, MailStatus, Unavailable
from tests.flows.fakes import START
from tests.http.doorstep import EMAIL, PASSWORD, Doorstep, basic
from tests.http.tiny import calling, serving, until
from tests.lines import Lines

WHO = f"{EMAIL}:{PASSWORD}"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
EVERYWHERE = ("/v1", "/api/v1")
PREFIXES = {
    "register": [
        "/users/register",
        *(f"{v1}/{what}" for v1 in EVERYWHERE for what in ("users/register", "registration")),
    ],
    "activate": [
        "/users/activate",
        *(f"{v1}/{what}" for v1 in EVERYWHERE for what in ("users/activate", "activation")),
    ],
    "resend": [f"{v1}/users/resend-{what}" for v1 in ("", *EVERYWHERE) for what in ("code", "activation")],
    "standing": [f"{v1}/users/registration" for v1 in ("", *EVERYWHERE)],
}


async def test_the_main_job(door: Doorstep) -> None:
    registered = await door.register(" Alice@Example.COM ")
    assert registered.status == 201
    assert registered.json == {
        "id": str(UUID(int=1)),
        "email": "Alice@Example.COM",
        "is_activated": False,
        "created_at": "2026-11-20T11:00:00.000Z",
        "resend_available_at": "2026-11-20T11:00:30.000Z",
        "message": registered.json["message"],
    }
    door.mint("0428")
    activated = await door.ask("POST", "/v1/users/activate", {"code": "04-28 "}, who=WHO)
    assert activated.status == 200
    assert activated.json | {"message": ""} == {
        "id": str(UUID(int=1)),
        "email": "Alice@Example.COM",
        "is_activated": True,
        "activated_at": "2026-11-20T11:00:00.000Z",
        "message": "",
    }
    again = await door.ask("POST", "/v1/users/activate", {"code": "0428"}, who=WHO)
    again.problem(409, "UserAlreadyActivated")
    resend = await door.ask("POST", "/v1/users/resend-code", who=WHO)
    resend.problem(409, "UserAlreadyActivated")
    standing = await door.ask("GET", "/v1/users/registration", who=WHO)
    standing.problem(409, "UserAlreadyActivated")
    exists = await door.register()
    assert "Retry-After" not in exists.headers
    exists.problem(409, "UserAlreadyExists")


@pytest.mark.parametrize("path", PREFIXES["register"])
async def test_every_way_to_register(door: Doorstep, path: str) -> None:
    assert (await door.ask("POST", path, {"email": EMAIL, "password": PASSWORD})).status == 201


@pytest.mark.parametrize("path", PREFIXES["activate"])
@pytest.mark.parametrize("name", ["code", "activation_code"])
async def test_every_way_to_activate(door: Doorstep, path: str, name: str) -> None:
    await door.register()
    door.mint("0428")
    assert (await door.ask("POST", path, {name: "0428"}, who=WHO)).status == 200


@pytest.mark.parametrize("path", PREFIXES["activate"])
async def test_every_way_to_activate_with_the_link(door: Doorstep, path: str) -> None:
    await door.register()
    token = door.mint_link()
    answer = await door.ask("POST", path, {"token": token}, who=WHO)
    assert (answer.status, answer.json["is_activated"]) == (200, True)
    (await door.ask("POST", path, {"token": token}, who=WHO)).problem(409, "UserAlreadyActivated")


@pytest.mark.parametrize("token", ["", "x", "A" * 42, "A" * 43, "A" * 10_000])
async def test_a_wrong_token_is_a_wrong_code_and_spends_nothing(door: Doorstep, token: str) -> None:
    await door.register()
    door.mint("0428")
    door.mint_link()
    for _ in range(12):
        answer = await door.ask("POST", "/v1/users/activate", {"token": token}, who=WHO)
        assert "attempts_left" not in answer.problem(400, "InvalidActivationCode")
    assert (await door.ask("POST", "/v1/users/activate", {"code": "0428"}, who=WHO)).status == 200


async def test_a_token_is_as_good_as_long_as_it_lives_and_only_with_the_password(door: Doorstep) -> None:
    await door.register()
    token = door.mint_link()
    stranger = await door.ask("POST", "/v1/users/activate", {"token": token}, who=f"{EMAIL}:another one")
    stranger.problem(401, "InvalidCredentials")
    nobody = await door.ask("POST", "/v1/users/activate", {"token": token})
    nobody.problem(401, "InvalidCredentials")
    door.shelf.now += timedelta(minutes=10)
    late = await door.ask("POST", "/v1/users/activate", {"token": token}, who=WHO)
    assert "resend" in late.problem(410, "ActivationCodeExpired")["hint"]


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ({"token": "A" * 43, "code": "0428"}, "token", "contradiction"),
        ({"token": "A" * 43, "activation_code": "0428"}, "token", "contradiction"),
        ({"token": None}, "token", "not_a_string"),
        ({"token": 1}, "token", "not_a_string"),
        ({"token": "x", "code": "no"}, "code", "invalid_code"),
        ({}, "code", "missing"),
    ],
)
async def test_one_proof_is_shown(door: Doorstep, body: dict[str, object], field: str, code: str) -> None:
    found = (await door.ask("POST", "/v1/users/activate", body, who=WHO)).problem(422, "ValidationError")
    assert [(one["field"], one["code"]) for one in found["errors"]] == [(field, code)]


@pytest.mark.parametrize("path", PREFIXES["resend"])
@pytest.mark.parametrize("raw", [None, b"{}"])
async def test_every_way_to_resend(door: Doorstep, path: str, raw: bytes | None) -> None:
    await door.register()
    door.shelf.now += timedelta(seconds=30)
    answer = await door.ask("POST", path, raw=raw, who=WHO)
    assert answer.status == 202
    assert answer.json["email"] == EMAIL
    assert answer.json["resend_available_at"] == "2026-11-20T11:01:00.000Z"


async def test_a_resend_takes_no_fields_and_no_forms(door: Doorstep) -> None:
    path = "/v1/users/resend-code"
    (await door.ask("POST", path, {"email": EMAIL}, who=WHO)).problem(422, "ValidationError")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    (await door.ask("POST", path, raw=b"a=b", headers=form, who=WHO)).problem(415, "UnsupportedMediaType")


@pytest.mark.parametrize("path", PREFIXES["standing"])
async def test_every_way_to_ask_how_it_stands(door: Doorstep, path: str) -> None:
    registered = await door.register()
    answer = await door.ask("GET", path, who=WHO)
    assert answer.status == 200
    assert answer.json == {
        "id": registered.json["id"],
        "email": EMAIL,
        "mail": "queued",
        "code_expires_at": None,
        "resend_available_at": "2026-11-20T11:00:30.000Z",
    }


async def test_a_username_and_a_language_are_kept_or_refused(door: Doorstep) -> None:
    door.shelf.usernames.add("bob")
    body = {"email": EMAIL, "password": PASSWORD, "username": "Bob", "locale": "de-AT"}
    found = (await door.ask("POST", "/v1/users/register", body)).problem(409, "UserAlreadyExists")
    assert found["errors"] == [{"field": "username", "message": "This username is taken.", "code": "taken"}]
    assert (await door.ask("POST", "/v1/users/register", {**body, "username": "Alice"})).status == 201
    (address,) = door.shelf.addresses.values()
    assert address.claims[0].username is not None
    assert address.claims[0].locale is not None
    assert (address.claims[0].username.key, address.claims[0].locale.tag) == ("alice", "de-AT")


async def test_null_is_as_good_as_absent(door: Doorstep) -> None:
    body = {"email": EMAIL, "password": PASSWORD, "username": None, "locale": None}
    assert (await door.ask("POST", "/v1/users/register", body)).status == 201


async def test_a_second_registration_has_to_wait(door: Doorstep) -> None:
    await door.register()
    answer = await door.register()
    found = answer.problem(409, "UserAlreadyExists")
    assert found["retry_after_seconds"] == int(answer.headers["Retry-After"]) == 600
    assert "a code is on its way" in found["detail"]


async def test_a_wrong_code_costs_tries(door: Doorstep) -> None:
    await door.register()
    door.mint("0428")
    for left in (4, 3, 2, 1, 0):
        wrong = await door.ask("POST", "/v1/users/activate", {"code": "0000"}, who=WHO)
        assert wrong.problem(400, "InvalidActivationCode")["attempts_left"] == left
    answer = await door.ask("POST", "/v1/users/activate", {"code": "0428"}, who=WHO)
    found = answer.problem(429, "TooManyAttempts")
    assert found["attempts_left"] == 0
    assert found["retry_after_seconds"] == int(answer.headers["Retry-After"]) == 30
    assert "resend-code" in found["hint"]


async def test_a_code_expires(door: Doorstep) -> None:
    await door.register()
    door.mint("0428")
    door.shelf.now += timedelta(seconds=60)
    found = (await door.ask("POST", "/v1/users/activate", {"code": "0428"}, who=WHO)).problem(
        410, "ActivationCodeExpired"
    )
    assert "resend-code" in found["hint"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/users/activate", {"code": "0428"}),
        ("POST", "/v1/users/resend-code", None),
        ("GET", "/v1/users/registration", None),
    ],
)
@pytest.mark.parametrize(
    "who", [None, f"{EMAIL}:wrong horse", f"unknown@example.com:{PASSWORD}", f"nonsense:{PASSWORD}"]
)
async def test_one_401_for_all(door: Doorstep, method: str, path: str, body: object, who: str | None) -> None:
    await door.register()
    found = (await door.ask(method, path, body, who=who)).problem(401, "InvalidCredentials")
    assert found["detail"].startswith("The e-mail address, the username or the password is wrong, ")


async def test_a_resend_comes_too_soon_to_the_millisecond(door: Doorstep) -> None:
    await door.register()
    door.shelf.now += timedelta(seconds=29, milliseconds=999)
    answer = await door.ask("POST", "/v1/users/resend-code", who=WHO)
    found = answer.problem(429, "ResendTooSoon")
    assert found["retry_after_seconds"] == int(answer.headers["Retry-After"]) == 1
    assert found["resend_available_at"] == "2026-11-20T11:00:30.000Z"


async def test_an_address_gets_only_so_many_mails() -> None:
    door = Doorstep(rules=Rules(duplicates=DuplicatePolicy.CLAIMS))
    await door.register()
    ((key, address),) = door.shelf.addresses.items()
    door.shelf.addresses[key] = replace(address, mails=Tally(6, START))
    answer = await door.register()
    found = answer.problem(429, "RateLimitExceeded")
    assert found["retry_after_seconds"] == int(answer.headers["Retry-After"]) == 3600


async def test_under_uniform_every_registration_is_noted() -> None:
    door = Doorstep(rules=Rules(duplicates=DuplicatePolicy.UNIFORM))
    door.member("owner@example.com")
    for email in ("owner@example.com", "new@example.com", "new@example.com"):
        answer = await door.ask("POST", "/v1/users/register", {"email": f" {email}", "password": PASSWORD})
        assert answer.status == 202
        assert answer.json == {"email": email, "message": f"What to do next is mailed to {email}."}


@pytest.mark.parametrize(("what", "name"), [("hasher", "Overloaded"), ("database", "ServiceUnavailable")])
async def test_an_outage_is_a_503(door: Doorstep, what: str, name: str) -> None:
    def away(_: str) -> Exception:
        return Unavailable(what, "secret reason", retry_after=timedelta(seconds=2.1))

    door.shelf.fail_at, door.shelf.error = 1, away  # type: ignore[assignment] # what makes one will do
    answer = await door.register()
    assert answer.problem(503, name)["retry_after_seconds"] == int(answer.headers["Retry-After"]) == 3
    assert b"secret" not in answer.body


async def test_under_api_v1_detail_is_an_object(door: Doorstep) -> None:
    plain = (await door.ask("POST", "/v1/users/activate", {"code": "0428"}, who=WHO)).problem(401, "InvalidCredentials")
    other = (await door.ask("POST", "/api/v1/users/activate", {"code": "0428"}, who=WHO)).problem(
        401, "InvalidCredentials"
    )
    assert other["detail"] == {"error": "InvalidCredentials", "message": plain["detail"]}
    assert other | {"detail": 0, "instance": 0} == plain | {"detail": 0, "instance": 0}
    await door.register()
    expired = await door.ask("POST", "/api/v1/users/activate", {"code": "0428"}, who=WHO)
    assert "resend-code" in expired.problem(410, "ActivationCodeExpired")["detail"]["hint"]


async def test_the_log_knows_who_and_why_but_no_address(door: Doorstep, log: Lines) -> None:
    await door.ask(
        "POST", "/v1/users/register", {"email": EMAIL, "password": PASSWORD}, headers={"X-Request-ID": "r-1"}
    )
    door.mint("0428")
    await door.ask("POST", "/users/activate", {"code": "0000"}, who=WHO)
    await door.ask("POST", "/api/v1/users/activate", {"code": "0428"}, who=WHO)
    first, wrong, right = log.of("http_request")
    assert first["request_id"] == "r-1" == log.of("registration_created")[0]["request_id"]
    assert first["trace_id"] == log.of("registration_created")[0]["trace_id"]
    assert (first["route"], first["method"], first["status"]) == ("/v1/users/register", "POST", 201)
    assert (wrong["route"], wrong["status"], wrong["refusal"]) == ("/users/activate", 400, "invalid_activation_code")
    assert (right["route"], right["user_id"]) == ("/api/v1/users/activate", str(UUID(int=1)))
    assert first["bytes_in"] > 40 < first["bytes_out"]
    assert PASSWORD.encode() not in log.getvalue()
    assert b"alice" not in log.getvalue()


# ------------------------------------------------------------------------------------------------- the long poll


async def test_a_long_poll_answers_when_the_mail_is_sent(door: Doorstep) -> None:
    def sent(subject: UUID) -> None:
        door.shelf.mail[subject] = MailStatus(MailState.SENT, START + timedelta(seconds=60))

    door.news.happens = sent
    await door.register()
    answer = await door.ask("GET", "/v1/users/registration?wait=5", who=WHO)
    assert (answer.status, answer.json["mail"]) == (200, "sent")
    assert TIME.fullmatch(answer.json["code_expires_at"])


async def test_a_refused_long_poll_does_not_wait(door: Doorstep) -> None:
    await door.register()
    answer = await door.ask("GET", "/v1/users/registration?wait=60", who=f"{EMAIL}:wrong horse")
    answer.problem(401, "InvalidCredentials")


async def test_an_outage_in_a_long_poll_is_a_503(door: Doorstep) -> None:
    await door.register()
    door.shelf.fail_at = door.shelf.calls + 2
    door.shelf.error = lambda _: Unavailable("database")  # type: ignore[assignment] # as above
    answer = await door.ask("GET", "/v1/users/registration?wait=60", who=WHO)
    answer.problem(503, "ServiceUnavailable")


POLL = f"GET /v1/users/registration?wait=60 HTTP/1.1\r\nHost: x\r\nAuthorization: {basic(WHO)}\r\n\r\n".encode()


async def test_a_draining_server_answers_a_long_poll_at_once(door: Doorstep) -> None:
    await door.register()
    async with serving(door.app) as house, calling(house.port) as caller:
        await caller.say(POLL)
        await until(lambda: door.news.waited)
        house.stop.set()
        answer = await caller.answer()
    assert answer.status == 200
    assert b'"mail":"queued"' in answer.body


async def test_a_client_that_hangs_up_ends_its_long_poll(door: Doorstep, log: Lines) -> None:
    await door.register()
    async with serving(door.app) as house:
        async with calling(house.port) as caller:
            await caller.say(POLL)
            await until(lambda: door.news.waited)
        with trio.fail_after(10):
            await until(lambda: len(log.of("http_request")) == 2)
    assert len(door.news.waited) == 1
