"""A real `regsvc serve` in a process of its own, for tests and benchmarks that look at it from outside.

The process leads a group of its own, so that whatever it leaves behind is found and ended with it. A test's says all
that it can (`LOG_LEVEL=debug`), and no secret that passed through the test may be in that: `end` looks.
"""

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests import canaries, lines
from tests.postgres import copy_cluster

READY_SECONDS = 45.0  # far beyond the 5 s promised: a busy machine is no failure, a service that never comes is
STOP_SECONDS = 30.0
# Settings of whoever runs the tests, and coverage's tracer, under which a service takes half as long again for all it
# does: what only a service runs has tests within one process too.
NOT_OURS = ("REGSVC_", "DATABASE_", "COVERAGE_PROCESS")
DATABASE = frozenset({"REGSVC_DATABASE_URL", "DATABASE_URL"})
LIMITED = "REGSVC_ENABLE_RATE_LIMITING"
LIFTED = {
    f"REGSVC_RATE_LIMIT_{name}": "1000000"
    for name in ("REGISTRATION_PER_HOUR", "ACTIVATION_PER_MINUTE", "LOGIN_PER_MINUTE", "GLOBAL_PER_MINUTE")
}
"""The limits of a test that says nothing of them: counted as ever, and out of its way."""
LANES = {"REGSVC_HASH_LANES": "4"}
"""What the start of a worker would measure: a quarter of a second of a core, each time."""


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def lines_of(connections: int = 100) -> httpx.Limits:
    """Return how many connections a client has at most; each is left before the service ends it, after idle 5 s.

    By itself httpx leaves them after as long, and on a busy machine a request meets the end of its connection.
    """
    return httpx.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=2.0)


def plain() -> ssl.SSLContext:
    """Return what a client needs that speaks no TLS; by itself each loads every authority there is, in 30 ms."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass
class Service:
    """One service: its data folder, its port, and the process while it runs.

    `before`: the words of a command that becomes what follows it, such as `nice`.
    `first`: its first start makes its database and each measures how many lanes pay, as everybody's does. Other tests
    have had that done: what is measured once is set, and a cluster is copied. Benchmarks leave it all to the service.
    """

    folder: Path
    environ: Mapping[str, str]
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    before: Sequence[str] = ()
    first: bool = field(default_factory=lambda: not canaries.KNOWN.listening)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "stdout.log"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def start(self) -> float:
        """Start it and wait until it is ready; return how long that took, in seconds.

        A test's is whole then: it is ready with the first of its workers, and the others come when they come.
        """
        began, before = time.monotonic(), self._announced()
        self.launch()
        self.wait_ready()
        took = time.monotonic() - began
        if canaries.KNOWN.listening and self.environ.get("REGSVC_LOG_LEVEL") not in ("warning", "error"):
            self._wait(lambda: self._announced() > before)
        return took

    def launch(self) -> None:
        """Start it, without waiting for anything."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.first or DATABASE.intersection(self.environ) or self.data.exists()):
            copy_cluster(self.data)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(NOT_OURS)}
        ours = {
            "REGSVC_PORT": str(self.port),
            "REGSVC_DATA_DIR": str(self.data),
            "REGSVC_LOG_FORMAT": "json",
            **({"REGSVC_LOG_LEVEL": "debug"} if canaries.KNOWN.listening else {}),  # a benchmark is told what it is
            **({} if LIMITED in self.environ else LIFTED),
            **({} if self.first else LANES),
            **self.environ,
        }
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [*self.before, sys.executable, "-m", "regsvc", "serve"],
                cwd=self.folder,
                env=inherited | ours,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Wait until /readyz says yes; fail with the end of the log if the process ends or it takes too long."""

        with httpx.Client(headers={"Connection": "close"}, timeout=2, verify=plain()) as http:

            def ready() -> bool:
                with contextlib.suppress(httpx.TransportError):
                    return http.get(f"{self.url}/readyz").status_code == 200
                return False

            self._wait(ready)

    def _wait(self, condition: Callable[[], bool]) -> None:
        assert self.process is not None
        until = time.monotonic() + READY_SECONDS
        while not condition():
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.tail()}"
            assert time.monotonic() < until, f"not ready after {READY_SECONDS:g} s:\n{self.tail()}"
            time.sleep(0.02)

    def _announced(self) -> int:
        """Return how often it has said that all of it is there."""
        return self.said().count("service_started")

    def said(self) -> str:
        """Return everything it said, over all its starts."""
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    def tail(self) -> str:
        """Return the end of what it said."""
        return self.said()[-4000:]

    def lines(self, event: str | None = None) -> list[dict[str, object]]:
        """Return its log lines, those of `event` only if named."""
        found = []
        for text in self.said().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                line = json.loads(text)
                if isinstance(line, dict) and (event is None or line.get("event") == event):
                    found.append(line)
        return found

    def kill(self) -> None:
        """Kill -9 the service; the kernel is left to end the rest."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        """Ask it to stop; return its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def end(self) -> None:
        """End it and everything it started, whatever state it is in. Fails if it ever said what it may not."""
        if self.process is None:
            return
        self._stop(self.process)
        self.look()

    def look(self) -> None:
        """Fail if a line is not its event's, or if it or its PostgreSQL said a secret, other than in letters."""
        if self.log.exists():
            lines.read_all(self.log.read_bytes())
        canaries.KNOWN.environment({**self.environ, "GENERATED_SECRET": self._generated()})
        console = "console" in self.environ.get("REGSVC_MAIL_CHANNEL", "console")
        for log in (*self.folder.glob("*.log"), *self.folder.glob("data/*.log")):
            canaries.assert_none(log.read_bytes(), str(log), but=(canaries.MAILED,) if console else ())

    def _generated(self) -> str:
        made = self.data / "secret"
        return made.read_text() if made.exists() else ""

    @staticmethod
    def _stop(process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def running(folder: Path, **environ: str) -> AbstractContextManager[Service]:
    """Run a service in `folder` with REGSVC_ variables as given (names without the prefix); end it whatever happens.

    Nobody meets a limit, unless ENABLE_RATE_LIMITING is given: then they are what they are.
    """
    return kept(Service(folder, _told(environ)))


def running_first(folder: Path, **environ: str) -> AbstractContextManager[Service]:
    """Run a service that makes all that it needs by itself, as the first start of everybody's does; else `running`."""
    return kept(Service(folder, _told(environ), first=True))


@contextlib.contextmanager
def kept(service: Service) -> Iterator[Service]:
    """Start a service, and end it at the end of the block whatever happens."""
    try:
        service.start()
        yield service
    finally:
        service.end()


def _told(environ: Mapping[str, str]) -> dict[str, str]:
    return {f"REGSVC_{name}": value for name, value in environ.items()}
