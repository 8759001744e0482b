"""Traces by OTLP over HTTP, as OpenTelemetry has them. Imported only where a collector is named.

The ids are the log's own (`context` makes them): the SDK is given each span when it is over, and takes its ids where
it would invent some. What is collected is said in the words of the semantic conventions, where they have a word.

Rule 1. Sending is the SDK's thread's; nothing here waits for it. What it cannot send is lost, and counted.
Rule 2. A collector that is away costs a line when it goes, and one when it comes. What the SDK itself says about it,
        at every try, is kept from the log.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from regsvc import __version__
from regsvc.observe.spans import Fact, Sort, Span, Value

PATH: Final = "/v1/traces"  # of OTLP over HTTP, behind the collector's base address
QUEUE: Final = 4096  # spans that wait for the collector; some 8 MB
BATCH: Final = 512  # spans of a request to it
LINGER: Final = 1.0  # seconds; spans of that long are sent together
PATIENCE: Final = 5.0  # seconds for a request to it, tries included
TELL_EVERY: Final = 10.0  # seconds between two lines about lost spans
REASON_MAX: Final = 200  # characters

Words = Mapping[str, Value]
Emit = Callable[..., None]

_NOWHERE: Final = Context()
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_FAILED: Final = Status(StatusCode.ERROR)

_KINDS: Final[Mapping[Sort, SpanKind]] = {
    "request": SpanKind.SERVER,
    "statement": SpanKind.CLIENT,
    "outbox": SpanKind.PRODUCER,
    "mail": SpanKind.CONSUMER,
    "smtp": SpanKind.CLIENT,
}
_OUTBOX: Final = {"messaging.system": "regsvc", "messaging.destination.name": "outbox"}
_ALWAYS: Final[Mapping[Sort, Words]] = {
    "statement": {"db.system.name": "postgresql"},
    "outbox": {**_OUTBOX, "messaging.operation.name": "send", "messaging.operation.type": "send"},
    "mail": {**_OUTBOX, "messaging.operation.name": "process", "messaging.operation.type": "process"},
    "smtp": {"network.protocol.name": "smtp"},
}
_NAMES: Final[Mapping[Fact, str]] = {
    "method": "http.request.method",
    "route": "http.route",
    "status": "http.response.status_code",
    "scheme": "url.scheme",
    "refusal": "regsvc.refusal",
    "error": "error.type",
    "mails": "messaging.batch.message_count",
    "mail_id": "messaging.message.id",
    "letter": "regsvc.letter",
    "host": "server.address",
    "port": "server.port",
}


def attributes(span: Span) -> dict[str, Value]:
    """Return what a collector is told of a span beside its name."""
    told = {_NAMES[fact]: value for fact, value in span.facts.items()}
    if span.sort == "statement":
        told["db.operation.name"] = span.name
    elif _server_failed(span):
        told.setdefault("error.type", str(span.facts["status"]))
    return {**_ALWAYS.get(span.sort, {}), **told}


def _server_failed(span: Span) -> bool:
    return isinstance(status := span.facts.get("status"), int) and status >= 500


class _Given(IdGenerator):
    """Gives the ids that were made already."""

    def __init__(self) -> None:
        self.trace_id = self.span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id

    def is_trace_id_random(self) -> bool:
        return True


class _Outlet(SpanExporter):
    """The way to the collector, as it is found to be; called on the SDK's thread."""

    def __init__(self, way: SpanExporter, emit: Emit) -> None:
        self._way = way
        self._emit = emit
        self._down_since: float | None = None
        self._told_at = -TELL_EVERY
        self._told = 0
        self.reason = ""  # the first thing that the SDK said of what it sends now
        self.taken = 0  # spans, to be sent
        self.unsent = 0  # of them
        self.refused = 0  # spans that found no room before; written by whoever records

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        self.reason = ""
        result = self._way.export(spans)
        if result is SpanExportResult.SUCCESS:
            self._up()
            self.tell_of_lost()
        else:
            self.unsent += len(spans)
            self._down()
        return result

    def _down(self) -> None:
        if self._down_since is None:
            self._down_since = time.monotonic()
            self._emit("trace_collector_down", reason=self.reason[:REASON_MAX])

    def _up(self) -> None:
        if (since := self._down_since) is not None:
            self._down_since = None
            self._emit("trace_collector_up", away_s=round(time.monotonic() - since, 3))
            self._told_at = -TELL_EVERY

    def tell_of_lost(self, *, now: bool = False) -> None:
        """Say how many were lost since that was said last, now and then, or `now`."""
        lost = self.unsent + self.refused
        if lost > self._told and (now or time.monotonic() - self._told_at >= TELL_EVERY):
            self._emit("spans_dropped", spans=lost - self._told)
            self._told, self._told_at = lost, time.monotonic()

    def shutdown(self) -> None:
        self._way.shutdown()


