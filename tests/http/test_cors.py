"""Pages of listed origins may call and read what is answered, whatever it is; all others are told nothing of it."""

from dataclasses import replace

import pytest

from regsvc.http.cors import EXPOSED, Cors
from regsvc.http.protection import AtTheDoor, Protection
from regsvc.http.routes import Route
from regsvc.http.server import Limits
from regsvc.http.table import routes
from tests.http.doorstep import URL, Answer, Doorstep
from tests.http.tiny import Answer as Wired
from tests.http.tiny import calling, serving

APP = "https://app.example.org"
OTHER = "http://localhost:5173"
UNLISTED = [
    "https://evil.example",
    "null",
    "*",
    "",
    "HTTPS://APP.EXAMPLE.ORG",
    f"{APP}:443",
    f"{APP}/",
    f"{APP}.evil.example",
    f"{APP} {OTHER}",
    f"{APP}, {OTHER}",
    APP.replace("https", "http"),
    URL,
]


@pytest.fixture(scope="module")
def open_door() -> Doorstep:
    """A service that two origins may call."""
    door = Doorstep()
    door.knobs = replace(door.knobs, cors_origins=(APP, OTHER))
    return door


def told(answer: Answer | Wired) -> dict[str, str]:
    """Return what an answer says to browsers of other origins."""
    pairs = answer.headers.items() if isinstance(answer.headers, dict) else list(answer.headers)
    return {name.lower(): value for name, value in pairs if name.lower().startswith("access-control-")}


async def preflight(door: Doorstep, path: str, method: str, *origins: str) -> Answer:
    lines = [("Origin", origin) for origin in origins]
    return await door.ask("OPTIONS", path, headers=[*lines, ("Access-Control-Request-Method", method)])


@pytest.mark.parametrize("route", routes(development=True), ids=lambda route: route.name)
async def test_a_listed_page_is_told_what_it_may_send_to_every_route(open_door: Doorstep, route: Route) -> None:
    for path in route.paths:
        answer = await preflight(open_door, path.replace("{", "").replace("}", ""), route.method, OTHER)
        assert (answer.status, answer.body) == (204, b"")
        found = told(answer)
        assert route.method in found.pop("access-control-allow-methods").split(", ")
        assert found == {
            "access-control-allow-origin": OTHER,
            "access-control-allow-headers": "Authorization, Content-Type, Idempotency-Key, X-Request-ID, traceparent",
            "access-control-max-age": "600",
        }
        assert answer.headers.getlist("Vary") == ["Origin"]


ASKED = [
    ("GET", "/livez", 200),
    ("GET", "/nowhere", 404),
    ("PUT", "/livez", 405),
    ("POST", "/v1/users/register", 400),
    ("GET", "/v1/users/me", 401),
    ("GET", "/dev/mail", 200),
    ("GET", "/dev/mail/events", 200),
    ("HEAD", "/livez", 200),
]


@pytest.mark.parametrize(("method", "path", "status"), ASKED)
async def test_a_listed_page_may_read_every_answer(open_door: Doorstep, method: str, path: str, status: int) -> None:
    if path.endswith("/events"):
        method = "HEAD"
    answer = await open_door.ask(method, path, headers={"Origin": APP})
    assert answer.status == status
    assert told(answer) == {"access-control-allow-origin": APP, "access-control-expose-headers": EXPOSED}
    assert answer.headers.getlist("Vary") == ["Origin"]


@pytest.mark.parametrize("origin", UNLISTED)
async def test_any_other_page_is_told_nothing(open_door: Doorstep, origin: str) -> None:
    for answer in (
        await preflight(open_door, "/v1/users/register", "POST", origin),
        await open_door.ask("GET", "/livez", headers={"Origin": origin}),
        await open_door.ask("GET", "/nowhere", headers={"Origin": origin}),
    ):
        assert answer.status in {200, 204, 404}
        assert told(answer) == {}
        assert answer.headers.getlist("Vary") == ["Origin"], "what is stored for it is not for others"


async def test_two_origins_are_none(open_door: Doorstep) -> None:
    answer = await preflight(open_door, "/v1/users/register", "POST", APP, APP)
    assert (answer.status, told(answer)) == (204, {})


