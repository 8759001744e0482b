"""The log of a process: `emit` makes a line and returns, the log writer carries the lines to the stream.

structlog is the chain from an event to its line, orjson the encoder. Ours is the hand-over: a bounded deque with a
doorbell, because lines come from threads too (a Trio memory channel takes them from its own thread only), and a thread
that writes, because stdout may be a pipe that nobody reads. One log is current at a time, set by `open_log`; it is the
one piece of process state that is ambient, since a line must be possible anywhere.
"""

import io
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

import structlog
import trio

from regsvc import __version__
from regsvc.observe.catalogue import Gauge, Layout, Timing
from regsvc.observe.context import context
from regsvc.observe.events import FIELDS, LEVELS, Event, Level
from regsvc.observe.library import library_messages
from regsvc.observe.lines import LINE_MAX, Clock, Pretty, Unfit, Value, json_line, plain, told, wants_colour
from regsvc.observe.metrics import Meter
from regsvc.observe.out import Out, Stream
from regsvc.observe.shared import Slab

Format = Literal["json", "pretty"]
Fields = MutableMapping[str, Any]

ROOM: Final = 10_000  # lines that wait for the writer; about 4 MB
LINGER: Final = 0.01  # seconds; lines of that long are written together: a thread costs 0.1 ms a time
FAREWELL: Final = 1.0  # seconds; how long the end waits for a stream that takes nothing


@dataclass(frozen=True, slots=True)
class LogStatistics:
    """Lines: `waiting` for the writer, `written`, `dropped` (no room, or the stream failed); `fields` left out."""

    waiting: int
    written: int
    dropped: int
    fields: int


