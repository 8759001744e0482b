"""Administrators as a client sees them: who may, before anything else is looked at, and what they are answered."""

import base64
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from regsvc.domain.account import Address, Claim
from regsvc.domain.session import Role, User
from regsvc.domain.values import EmailKey, Secret, Username
from regsvc.http.routes import EVENTS, Route
from regsvc.http.table.staff import STAFF
from tests.flows.fakes import START
from tests.http.doorstep import PASSWORD, Answer, Doorstep
from tests.lines import Lines

TOKEN = "a-token-for-machines-0123456789-0123456789"
NOBODY = UUID(int=0xFFFF)
BODIES = {"staff_change_user": {"role": "user"}}


@pytest.fixture
def door(door: Doorstep) -> Doorstep:
    """A service with a token for machines."""
    door.knobs = replace(door.knobs, admin_token=Secret(TOKEN))
    return door


async def token_of(door: Doorstep, user: User) -> str:
    """Log in, and return the access token."""
    told: str = (await door.login(user.email, PASSWORD))["access_token"]
    return told


async def boss(door: Doorstep, name: str = "boss") -> tuple[User, str]:
    """An administrator, logged in."""
    user = door.member(f"{name}@example.org", role=Role.ADMIN)
    return user, await token_of(door, user)


def path(route: Route, user: UUID = NOBODY, mail: UUID = NOBODY) -> str:
    return route.path.format(user_id=user, mail_id=mail)


async def call(door: Doorstep, route: Route, target: str, bearer: str | None, method: str | None = None) -> Answer:
    return await door.ask(method or route.method, target, BODIES.get(route.name), bearer=bearer)


# ------------------------------------------------------------------------------------------------- who may


@pytest.mark.parametrize("route", STAFF, ids=lambda route: route.name)
async def test_nobody_is_let_in_but_administrators(door: Doorstep, route: Route) -> None:
    _, good = await boss(door)
    user = door.member("user@example.org")
    disabled, of_disabled = await boss(door, "disabled")
    demoted, of_demoted = await boss(door, "demoted")
    target = door.member("target@example.org")
    mail = door.shelf.letter(target.id)
    as_user = await token_of(door, user)
    done = await door.ask("PATCH", f"/v1/admin/users/{disabled.id}", {"disabled": True}, bearer=good)
    assert done.status == 200
    assert (await door.ask("PATCH", f"/v1/admin/users/{demoted.id}", {"role": "user"}, bearer=good)).status == 200

    before = (dict(door.shelf.users), dict(door.shelf.letters), door.shelf.deeds())
    for place in (path(route, target.id, mail.id), path(route), path(route).replace(str(NOBODY), "..%00")):
        (await call(door, route, place, None)).problem(401, "InvalidAccessToken")
        for bad in ("nonsense", TOKEN[:-1], TOKEN + "0", of_disabled):
            (await call(door, route, place, bad)).problem(401, "InvalidAccessToken")
        for other in (as_user, of_demoted):
            (await call(door, route, place, other)).problem(403, "Forbidden")
    assert before == (door.shelf.users, door.shelf.letters, door.shelf.deeds())

    method = "HEAD" if route.success.media_type == EVENTS else None  # a stream has no end
    for bearer in (TOKEN, good):
        assert (await call(door, route, path(route, target.id, mail.id), bearer, method)).status < 300
        door.shelf.put(target)
        door.shelf.letters[mail.id] = mail


@pytest.mark.parametrize("route", STAFF, ids=lambda route: route.name)
async def test_whoever_may_not_learns_nothing_from_his_answer(door: Doorstep, route: Route) -> None:
    """Ids, queries and bodies of all kinds are answered alike, to the byte but for the request's id."""
    target = door.member("target@example.org")
    as_user = await token_of(door, door.member("user@example.org"))
    told = set()
    for place in (path(route, target.id), path(route), path(route) + "?limit=x&cursor=!&state=odd&subject=1&query=%00"):
        for raw in (None, b"{", b'{"disabled": 1}', b"{}"):
            answer = await door.ask(route.method, place, raw=raw, bearer=as_user)
            told.add(json.dumps(answer.problem(403, "Forbidden") | {"instance": ""}))
    assert len(told) == 1


async def test_without_a_token_for_machines_there_is_none(door: Doorstep) -> None:
    door.knobs = replace(door.knobs, admin_token=None)
    (await door.ask("GET", "/v1/admin/users", bearer=TOKEN)).problem(401, "InvalidAccessToken")
    (await door.ask("GET", "/v1/admin/users", who=f"boss@example.org:{PASSWORD}")).problem(401, "InvalidAccessToken")


async def test_both_prefixes_lead_there_and_no_other(door: Doorstep) -> None:
    assert (await door.ask("GET", "/api/v1/admin/users", bearer=TOKEN)).status == 200
    (await door.ask("GET", "/admin/users", bearer=TOKEN)).problem(404, "NotFound")