async def test_who_names_no_origin_is_told_only_that_it_matters(open_door: Doorstep) -> None:
    answer = await open_door.ask("GET", "/livez")
    assert (told(answer), answer.headers.getlist("Vary")) == ({}, ["Origin"])
    options = await open_door.ask("OPTIONS", "/livez", headers={"Access-Control-Request-Method": "GET"})
    assert (told(options), options.headers["Allow"]) == ({}, "GET, HEAD, OPTIONS")


async def test_options_that_is_no_preflight_is_an_answer_like_others(open_door: Doorstep) -> None:
    answer = await open_door.ask("OPTIONS", "/livez", headers={"Origin": APP})
    assert told(answer) == {"access-control-allow-origin": APP, "access-control-expose-headers": EXPOSED}


async def test_where_nothing_is_listed_nothing_is_said(door: Doorstep) -> None:
    for answer in (
        await preflight(door, "/v1/users/register", "POST", APP),
        await door.ask("GET", "/livez", headers={"Origin": APP}),
    ):
        assert told(answer) == {}
        assert "Vary" not in answer.headers


async def test_cookies_come_along_only_where_there_are_any(open_door: Doorstep) -> None:
    kept = Doorstep(knobs=replace(open_door.knobs, cookies=True))
    for door, allowed in ((open_door, None), (kept, "true")):
        for answer in (
            await preflight(door, "/v1/auth/refresh", "POST", APP),
            await door.ask("POST", "/v1/auth/refresh", {}, headers={"Origin": APP}),
        ):
            assert told(answer).get("access-control-allow-credentials") == allowed
            assert told(answer)["access-control-allow-origin"] == APP
    unlisted = await preflight(kept, "/v1/auth/refresh", "POST", "https://evil.example")
    assert told(unlisted) == {}


async def test_a_preflight_costs_none_of_the_limits(open_door: Doorstep) -> None:
    answer = await preflight(open_door, "/v1/users/register", "POST", APP)
    assert not [name for name, _ in answer.headers if "ratelimit" in name.lower()]


BEFORE_THE_APP = [
    (b"POST /v1/users/register HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n", 413),
    (b"POST /v1/users/register HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
    (b"POST /v1/users/register HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n", 408),
    (b"BREW /livez HTTP/1.1\r\nHost: x\r\n", 400),
]


@pytest.mark.parametrize(("head", "status"), BEFORE_THE_APP)
@pytest.mark.parametrize("origin", [APP, "https://evil.example"])
async def test_what_the_server_refuses_can_be_read_too(
    open_door: Doorstep, head: bytes, status: int, origin: str
) -> None:
    limits = Limits(body_arrives=0.05, linger=0.05)
    async with (
        serving(open_door.app, limits=limits, refuse=open_door.knobs.at_the_door) as house,
        calling(house.port) as caller,
    ):
        await caller.say(head + b"Origin: " + origin.encode() + b"\r\n\r\n")
        answer = await caller.answer()
    listed = {"access-control-allow-origin": APP, "access-control-expose-headers": EXPOSED}
    assert (answer.status, told(answer)) == (status, listed if origin == APP else {})
    assert answer.headers["vary"] == "Origin"


async def test_the_origin_of_one_request_is_not_that_of_the_next(open_door: Doorstep) -> None:
    async with (
        serving(open_door.app, refuse=open_door.knobs.at_the_door) as house,
        calling(house.port) as caller,
    ):
        await caller.say(
            b"GET /livez HTTP/1.1\r\nHost: x\r\nOrigin: " + APP.encode() + b"\r\n\r\n" + b"nonsense\r\n\r\n"
        )
        assert told(await caller.answer())["access-control-allow-origin"] == APP
        refused = await caller.answer()
    assert (refused.status, told(refused)) == (400, {})


def test_bytes_that_are_no_origin_are_none() -> None:
    at_the_door = AtTheDoor(Doorstep().knobs.writer, Protection(cors=Cors(frozenset({APP}))))
    head, _ = at_the_door(413, "PayloadTooLarge", "Too much.", "/", [b"\xff\x00"])
    assert dict(head)[b"vary"] == b"Origin"
    assert b"access-control-allow-origin" not in dict(head)