class Log:
    """Where lines go. Made by `open_log`; `emit` may be called from any thread, `run` is the writer's task.

    strict: a field that the event does not list, or a value that is not plain data, raises instead of being left out.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        level: Level = "info",
        fmt: Format = "json",
        strict: bool = False,
        instance: str = "",
        worker: int | None = None,
        room: int = ROOM,
        slab: Slab | None = None,
    ) -> None:
        pretty = Pretty(colours=wants_colour() and stream.isatty()) if fmt == "pretty" else None
        self._out = Out(stream, pretty, slab)
        self._strict = strict
        self._room = room
        self._slab = slab
        self._worker = worker
        self.meter: Meter | None = None
        self._clock = Clock()
        names: dict[str, Value] = {"service": "regsvc", "version": __version__, "instance": instance, "worker": worker}
        self._common = {name: value for name, value in names.items() if value not in ("", None)}
        self._logger: Any = structlog.wrap_logger(
            _Hand(self._put),
            processors=[self._permit, self._compose, self._encode],
            wrapper_class=structlog.make_filtering_bound_logger(level),
        ).bind()
        self._lines: deque[bytes] = deque()
        self._writing = threading.RLock()  # lines written directly come from several threads
        self._in_hand = False  # whether whoever has that lock writes
        self._home: _Home | None = None  # the writer, while it runs
        self._written = self._dropped = self._fields = 0
        self._stuck = False  # a thread of ours was left behind in a write
        self._told = (0, 0)  # of the drops, how many a line has told of
        self._away: float | None = None  # since when the database is (time.monotonic)

    def emit(self, event: Event, level: Level, fields: Mapping[str, object]) -> None:
        """Count it, make a line of it and leave it to the writer; without a writer, write it."""
        if self.meter is not None:
            self.meter.count(event, fields)
        getattr(self._logger, level)(event, **fields)

    def start_counting(self, layout: Layout) -> None:
        """Count from now on, in the slab, where there is one."""
        self.meter = Meter(layout, self._slab, worker=self._worker)

    def statistics(self) -> LogStatistics:
        """Count."""
        return LogStatistics(len(self._lines), self._written, self._dropped, self._fields)

    def database_away(self, reason: str) -> None:
        """Say so if it was there until now."""
        if self._away is None:
            self._away = time.monotonic()
            self.emit("database_unavailable", LEVELS["database_unavailable"], {"reason": reason})

    def database_back(self) -> None:
        """Say so if it was away until now."""
        if (since := self._away) is not None:
            self._away = None
            away_s = round(time.monotonic() - since, 3)
            self.emit("database_recovered", LEVELS["database_recovered"], {"away_s": away_s})

    # The chain of structlog: each takes what the one before it returned.

    def _permit(self, _logger: object, _level: str, fields: Fields) -> Fields:
        allowed = FIELDS[fields["event"]]
        for name in fields.keys() - allowed:
            if name == "event":
                continue
            if self._strict:
                raise Unfit(f"{fields['event']} has no field {name}")
            del fields[name]
            self._fields += 1
        return fields

    def _compose(self, _logger: object, level: str, fields: Fields) -> Fields:
        line = {"ts": self._clock.stamp(time.time_ns()), "level": level, "event": fields.pop("event")}
        line |= self._common
        line |= context()
        strict = self._strict
        # A traceback was cut where it was made, at the end that says least.
        traceback = fields.pop("traceback", None)
        for name, value in fields.items():
            if type(value) is int or type(value) is float:
                line[name] = value  # half of all fields: not worth a call
            elif value is not None:
                line[name] = plain(value, strict=strict)
        if traceback is not None:
            line["traceback"] = str(traceback)
        return line

    def _encode(self, _logger: object, _level: str, line: Fields) -> bytes:
        return json_line(line)

    # From here on, bytes.

    def _put(self, line: bytes) -> None:
        home = self._home
        if self._stuck or (home is not None and len(self._lines) >= self._room):
            self._dropped += 1
            return
        self._lines.append(line)
        if home is not None:
            home.ring()
        else:
            self._write_out()

    def _write_out(self) -> None:
        """Write all that waits; called without a writer, or by the writer on a thread."""
        with self._writing:
            if self._in_hand:  # garbage is collected anywhere, also below, and may have something to say
                return
            self._in_hand = True
            try:
                while self._lines:
                    self._write_some()
            finally:
                self._in_hand = False

    def _write_some(self) -> None:
        chunk, lines = self._chunk()
        try:
            self._out.write(chunk, lines)
            self._written += lines
        except OSError:  # disk full, reader gone: the service goes on without a log, and counts
            self._dropped += lines

    def _chunk(self) -> tuple[bytes, int]:
        """Take whole lines that one write carries in one piece, also where workers share a pipe."""
        parts, size = [self._lines.popleft()], 0
        size = len(parts[0])
        while self._lines and size + len(self._lines[0]) <= LINE_MAX:
            parts.append(self._lines.popleft())
            size += len(parts[-1])
        return b"".join(parts), len(parts)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry lines to the stream until cancelled; then what waits is written, and later lines are written directly.

        Cancellation: the end waits up to FAREWELL for a stream that takes nothing; its thread is left behind then, and
        ends with the stream. Errors: none; a stream that fails costs lines, which are counted and told of.
        """
        home = _Home()
        # The pump is shielded so that no write is ever half done; its deadline is set when the end begins.
        pump = trio.CancelScope(shield=True)
        async with trio.open_nursery() as nursery:
            self._home = home
            nursery.start_soon(self._pump, home, pump, name="log pump")
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                pump.deadline = trio.current_time() + FAREWELL
                self._home = None
                home.ending = True
                home.bell.set()

    async def _pump(self, home: "_Home", scope: trio.CancelScope) -> None:
        limiter = trio.CapacityLimiter(1)
        with scope:
            while not home.ending or self._lines:
                await home.bell.wait()
                if not home.ending:
                    await trio.sleep(LINGER)
                    home.hush()
                self._tell_of_drops()
                await trio.to_thread.run_sync(
                    self._write_out, limiter=limiter, abandon_on_cancel=True, thread_name="log"
                )
        self._stuck = scope.cancelled_caught

    def _tell_of_drops(self) -> None:
        now = (self._dropped, self._fields)
        if now != self._told:
            lines, fields = now[0] - self._told[0], now[1] - self._told[1]
            self._told = now
            line = self._compose(None, "warning", {"event": "log_lines_dropped", "lines": lines, "fields": fields})
            self._lines.append(json_line(line))  # past the bound: this one line must not be lost as well


