"""The log of all processes as a stream, for administrators: Server-Sent Events (WHATWG HTML, 9.2).

Rule 1. A stream holds no place among the requests and has no deadline: it ends with its client, its session, the role
        of its account, or its worker, which says `bye`.
Rule 2. It has no buffer but the piece that is on its way: who reads slowly loses lines, is told how many, and is cut
        by the server like everybody who takes nothing.
Rule 3. No line is sent more than CHECK seconds after its reader was last seen to be allowed to read it; only while the
        database cannot be asked, which is when the log is wanted most, it is BLIND seconds.
"""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from difflib import get_close_matches
from functools import partial
from typing import Final, get_args

import trio
from quart import request
from quart_trio.wrappers import TrioResponse
from werkzeug.datastructures import MultiDict

from regsvc import __version__, observe
from regsvc.domain.refusals import Refused
from regsvc.domain.staff import Actor, By
from regsvc.http import kinds, wire
from regsvc.http.caller import asked
from regsvc.http.models import Fault
from regsvc.http.problems import tell
from regsvc.http.reply import Answer, View
from regsvc.http.routes import EVENTS, Route
from regsvc.http.staff import Gate
from regsvc.http.streamed import Streamed
from regsvc.observe import Level
from regsvc.observe.follow import Follower, Look, Methods, Wanted
from regsvc.observe.shared import Slab
from regsvc.ports import Unavailable

LOOK: Final = 0.1  # seconds between two looks at the rings
SOON: Final = 0.01  # seconds, where one look did not read all
PING: Final = 15.0  # seconds; proxies cut what is silent for longer
LAST: Final = 0.3  # seconds that the log has for what it has yet to write
CHECK: Final = 3.0  # seconds between two looks at the session and the role
PATIENCE: Final = 1.0  # seconds for such a look
BLIND: Final = 60.0  # seconds
STREAMS_MAX: Final = 32  # at once in one worker
AGAIN: Final = timedelta(seconds=5)
UNMATCHED: Final = "unmatched"  # what the log calls the route of a request that has none
LEVELS: Final[Sequence[Level]] = get_args(Level)
_BYE: Final = b"event: bye\ndata: {}\n\n"  # without data it would be no event
_HEAD: Final = {"X-Accel-Buffering": "no"}  # nginx keeps back what an answer has to say until it has more
_NAME_MAX: Final = 64  # characters that are said back


@dataclass(frozen=True, slots=True)
class Source:
    """What is followed, and what `hello` says of it."""

    slabs: Sequence[Slab] = ()
    instance: str = ""
    workers: int = 1


@dataclass(eq=False, slots=True)
class Streams:
    """The streams of one worker."""

    source: Source
    gate: Gate
    table: Sequence[Route]
    open: int = 0

    async def stream(self, actor: Actor) -> Answer:  # noqa: ASYNC124 - views are async
        """Begin a stream, if the query can be read and there is room for one more."""
        wanted = read(request.args, self.table)
        if request.method == "HEAD":
            return TrioResponse(b"", 200, content_type=EVENTS)
        if self.open >= STREAMS_MAX:
            return replace(tell(kinds.OVERLOADED, "Too many follow the log of this worker."), retry_after=AGAIN)
        follower = Follower(self.source.slabs, wanted)
        answer = Streamed(
            self._pieces(follower, self._pass(actor)),
            content_type=EVENTS,
            headers=_HEAD,
            farewell=partial(_farewell, follower),
        )
        self.open += 1
        answer.at_the_end(self._end)
        return answer

    def _end(self, _octets: int) -> None:
        self.open -= 1

    def _pass(self, actor: Actor) -> "Pass | None":
        """Return what is looked at again and again; None for a machine, whose token stays what it is."""
        if actor.by is By.ADMIN_TOKEN:
            return None
        caller, token = asked().caller, wire.bearer(request.headers)
        return Pass(partial(self.gate.known, token, caller), caller.request_id, trio.current_time())

    async def _pieces(self, follower: Follower, shown: "Pass | None") -> AsyncGenerator[bytes, None]:
        source, pinged = self.source, trio.current_time()
        hello = {"instance": source.instance, "version": __version__, "workers": source.workers}
        yield b"retry: 1000\n\nevent: hello\ndata: %b\n\n" % json.dumps(hello).encode()
        while shown is None or await shown.holds():
            look = follower.look()
            piece = _framed(look)
            if trio.current_time() - pinged >= PING:
                pinged = trio.current_time()
                piece += b": ping\n\n"
            if piece:
                yield piece
            await trio.sleep(SOON if look.more else LOOK)


