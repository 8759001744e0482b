"""A worker that runs on the main thread, as in its process, with a real database; another thread asks it things."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from regsvc import observe, world
from regsvc.observe.shared import Shared
from regsvc.settings import Settings, load_settings
from tests.lines import Lines

QUICK = 10.0  # seconds, for what takes milliseconds
SECRET = "a secret that is certainly long enough"


def settings(dsn: str = "postgresql://db/x", **changed: str) -> Settings:
    given = {"DATABASE_URL": dsn, "REGSVC_PROFILE": "dev", "REGSVC_SECRET": SECRET, "REGSVC_PASSWORD_ROUNDS": "4"}
    return load_settings({**given, **{f"REGSVC_{name}": value for name, value in changed.items()}})


@dataclass
class Scene:
    """A worker on the main thread, and somebody on another who asks and tells."""

    dsn: str
    door: socket.socket
    lines: Lines = field(default_factory=Lines)
    lifeline: int = -1
    failed: list[BaseException] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.door.getsockname()[1]}"

    def run(self, actor: Callable[[], None], **changed: str) -> int:
        """Run a worker until it ends; `actor` acts once it is ready."""
        reading, self.lifeline = os.pipe()
        ready, tell_ready = os.pipe()

        def act() -> None:
            try:
                if os.read(ready, 1):
                    actor()
            except BaseException as error:  # noqa: BLE001, ASYNC103 - a thread; it is raised on the main one
                self.failed.append(error)
                tell(signal.SIGTERM)

        acting = threading.Thread(target=act, name="actor")
        before = signal.signal(signal.SIGTERM, lambda *_: None)  # a word that comes too late ends no tests
        acting.start()
        sockets = [os.dup(self.door.fileno())]
        try:
            told, shared = settings(self.dsn, **changed), Shared.create(2)
            with observe.open_log(self.lines, slab=shared.slabs[1]):
                return world.run_worker(told, sockets, lifeline=reading, ready=tell_ready, shared=shared)
        finally:
            with_closed(tell_ready)  # where it never was ready, the actor hears of it
            acting.join()
            signal.signal(signal.SIGTERM, before)
            for end in (reading, self.lifeline, ready):
                with_closed(end)
            if self.failed:
                raise self.failed[0]

    def register(self, email: str = "ada@example.org") -> httpx.Response:
        form = {"email": email, "password": "correct horse battery"}
        return httpx.post(f"{self.url}/v1/users/register", json=form, timeout=QUICK)

    def await_line(self, event: str) -> dict[str, Any]:
        until(lambda: self.lines.of(event))
        return self.lines.of(event)[0]


def with_closed(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:
        return


def until(condition: Callable[[], object], seconds: float = QUICK) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


def tell(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