class _Home:
    """The writer's side of the doorbell: made in its task, rung from any thread."""

    def __init__(self) -> None:
        self.bell = trio.Event()
        self.ending = False
        self._rung = False
        self._thread = threading.get_ident()
        self._token = trio.lowlevel.current_trio_token()

    def ring(self) -> None:
        if self._rung:
            return
        self._rung = True
        if threading.get_ident() == self._thread:
            self.bell.set()
        else:
            with suppress(trio.RunFinishedError):  # the line waits, and whoever writes next takes it along
                self._token.run_sync_soon(self._ring_here)

    def _ring_here(self) -> None:
        self.bell.set()

    def hush(self) -> None:
        # In this order: a line that is added after `_rung` went down rings the new bell.
        self.bell = trio.Event()
        self._rung = False


class _Hand:
    """What structlog calls a logger: takes finished lines, whatever their level."""

    def __init__(self, put: Callable[[bytes], None]) -> None:
        self.debug = self.info = self.warning = self.error = put


_current: Log | None = None
_spare: Log | None = None


def _log() -> Log:
    """Return the open log; before there is one, a plain one on stdout, for nothing may be lost silently."""
    global _spare  # noqa: PLW0603 - see the top of the file: the one piece of ambient state
    if _current is not None:
        return _current
    if _spare is None:
        _spare = Log(io.FileIO(1, "wb", closefd=False), strict=_in_tests())
    return _spare


def _in_tests() -> bool:
    """Under pytest, and in every process that a test starts, a wrong field fails loudly."""
    return "PYTEST_VERSION" in os.environ


def emit(event: Event, /, **fields: object) -> None:
    """Log one event; `FIELDS` says which fields it has, a None is left out. Never blocks, never raises for I/O.

    Raises Unfit for unknown fields and odd values under pytest; elsewhere they are left out and counted.
    """
    _log().emit(event, LEVELS[event], fields)


def exception(event: Event, error: BaseException, /, **fields: object) -> None:
    """Log a bug with its type, words and traceback."""
    _log().emit(event, LEVELS[event], {**fields, **told(error)})


def database_away(reason: str) -> None:
    """Log `database_unavailable`, once per outage and process, whoever noticed first."""
    _log().database_away(reason)


def database_back() -> None:
    """Log `database_recovered` if the database was away; costs nothing otherwise."""
    _log().database_back()


def statistics() -> LogStatistics:
    """Count the lines of the open log."""
    return _log().statistics()


def start_counting(layout: Layout) -> None:
    """Count what is emitted from now on; until somebody says so, nothing is."""
    _log().start_counting(layout)


def gauge(name: Gauge, value: float) -> None:
    """Say how something stands now in this process."""
    if (meter := _log().meter) is not None:
        meter.gauge(name, value)


def timing(name: Timing, seconds: float) -> None:
    """Note how long something took."""
    if (meter := _log().meter) is not None:
        meter.timing(name, seconds)


def count_drops() -> None:
    """Count the lines that the log has dropped since it was asked last."""
    log = _log()
    if log.meter is not None:
        log.meter.level("log_lines_dropped", log.statistics().dropped)


@contextmanager
def open_log(
    stream: Stream | None = None,
    *,
    level: Level = "info",
    fmt: Format | None = None,
    strict: bool | None = None,
    instance: str = "",
    worker: int | None = None,
    room: int = ROOM,
    slab: Slab | None = None,
) -> Iterator[Log]:
    """Send all lines of this process to `stream` (unbuffered; default: stdout) until the block ends.

    The stdlib's logging and warnings come along as `library_message`. `fmt`: pretty on a terminal, else JSON. `slab`:
    this process's part of what the processes of the service share.
    """
    global _current  # noqa: PLW0603 - see the top of the file: the one piece of ambient state
    if stream is None:
        sys.stdout.flush()
        stream = io.FileIO(1, "wb", closefd=False)
    if fmt is None:
        fmt = "pretty" if stream.isatty() else "json"
    if strict is None:
        strict = _in_tests()
    log = Log(stream, level=level, fmt=fmt, strict=strict, instance=instance, worker=worker, room=room, slab=slab)
    before, _current = _current, log
    try:
        with library_messages(log.emit, level):
            yield log
    finally:
        _current = before


async def run_log_writer(  # noqa: ASYNC128 - `started` is called by Log.run
    *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run the open log's writer; see `Log.run`. It belongs in the outermost nursery: everybody logs to the last."""
    await _log().run(task_status=task_status)
