"""Log in, refresh, sessions, recovery, as a client sees them: every row of the contract."""

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from regsvc.domain.session import Ending, Role
from regsvc.domain.values import Locale, Username
from regsvc.ports import Unavailable
from tests.http.doorstep import EMAIL, PASSWORD, Doorstep
from tests.http.tiny import calling, serving
from tests.lines import Lines

PREFIXES = ("/v1", "/api/v1", "")
FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:133.0) Gecko/20100101 Firefox/133.0"
NEW = "another horse with a battery"
CODE = "042813"
NAME = Username.parse("Alice")
assert isinstance(NAME, Username)


def login(**body: Any) -> dict[str, Any]:
    return {"password": PASSWORD, **body}


# ------------------------------------------------------------------------------------------------- log in


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    "who", [{"email": f" {EMAIL.upper()} "}, {"identifier": EMAIL}, {"identifier": "ALICE"}, {"identifier": " alice "}]
)
async def test_every_way_to_log_in(door: Doorstep, prefix: str, who: dict[str, str]) -> None:
    user = door.member(username=NAME, locale=Locale("de-AT"), role=Role.ADMIN)
    answer = await door.ask("POST", f"{prefix}/auth/login", login(**who), headers={"User-Agent": FIREFOX})
    assert answer.status == 200
    assert "Set-Cookie" not in answer.headers
    found = answer.json
    (opened,) = door.shelf.logins.values()
    assert found == {
        "access_token": f"access.{user.id}.{opened.id}.{(door.shelf.now + timedelta(minutes=30)).timestamp():.0f}",
        "token_type": "Bearer",
        "expires_in": 1800,
        "refresh_token": found["refresh_token"],
        "user": {
            "id": str(user.id),
            "email": EMAIL,
            "username": "Alice",
            "locale": "de-AT",
            "role": "admin",
            "created_at": "2026-11-20T11:00:00.000Z",
            "activated_at": "2026-11-20T11:00:00.000Z",
            "updated_at": "2026-11-20T11:00:00.000Z",
        },
    }
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", found["refresh_token"])
    assert opened.device == "Firefox on Windows"


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"password"}),
        ({"password": PASSWORD}, {"email"}),
        ({"email": EMAIL}, {"password"}),
        ({"email": EMAIL, "identifier": EMAIL, "password": PASSWORD}, {"identifier"}),
        ({"email": 7, "password": PASSWORD}, {"email"}),
        ({"identifier": None, "password": PASSWORD}, {"identifier"}),
        ({"identifier": EMAIL, "password": ["x"]}, {"password"}),
        ({"identifier": EMAIL, "password": "x" * 1025}, {"password"}),
        ({"identifier": EMAIL, "password": PASSWORD, "remember_me": True}, {"remember_me"}),
    ],
)
async def test_a_login_has_a_name_and_a_password(door: Doorstep, body: object, fields: set[str]) -> None:
    found = (await door.ask("POST", "/v1/auth/login", body)).problem(422, "ValidationError")
    assert {fault["field"] for fault in found["errors"]} == fields
    assert door.hashing.checked == []


async def test_an_old_password_need_not_be_good_enough_for_a_new_one(door: Doorstep) -> None:
    for number, password in enumerate(("short", "password", "p" * 200, "tab\tin it")):
        door.member(f"a{number}@example.com", password)
        await door.login(f"a{number}@example.com", password)


async def test_only_the_right_password_tells_more(door: Doorstep) -> None:
    await door.register("new@example.com")
    door.member(disabled_at=door.shelf.now)
    for email, status, name in ((EMAIL, 403, "AccountDisabled"), ("new@example.com", 403, "NotActivated")):
        (await door.ask("POST", "/v1/auth/login", login(email=email))).problem(status, name)
        wrong = await door.ask("POST", "/v1/auth/login", {"email": email, "password": "wrong horse"})
        wrong.problem(401, "InvalidCredentials")


@pytest.mark.parametrize("path", ["/v1/auth/login", "/api/v1/auth/login"])
async def test_who_may_not_come_in_is_not_told_why(door: Doorstep, path: str) -> None:
    """An account, a disabled one, a registration, nobody, and what nobody can have: bytes and work are the same."""
    door.member(username=NAME)
    door.member("gone@example.com", disabled_at=door.shelf.now)
    await door.register("new@example.com")
    emails = (EMAIL, "gone@example.com", "new@example.com", "nobody@example.com", "@", "a@b@c", "", "a b")
    names = [{"email": it} for it in emails]
    names += [{"identifier": it} for it in (*emails, "alice", "nobody", "é", "x" * 99)]
    told = set()
    for who in names:
        answer = await door.ask("POST", path, {**who, "password": "wrong horse"})
        answer.problem(401, "InvalidCredentials")
        told.add(answer.unlike_by_chance())
    assert len(told) == 1
    assert len(door.hashing.checked) == len(names)


