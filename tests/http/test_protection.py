"""No answer is without the headers that keep browsers from misusing it, whoever gives it and whatever it is."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from regsvc.http.protection import NO_PAGE
from regsvc.http.reply import HTML_POLICY
from regsvc.http.routes import HTML, Route
from regsvc.http.server import Limits
from regsvc.http.table import routes
from tests.http.doorstep import Answer, Doorstep
from tests.http.tiny import calling, serving

TABLE = routes(development=True)
HSTS = "max-age=31536000; includeSubDomains"
LETTER = "mail_letter"  # what a mail looks like: the one page that may bring its own styles


@pytest.fixture(scope="module")
def shared() -> Doorstep:
    """One app for all that changes nothing: to build one takes longer than to ask it."""
    return Doorstep()


def assert_covered(headers: Mapping[str, str], *, page: bool = False) -> None:
    """Check what every answer has; `headers` by lower-case names."""
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["strict-transport-security"] == HSTS
    assert headers["content-security-policy"] == (HTML_POLICY if page else NO_PAGE)
    for name in ("server", "x-powered-by", "access-control-allow-origin", "vary"):
        assert name not in headers


def once(answer: Answer) -> dict[str, str]:
    """Return the headers by lower-case names; fail if one of them is there twice."""
    pairs = [(name.lower(), value) for name, value in answer.headers]
    assert len(dict(pairs)) == len(pairs), pairs
    return dict(pairs)


def path_of(route: Route) -> str:
    """Return a path of a route, with something in the place of each parameter."""
    named = {"name": "weak-password" if route.name == "problem" else "pages.css"}
    return route.path.format_map({**{one.name: "0" for one in route.parameters}, **named})


@pytest.mark.parametrize("route", TABLE, ids=lambda route: route.name)
async def test_every_route_answers_everything_covered(shared: Doorstep, route: Route) -> None:
    door = shared
    path = path_of(route)
    if route.name == "mail_events":  # it never ends; its head is that of HEAD
        answers = [await door.ask("HEAD", path)]
    else:
        answers = [await door.ask(route.method, path, headers={"Accept": "text/html"})]
    page = answers[0].status == 200 and answers[0].headers["Content-Type"].startswith(HTML)
    assert page == (route.name == "index" or (route.success.media_type == HTML and route.name != LETTER))
    assert_covered(once(answers[0]), page=page)
    options = await door.ask("OPTIONS", path)
    assert options.status == 204
    others = {"PUT", "PATCH", "DELETE"} - set(once(options)["allow"].split(", "))
    wrong = await door.ask(min(others, default="POST"), path)
    assert wrong.status == 405
    nowhere = await door.ask(route.method, f"{path}/nowhere/at/all")
    assert nowhere.status == 404
    for answer in (wrong, options, nowhere):
        assert_covered(once(answer))


@pytest.mark.parametrize(("method", "path", "status"), [("POST", "/v1/auth/logout", 204), ("GET", "/v1/users/me", 200)])
async def test_what_succeeds_is_covered(door: Doorstep, method: str, path: str, status: int) -> None:
    door.member()
    token = (await door.login())["access_token"]
    answer = await door.ask(method, path, bearer=token)
    assert answer.status == status
    assert_covered(once(answer))


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 17_000 + b"\r\n\r\n", 431),
        (b"POST /v1/users/register HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n", 413),
        (b"POST /v1/users/register HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n", 408),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /dev/mail/events HTTP/1.1\r\nHost: x\r\n\r\n", 200),
    ],
)
async def test_on_the_wire_it_is_covered_by_whoever_answers(shared: Doorstep, data: bytes, status: int) -> None:
    door = shared
    limits = Limits(body_arrives=0.05, linger=0.05)
    async with serving(door.app, limits=limits, refuse=door.knobs.at_the_door) as house, calling(house.port) as caller:
        await caller.say(data)
        line, *fields = (await caller.until(b"\r\n\r\n")).decode().rstrip().split("\r\n")
    assert int(line.split(" ")[1]) == status
    pairs = [tuple(field.split(": ", 1)) for field in fields]
    found = {name.lower(): value for name, value in pairs}
    assert len(found) == len(pairs), pairs
    assert_covered(found)


async def test_an_app_that_fails_altogether_is_covered(door: Doorstep, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> None:  # noqa: ASYNC124 - it stands in for the app
        raise ZeroDivisionError

    monkeypatch.setattr(door.app, "asgi_app", broken)
    async with serving(door.app, refuse=door.knobs.at_the_door) as house, calling(house.port) as caller:
        await caller.say(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await caller.answer()
    assert answer.status == 500
    assert_covered(answer.headers)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://id.example.org"])
async def test_without_tls_nobody_is_told_to_come_by_it(door: Doorstep, url: str) -> None:
    door.knobs = replace(door.knobs, public_url=url)
    answer = await door.ask("GET", "/livez")
    assert "Strict-Transport-Security" not in answer.headers
    head, _ = door.knobs.at_the_door(400, "MalformedRequest", "No.", "/", ())
    assert b"strict-transport-security" not in dict(head)


async def test_a_letter_has_its_own_policy(door: Doorstep) -> None:
    assert door.mailbox is not None
    mail = door.mailbox.drop(
        "a@example.org", subject="s", text="t", html="<p>h", raw=b"r", at=datetime(2026, 1, 1, tzinfo=UTC)
    )
    headers = once(await door.ask("GET", f"/dev/mail/messages/{mail.id}/letter"))
    assert "sandbox" in headers["content-security-policy"]
    assert "script-src" not in headers["content-security-policy"]
    assert headers["referrer-policy"] == "no-referrer"
