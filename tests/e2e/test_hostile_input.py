"""Anything in a body, a header, a path or a query of a real service: no 5xx, and each refusal is one of the table's."""

import base64
import json
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import pytest
import trio

from regsvc.http import kinds
from regsvc.http.routes import EVENTS, Auth, Route, Tag
from regsvc.http.table import routes
from tests.e2e.people import Person, client, new_email, on_database, somebody
from tests.e2e.plain import Asking, Lines, Plain, ask_all, problem
from tests.e2e.provoking import MACHINE, form, proof
from tests.http.hostile_json import TEXTS, bodies
from tests.http.tiny import Answer
from tests.postgres import temporary_cluster
from tests.service import Service
from tests.waiting import until

TABLE = routes(development=True)
FORMS = [route for route in TABLE if route.body is not None]
NOWHERE = "01939d6e-77c8-7d2b-9a53-2f6f1c1b4c0e"
JSON = (b"Content-Type", b"application/json")
ANYWHERE = {kind.name for kind in (kinds.MALFORMED_REQUEST, kinds.HEADERS_TOO_LARGE, kinds.NOT_FOUND)}
INSIDE = (b"Traceback", b"asyncpg", b"SELECT ", b"psql", b"regsvc.http", b"site-packages")


@dataclass
class House:
    """The service, and three who are known to it."""

    service: Service
    alice: Person  # with an account, logged in
    carol: Person  # registered, no more
    victim: Person  # whom staff may do anything to

    def shown(self, route: Route) -> Lines:
        """Return the headers that let somebody in."""
        who = self.carol if route.auth is Auth.BASIC else self.alice
        return [(name.encode(), value.encode()) for name, value in proof(route, who).items()]

    def good(self, route: Route) -> dict[str, object]:
        """Return a body that is good, but does not take away who is known."""
        body = form(route, self.alice) or {}
        wrong = {"remove_me": "password", "change_password": "current_password"}
        return body | ({wrong[route.name]: "not the password"} if route.name in wrong else {})


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="regsvc ")))
        cluster = stack.enter_context(temporary_cluster())
        loud = {"LOG_LEVEL": "debug", "TRUSTED_PROXIES": "127.0.0.1/32", "RESENDS_PER_HOUR": "1"}
        [service] = stack.enter_context(on_database(folder, cluster.dsn, 1, **loud))
        yield House(service, *trio.run(_people, service))
        assert_well(service)


async def _people(service: Service) -> tuple[Person, Person, Person]:
    async with client(service) as http:
        carol = Person(http, new_email("carol"))
        assert (await carol.register()).status_code == 201
        return await somebody(http, "alice"), carol, await somebody(http, "victim")


def assert_well(service: Service) -> None:
    """Check that nothing went wrong inside, and that each line of the log is one."""
    assert service.process is not None
    assert service.process.poll() is None
    for line in service.log.read_bytes().split(b"\n")[:-1]:
        if line.startswith(b"regsvc: "):  # where it is, on standard error
            continue
        event = json.loads(line)["event"]
        assert event not in {"http_bug", "connection_contained", "actor_crashed", "worker_exited"}, line


def assert_of_the_table(route: Route, answer: Answer, also: set[str] | frozenset[str] = frozenset()) -> str:
    """Check that an answer is one that the table has for the route; return its name."""
    assert answer.status < 500, answer
    assert answer.headers["x-content-type-options"] == "nosniff"
    if answer.status < 400:
        assert answer.status == route.success.status
        return "good"
    found = problem(answer)
    assert found["error"] in {kind.name for kind in route.problems} | also, (route.name, found)
    assert not [word for word in INSIDE if word in answer.body]
    name: str = found["error"]
    return name


def at(route: Route, known: str = NOWHERE) -> bytes:
    """Return the path of a route."""
    return route.path.format_map(dict.fromkeys([one.name for one in route.parameters], known)).encode()


# ------------------------------------------------------------------------------------------------- bodies