def views(source: Source, gate: Gate, table: Sequence[Route]) -> Mapping[str, View]:
    """Return what answers the routes of this room, by the names in the table."""
    return {"staff_log_stream": gate.acting(Streams(source, gate, table).stream)}


async def _farewell(follower: Follower) -> bytes:
    """Say why the worker ends, which its log has yet to write out, and that it does."""
    with trio.move_on_after(LAST):
        await trio.sleep(SOON)
        while observe.statistics().waiting:  # noqa: ASYNC110 - a thread takes them, and tells nobody
            await trio.sleep(SOON)
    return _framed(follower.look(last=True)) + _BYE


def _framed(look: Look) -> bytes:
    """Write what was found as events; a line is JSON, and has nothing that would end `data` early."""
    lost = [b'event: lost\ndata: {"lines": %d}\n\n' % look.lost] if look.lost else []
    return b"".join([*lost, *(b"event: line\ndata: %b\n\n" % line for line in look.lines)])


@dataclass(eq=False, slots=True)
class Pass:
    """What somebody has shown, looked at again from time to time."""

    check: Callable[[], Awaitable[Actor | Refused]]
    request_id: str
    seen_at: float  # when it was good
    asked_at: float = float("-inf")

    async def holds(self) -> bool:
        """Tell whether it is good still."""
        now = trio.current_time()
        if now - max(self.seen_at, self.asked_at) < CHECK:
            return True
        self.asked_at = now
        with observe.bind(request_id=self.request_id), trio.move_on_after(PATIENCE):
            try:
                found = await self.check()
            except Unavailable as outage:
                observe.database_away(outage.why)
            else:
                self.seen_at = now
                return not isinstance(found, Refused)
        return now - self.seen_at < BLIND


# ------------------------------------------------------------------------------------------------- the query


def read(arguments: MultiDict[str, str], table: Sequence[Route]) -> Wanted:
    """Read which lines are wanted; names may be repeated, and several be in one. Raises Unreadable."""
    said = arguments.get("level") or LEVELS[0]
    level = next((one for one in LEVELS if one == said), None)
    if level is None:
        raise _wrong("level", f"level is one of {', '.join(LEVELS)}.", "unknown_value")
    names = _listed(arguments, "event")
    for name in names:
        if name not in observe.EVENTS:
            raise _wrong("event", _unknown("event", name, observe.EVENTS), "unknown_event")
    return Wanted(level, [event for event in observe.EVENTS if event in names], _routes(arguments, table))


def _listed(arguments: MultiDict[str, str], name: str) -> list[str]:
    return [word for text in arguments.getlist(name) for part in text.split(",") if (word := part.strip())]


def _routes(arguments: MultiDict[str, str], table: Sequence[Route]) -> Mapping[str, Methods]:
    """Read which routes are wanted: by path, or by method and path as the metrics name them; aliases come along."""
    wanted: dict[str, Methods] = {}
    for name in _listed(arguments, "route"):
        method, _, path = name.rpartition(" ")
        found = [route for route in table if path in route.paths and method in {"", route.method}]
        if not found and name != UNMATCHED:
            paths = [path for route in table for path in route.paths]
            raise _wrong("route", _unknown("route", name, [*paths, UNMATCHED]), "unknown_route")
        for one in [path for route in found for path in route.paths] or [UNMATCHED]:
            before = wanted.get(one, ())
            wanted[one] = None if not method or before is None else {*before, method}
    return wanted


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    said = "".join(c if c.isprintable() else "�" for c in name[:_NAME_MAX])
    nearest = get_close_matches(said, list(known), 1)
    return f'There is no {what} "{said}"{f"; the nearest is {nearest[0]}" if nearest else ""}.'


def _wrong(field: str, message: str, code: str) -> wire.Unreadable:
    return wire.Unreadable(wire.faulty([Fault(field=field, message=message, code=code)]))