async def test_an_outage_is_a_503(door: Doorstep) -> None:
    door.member()
    door.shelf.fail_at, door.shelf.error = door.shelf.calls + 1, Unavailable
    (await door.ask("POST", "/v1/auth/login", login(email=EMAIL))).problem(503, "ServiceUnavailable")


async def test_the_log_knows_who_and_has_no_secret(door: Doorstep, log: Lines) -> None:
    user = door.member()
    opened = await door.login()
    await door.ask("GET", "/v1/users/me", bearer=opened["access_token"])
    refreshed = await door.ask("POST", "/v1/auth/refresh", {"refresh_token": opened["refresh_token"]})
    await door.ask("POST", "/v1/auth/refresh", {"refresh_token": "x" * 43})
    token = door.reset_token(user)
    await door.ask("POST", "/v1/auth/reset-password", {"token": token, "new_password": NEW})
    await door.ask("GET", "/v1/users/me", bearer=opened["access_token"])
    told = [(line["route"], line["status"], line.get("user_id")) for line in log.of("http_request")]
    assert told == [
        ("/v1/auth/login", 200, str(user.id)),
        ("/v1/users/me", 200, str(user.id)),
        ("/v1/auth/refresh", 200, str(user.id)),
        ("/v1/auth/refresh", 401, None),
        ("/v1/auth/reset-password", 204, None),
        ("/v1/users/me", 401, None),
    ]
    secrets = (PASSWORD, NEW, token, refreshed.json["refresh_token"], *(opened[f"{it}_token"] for it in _TOKENS))
    assert [secret for secret in secrets if secret.encode() in log.getvalue()] == []


_TOKENS = ("access", "refresh")


# ------------------------------------------------------------------------------------------------- the code alone


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_the_longer_code_activates_and_logs_in(door: Doorstep, prefix: str) -> None:
    await door.register()
    door.mint_verify(CODE)
    answer = await door.ask("POST", f"{prefix}/auth/verify", {"email": EMAIL, "code": f"{CODE[:3]} {CODE[3:]}"})
    assert (answer.status, answer.json["user"]["email"]) == (200, EMAIL)
    assert (await door.ask("GET", "/v1/users/me", bearer=answer.json["access_token"])).status == 200
    (await door.ask("POST", "/v1/auth/login", login(email=EMAIL))).problem(401, "InvalidCredentials")


async def test_a_longer_code_that_is_wrong_old_or_tried_too_often(door: Doorstep) -> None:
    await door.register()
    door.mint_verify(CODE)
    form = {"email": EMAIL, "code": CODE}
    wrong = await door.ask("POST", "/v1/auth/verify", {**form, "code": "999999"})
    wrong.problem(400, "InvalidActivationCode")
    door.shelf.now += timedelta(minutes=10)
    hint = (await door.ask("POST", "/v1/auth/verify", form)).problem(410, "ActivationCodeExpired")["hint"]
    assert "/v1/auth/send-code" in hint
    for _ in range(9):
        await door.ask("POST", "/v1/auth/verify", {**form, "code": "999999"})
    tired = await door.ask("POST", "/v1/auth/verify", form)
    assert "/v1/auth/send-code" in tired.problem(429, "TooManyAttempts")["hint"]
    assert int(tired.headers["Retry-After"]) == tired.json["retry_after_seconds"] > 3600


@pytest.mark.parametrize(
    ("body", "kind", "field"),
    [
        ({"email": EMAIL, "code": "0428"}, "ValidationError", "code"),
        ({"email": EMAIL, "code": 42813}, "ValidationError", "code"),
        ({"email": EMAIL}, "ValidationError", "code"),
        ({"email": "nobody", "code": CODE}, "InvalidEmail", "email"),
    ],
)
async def test_what_no_longer_code_looks_like(door: Doorstep, body: object, kind: str, field: str) -> None:
    found = (await door.ask("POST", "/v1/auth/verify", body)).problem(422, kind)
    assert [fault["field"] for fault in found["errors"]] == [field]


# ------------------------------------------------------------------------------------------------- refresh


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_a_refresh_token_is_good_for_the_next_one(door: Doorstep, prefix: str) -> None:
    door.member()
    first = await door.login()
    path = f"{prefix}/auth/refresh"
    second = await door.ask("POST", path, {"refresh_token": first["refresh_token"]})
    assert second.status == 200
    assert second.json["user"] == first["user"]
    again = await door.ask("POST", path, {"refresh_token": first["refresh_token"]})
    assert again.json["refresh_token"] == second.json["refresh_token"] != first["refresh_token"]
    door.shelf.now += timedelta(seconds=11)
    copied = await door.ask("POST", path, {"refresh_token": first["refresh_token"]})
    copied.problem(401, "InvalidRefreshToken")
    assert door.shelf.alive(UUID(first["user"]["id"])) == []
    late = await door.ask("POST", path, {"refresh_token": second.json["refresh_token"]})
    late.problem(401, "InvalidRefreshToken")