def hostile_bodies(house: House, seed: int) -> Iterator[tuple[Route, Asking]]:
    """Yield requests to each route with a body in turn, for ever."""
    dice = random.Random(seed)
    made = {route.name: bodies(house.good(route), seed + n) for n, route in enumerate(FORMS)}
    for route in cycle(FORMS):
        known = house.victim.id if dice.random() < 0.5 else NOWHERE
        path = dice.choice(route.paths).replace("{user_id}", known).replace("{mail_id}", known)
        shown = house.shown(route) if dice.random() < 0.95 else ()
        yield route, Asking(route.method, path.encode(), [JSON, *shown], next(made[route.name]))


async def test_no_body_at_any_route_is_a_5xx(house: House, rounds: int | None) -> None:
    """`--rounds 20000` is the large form."""
    seen: dict[str, Counter[str]] = {route.name: Counter() for route in FORMS}
    asked: dict[int, Route] = {}

    def askings() -> Iterator[Asking]:
        for route, asking in islice(hostile_bodies(house, seed=4), rounds or 600):
            asked[id(asking)] = route
            yield asking

    def judge(asking: Asking, answer: Answer) -> None:
        route = asked.pop(id(asking))
        seen[route.name][assert_of_the_table(route, answer)] += 1

    await ask_all(house.service.port, askings(), judge)
    total = sum((counter for counter in seen.values()), Counter[str]())
    print(total)  # noqa: T201 - `pytest -s`
    assert total.keys() >= {"good", "MalformedRequest", "ValidationError", "PayloadTooLarge"}
    for route in FORMS:
        assert seen[route.name]["MalformedRequest"], f"{route.name} was never asked what is no JSON"
        assert len(seen[route.name]) > 1, f"{route.name} never looked further than the JSON"