class _Overheard(logging.Handler):
    """Hears what the SDK says, in place of the log."""

    def __init__(self, outlet: _Outlet) -> None:
        super().__init__(logging.WARNING)
        self._outlet = outlet

    def emit(self, record: logging.LogRecord) -> None:
        self._outlet.reason = self._outlet.reason or record.getMessage()


def _whose() -> dict[str, Value]:
    host, pid = socket.gethostname(), os.getpid()
    return {
        "service.name": "regsvc",
        "service.version": __version__,
        "service.instance.id": f"{host}/{pid}",  # the log has both: `instance`, and the `pid` of `worker_started`
        "process.pid": pid,
    }


class Tracing:
    """Sends spans to a collector, on a thread of its own, until `close`."""

    def __init__(self, endpoint: str, emit: Emit, *, queue: int = QUEUE) -> None:
        self._outlet = outlet = _Outlet(OTLPSpanExporter(endpoint + PATH, timeout=PATIENCE), emit)
        self._room = queue
        self._given = 0  # spans, to the SDK
        self._ids = _Given()
        self._processor = BatchSpanProcessor(
            outlet, max_queue_size=queue, schedule_delay_millis=LINGER * 1000, max_export_batch_size=min(BATCH, queue)
        )
        provider = TracerProvider(
            sampler=ParentBased(ALWAYS_ON),
            resource=Resource.create(_whose()),
            id_generator=self._ids,
            shutdown_on_exit=False,  # `close` does it, in its time
        )
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("regsvc", __version__)
        self._overheard = _Overheard(outlet)
        self._sdk = logging.getLogger("opentelemetry")
        self._sdk.addHandler(self._overheard)
        self._sdk.propagate = False

    def record(self, span: Span) -> None:
        """Take a span that is over; from one thread at a time."""
        if self._given - self._outlet.taken >= self._room:
            self._outlet.refused += 1
            return
        self._given += 1
        self._ids.trace_id, self._ids.span_id = int(span.trace_id, 16), int(span.span_id, 16)
        within = _NOWHERE
        if span.parent_id is not None:
            place = SpanContext(self._ids.trace_id, int(span.parent_id, 16), span.remote, _SAMPLED)
            within = set_span_in_context(NonRecordingSpan(place), _NOWHERE)
        begun = self._tracer.start_span(
            span.name,
            within,
            _KINDS.get(span.sort, SpanKind.INTERNAL),
            attributes(span),
            start_time=span.began,
        )
        if "error" in span.facts or _server_failed(span):
            begun.set_status(_FAILED)
        begun.end(span.ended)

    def hurry(self) -> None:
        """Give up what is being sent, and whatever waits; `close` returns soon."""
        self._outlet.shutdown()

    def close(self) -> None:
        """Send what waits, and end the thread. Blocks as long as that takes."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]
        self._outlet.unsent += self._given - self._outlet.taken
        self._outlet.tell_of_lost(now=True)
        self._sdk.removeHandler(self._overheard)
        self._sdk.propagate = True
