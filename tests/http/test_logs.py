"""The log as a stream: what is asked for, who may, how it ends, and what a reader costs who takes nothing."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import trio
from werkzeug.datastructures import MultiDict

from regsvc import __version__, observe
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.session import Role
from regsvc.domain.staff import Actor, By
from regsvc.domain.values import Secret
from regsvc.http import logs
from regsvc.http.logs import BLIND, CHECK, PATIENCE, PING, STREAMS_MAX, Pass, Source, Streams
from regsvc.http.server import Cut, Limits
from regsvc.http.staff import Gate
from regsvc.http.table import routes
from regsvc.observe import open_log
from regsvc.observe.follow import LOOK_MAX, Follower, Look, Wanted
from regsvc.observe.ring import Ring
from regsvc.observe.shared import RING, Shared
from regsvc.ports import Unavailable
from tests.http.doorstep import Answer, Doorstep
from tests.http.tiny import Caller, House, calling, serving, until
from tests.lines import Lines

STREAM = "/v1/admin/logs/stream"
TOKEN = "a-token-for-machines-0123456789-0123456789"
TABLE = routes(development=True)
MACHINE = Actor(By.ADMIN_TOKEN)


@dataclass
class Office:
    """A service with a token for machines, whose log goes into the first of three slabs."""

    door: Doorstep
    lines: Lines
    shared: Shared = field(default_factory=lambda: Shared.create(3))

    def __post_init__(self) -> None:
        source = Source(self.shared.slabs, "accounts-1", 2)
        self.door.knobs = replace(self.door.knobs, admin_token=Secret(TOKEN), logs=source)

    def told(self, slab: int, *lines: bytes) -> None:
        """Have another process say something."""
        Ring(self.shared.slabs[slab]).write(b"".join(lines), len(lines))


@pytest.fixture
def office(door: Doorstep) -> Iterator[Office]:
    found = Office(door, Lines())
    with open_log(found.lines, level="debug", fmt="json", slab=found.shared.slabs[0]):
        yield found


def line(
    event: str = "mail_sent", level: str = "info", ts: str = "2026-11-21T09:00:00.000001Z", **fields: Any
) -> bytes:
    return json.dumps({"ts": ts, "level": level, "event": event, **fields}, separators=(",", ":")).encode() + b"\n"


@asynccontextmanager
async def following(house: House, query: str = "", token: str = TOKEN) -> AsyncIterator[Caller]:
    """Open a stream, and read it up to the end of `hello`."""
    async with calling(house.port) as caller:
        ask = f"GET {STREAM}{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nX-Request-ID: it\r\n\r\n"
        await caller.say(ask.encode())
        head = await caller.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert b"text/event-stream" in head
        await caller.until(b'"workers": 2}\n\n')
        yield caller


def data(heard: bytes, event: str) -> list[dict[str, Any]]:
    """Return the data of the events of a name."""
    mark = f"event: {event}\ndata: ".encode()
    return [json.loads(part.partition(b"\n")[0]) for part in heard.split(mark)[1:]]


# ------------------------------------------------------------------------------------------------ what comes


async def test_lines_of_all_processes_come_as_they_are(office: Office) -> None:
    async with serving(office.door.app) as house, calling(house.port) as caller:
        await caller.say(f"GET {STREAM} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        head = (await caller.until(b"\r\n\r\n")).lower()
        assert b"cache-control: no-store" in head
        assert b"x-accel-buffering: no" in head
        told = {"instance": "accounts-1", "version": __version__, "workers": 2}
        first = await caller.until(b"}\n\n")
        assert first.partition(b"\r\n")[2] == b"retry: 1000\n\nevent: hello\ndata: %b\n\n" % json.dumps(told).encode()
        one, other = line(worker=1, reason='\u2028 and "event: x"'), line(ts="2026-11-21T08:00:00.000000Z", worker=2)
        office.told(1, one)
        office.told(2, other)
        heard = await caller.until(one.rstrip(b"\n") + b"\n\n")
        assert heard.index(other.rstrip(b"\n")) < heard.index(one.rstrip(b"\n"))
        assert data(heard, "line") == [json.loads(other), json.loads(one)]


async def test_only_what_is_asked_for_comes(office: Office) -> None:
    query = "?level=warning&event=mail_dead,http_bug&event=rate_limit_store_down&route="
    async with serving(office.door.app) as house, following(house, query) as caller:
        office.told(1, line("mail_dead"), line("mail_dead", "warning", n=1), line("http_bug", "error", n=2))
        office.told(2, line("code_guessing_suspected", "warning"), line("rate_limit_store_down", "warning", n=3))
        heard = await caller.until(b'"n":3}\n\n')
        assert sorted(one["n"] for one in data(heard, "line")) == [1, 2, 3]


async def test_a_route_brings_its_aliases_and_a_method_no_other(office: Office) -> None:
    query = "?route=POST%20/registration,/v1/sessions&route=unmatched".replace("/registration", "/v1/registration")
    async with serving(office.door.app) as house, following(house, query) as caller:
        told: Sequence[tuple[str, str]] = [
            ("POST", "/api/v1/users/register"),
            ("GET", "/v1/users/register"),
            ("DELETE", "/api/v1/sessions"),
            ("GET", "/v1/users/me"),
            ("PUT", "unmatched"),
        ]
        office.told(1, *(line("http_request", method=method, route=route) for method, route in told))
        heard = await caller.until(b'"unmatched"}\n\n')
        assert [(one["method"], one["route"]) for one in data(heard, "line")] == [told[0], told[2], told[4]]


async def test_who_is_overtaken_is_told_how_many_lines_he_lost(office: Office) -> None:
    async with serving(office.door.app) as house, following(house) as caller:
        total = 0
        while total * 1000 < 2 * RING:  # without letting the stream look in between
            office.told(1, *(line(n=total + i, x="x" * 900) for i in range(7)))
            total += 7
        heard = await caller.until(b'"n":%d,' % (total - 1))
        [lost] = data(heard, "lost")
        found = [one["n"] for one in data(heard + await caller.until(b"\n\n"), "line")]
        assert found == list(range(lost["lines"], total))
        assert total > lost["lines"] > total // 3


async def test_a_stream_without_lines_is_kept_alive(autojump_clock: trio.testing.MockClock, door: Doorstep) -> None:
    flows = door.flows()
    streams = Streams(Source(), Gate.of(flows.staff, flows.sessions, None), TABLE)
    pieces = streams._pieces(Follower((), Wanted()), None)
    said = [await anext(pieces) for _ in range(3)]
    assert said[1:] == [b": ping\n\n"] * 2
    assert 2 * PING <= trio.current_time() < 2 * PING + 1
    await pieces.aclose()


# ------------------------------------------------------------------------------------------------- the query


@pytest.mark.parametrize(
    ("query", "field", "code", "words"),
    [
        ("level=loud", "level", "unknown_value", "level is one of debug, info, warning, error."),
        ("event=mail_snt", "event", "unknown_event", 'There is no event "mail_snt"; the nearest is mail_sent.'),
        ("event=mail_sent,%00", "event", "unknown_event", 'There is no event "�".'),
        ("event=mail_sent&event=" + "x" * 5000, "event", "unknown_event", f'There is no event "{"x" * 64}".'),
        (
            "route=/v1/users/registr",
            "route",
            "unknown_route",
            'There is no route "/v1/users/registr"; the nearest is /v1/users/register.',
        ),
        ("route=PUT%20/v1/users/register", "route", "unknown_route", None),
        ("route=%e2%80%ae", "route", "unknown_route", 'There is no route "�".'),
    ],
)
async def test_what_nobody_knows_is_refused_with_its_field(
    office: Office, query: str, field: str, code: str, words: str | None
) -> None:
    answer = await office.door.ask("GET", f"{STREAM}?{query}", bearer=TOKEN)
    [fault] = answer.problem(422, "ValidationError")["errors"]
    assert (fault["field"], fault["code"]) == (field, code)
    assert words in (None, fault["message"])
    assert answer.json["message"] == fault["message"]


@pytest.mark.parametrize(
    "query", ["", "level=&event=&route=", "event=,%20mail_sent%20,,mail_dead", "event[]=x", "what=else", "level=debug"]
)
async def test_what_can_be_read_is_answered(office: Office, query: str) -> None:
    answer: Answer = await office.door.ask("HEAD", f"{STREAM}?{query}", bearer=TOKEN)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Type"].startswith("text/event-stream")


def test_a_path_without_a_method_wins_over_one_with(door: Doorstep) -> None:
    for names in (["/v1/sessions", "GET /v1/sessions"], ["GET /v1/sessions", "/v1/sessions"]):
        wanted = logs.read(MultiDict([("route", name) for name in names]), TABLE)
        assert wanted.routes["/api/v1/sessions"] is None
    wanted = logs.read(MultiDict([("route", "GET /v1/sessions,DELETE /v1/sessions")]), TABLE)
    assert wanted.routes["/v1/sessions"] == {"GET", "DELETE"}


# --------------------------------------------------------------------------------------------------- its end


async def test_a_worker_that_drains_says_its_last_lines_and_bye(office: Office) -> None:
    async with serving(office.door.app) as house, following(house) as caller:
        office.told(1, line(n=1, ts="2999-11-21T09:00:00.000001Z"))
        drained = await house.drain()
        heard = await caller.rest()
        assert heard.endswith(b"event: bye\ndata: {}\n\n\r\n0\r\n\r\n")
        assert [one["n"] for one in data(heard, "line")] == [1]
        assert (drained.in_flight, drained.finished, drained.cut) == (1, 1, 0)


async def test_the_line_of_its_request_comes_when_it_has_ended(office: Office) -> None:
    office.door.knobs = replace(office.door.knobs, requests_max=1)
    async with serving(office.door.app) as house:
        async with following(house) as caller, calling(house.port) as other:
            await other.say(b"GET /problems HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await other.answer()).status == 200, "it takes no place"
            assert [one["route"] for one in office.lines.of("http_request")] == ["/problems"]
            office.told(1, line(n=1))
            octets = len(await caller.until(b'"n":1}\n\n'))
        await until(lambda: len(office.lines.of("http_request")) == 2)
    told = office.lines.of("http_request")[1]
    assert (told["route"], told["status"], told["request_id"]) == (STREAM, 200, "it")
    assert told["bytes_out"] > octets - 20  # and `hello`, without what frames the pieces
    assert told["duration_ms"] > 0
    assert told["trace_id"]


async def test_so_many_streams_and_no_more(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "STREAMS_MAX", 2)
    assert STREAMS_MAX > 2
    async with serving(office.door.app) as house, following(house):
        async with following(house):
            refused = await office.door.ask("GET", STREAM, bearer=TOKEN)
            told = refused.problem(503, "Overloaded")
            assert (told["retry_after_seconds"], refused.headers["Retry-After"]) == (5, "5")
            assert (await office.door.ask("HEAD", STREAM, bearer=TOKEN)).status == 200

        def ended() -> bool:
            return any(one["route"] == STREAM and one.get("bytes_out", 0) > 0 for one in told_of_requests(office))

        await until(ended)
        async with following(house):
            pass


def told_of_requests(office: Office) -> list[dict[str, Any]]:
    return [one for one in office.lines.of("http_request") if one["status"] == 200]


async def test_a_stream_ends_with_the_session_and_with_the_role(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "CHECK", 0.01)
    door = office.door
    door.member("the-last-one@example.org", role=Role.ADMIN)
    for change in ({"role": "user"}, {"disabled": True}):
        user = door.member(f"{next(iter(change))}@example.org", role=Role.ADMIN)
        token = (await door.login(user.email))["access_token"]
        async with serving(door.app) as house, following(house, token=token) as caller:
            done = await door.ask("PATCH", f"/v1/admin/users/{user.id}", change, bearer=TOKEN)
            assert done.status == 200
            assert b"event: bye" not in await caller.until(b"\r\n0\r\n\r\n")
    refused = office.lines.of("staff_refused")
    assert [one["request_id"] for one in refused] == ["it"]


class Check:
    """What is asked again and again."""

    def __init__(self, answer: Callable[[], Awaitable[Actor | Refused]]) -> None:
        self.answer, self.asked = answer, 0

    async def __call__(self) -> Actor | Refused:
        self.asked += 1
        return await self.answer()


async def held(shown: Pass) -> float:
    """Return how long it was good."""
    began = trio.current_time()
    while await shown.holds():  # noqa: ASYNC110 - it is looked at, as streams do
        await trio.sleep(0.1)
    return trio.current_time() - began


async def good() -> Actor:  # noqa: ASYNC124 - it is asked as what waits
    return Actor(By.ACCOUNT)


async def bad() -> Refused:  # noqa: ASYNC124 - it is asked as what waits
    return Refused(Refusal.INVALID_ACCESS_TOKEN)


async def away() -> Actor:  # noqa: ASYNC124 - it is asked as what waits
    raise Unavailable("database", "gone")


async def silent() -> Actor:
    await trio.sleep_forever()
    raise AssertionError


async def test_who_reads_is_looked_at_every_few_seconds(autojump_clock: trio.testing.MockClock) -> None:
    check = Check(good)
    shown = Pass(check, "it", trio.current_time())
    for _ in range(1000):
        assert await shown.holds()
        await trio.sleep(CHECK / 100)
    assert check.asked == pytest.approx(10, abs=1)
    check.answer = bad
    assert await held(shown) <= CHECK + 0.1


@pytest.mark.parametrize("gone", [away, silent])
async def test_while_the_database_is_away_the_log_is_shown_for_a_while(
    autojump_clock: trio.testing.MockClock, log: Lines, gone: Callable[[], Awaitable[Actor]]
) -> None:
    check = Check(gone)
    shown = Pass(check, "it", trio.current_time())
    assert BLIND <= await held(shown) <= BLIND + CHECK + PATIENCE + 0.2
    assert check.asked >= BLIND / (CHECK + PATIENCE + 0.2) - 1
    observe.database_back()
    assert log.events == (["database_unavailable", "database_recovered"] if gone is away else [])


async def test_what_fails_in_a_stream_ends_that_and_frees_its_place(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Follower):
        def look(self, *, last: bool = False) -> Look:
            raise LookupError(last)

    monkeypatch.setattr(logs, "STREAMS_MAX", 1)
    monkeypatch.setattr(logs, "Follower", Broken)
    async with serving(office.door.app) as house:
        for number in (1, 2):
            async with following(house) as caller:
                await caller.rest()
            assert len(house.told.failures) == number


# ------------------------------------------------------------------------------------------- who reads nothing


async def test_who_takes_nothing_is_cut_and_has_cost_one_piece(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept for him: while he does not read, nobody even looks at the rings for him."""
    looks: list[int] = []  # octets that each found

    class Counted(Follower):
        def look(self, *, last: bool = False) -> Look:
            found = super().look(last=last)
            looks.append(sum(map(len, found.lines)))
            return found

    monkeypatch.setattr(logs, "Follower", Counted)
    async with serving(office.door.app, Limits(send_stalls=0.5)) as house, following(house):
        total, looked = 0, [0]
        with trio.fail_after(15):
            while not house.told.cuts:
                office.told(1, *(line(n=total + i, x="x" * 900) for i in range(7)))
                total += 7
                await trio.sleep(0.0005)
                looked.append(len(looks))
        assert house.told.cuts == [Cut.SLOW_READER]
        await until(lambda: told_of_requests(office))
        assert max(looks) <= LOOK_MAX
        assert looked.count(looked[-1]) > 10, "nobody looked while he took nothing"
        [told] = told_of_requests(office)
        assert told["bytes_out"] < total * 900