MEDIA_TYPES = [
    b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=x", b"text/plain", b"text/json", b"*/*", b"",
    b"application/xml", b"application/json, text/plain", b"application/problem+json", b";application/json",
    b"application/json;charset=utf-16",
    b"application/json; charset=latin-1", b"application/" + b"x" * 5000, b"\xff", b";;;", b"application/json/x",
]  # fmt: skip


@pytest.mark.parametrize("route", FORMS, ids=lambda route: route.name)
async def test_only_json_is_read(house: House, route: Route) -> None:
    body = json.dumps(house.good(route)).encode()
    lines: list[Lines] = [[(b"Content-Type", one)] for one in MEDIA_TYPES]
    lines += [[], [JSON, JSON], [JSON, (b"Content-Type", b"text/plain")]]
    lines += [[JSON, (b"Content-Encoding", coding)] for coding in (b"gzip", b"br", b"deflate, gzip", b"\xff", b"x")]
    async with Plain(house.service.port) as plain:
        for some in lines:
            answer = await plain.ask(Asking(route.method, at(route), [*some, *house.shown(route)], body))
            assert assert_of_the_table(route, answer) == "UnsupportedMediaType", (some, answer)


# ------------------------------------------------------------------------------------------------- headers


def hostile_basics(who: str, seed: int) -> Iterator[bytes]:
    """Yield values of Authorization, for ever; none of them lets anybody in."""
    dice = random.Random(seed)
    good = base64.b64encode(who.encode())

    def word() -> bytes:
        return dice.choice(TEXTS).encode("utf-8", "surrogatepass")[:3000]

    ways = (
        lambda: b"Basic " + base64.b64encode(word() + b":" + word()),
        lambda: b"Basic " + base64.b64encode(dice.randbytes(dice.randrange(60))),
        lambda: b"Basic " + base64.b64encode(word()),
        lambda: b"Basic " + base64.urlsafe_b64encode(b"\xff\xfe:" + word()),
        lambda: b"Basic " + good[: dice.randrange(len(good))] + dice.choice((b"=", b"==", b"===", b"%", b" ", b"")),
        lambda: b"Basic " + good + dice.choice((b"=", b"====", b"\xe9", b",", b' realm="x"', b" " + good)),
        lambda: dice.choice((b"Basic", b"Basic\t", b"BasicX ", b"Bearer ", b"Digest ", b"Negotiate ", b"")) + good,
        lambda: b"Basic " + b"A" * dice.choice((4, 4096, 12_000, 15_000, 17_000)),
        lambda: b"Basic " + base64.b64encode(who.encode("utf-16")),
        lambda: b"Basic " + base64.b64encode(who.replace("@", "\0@").encode()),
        lambda: dice.randbytes(dice.randrange(40)).translate(None, b"\r\n"),
        lambda: word().replace(b"\r", b"").replace(b"\n", b""),
    )
    while True:
        if (value := dice.choice(ways)()) != b"Basic " + good:
            yield value


async def test_no_basic_header_is_a_5xx(house: House, rounds: int | None) -> None:
    """`--rounds 20000` sends 2,000."""
    by_basic = [route for route in TABLE if route.auth is Auth.BASIC]
    whose = f"{house.carol.email}:{house.carol.password}"
    seen = Counter[str]()

    def askings() -> Iterator[Asking]:
        values = islice(hostile_basics(whose, seed=5), (rounds or 2000) // 10)
        for route, value in zip(cycle(by_basic), values, strict=False):
            lines = [JSON, (b"Authorization", value)] if route.body else [(b"Authorization", value)]
            yield Asking(route.method, at(route), lines, b'{"code":"0428"}' if route.name == "activate" else None)

    def judge(asking: Asking, answer: Answer) -> None:
        assert answer.status in {400, 401, 431}, (asking, answer)
        seen[problem(answer)["error"]] += 1
        if answer.status == 401:
            assert answer.headers["www-authenticate"] == 'Basic realm="regsvc", charset="UTF-8"'

    await ask_all(house.service.port, askings(), judge)
    assert seen.keys() >= {"InvalidCredentials", "MalformedRequest"}


async def test_no_bearer_header_is_a_5xx(house: House, rounds: int | None) -> None:
    protected = [route for route in TABLE if route.auth is Auth.BEARER]
    token = house.alice.access
    dice = random.Random(6)

    def forged() -> bytes:
        end = dice.randrange(len(token))
        kept = (token[:end], token[:end] + "." + token[end:], token.replace(".", "", 1), token + "=")
        more = (f"{token} {token}", f"{token}, Bearer x", f"{token[:-3]}\xff", f"\t{token[1:]}")
        odd = (*more, dice.choice(TEXTS), "A" * 5000, "a.b.c", "..")
        return b"Bearer " + dice.choice((*kept, *odd)).encode("utf-8", "surrogatepass").translate(None, b"\r\n")

    def askings() -> Iterator[Asking]:
        for route in islice(cycle(protected), (rounds or 2000) // 10):
            yield Asking(route.method, at(route), [(b"Authorization", forged())])

    def judge(asking: Asking, answer: Answer) -> None:
        assert answer.status in {400, 401, 431}, (asking, answer)
        problem(answer)

    await ask_all(house.service.port, askings(), judge)


ODD_HEADERS: list[tuple[str, bytes, Lines, bytes | None, int]] = [
    ("GET", b"/livez", [(b"Range", b"bytes=0-3")], None, 200),
    ("GET", b"/assets/pages.css", [(b"Range", b"bytes=0-3,5-9"), (b"If-Range", b"x")], None, 200),
    ("GET", b"/assets/pages.css", [(b"If-Modified-Since", b"Fri, 01 Jan 2100 00:00:00 GMT")], None, 200),
    ("GET", b"/assets/pages.css", [(b"If-None-Match", b"*")], None, 200),
    ("GET", b"/livez", [(b"Accept", b"\xff;q=\xfe,,;;*/*;q=a")], None, 200),
    ("GET", b"/", [(b"Accept", b"a/" * 4000)], None, 200),
    ("GET", b"/livez", [(b"Cookie", b"\xff=;;;==" * 99)], None, 200),
    ("GET", b"/livez", [(b"Expect", b"200-ok")], None, 200),
    ("GET", b"/livez", [(b"Traceparent", b"00-" + b"f" * 999)], None, 200),
    ("GET", b"/livez", [(b"X-Request-ID", b"\xff"), (b"X-Request-ID", b"b")], None, 200),
    ("GET", b"/livez", [(b"X-Forwarded-For", b"\xff, " * 999), (b"Forwarded", b"for=\xff")], None, 200),
    ("GET", b"/livez", [(b"X-HTTP-Method-Override", b"DELETE")], None, 200),
    ("POST", b"/livez", [(b"X-HTTP-Method-Override", b"GET")], None, 405),
    ("POST", b"/livez?_method=GET", [(b"Content-Type", b"application/x-www-form-urlencoded")], b"_method=GET", 405),
    ("GET", b"/v1/users/me", [(b"X-HTTP-Method", b"DELETE"), (b"X-Method-Override", b"DELETE")], None, 401),
    ("GET", b"/livez", [(b"X-Original-URL", b"/v1/users/me"), (b"X-Rewrite-URL", b"/v1/users/me")], None, 200),
    ("GET", b"/livez", [(b"X" * 8000, b"y")], None, 200),
    ("GET", b"/livez", [(b"X-%d" % n, b"y") for n in range(1500)], None, 200),
    ("GET", b"/livez", [(b"X", b"y" * 17_000)], None, 431),
    ("GET", b"/livez", [JSON], b"not json" * 99, 200),
    ("GET", b"/livez", [(b"Content-Type", b"multipart/form-data; boundary=x")], b"--x\r\n\r\n", 200),
    ("DELETE", b"/v1/sessions", [], b"{" * 99, 401),
    ("TRACE", b"/livez", [], None, 400),
]


