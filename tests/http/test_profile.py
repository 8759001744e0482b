"""Somebody's own account, as a client sees it: every row of the contract."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from regsvc.domain.session import Role, User
from regsvc.domain.values import Locale, Username
from tests.http.doorstep import EMAIL, PASSWORD, Doorstep
from tests.lines import Lines

PREFIXES = ("/v1", "/api/v1", "")
NEW = "another horse with a battery"
NEW_EMAIL = "alice@example.org"
CODE = "042813"
ME = "/v1/users/me"
BOB = Username.parse("bob")
ALICE = Username.parse("Alice")
assert isinstance(BOB, Username)
assert isinstance(ALICE, Username)


async def somebody(door: Doorstep, **parts: Any) -> tuple[User, str]:
    """Return an account and its access token."""
    user = door.member(**{"username": ALICE, "locale": Locale("en"), **parts})
    return user, (await door.login())["access_token"]


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_one_sees_oneself(door: Doorstep, prefix: str) -> None:
    user, bearer = await somebody(door)
    answer = await door.ask("GET", f"{prefix}/users/me", bearer=bearer)
    assert (answer.status, answer.json) == (
        200,
        {
            "id": str(user.id),
            "email": EMAIL,
            "username": "Alice",
            "locale": "en",
            "role": "user",
            "created_at": "2026-11-20T11:00:00.000Z",
            "activated_at": "2026-11-20T11:00:00.000Z",
            "updated_at": "2026-11-20T11:00:00.000Z",
        },
    )


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    ("method", "body", "username", "locale"),
    [
        ("PATCH", {}, "Alice", "en"),
        ("PATCH", {"username": "Al.ice"}, "Al.ice", "en"),
        ("PATCH", {"locale": "de-AT"}, "Alice", "de-AT"),
        ("PATCH", {"username": None}, None, "en"),
        ("PATCH", {"username": None, "locale": None}, None, None),
        ("PUT", {}, None, None),
        ("PUT", {"username": "alice"}, "alice", None),
        ("PUT", {"username": "Alice", "locale": "fr"}, "Alice", "fr"),
    ],
)
async def test_name_and_language_change(
    door: Doorstep, prefix: str, method: str, body: dict[str, object], username: str | None, locale: str | None
) -> None:
    user, bearer = await somebody(door)
    door.shelf.now += timedelta(seconds=90)
    answer = await door.ask(method, f"{prefix}/users/me", body, bearer=bearer)
    changed = (username, locale) != ("Alice", "en")
    assert (answer.status, answer.json["username"], answer.json["locale"]) == (200, username, locale)
    assert answer.json["updated_at"] == f"2026-11-20T11:0{'1:30' if changed else '0:00'}.000Z"
    assert answer.json == (await door.ask("GET", ME, bearer=bearer)).json
    assert (door.shelf.users[user.id] != user) is changed


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"username": "a", "locale": "!"}, {"username", "locale"}),
        ({"username": 7}, {"username"}),
        ({"email": "bob@example.org", "role": "admin"}, {"email", "role"}),
    ],
)
async def test_what_cannot_be_changed_so(door: Doorstep, method: str, body: object, fields: set[str]) -> None:
    user, bearer = await somebody(door)
    found = (await door.ask(method, ME, body, bearer=bearer)).problem(422, "ValidationError")
    assert {fault["field"] for fault in found["errors"]} == fields
    assert door.shelf.users[user.id] == user


async def test_a_name_that_somebody_has(door: Doorstep) -> None:
    door.member("bob@example.com", username=BOB)
    _, bearer = await somebody(door)
    found = (await door.ask("PATCH", ME, {"username": "BOB"}, bearer=bearer)).problem(409, "UserAlreadyExists")
    assert found["errors"] == [{"field": "username", "message": "This username is taken.", "code": "taken"}]


# ------------------------------------------------------------------------------------------------- leaving


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_one_leaves_with_the_password(door: Doorstep, prefix: str) -> None:
    user, bearer = await somebody(door)
    path = f"{prefix}/users/me"
    wrong = await door.ask("DELETE", path, {"password": "wrong horse"}, bearer=bearer)
    wrong.problem(401, "InvalidCredentials")
    assert wrong.headers["WWW-Authenticate"] == 'Bearer realm="regsvc"'
    answer = await door.ask("DELETE", path, {"password": PASSWORD}, bearer=bearer)
    assert (answer.status, answer.body) == (204, b"")
    assert user.id not in door.shelf.users
    (await door.ask("GET", path, bearer=bearer)).problem(401, "InvalidAccessToken")


@pytest.mark.parametrize(
    ("body", "raw", "status", "kind"),
    [
        (None, b"", 400, "MalformedRequest"),
        ({}, None, 422, "ValidationError"),
        ({"password": 7}, None, 422, "ValidationError"),
        ({"password": PASSWORD, "sure": True}, None, 422, "ValidationError"),
    ],
)
async def test_leaving_needs_the_password(
    door: Doorstep, body: object, raw: bytes | None, status: int, kind: str
) -> None:
    user, bearer = await somebody(door)
    headers = [] if raw is None else [("Content-Type", "application/json")]
    answer = await door.ask("DELETE", ME, body, raw=raw, headers=headers, bearer=bearer)
    answer.problem(status, kind)
    assert user.id in door.shelf.users


async def test_the_last_administrator_stays(door: Doorstep) -> None:
    user, bearer = await somebody(door, role=Role.ADMIN)
    (await door.ask("DELETE", ME, {"password": PASSWORD}, bearer=bearer)).problem(409, "LastAdmin")
    assert user.id in door.shelf.users


# ------------------------------------------------------------------------------------------------- the password


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_a_new_password_ends_the_other_sessions(door: Doorstep, prefix: str) -> None:
    _, mine = await somebody(door)
    other = (await door.login())["access_token"]
    form = {"current_password": PASSWORD, "new_password": NEW}
    answer = await door.ask("POST", f"{prefix}/users/me/password", form, bearer=mine)
    assert (answer.status, answer.body) == (204, b"")
    assert (await door.ask("GET", ME, bearer=mine)).status == 200
    (await door.ask("GET", ME, bearer=other)).problem(401, "InvalidAccessToken")
    await door.login(password=NEW)


@pytest.mark.parametrize(
    ("change", "status", "kind", "field"),
    [
        ({"current_password": "wrong horse"}, 401, "InvalidCredentials", None),
        ({"new_password": "short"}, 422, "WeakPassword", "new_password"),
        ({"new_password": "alice@example.com"}, 422, "WeakPassword", "new_password"),
        ({"new_password": None}, 422, "ValidationError", "new_password"),
        ({"current_password": None}, 422, "ValidationError", "current_password"),
        ({"current_password": "x" * 1025}, 422, "ValidationError", "current_password"),
        ({"password": PASSWORD}, 422, "ValidationError", "password"),
    ],
)
async def test_a_password_that_does_not_change(
    door: Doorstep, change: dict[str, object], status: int, kind: str, field: str | None
) -> None:
    user, bearer = await somebody(door)
    form = {"current_password": PASSWORD, "new_password": NEW, **change}
    found = (await door.ask("POST", f"{ME}/password", form, bearer=bearer)).problem(status, kind)
    assert [fault["field"] for fault in found.get("errors", [])] == ([] if field is None else [field])
    assert door.shelf.users[user.id] == user


# ------------------------------------------------------------------------------------------------- the address


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_a_new_address_is_proved_by_its_code(door: Doorstep, prefix: str) -> None:
    user, bearer = await somebody(door)
    path = f"{prefix}/users/me/email"
    asked = await door.ask("POST", path, {"new_email": NEW_EMAIL, "password": PASSWORD}, bearer=bearer)
    assert (asked.status, asked.json["email"], set(asked.json)) == (202, NEW_EMAIL, {"email", "message"})
    assert (await door.ask("GET", ME, bearer=bearer)).json["email"] == EMAIL
    door.mint_change(user, CODE)
    wrong = await door.ask("POST", f"{path}/confirm", {"code": "999999"}, bearer=bearer)
    assert wrong.problem(400, "InvalidCode")["attempts_left"] == 4
    done = await door.ask("POST", f"{path}/confirm", {"code": f"{CODE[:3]}-{CODE[3:]}"}, bearer=bearer)
    assert (done.status, done.json["email"]) == (200, NEW_EMAIL)
    assert (await door.ask("GET", ME, bearer=bearer)).json == done.json
    again = await door.ask("POST", f"{path}/confirm", {"code": CODE}, bearer=bearer)
    again.problem(410, "CodeExpired")


@pytest.mark.parametrize(
    ("change", "status", "kind"),
    [
        ({"password": "wrong horse"}, 401, "InvalidCredentials"),
        ({"new_email": "nobody"}, 422, "InvalidEmail"),
        ({"new_email": None}, 422, "ValidationError"),
        ({"password": None}, 422, "ValidationError"),
        ({"email": NEW_EMAIL}, 422, "ValidationError"),
        ({"new_email": "bob@example.com"}, 409, "UserAlreadyExists"),
    ],
)
async def test_an_address_that_cannot_be_asked_for(
    door: Doorstep, change: dict[str, object], status: int, kind: str
) -> None:
    door.member("bob@example.com")
    user, bearer = await somebody(door)
    form = {"new_email": NEW_EMAIL, "password": PASSWORD, **change}
    found = (await door.ask("POST", f"{ME}/email", form, bearer=bearer)).problem(status, kind)
    assert "Log in with it" not in found.get("hint", "")
    assert user.id not in door.shelf.changes


async def test_the_next_mail_to_a_new_address_has_to_wait(door: Doorstep) -> None:
    _, bearer = await somebody(door)
    form = {"new_email": NEW_EMAIL, "password": PASSWORD}
    await door.ask("POST", f"{ME}/email", form, bearer=bearer)
    answer = await door.ask("POST", f"{ME}/email", form, bearer=bearer)
    found = answer.problem(429, "ResendTooSoon")
    assert (answer.headers["Retry-After"], found["resend_available_at"]) == ("30", "2026-11-20T11:00:30.000Z")


async def test_a_code_of_a_new_address_is_tried_too_often_or_too_late(door: Doorstep) -> None:
    user, bearer = await somebody(door)
    await door.ask("POST", f"{ME}/email", {"new_email": NEW_EMAIL, "password": PASSWORD}, bearer=bearer)
    early = await door.ask("POST", f"{ME}/email/confirm", {"code": CODE}, bearer=bearer)
    assert "POST /v1/users/me/email" in early.problem(410, "CodeExpired")["hint"]
    door.mint_change(user, CODE)
    for _ in range(5):
        await door.ask("POST", f"{ME}/email/confirm", {"code": "999999"}, bearer=bearer)
    tired = await door.ask("POST", f"{ME}/email/confirm", {"code": CODE}, bearer=bearer)
    assert "POST /v1/users/me/email" in tired.problem(429, "TooManyAttempts")["hint"]
    door.mint_change(user, CODE)
    door.shelf.now += timedelta(seconds=60)
    late = await door.ask("POST", f"{ME}/email/confirm", {"code": CODE}, bearer=bearer)
    late.problem(410, "CodeExpired")


async def test_a_new_address_that_somebody_else_proved_first(door: Doorstep) -> None:
    user, bearer = await somebody(door)
    await door.ask("POST", f"{ME}/email", {"new_email": NEW_EMAIL, "password": PASSWORD}, bearer=bearer)
    door.mint_change(user, CODE)
    door.member(NEW_EMAIL)
    answer = await door.ask("POST", f"{ME}/email/confirm", {"code": CODE}, bearer=bearer)
    assert answer.problem(409, "UserAlreadyExists")["hint"] == "Choose another address."


@pytest.mark.parametrize("body", [{"code": "0428"}, {"code": 42813}, {}, {"code": CODE, "email": NEW_EMAIL}])
async def test_what_no_code_of_an_address_looks_like(door: Doorstep, body: object) -> None:
    _, bearer = await somebody(door)
    (await door.ask("POST", f"{ME}/email/confirm", body, bearer=bearer)).problem(422, "ValidationError")


async def test_an_account_that_goes_while_it_is_changed(door: Doorstep) -> None:
    user, bearer = await somebody(door)

    def disable() -> None:
        door.shelf.put(replace(user, disabled_at=door.shelf.now))

    door.hashing.busy = disable
    answer = await door.ask("DELETE", ME, {"password": PASSWORD}, bearer=bearer)
    answer.problem(401, "InvalidAccessToken")


async def test_the_log_has_no_secret_and_no_address(door: Doorstep, log: Lines) -> None:
    user, bearer = await somebody(door)
    await door.ask("POST", f"{ME}/email", {"new_email": NEW_EMAIL, "password": PASSWORD}, bearer=bearer)
    door.mint_change(user, CODE)
    await door.ask("POST", f"{ME}/email/confirm", {"code": CODE}, bearer=bearer)
    await door.ask("POST", f"{ME}/password", {"current_password": PASSWORD, "new_password": NEW}, bearer=bearer)
    await door.ask("PATCH", ME, {"username": "secret.agent"}, bearer=bearer)
    await door.ask("DELETE", ME, {"password": NEW}, bearer=bearer)
    told = [line for line in log.of("http_request") if line["route"] != "/v1/auth/login"]
    assert [line["status"] for line in told] == [202, 200, 204, 200, 204]
    assert {line["user_id"] for line in told} == {str(user.id)}
    said = log.getvalue()
    found = [it for it in (PASSWORD, NEW, f'"{CODE}"', bearer, "alice", "secret.agent") if it.encode() in said]
    assert found == []
