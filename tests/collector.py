"""A trace collector for tests: takes OTLP over HTTP as one does, on a thread of its own, and keeps what it is given."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent
from opentelemetry.proto.trace.v1.trace_pb2 import Status

SECONDS = 15.0
Facts = dict[str, str | int]


@dataclass(frozen=True, slots=True)
class Collected:
    """A span as it came; `of` says whose it is."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    began: int
    ended: int
    failed: bool
    facts: Facts
    of: Facts


@dataclass(slots=True)
class Collector:
    """The spans so far; `answer` is the status of the next requests to it."""

    port: int = 0
    spans: list[Collected] = field(default_factory=list)
    raw: bytes = b""  # everything it was sent
    answer: int = 200
    requests: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait(self, enough: Callable[[], object], seconds: float = SECONDS) -> list[Collected]:
        """Block until it is enough; return all spans. From Trio: on a thread."""
        with self._changed:
            if not self._changed.wait_for(enough, seconds):
                raise TimeoutError(f"after {seconds:g} s: {[(one.name, one.kind) for one in self.spans]}")
            return list(self.spans)

    def of(self, trace_id: str) -> list[Collected]:
        """Return the spans of a trace, in the order in which they began."""
        return sorted((one for one in self.spans if one.trace_id == trace_id), key=lambda one: one.began)

    def asked(self, times: int) -> bool:
        """Tell whether it was asked so often."""
        return self.requests >= times

    def take(self, body: bytes) -> int:
        with self._changed:
            self.requests += 1
            self.raw += body
            if self.answer == 200:
                self.spans += _read(body)
            self._changed.notify_all()
            return self.answer


def _read(body: bytes) -> Iterator[Collected]:
    for source in ExportTraceServiceRequest.FromString(body).resource_spans:
        of = _facts(source.resource.attributes)
        for scope in source.scope_spans:
            assert scope.scope.name == "regsvc"
            yield from (_collected(one, of) for one in scope.spans)


def _collected(one: Sent, of: Facts) -> Collected:
    return Collected(
        one.name,
        Sent.SpanKind.Name(one.kind).removeprefix("SPAN_KIND_").lower(),
        one.trace_id.hex(),
        one.span_id.hex(),
        one.parent_span_id.hex(),
        one.start_time_unix_nano,
        one.end_time_unix_nano,
        one.status.code == Status.STATUS_CODE_ERROR,
        _facts(one.attributes),
        of,
    )


def _facts(attributes: Any) -> Facts:
    def value(one: AnyValue) -> str | int:
        return one.string_value if one.WhichOneof("value") == "string_value" else one.int_value

    told: list[KeyValue] = list(attributes)
    return {one.key: value(one.value) for one in told}


@contextmanager
def open_collector(port: int = 0) -> Iterator[Collector]:
    """Collect until the end of the block."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            assert self.headers["Content-Type"] == "application/x-protobuf"
            status = collector.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_words: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        server.daemon_threads = True
        collector.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="collector")
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