@pytest.mark.parametrize(("method", "target", "lines", "body", "status"), ODD_HEADERS)
async def test_odd_headers_change_nothing(
    house: House, method: str, target: bytes, lines: Lines, body: bytes | None, status: int
) -> None:
    async with Plain(house.service.port) as plain:
        answer = await plain.ask(Asking(method, target, lines, body))
        assert answer.status == status
        assert "content-range" not in answer.headers
        if status >= 400:
            problem(answer)
        following = await plain.ask(Asking("GET", b"/readyz"))
        assert (following.status, json.loads(following.body)) == (200, {"status": "ready"})


# ------------------------------------------------------------------------------------------------- paths, queries

IDS = [
    b"0", b"-1", b"%00", b"a%00", b"%2e%2e", b"..", b"%2f", b"..%2f..%2fetc", b"%ff", b"%ed%a0%80", b"%", b"%zz",
    b"%7B01939d6e-77c8-7d2b-9a53-2f6f1c1b4c0e%7D", b"urn:uuid:01939d6e-77c8-7d2b-9a53-2f6f1c1b4c0e", b"%0d%0aX:%20y",
    b"01939d6e77c87d2b9a532f6f1c1b4c0e", b"01939d6e-77c8-7d2b-9a53-2f6f1c1b4c0e%00", b"%d9%a1%d9%a2", b"'%20OR%201=1--",
    b"01939D6E-77C8-7D2B-9A53-2F6F1C1B4C0E", b"00000000-0000-0000-0000-000000000000", b"null", b"*", b"@", b"~",
    b"__proto__", b"a" * 9000,
]  # fmt: skip
VALUES = [
    b"", b"0", b"-1", b"1e9", b"9" * 400, b"%00", b"%ff", b"%ed%a0%80", b"%", b"%0d%0a", b"%d9%a3", b"a" * 9000,
    b"true", b"[]", b"'--", b"%25%5F", b"\\", b"%5c", b"%e2%80%a8", b"NaN", b"0x10", b"1&%s=2", b"%2b1", b"+1", b"1.5",
]  # fmt: skip


def known_to_all(route: Route, house: House) -> Lines:
    lines = house.shown(route)
    machine = [(name.encode(), value.encode()) for name, value in MACHINE.items()]
    return machine if route.tag is Tag.ADMINISTRATION else lines