@pytest.mark.parametrize("token", ["", "x", "x" * 43, "x" * 10_000, "é", "a b"])
async def test_what_was_never_a_refresh_token(door: Doorstep, token: str) -> None:
    answer = await door.ask("POST", "/v1/auth/refresh", {"refresh_token": token})
    answer.problem(401, "InvalidRefreshToken")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="regsvc"'


@pytest.mark.parametrize("body", [{}, {"refresh_token": None}, {"refresh_token": 7}, {"refresh_token": "x", "y": 1}])
async def test_a_refresh_has_a_token(door: Doorstep, body: object) -> None:
    (await door.ask("POST", "/v1/auth/refresh", body)).problem(422, "ValidationError")


async def test_a_user_who_is_disabled_gets_no_new_tokens(door: Doorstep) -> None:
    user = door.member()
    opened = await door.login()
    door.shelf.put(replace(user, disabled_at=door.shelf.now))
    answer = await door.ask("POST", "/v1/auth/refresh", {"refresh_token": opened["refresh_token"]})
    answer.problem(401, "InvalidRefreshToken")


# ------------------------------------------------------------------------------------------------- sessions


@pytest.mark.parametrize(
    ("method", "path", "ended"),
    [
        *(("POST", f"{prefix}/auth/logout", Ending.LOGOUT) for prefix in PREFIXES),
        *(("POST", f"{prefix}/auth/logout/all", Ending.LOGOUT_ALL) for prefix in PREFIXES),
        *(("DELETE", f"{prefix}/sessions", Ending.LOGOUT_ALL) for prefix in PREFIXES),
    ],
)
async def test_every_way_to_log_out(door: Doorstep, method: str, path: str, ended: Ending) -> None:
    door.member()
    other, mine = await door.login(), await door.login()
    answer = await door.ask(method, path, bearer=mine["access_token"])
    assert (answer.status, answer.body) == (204, b"")
    gone = await door.ask("GET", "/v1/users/me", bearer=mine["access_token"])
    gone.problem(401, "InvalidAccessToken")
    left = await door.ask("GET", "/v1/users/me", bearer=other["access_token"])
    assert left.status == (200 if ended is Ending.LOGOUT else 401)
    assert ended in [session.end_reason for session in door.shelf.logins.values()]


