"""What a console is fed with in tests: lines as they were once logged, and a service that does as it is told."""

import json
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

WHO: Final = {"service": "regsvc", "version": "0.1.0", "instance": "here", "worker": 1}
METRICS: Final = {
    "version": "0.1.0",
    "uptime_s": 7300.0,
    "workers": {"asked": 3, "alive": 2, "restarts": 1},
    "gauges": {
        "hash_queue_waiting": 5,
        "hash_queue_running": 2,
        "outbox_ready": 11,
        "outbox_leased": 8,
        "outbox_dead": 1,
        "outbox_oldest_seconds": 200.0,
        "pool_idle": 1,
        "pool_in_use": 9,
        "pool_waiting": 4,
        "connections": 321,
        "loop_lag_seconds": 0.0123,
        "database_up": 0,
    },
}


def line(event: str, at: float, level: str = "info", **fields: object) -> dict[str, Any]:
    """Return a line that was logged `at` seconds of a certain minute."""
    return {"ts": f"2026-11-21T09:00:{at:09.6f}Z", "level": level, "event": event, **WHO, **fields}


def request(at: float, route: str, status: int, ms: float, refusal: str | None = None) -> dict[str, Any]:
    """Return the line of a request."""
    method, path = route.split()
    refused = {} if refusal is None else {"refusal": refusal}
    return line("http_request", at, method=method, route=path, status=status, duration_ms=ms, **refused)


def recorded() -> Iterator[dict[str, Any]]:
    """Yield 30 s of a service: 10 requests a second to one route, one to another, and what came of them."""
    for n in range(300):
        yield request(n / 10, "POST /v1/users/register", 201, n + 1.0)
        if n % 10 == 0:
            yield request(n / 10, "POST /v1/users/activate", 401, 5.0, "invalid_code")
            yield line("registration_created", n / 10, address="x")
        if n % 100 == 0:
            yield request(n / 10, "GET /v1/users/me", 503, 1.0, "service_unavailable")
            yield line("mail_dead", n / 10, "warning", reason="\x1b[2J over", letter="activation")


def written(lines: Iterable[dict[str, Any]]) -> bytes:
    """Return lines as a log has them."""
    return b"".join(json.dumps(one, separators=(",", ":")).encode() + b"\n" for one in lines)


def event(name: str, data: object) -> bytes:
    """Return an event of a stream."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


HELLO: Final = b"retry: 1000\n\n" + event("hello", {"instance": "here", "version": "0.1.0", "workers": 3})
Answer = tuple[int, str, bytes]
EVENTS: Final = "text/event-stream; charset=utf-8"


@dataclass
class Told:
    """A service that gives the answers it was told, by path, one after the other, the last again and again."""

    answers: dict[str, list[Answer]]
    port: int = 0
    scheme: str = "http"
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def of(self, path: str) -> list[dict[str, str]]:
        """Return the headers of each question for a path."""
        return [headers for _, asked, headers, _ in self.asked if asked.partition("?")[0] == path]

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
        self.asked.append((method, target, headers, body))
        left = self.answers.get(target.partition("?")[0])
        if not left:
            return 404, "application/problem+json", b"{}"
        return left.pop(0) if len(left) > 1 else left[0]


@contextmanager
def serving(answers: dict[str, list[Answer]], tls: ssl.SSLContext | None = None) -> Iterator[Told]:
    """Serve on a thread until the end of the block; an answer without a length ends with its connection."""
    told = Told(answers, scheme="http" if tls is None else "https")

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, kind, content = told.answer(self.command, self.path, dict(self.headers), body)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _do  # noqa: N815 - the stdlib's names

        def log_message(self, *_words: object) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
            connection, address = super().get_request()
            return connection if tls is None else tls.wrap_socket(connection, server_side=True), address

    with Server(("127.0.0.1", 0), Handler) as server:
        told.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="told service")
        thread.start()
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()
