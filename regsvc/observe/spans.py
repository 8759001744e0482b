"""Spans: what a request or a mail spends its time on, for whoever collects traces (`tracing`).

Rule 1. Without a collector nothing is made: `span` looks at one name, and gives the one span that is none.
Rule 2. A span begins at a place in a trace that the log names too, a request's or a mail's, or within another span.
        What is done for nobody in particular (the sweeper, a look into an empty outbox) has none.
Rule 3. Sorts and facts are of closed lists, as the events and fields of the log are. Of a statement the name is told,
        never its text or its parameters, of a request the route, never the path.
"""

import inspect
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from contextvars import ContextVar, Token
from dataclasses import fields, is_dataclass
from functools import wraps
from types import TracebackType
from typing import Any, Final, Literal, ParamSpec, Self, TypeVar

import trio

from regsvc.observe.context import Trace
from regsvc.observe.log import emit

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Sort = Literal["request", "flow", "statement", "hash", "hash_wait", "hash_work", "outbox", "mail", "smtp"]
Fact = Literal["method", "route", "status", "scheme", "refusal", "error", "mails", "mail_id", "letter", "host", "port"]
Value = str | int
SAMPLED: Final = "01"
FAREWELL: Final = 1.0  # seconds; how long the end waits for a collector
FAREWELL_LEAST: Final = 0.2  # of them, however late it is


class Span:
    """A piece of work; a context manager, whose end hands it over. True, where the one that is none is false."""

    __slots__ = (
        "_before",
        "_from",
        "began",
        "ended",
        "facts",
        "name",
        "parent_id",
        "remote",
        "sort",
        "span_id",
        "trace_id",
    )

    def __init__(self, sort: Sort, name: str, trace_id: str, span_id: str, parent_id: str | None) -> None:
        self.sort: Sort = sort
        self.name = name
        self.trace_id = trace_id
        self.span_id = span_id
        self.parent_id = parent_id
        self.remote = False  # whether the parent is in another process
        self.facts: dict[Fact, Value] = {}
        self._from = time.perf_counter_ns()
        self.began = time.time_ns()  # nanoseconds of the epoch
        self.ended = self.began
        self._before: Token[Span | None]  # from its beginning on

    def __bool__(self) -> bool:
        return True

    def __enter__(self) -> Self:
        self._before = _here.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        _here.reset(self._before)
        if kind is not None:
            self.facts["error"] = kind.__name__
        self.ended = self.began + time.perf_counter_ns() - self._from
        if _record is not None:
            _record(self)

    def tell(self, fact: Fact, value: Value | None) -> None:
        """Say something of it; None says nothing."""
        if value is not None:
            self.facts[fact] = value

    def part(self, sort: Sort, began: float, ended: float) -> None:
        """Tell of a part of it that is over; both times are of `time.perf_counter`."""
        part = Span(sort, sort.replace("_", " "), self.trace_id, secrets.token_hex(8), self.span_id)
        part.began = self.began + int(began * 1e9) - self._from
        part.ended = part.began + int((ended - began) * 1e9)
        if _record is not None:
            _record(part)

    @property
    def traceparent(self) -> str:
        """This place in its trace, for others to go on from."""
        return str(Trace(self.trace_id, self.span_id, SAMPLED))


class NoSpan:
    """The span where there is none."""

    __slots__ = ()

    def __bool__(self) -> Literal[False]:
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        return


NO_SPAN: Final = NoSpan()
_here: ContextVar[Span | None] = ContextVar("regsvc_span", default=None)
_record: Callable[[Span], None] | None = None


@asynccontextmanager
async def open_tracing(endpoint: str | None, *, left: Callable[[], float] = lambda: FAREWELL) -> AsyncIterator[None]:
    """Send spans to the collector at `endpoint` until the block ends; None: make none.

    The end waits for what is still to be sent, FAREWELL at most, and not much beyond what is `left` then (seconds).
    Errors: none; a collector that is away costs spans, which are counted and told of.
    """
    if endpoint is None:
        yield
        return
    global _record  # noqa: PLW0603 - ambient as the log is: a span must be possible anywhere
    from regsvc.observe.tracing import Tracing  # noqa: PLC0415 - it needs an extra, and half a second

    tracing = Tracing(endpoint, emit)
    _record = tracing.record
    try:
        yield
    finally:
        _record = None
        limit = max(min(left(), FAREWELL), FAREWELL_LEAST)
        with trio.move_on_after(limit, shield=True) as patience:
            limiter = trio.CapacityLimiter(1)
            await trio.to_thread.run_sync(tracing.close, abandon_on_cancel=True, limiter=limiter, thread_name="traces")
        if patience.cancelled_caught:
            tracing.hurry()


def span(sort: Sort, name: str, at: Trace | None = None) -> Span | NoSpan:
    """Begin a span within the present one or, `at` a place, as that place itself: the log's `span_id` is its own."""
    if _record is None:
        return NO_SPAN
    if at is not None:
        if at.flags != SAMPLED:
            return NO_SPAN
        begun = Span(sort, name, at.trace_id, at.span_id, at.parent_id)
        begun.remote = at.parent_id is not None
        return begun
    parent = _here.get()
    if parent is None:
        return NO_SPAN
    return Span(sort, name, parent.trace_id, secrets.token_hex(8), parent.span_id)


def traced(flow: T, room: str) -> T:
    """Return an equal flow, each of whose public coroutine methods is a span; for a dataclass.

    A subclass made here, and not a decorator there: where nobody collects, calls cost what they did.
    """
    kind = type(flow)
    methods = {
        name: _as_span(method, f"{room}.{name}")
        for name, method in inspect.getmembers(kind, inspect.iscoroutinefunction)
        if not name.startswith("_")
    }
    assert is_dataclass(flow)  # noqa: S101 - a bug of ours, no value
    given = {one.name: getattr(flow, one.name) for one in fields(flow)}
    made: T = type(kind.__name__, (kind,), {"__slots__": (), **methods})(**given)
    return made


def _as_span(method: Callable[P, Coroutine[Any, Any, R]], name: str) -> Callable[P, Coroutine[Any, Any, R]]:
    @wraps(method)
    async def within(*args: P.args, **kwargs: P.kwargs) -> R:
        with span("flow", name):
            return await method(*args, **kwargs)

    return within
