"""Every answer leaves by the same door: headers, ids, log line; unknown routes, bugs and foreign errors too."""

from collections.abc import Awaitable, Callable
from ipaddress import ip_network

import pytest
import trio
from quart import Response, abort
from werkzeug.datastructures import Headers
from werkzeug.routing import Map

from regsvc.http.caller import client_address, request_id
from regsvc.http.front import Front, Rule
from regsvc.http.problems import Writer
from regsvc.http.protection import Protection
from regsvc.http.quota import Turnstile
from regsvc.http.reply import View, Wording
from regsvc.http.routes import Route, Success, Tag
from regsvc.ports import Unavailable
from tests.flows.quota_fakes import Buckets, limited
from tests.http.doorstep import URL, Doorstep
from tests.http.tiny import calling, serving
from tests.lines import Lines

WORDING = Wording(Writer(URL), frozenset())
OPEN = Turnstile.of((), limited(Buckets()))

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

ASKED = [
    ("GET", "/livez", 200),
    ("HEAD", "/livez", 200),
    ("OPTIONS", "/livez", 204),
    ("GET", "/nowhere", 404),
    ("PUT", "/livez", 405),
    ("POST", "/v1/users/register", 400),
]
NOWHERE = [
    "/nowhere",
    "/v1/users/register/",
    "/v1//users/register",
    "/V1/users/register",
    "/api/v1/%00",
    "/livez/../readyz",
    "/problems/nothing",
    "/assets/../app.py",
    "/assets/app.py",
]


def front(view: Callable[[], Awaitable[Response]]) -> Doorstep:
    """A front with one route, `/it`, and its view."""
    views: dict[str, View] = {"it": view}
    door = Doorstep()
    table = [Route("it", "GET", "/it", Tag.OPERATIONS, "It", Success("It."))]
    door._app = Front(table, views, WORDING, (), OPEN, Protection())
    return door


async def test_every_answer_has_the_headers(door: Doorstep) -> None:
    for method, path, status in ASKED:
        answer = await door.ask(method, path, headers={"X-Request-ID": "my-1", "traceparent": TRACE})
        assert answer.status == status
        assert answer.headers["X-Request-ID"] == "my-1"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        version, trace, span, flags = answer.headers["traceparent"].split("-")
        assert (version, trace, flags) == ("00", TRACE.split("-")[1], "01")
        assert span != TRACE.split("-")[2]
        assert "Server" not in answer.headers


@pytest.mark.parametrize("given", ["a b", "", "x" * 129, "<script>", "ü", "a,b", "a/b", '"'])
def test_an_id_that_is_not_sane_is_replaced(given: str) -> None:
    made = request_id(Headers([("X-Request-Id", given)]))
    assert made != given
    assert len(made) == 32


def test_two_ids_are_none() -> None:
    assert request_id(Headers([("X-Request-Id", "a"), ("X-Request-Id", "b")])) not in {"a", "b"}


async def test_an_unknown_route_is_a_problem(door: Doorstep, log: Lines) -> None:
    for path in NOWHERE:
        (await door.ask("GET", path)).problem(404, "NotFound")
    lines = log.of("http_request")
    assert {line["route"] for line in lines} == {"unmatched", "/problems/{name}", "/assets/{name}"}
    assert {line["refusal"] for line in lines} == {"not_found"}


async def test_a_wrong_method_is_told_the_right_ones(door: Doorstep) -> None:
    answer = await door.ask("DELETE", "/v1/users/register")
    answer.problem(405, "MethodNotAllowed")
    assert answer.headers["Allow"] == "OPTIONS, POST"
    answer = await door.ask("POST", "/api/v1/messages")
    assert answer.problem(405, "MethodNotAllowed")["detail"]["error"] == "MethodNotAllowed"
    assert answer.headers["Allow"] == "DELETE, GET, HEAD, OPTIONS"