# ------------------------------------------------------------------------------------------------- accounts


async def test_an_account_is_shown_changed_and_deleted(door: Doorstep, log: Lines) -> None:
    admin, bearer = await boss(door)
    ada = door.member("Ada@example.org", username=Username("Ada", "ada"))
    door.shelf.login(ada)
    place = f"/v1/admin/users/{ada.id}"
    shown = (await door.ask("GET", place, bearer=bearer)).json
    assert shown == {
        "id": str(ada.id),
        "email": "Ada@example.org",
        "username": "Ada",
        "locale": None,
        "state": "active",
        "role": "user",
        "created_at": "2026-11-20T11:00:00.000Z",
        "activated_at": "2026-11-20T11:00:00.000Z",
        "disabled_at": None,
    }
    changed = await door.ask("PATCH", place, {"disabled": True, "role": "admin"}, bearer=bearer)
    assert changed.json == shown | {"state": "disabled", "role": "admin", "disabled_at": shown["created_at"]}
    assert (await door.ask("GET", f"{place}/sessions", bearer=bearer)).json == {"sessions": []}
    assert (await door.ask("PATCH", place, {"disabled": False}, bearer=bearer)).json["state"] == "active"
    gone = await door.ask("DELETE", place, bearer=bearer)
    assert (gone.status, gone.body) == (204, b"")
    (await door.ask("GET", place, bearer=bearer)).problem(404, "NotFound")
    names = ["user_disabled", "user_promoted", "user_enabled", "user_deleted"]
    assert [line["action"] for line in log.of("staff_acted")] == names
    assert {line["actor_id"] for line in log.of("staff_acted")} == {str(admin.id)}
    assert log.of("http_request")[-1]["user_id"] == str(admin.id)


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ({}, "disabled", "missing"),
        ({"disabled": 1}, "disabled", "not_a_boolean"),
        ({"disabled": None}, "disabled", "not_a_boolean"),
        ({"role": "root"}, "role", "unknown_role"),
        ({"role": None}, "role", "unknown_role"),
        ({"role": ["admin"]}, "role", "unknown_role"),
        ({"role": "admin", "email": "x"}, "email", "unknown_field"),
    ],
)
async def test_a_change_that_is_none_is_refused(door: Doorstep, body: Any, field: str, code: str) -> None:
    ada = door.member()
    answer = await door.ask("PATCH", f"/v1/admin/users/{ada.id}", body, bearer=TOKEN)
    (fault,) = answer.problem(422, "ValidationError")["errors"]
    assert (fault["field"], fault["code"]) == (field, code)


async def test_the_last_administrator_stays(door: Doorstep) -> None:
    admin, bearer = await boss(door)
    place = f"/v1/admin/users/{admin.id}"
    for body in ({"disabled": True}, {"role": "user"}):
        (await door.ask("PATCH", place, body, bearer=bearer)).problem(409, "LastAdmin")
    (await door.ask("DELETE", place, bearer=bearer)).problem(409, "LastAdmin")
    assert door.shelf.users[admin.id] == admin


@pytest.mark.parametrize("route", [route for route in STAFF if "{" in route.path], ids=lambda route: route.name)
@pytest.mark.parametrize("unknown", [str(NOBODY), "1", str(NOBODY).replace("-", ""), f"{{{NOBODY}}}"])
async def test_what_is_not_there_is_not_found(door: Doorstep, route: Route, unknown: str) -> None:
    place = route.path.format(user_id=unknown, mail_id=unknown)
    (await call(door, route, place, TOKEN)).problem(404, "NotFound")


async def test_sessions_are_listed_and_ended(door: Doorstep) -> None:
    ada = door.member()
    door.shelf.login(ada)
    place = f"/v1/admin/users/{ada.id}/sessions"
    (session,) = (await door.ask("GET", place, bearer=TOKEN)).json["sessions"]
    assert (session["device"], session["ip"]) == ("curl", "192.0.2.7")
    assert session.keys() == {"id", "device", "ip", "created_at", "last_used_at", "expires_at"}
    for _ in range(2):
        assert (await door.ask("DELETE", place, bearer=TOKEN)).status == 204
    assert (await door.ask("GET", place, bearer=TOKEN)).json == {"sessions": []}
    (event,) = door.shelf.published()
    assert (event.name, event.data["by"]) == ("admin.sessions_ended", "admin_token")


