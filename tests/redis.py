"""A real Redis for tests: the machine's program on a free port, or whatever REGSVC_TEST_REDIS_URL names."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from regsvc.store.embedded.process import wait_until
from tests.postgres import temporary_folder

PROGRAM = shutil.which("redis-server")
GIVEN = os.environ.get("REGSVC_TEST_REDIS_URL")
NOTHING = "there is no redis-server on this machine, and REGSVC_TEST_REDIS_URL names none"
NO_PROGRAM = "there is no redis-server on this machine"


@dataclass
class Server:
    """A Redis of the test's own, which forgets everything when it stops."""

    words: tuple[str, ...] = ()
    port: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/1"

    def start(self) -> None:
        """Start it on its port; returns when it listens."""
        words = ["--port", f"{self.port}", *self.words, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen([PROGRAM or "", *words], stdout=subprocess.DEVNULL)
        assert wait_until(self._listens, 10), "Redis does not start"

    def stop(self) -> None:
        """Kill it, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def tell(self, wish: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(wish)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@contextmanager
def running(*words: str) -> Iterator[Server]:
    """A server for the time of the block; `words` are more of its settings. Skips the test where there is none."""
    if PROGRAM is None:
        pytest.skip(NO_PROGRAM)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with temporary_folder() as folder:
        server = Server(("--dir", str(folder), *words), port)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextmanager
def any_redis() -> Iterator[str]:
    """The address of a Redis that is there for the time of the block; skips the test where there is none."""
    if GIVEN is not None:
        yield GIVEN
    elif PROGRAM is None:
        pytest.skip(NOTHING)
    else:
        with running() as server:
            yield server.url