async def test_options_names_the_methods(door: Doorstep) -> None:
    answer = await door.ask("OPTIONS", "/api/v1/messages")
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["Allow"] == "DELETE, GET, HEAD, OPTIONS"


async def test_head_has_the_headers_of_get_and_no_body(door: Doorstep) -> None:
    async with serving(door.app) as house, calling(house.port) as caller:
        await caller.say(b"HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await caller.answer(body=False)
        await caller.say(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await caller.answer()).status == 200
    assert (answer.status, answer.headers["content-length"]) == (200, "15")
    assert "server" not in answer.headers


@pytest.mark.parametrize("host", ["", "a b", "\xff", "evil.example:99999", "[::1", "xn--a", "x" * 300, "a..b"])
async def test_what_the_client_calls_us_does_not_matter(door: Doorstep, host: str) -> None:
    async with serving(door.app) as house, calling(house.port) as caller:
        await caller.say(b"GET /livez HTTP/1.1\r\nHost: " + host.encode("latin-1") + b"\r\n\r\n")
        assert (await caller.answer()).status in {200, 400}


@pytest.mark.parametrize("query", ["%ff", "%00", "a=%ED%A0%80", "&&&===", "wait=1&wait=2", "%"])
async def test_no_query_is_a_5xx(door: Doorstep, query: str) -> None:
    for path in ("/livez", "/dev/mail/messages", "/api/v2/search", "/v1/users/registration"):
        assert (await door.ask("GET", f"{path}?{query}")).status < 500


async def test_a_bug_shows_its_request_id_and_nothing_else(log: Lines) -> None:
    async def view() -> Response:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError("hunter2 in /srv/secret.py")

    answer = await front(view).ask("GET", "/it")
    answer.problem(500, "InternalError")
    assert b"hunter2" not in answer.body
    assert b"Zero" not in answer.body
    (bug,) = log.of("http_bug")
    assert (bug["error"], bug["route"], bug["method"]) == ("ZeroDivisionError", "/it", "GET")
    assert bug["request_id"] == answer.json["instance"]
    assert "in view" in bug["traceback"]
    assert log.of("http_request")[0]["refusal"] == "internal_error"


async def test_every_leaf_of_a_group_is_logged_and_the_gravest_answers(log: Lines) -> None:
    async def view() -> Response:
        await trio.lowlevel.checkpoint()
        raise ExceptionGroup("lost", [Unavailable("database"), KeyError("one"), ExceptionGroup("in", [IndexError()])])

    (await front(view).ask("GET", "/it")).problem(500, "InternalError")
    assert [bug["error"] for bug in log.of("http_bug")] == ["KeyError", "IndexError"]


async def test_a_group_of_outages_is_an_outage(log: Lines) -> None:
    async def view() -> Response:
        await trio.lowlevel.checkpoint()
        raise ExceptionGroup("lost", [Unavailable("database"), ExceptionGroup("inner", [Unavailable("hasher")])])

    (await front(view).ask("GET", "/it")).problem(503, "ServiceUnavailable")
    assert log.of("http_bug") == []


async def test_a_request_that_meets_no_database_says_why_once_per_outage(log: Lines) -> None:
    outages = iter([Unavailable("hasher", "full"), Unavailable("transaction", "lost a race"), *[_full_disk()] * 2])

    async def view() -> Response:
        await trio.lowlevel.checkpoint()
        raise next(outages)

    for _ in range(4):
        assert (await front(view).ask("GET", "/it")).status == 503
    assert [line["reason"] for line in log.of("database_unavailable")] == ["No space left on device"]


def _full_disk() -> Unavailable:
    return Unavailable("database", "No space left on device")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "MalformedRequest"),
        (404, "NotFound"),
        (408, "RequestTimeout"),
        (413, "PayloadTooLarge"),
        (415, "UnsupportedMediaType"),
        (418, "MalformedRequest"),
    ],
)
async def test_what_quart_raises_becomes_a_problem(status: int, kind: str) -> None:
    async def view() -> Response:
        await trio.lowlevel.checkpoint()
        abort(status)

    answer = await front(view).ask("GET", "/it")
    answer.problem(400 if status == 418 else status, kind)


