"""A hasher on real threads, over a scheme whose work waits at a gate: what runs is what has begun and not passed."""

import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

import pytest
import trio

from regsvc.actors.hasher import Hasher
from regsvc.domain.values import Secret
from regsvc.ports import Unavailable

DEADLINE = timedelta(seconds=5)
PATIENCE = 10  # seconds of real time that a thread may take to do what it should


@dataclass
class Gate:
    """A scheme whose work waits until it is let through; "right" is every password's stored form."""

    began: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    passes: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    worked: list[str] = field(default_factory=list)
    niceness: set[int] = field(default_factory=set)

    def hash(self, password: Secret) -> str:
        self._work(password.reveal())
        return f"hash of {password.reveal()}"

    def check(self, password: Secret, stored: str) -> bool:
        self._work(f"{password.reveal()} against {stored}")
        return stored == "right"

    def waste(self, password: Secret) -> None:
        self._work(f"waste {password.reveal()}")

    def outdated(self, stored: str) -> bool:
        return stored == "old"

    def _work(self, what: str) -> None:
        self.worked.append(what)
        if sys.platform == "linux":
            self.niceness.add(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        self.began.release()
        assert self.passes.acquire(timeout=PATIENCE)
        if what == "bug":
            raise LookupError("a bug")
        if what == "panic":
            raise KeyboardInterrupt  # as good as any BaseException

    def open(self) -> "Gate":
        self.passes.release(1000)
        return self

    async def has_begun(self, jobs: int = 1) -> None:
        for _ in range(jobs):
            assert await trio.to_thread.run_sync(partial(self.began.acquire, timeout=PATIENCE))


@asynccontextmanager
async def running(
    gate: Gate, *, threads: int = 2, room: int = 10, deadline: timedelta = DEADLINE
) -> AsyncIterator[tuple[Hasher, trio.Nursery]]:
    """A hasher that runs, and a nursery for its callers; both have ended when the block ends."""
    passwords = Hasher(gate, threads=threads, queue=room, deadline=deadline)
    async with trio.open_nursery() as actors:
        await actors.start(passwords.run)
        async with trio.open_nursery() as callers:
            yield passwords, callers
        actors.cancel_scope.cancel(reason="the test is over")


async def refused(call: Callable[[], object]) -> Unavailable:
    with pytest.raises(Unavailable) as no:
        await call()  # type: ignore[misc]  # a coroutine function, whatever it returns
    assert no.value.what == "hasher"
    return no.value