@pytest.mark.parametrize(
    "route", [one for one in TABLE if any(p.place == "path" for p in one.parameters)], ids=lambda route: route.name
)
async def test_no_id_in_a_path_is_a_5xx(house: House, route: Route) -> None:
    body = json.dumps(house.good(route)).encode() if route.body else None
    async with Plain(house.service.port) as plain:
        for one in IDS:
            path = at(route, "@@").replace(b"@@", one)
            lines = [*known_to_all(route, house), *([JSON] if body else [])]
            answer = await plain.ask(Asking(route.method, path, lines, body))
            assert assert_of_the_table(route, answer, ANYWHERE) in {"NotFound", "good"}, (one, answer)


ENDING = [route for route in TABLE if route.method == "GET" and route.success.media_type != EVENTS]


@pytest.mark.parametrize("route", ENDING, ids=lambda route: route.name)
async def test_no_query_is_a_5xx(house: House, route: Route) -> None:
    names = [p.name.encode() for p in route.parameters if p.place == "query"] or [b"a"]
    lines = known_to_all(route, house)
    async with Plain(house.service.port) as plain:
        for name in [*names, b"%ff", b"a[]", b""]:
            for value in VALUES if name in names else VALUES[:4]:
                query = name + b"=" + value.replace(b"%s", name)
                answer = await plain.ask(Asking("GET", at(route) + b"?" + query, lines))
                assert_of_the_table(route, answer, ANYWHERE)
        for query in (b"?" * 99, b"&" * 999, b"=" * 99, b";".join(names), b"&".join([names[0] + b"=1"] * 500)):
            assert_of_the_table(route, await plain.ask(Asking("GET", at(route) + b"?" + query, lines)), ANYWHERE)


# ------------------------------------------------------------------------------------------------- the log

FORGED = b'%0d%0a{"event":"staff_acted"}%0d%0a'
ESCAPED = b"\x80\xe2\x80\xa8\xe2\x80\xa9\xc2\x85\xc2\x9b31m"


async def test_nobody_writes_into_the_log(house: House) -> None:
    """One request, one line, whatever is in its path, its agent, its ids or its addresses."""
    before = len(house.service.log.read_bytes().split(b"\n"))
    told: list[Asking] = []
    names = (b"User-Agent", b"X-Forwarded-For", b"Traceparent", b"Authorization", b"Idempotency-Key", b"Origin")
    for path in (b"/" + FORGED, b"/v1/sessions/" + FORGED, b"/%1b[2J%e2%80%a8", b"/problems/%0a%85"):
        for name in names:
            lines = [(b"X-Request-ID", b"forger-%d" % len(told)), (name, ESCAPED + b'","event":"http_bug')]
            told.append(Asking("GET", path, lines))
    login = json.dumps({"email": house.alice.email, "password": house.alice.password}).encode()
    agent = (b"User-Agent", b"\xe2\x80\xa8" + FORGED + b"\xc2\x9b2J")
    told.append(Asking("POST", b"/v1/auth/login", [JSON, agent, (b"X-Request-ID", b"forger-agent")], login))
    async with Plain(house.service.port) as plain:
        statuses = [(await plain.ask(asking)).status for asking in told]
    assert set(statuses) == {200, 401, 404}, statuses

    def written() -> list[dict[str, object]]:
        found = [json.loads(line) for line in house.service.log.read_bytes().split(b"\n")[before - 1 : -1]]
        return [line for line in found if str(line.get("request_id", "")).startswith("forger-")]

    await until(lambda: sum(line["event"] == "http_request" for line in written()) >= len(told))
    assert sum(line["event"] == "http_request" for line in written()) == len(told)
    assert {line["event"] for line in written()} == {"http_request", "login_succeeded", "request_unreadable"}
    raw = house.service.log.read_bytes()
    assert not [mark for mark in (b"\x1b", b"\x9b", "\u2028".encode(), "\x85".encode(), b"\r") if mark in raw]
