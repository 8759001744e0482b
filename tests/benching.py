"""A service for tests of `regsvc bench`: it does as it is told, fast, and keeps count of what it was asked."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from regsvc.cli.bench.histogram import Histogram
from regsvc.cli.bench.plan import Plan
from regsvc.cli.bench.record import Recorder
from regsvc.cli.bench.run import Run

Said = tuple[int, dict[str, Any]]
CODE: Final = "4711"
TOKENS: Final = {"access_token": "an access token", "refresh_token": "a refresh token"}
PLAIN: Final[dict[str, Said]] = {
    "/livez": (200, {}),
    "/v1/health": (200, {"version": "9.9"}),
    "/v1/users/register": (201, {}),
    "/v1/users/activate": (200, {}),
    "/v1/auth/login": (200, TOKENS),
    "/v1/auth/refresh": (200, TOKENS),
    "/v1/users/me": (200, {}),
}


@dataclass
class Fake:
    """What a service answers. `instead`: by path, what is answered in place of what would be."""

    instead: dict[str, Callable[[], Said | None]] = field(default_factory=dict)
    letters: bool = True
    asked: Counter[str] = field(default_factory=Counter)
    headers: list[dict[str, str]] = field(default_factory=list)
    port: int = 0
    _mails: list[dict[str, str]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Said | None:
        """Return status and body; None: hang up."""
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        form = json.loads(body) if body else {}
        with self._lock:
            self.asked[path] += 1
            self.headers.append({**headers, "path": path})
            if path in self.instead:
                return self.instead[path]()
            if path == "/dev/mail/messages":
                start, limit = int(query["start"][0]), int(query["limit"][0])
                return 200, {"items": self._mails[::-1][start : start + limit]}
            if path == "/v1/users/register":
                self._post(form["email"])
            right = form.get("code", CODE) == CODE
            return PLAIN.get(path, (404, {})) if right else (400, {})

    def _post(self, email: str) -> None:
        if self.letters:
            number = len(self._mails)
            self._mails.append({"id": f"{number:08}", "to": email, "text": f"Your code:\r\n\r\n  {CODE}\r\n"})
            self._mails.append({"id": f"{number + 1:08}", "to": email, "text": "A notice without one, of 2026.\r\n"})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


@contextmanager
def faking(**how: Any) -> Iterator[Fake]:
    """Serve on a thread for the time of the block."""
    fake = Fake(**how)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            said = fake.answer(self.command, self.path, dict(self.headers), body)
            if said is None:
                self.close_connection = True
                return
            octets = json.dumps(said[1]).encode()
            head = f"HTTP/1.1 {said[0]} x\r\nContent-Length: {len(octets)}\r\n\r\n"
            self.wfile.write(head.encode() + octets)

        do_GET = do_POST = _do  # noqa: N815 - the stdlib's names

        def log_message(self, *_words: object) -> None:
            return

    with _Server(("127.0.0.1", 0), Handler) as server:
        fake.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="fake service")
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()


def plan(**how: Any) -> Plan:
    """Return a plan of ten seconds, other than as told."""
    usual: dict[str, Any] = {"scenario": "light", "rate": 50.0, "duration": 10.0, "warm_up": 0.0, "connections": 4}
    return Plan(**{"seed": 1, **usual, **how})


def ran(recorder: Recorder | None = None, **how: Any) -> Run:
    """Return a run of a minute in which two steps went well, and one at times did not; other than as told."""
    plan_ = plan(duration=60.0)
    told = recorder or recorded(plan_)
    usual: dict[str, Any] = {
        "url": "http://127.0.0.1:8000",
        "service": "0.1.0",
        "tool": "0.1.0",
        "host": "a machine",
        "began": "2026-11-21T09:00:00.000Z",
        "plan": plan_,
        "seconds": 60.0,
        "interrupted": False,
        "offered": told.offered,
        "finished": told.finished,
        "unfinished": 0,
        "answered_per_s": told.in_time / 60,
        "good_per_s": told.good / 60,
        "late": told.late,
        "waited": Histogram(),
        "busy": 0.1,
        "steps": told.steps,
        "timeline": told.timeline(60.0),
    }
    return Run(**{**usual, **how})


def recorded(of: Plan, factor: float = 1.0) -> Recorder:
    """Return what a minute was like; `factor`: how much slower it all was."""
    recorder = Recorder.of(of)
    recorder.until = 60.0
    for number in range(1200):
        due = number / 20
        recorder.came(due, due + 0.0001)
        recorder.step("GET /livez", due, due + factor * (1 + number % 10) / 1000, "200")
        if number % 20 == 0:
            status = "503" if number % 100 == 0 else "201"
            recorder.step("register", due, due + factor * (0.5 + number / 2000), status)
        recorder.went(due)
    return recorder