async def test_a_5xx_of_quart_is_a_bug(log: Lines) -> None:
    async def view() -> Response:
        await trio.lowlevel.checkpoint()
        abort(502)

    (await front(view).ask("GET", "/it")).problem(500, "InternalError")
    assert log.of("http_bug")[0]["error"] == "BadGateway"


async def test_cancellation_is_not_an_answer() -> None:
    async def view() -> Response:
        scope.cancel(reason="the test says so")
        await trio.sleep_forever()
        raise AssertionError

    door = front(view)
    with trio.CancelScope() as scope:
        await door.ask("GET", "/it")
    assert scope.cancelled_caught


async def test_whoever_stops_the_process_is_not_answered() -> None:
    async def view() -> Response:
        await trio.lowlevel.checkpoint()
        raise BaseExceptionGroup("stop", [KeyError("one"), KeyboardInterrupt()])

    with pytest.RaisesGroup(KeyError, KeyboardInterrupt, flatten_subgroups=True):
        await front(view).ask("GET", "/it")


async def test_why_a_request_was_unreadable_is_said_for_debugging(door: Doorstep, log: Lines) -> None:
    await door.ask("POST", "/v1/users/register", raw=b"{nonsense")
    await door.ask("POST", "/v1/users/register", {"email": "alice.hunter2", "password": "hunter2", "hunter2": 1})
    first, second = log.of("request_unreadable")
    assert first["level"] == "debug"
    assert first["reason"].startswith("The body is not JSON: ")
    assert set(second["reason"].split(", ")) == {"invalid_email", "too_short", "unknown_field"}
    assert b"hunter2" not in log.getvalue()


def test_a_table_and_views_that_do_not_agree_are_no_app() -> None:
    with pytest.raises(ValueError, match="do not agree on it"):
        Front([Route("it", "GET", "/it", Tag.OPERATIONS, "It", Success("It."))], {}, WORDING, (), OPEN, Protection())


# ------------------------------------------------------------------------------------------------- the client's address

INSIDE = [ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9, 10.0.0.2"], "203.0.113.9"),
        ("10.0.0.1", ["6.6.6.6, 203.0.113.9", "10.0.0.2"], "203.0.113.9"),
        ("10.0.0.1", ["6.6.6.6, 203.0.113.9:4711"], "203.0.113.9"),
        ("10.0.0.1", ["[2001:db9::1]:4711"], "2001:db9::1"),
        ("10.0.0.1", ["2001:db9::1"], "2001:db9::1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["6.6.6.6, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["<script>"], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("2001:db8::5", ["203.0.113.9"], "203.0.113.9"),
        ("203.0.113.7", ["6.6.6.6"], "203.0.113.7"),
        ("no address", ["6.6.6.6"], "no address"),
        (None, ["6.6.6.6"], None),
    ],
)
def test_only_trusted_proxies_say_who_asks(peer: str | None, forwarded: list[str], address: str | None) -> None:
    assert client_address(peer, forwarded, INSIDE) == address


def test_without_trusted_proxies_nobody_is_believed() -> None:
    assert client_address("10.0.0.1", ["203.0.113.9"], []) == "10.0.0.1"


def test_a_rule_makes_the_code_for_its_url_when_it_is_asked_for_one() -> None:
    rule = Rule("/people/<name>", endpoint="person")
    Map([rule])
    assert rule.build({"name": "kim"}) == ("", "/people/kim")
    assert rule.build({"name": "kim", "page": "2"}) == ("", "/people/kim?page=2")
    assert rule.build({"name": "kim", "page": "2"}, append_unknown=False) == ("", "/people/kim")