async def test_a_204_says_nothing_of_a_body(door: Doorstep) -> None:
    door.member()
    bearer = (await door.login())["access_token"].encode()
    async with serving(door.app) as house, calling(house.port) as caller:
        await caller.say(b"DELETE /v1/sessions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + bearer + b"\r\n\r\n")
        answer = await caller.answer(body=False)
        assert answer.status == 204
        assert {"content-type", "content-length", "transfer-encoding"}.isdisjoint(answer.headers)
        await caller.say(b"OPTIONS /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await caller.answer(body=False)
    assert (answer.status, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
    assert {"content-type", "content-length", "transfer-encoding"}.isdisjoint(answer.headers)


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_ones_sessions_are_listed_shown_and_ended(door: Doorstep, prefix: str) -> None:
    door.member()
    await door.login(agent="curl/8.5.0")
    door.shelf.now += timedelta(minutes=1)
    mine = await door.login(agent=FIREFOX)
    listed = (await door.ask("GET", f"{prefix}/sessions", bearer=mine["access_token"])).json["sessions"]
    assert [(one["device"], one["current"]) for one in listed] == [("Firefox on Windows", True), ("curl", False)]
    assert listed[0] == {
        "id": listed[0]["id"],
        "device": "Firefox on Windows",
        "ip": listed[0]["ip"],
        "created_at": "2026-11-20T11:01:00.000Z",
        "last_used_at": "2026-11-20T11:01:00.000Z",
        "expires_at": "2026-12-20T11:01:00.000Z",
        "current": True,
    }
    for one in listed:
        shown = await door.ask("GET", f"{prefix}/sessions/{one['id'].upper()}", bearer=mine["access_token"])
        assert (shown.status, shown.json) == (200, one)
    ended = await door.ask("DELETE", f"{prefix}/sessions/{listed[1]['id']}", bearer=mine["access_token"])
    assert (ended.status, ended.body) == (204, b"")
    left = (await door.ask("GET", f"{prefix}/sessions", bearer=mine["access_token"])).json["sessions"]
    assert left == listed[:1]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_sessions_of_others_are_as_unknown_as_none(door: Doorstep, method: str) -> None:
    door.member()
    door.member("bob@example.com")
    mine, other = await door.login(), await door.login("bob@example.com")
    (foreign,) = door.shelf.alive(UUID(other["user"]["id"]))
    (own,) = door.shelf.alive(UUID(mine["user"]["id"]))
    told = set()
    for session in (foreign, UUID(int=7), "nonsense", f"{{{own}}}", own.hex, f"urn:uuid:{own}", "%00", "é"):
        answer = await door.ask(
            method, f"/v1/sessions/{session}", bearer=mine["access_token"], headers={"X-Request-ID": "r"}
        )
        assert answer.problem(404, "NotFound")["detail"] == "There is no such session."
        told.add(answer.body)
    assert len(told) == 1
    assert door.shelf.alive(UUID(other["user"]["id"])) == [foreign]


# ------------------------------------------------------------------------------------------------- recovery


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("what", ["forgot-password", "send-code"])
async def test_asking_for_a_mail_is_answered_alike_for_all(door: Doorstep, prefix: str, what: str) -> None:
    door.member()
    door.member("gone@example.com", disabled_at=door.shelf.now)
    await door.register("new@example.com")
    told = set()
    for email in (EMAIL, "gone@example.com", "new@example.com", "nobody@example.com", EMAIL):
        answer = await door.ask("POST", f"{prefix}/auth/{what}", {"email": email})
        assert (answer.status, list(answer.json)) == (202, ["message"])
        told.add(answer.unlike_by_chance())
    assert len(told) == 1


@pytest.mark.parametrize("what", ["forgot-password", "send-code"])
@pytest.mark.parametrize(
    ("body", "kind"),
    [({"email": "nobody"}, "InvalidEmail"), ({}, "ValidationError"), ({"email": EMAIL, "x": 1}, "ValidationError")],
)
async def test_a_mail_needs_an_address(door: Doorstep, what: str, body: object, kind: str) -> None:
    (await door.ask("POST", f"/v1/auth/{what}", body)).problem(422, kind)


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_the_mailed_token_sets_a_new_password_once(door: Doorstep, prefix: str) -> None:
    user = door.member()
    opened = await door.login()
    form = {"token": door.reset_token(user), "new_password": NEW}
    answer = await door.ask("POST", f"{prefix}/auth/reset-password", form)
    assert (answer.status, answer.body) == (204, b"")
    (await door.ask("GET", "/v1/users/me", bearer=opened["access_token"])).problem(401, "InvalidAccessToken")
    await door.login(password=NEW)
    again = await door.ask("POST", f"{prefix}/auth/reset-password", form)
    hint = again.problem(400, "InvalidResetToken")
    assert "forgot-password" in str(hint["hint"] if prefix != "/api/v1" else hint["detail"]["hint"])


@pytest.mark.parametrize("token", ["", "x", "x" * 43, "x" * 44, "é" * 43, "x" * 5000])
async def test_what_was_never_a_reset_token(door: Doorstep, token: str) -> None:
    answer = await door.ask("POST", "/v1/auth/reset-password", {"token": token, "new_password": NEW})
    answer.problem(400, "InvalidResetToken")


@pytest.mark.parametrize(
    ("change", "kind", "field"),
    [
        ({"new_password": "short"}, "WeakPassword", "new_password"),
        ({"new_password": "a\u0000b" * 4}, "MalformedRequest", None),
        ({"new_password": "tab\tin the password"}, "ValidationError", "new_password"),
        ({"new_password": EMAIL}, "WeakPassword", "new_password"),  # seen only when it is known whose it is
        ({"new_password": None}, "ValidationError", "new_password"),
        ({"token": None}, "ValidationError", "token"),
        ({"password": NEW}, "ValidationError", "password"),
    ],
)
async def test_a_new_password_has_to_be_good(door: Doorstep, change: Any, kind: str, field: str | None) -> None:
    user = door.member()
    form = {"token": door.reset_token(user), "new_password": NEW, **change}
    answer = await door.ask("POST", "/v1/auth/reset-password", form)
    found = answer.problem(400 if field is None else 422, kind)
    assert [fault["field"] for fault in found.get("errors", [])] == ([] if field is None else [field])
    assert door.shelf.users[user.id] == user


async def test_a_reset_needs_its_token(door: Doorstep) -> None:
    answer = await door.ask("POST", "/v1/auth/reset-password", {"new_password": NEW})
    assert answer.problem(422, "ValidationError")["errors"][0]["field"] == "token"


async def test_the_keys_are_public(door: Doorstep) -> None:
    answer = await door.ask("GET", "/.well-known/jwks.json")
    assert (answer.status, answer.json, answer.headers["Content-Type"]) == (200, {"keys": []}, "application/json")
