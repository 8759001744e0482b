"""What is being done now, and for whom: request, actor and trace, carried by contextvars into tasks and threads.

Traces are W3C Trace Context (https://www.w3.org/TR/trace-context/): a `traceparent` from a client is continued with a
span of ours, everything else starts a new trace. One ContextVar holds all of it as a ready-made dict, so that a log
line merges it with one `update`; structlog's own contextvars walk the whole context at each line.
"""

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NOTHING: Final[Mapping[str, str]] = {}
_context: ContextVar[Mapping[str, str]] = ContextVar("regsvc_log_context", default=_NOTHING)
_flags: ContextVar[str] = ContextVar("regsvc_trace_flags", default="01")


@dataclass(frozen=True, slots=True)
class Trace:
    """A place in a trace: `span_id` is this one's own, `flags` say whether it is sampled; it follows from a parent."""

    trace_id: str
    span_id: str
    flags: str = "01"
    parent_id: str | None = None

    @classmethod
    def new(cls) -> "Trace":
        """Begin a trace."""
        return cls(secrets.token_hex(16), secrets.token_hex(8))

    @classmethod
    def parse(cls, traceparent: str | None) -> "Trace | None":
        """Read a `traceparent`; None when it is absent or not one (section 2.2.3 of the recommendation)."""
        found = _TRACEPARENT.fullmatch(traceparent.strip()) if traceparent is not None else None
        if found is None:
            return None
        version, trace_id, span_id, flags, rest = found.groups()
        if version == "ff" or (version == "00" and rest) or not trace_id.strip("0") or not span_id.strip("0"):
            return None
        return cls(trace_id, span_id, f"{int(flags, 16) & 1:02x}")  # only the sampled bit has a meaning in level 1

    def child(self) -> "Trace":
        """Return a new span of the same trace."""
        return Trace(self.trace_id, secrets.token_hex(8), self.flags, self.span_id)

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


def trace() -> str | None:
    """Return the traceparent of what is being done now; None outside of any trace."""
    context = _context.get()
    if "trace_id" not in context:
        return None
    return f"00-{context['trace_id']}-{context['span_id']}-{_flags.get()}"


def context() -> Mapping[str, str]:
    """Return what the lines of this task say besides their own fields."""
    return _context.get()


@contextmanager
def bind(
    *, actor: str | None = None, request_id: str | None = None, traceparent: str | None = None
) -> Iterator[Trace | None]:
    """Name the actor, the request, or the trace that the lines inside belong to; what is None stays as it was.

    `traceparent`: a new span of that trace is made and given; one that cannot be read changes nothing.
    """
    parent = Trace.parse(traceparent)
    span = parent.child() if parent is not None else None
    with _held(actor, request_id, span):
        yield span


@contextmanager
def request_context(request_id: str, traceparent: str | None = None) -> Iterator[Trace]:
    """Continue the client's trace, or begin one, for all that is done for one request."""
    parent = Trace.parse(traceparent)
    span = parent.child() if parent is not None else Trace.new()
    with _held(None, request_id, span):
        yield span


@contextmanager
def _held(actor: str | None, request_id: str | None, span: Trace | None) -> Iterator[None]:
    names = dict(_context.get())
    if actor is not None:
        names["actor"] = actor
    if request_id is not None:
        names["request_id"] = request_id
    if span is not None:
        names["trace_id"], names["span_id"] = span.trace_id, span.span_id
    flags = _flags.set(span.flags if span is not None else _flags.get())
    kept = _context.set(names)
    try:
        yield
    finally:
        _context.reset(kept)
        _flags.reset(flags)