async def test_accounts_are_listed_page_by_page(door: Doorstep) -> None:
    for n in range(5):
        door.member(f"user{n}@example.org")
    claim = Claim(UUID(int=3), "eve@example.org", "hash", START, START, START, Username("Eve", "eve"))
    door.shelf.addresses[EmailKey(claim.email)] = Address(claims=(claim,))
    seen, place = [], "/v1/admin/users?limit=2&query=USER"
    while place:
        page = (await door.ask("GET", place, bearer=TOKEN)).json
        seen += [user["email"] for user in page["users"]]
        place = page["next"] and f"/v1/admin/users?limit=2&query=USER&cursor={page['next']}"
    assert seen == [f"user{n}@example.org" for n in (4, 3, 2, 1, 0)]
    (pending,) = (await door.ask("GET", "/v1/admin/users?state=pending&query=", bearer=TOKEN)).json["users"]
    assert (pending["state"], pending["activated_at"], pending["username"]) == ("pending", None, "Eve")
    shown = await door.ask("GET", f"/v1/admin/users/{pending['id']}", bearer=TOKEN)
    assert shown.json == pending
    (await door.ask("DELETE", f"/v1/admin/users/{pending['id']}", bearer=TOKEN)).problem(404, "NotFound")


# ------------------------------------------------------------------------------------------- mails and events


async def test_dead_mails_are_listed_retried_and_discarded(door: Doorstep) -> None:
    ada = door.member()
    first, second = (door.shelf.letter(ada.id, number=n) for n in (1, 2))
    page = (await door.ask("GET", "/v1/admin/mails?state=dead&limit=1", bearer=TOKEN)).json
    (mail,) = page["mails"]
    assert (mail["id"], mail["last_error"], mail["subject_id"]) == (str(second.id), "550 no", str(ada.id))
    rest = (await door.ask("GET", f"/v1/admin/mails?cursor={page['next']}", bearer=TOKEN)).json
    assert ([one["id"] for one in rest["mails"]], rest["next"]) == ([str(first.id)], None)
    for verb, id_, raw in (("retry", first.id, None), ("discard", second.id, b"{}")):
        place = f"/v1/admin/mails/{id_}/{verb}"
        answer = await door.ask("POST", place, raw=raw, bearer=TOKEN)
        assert (answer.status, answer.body) == (204, b"")
        (await door.ask("POST", place, bearer=TOKEN)).problem(404, "NotFound")
        (await door.ask("POST", place, {"all": True}, bearer=TOKEN)).problem(422, "ValidationError")
    assert door.shelf.deeds() == [("admin.mail_retried", ada.id), ("admin.mail_discarded", ada.id)]


async def test_the_trail_is_read_by_subject_name_and_page(door: Doorstep) -> None:
    admin, bearer = await boss(door)
    ada, bob = door.member("ada@example.org"), door.member("bob@example.org")
    for user, disabled in ((ada, True), (bob, True), (ada, False)):
        await door.ask("PATCH", f"/v1/admin/users/{user.id}", {"disabled": disabled}, bearer=bearer)
        door.shelf.now += timedelta(seconds=1)

    async def read(query: str) -> tuple[list[tuple[str, str]], str | None]:
        found = (await door.ask("GET", f"/v1/admin/events?{query}", bearer=TOKEN)).json
        return [(one["name"].removeprefix("admin.user_"), one["subject_id"]) for one in found["events"]], found["next"]

    first, cursor = await read("limit=2")
    assert first == [("enabled", str(ada.id)), ("disabled", str(bob.id))]
    assert await read(f"limit=2&cursor={cursor}") == ([("disabled", str(ada.id))], None)
    assert len((await read(f"subject={ada.id}"))[0]) == 2
    assert await read(f"subject={ada.id}&name=admin.user_disabled") == ([("disabled", str(ada.id))], None)
    (event, *_) = (await door.ask("GET", "/v1/admin/events", bearer=TOKEN)).json["events"]
    assert (event["actor_id"], event["data"], event["at"]) == (str(admin.id), {}, "2026-11-20T11:00:02.000Z")


FAR = base64.urlsafe_b64encode(b"\x7f" + bytes(23)).decode()


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("users?limit=0", "limit"),
        ("users?limit=201", "limit"),
        ("users?limit=-1", "limit"),
        ("users?limit=%D9%A1", "limit"),
        ("users?state=dead", "state"),
        ("users?cursor=", "cursor"),
        ("users?cursor=AAAA", "cursor"),
        (f"users?cursor={FAR}", "cursor"),
        ("mails?state=pending", "state"),
        ("mails?cursor=!", "cursor"),
        ("events?subject=7", "subject"),
        ("events?limit=x", "limit"),
        ("events?cursor=AAAAAAAAAAAAAAAAAAAAAA", "cursor"),
        (f"events?cursor={FAR}", "cursor"),
    ],
)
async def test_a_query_that_is_none_is_refused(door: Doorstep, query: str, field: str) -> None:
    (fault,) = (await door.ask("GET", f"/v1/admin/{query}", bearer=TOKEN)).problem(422, "ValidationError")["errors"]
    assert fault["field"] == field


@pytest.mark.parametrize("query", ["users?query=%00", "events?name=%00"])
async def test_a_nul_is_malformed(door: Doorstep, query: str) -> None:
    (await door.ask("GET", f"/v1/admin/{query}", bearer=TOKEN)).problem(400, "MalformedRequest")
