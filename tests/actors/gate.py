"""A hasher on real threads, over a scheme whose work waits at a gate: what runs is what has begun and not passed."""

import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
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


@dataclass(frozen=True)
class Plan:
    """A work of a scheme here; those of one cost can be done together."""

    run: Callable[[], object]
    together: int | None = 4


@dataclass
class Gate:
    """A scheme whose work waits until it is let through; "right" is every password's stored form."""

    began: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    passes: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    worked: list[str] = field(default_factory=list)
    niceness: set[int] = field(default_factory=set)
    batches: list[int] = field(default_factory=list)  # how many works each had

    def to_hash(self, password: Secret) -> Plan:
        return self._plan(password.reveal(), f"hash of {password.reveal()}")

    def to_check(self, password: Secret, stored: str) -> Plan:
        return self._plan(f"{password.reveal()} against {stored}", stored == "right")

    def to_waste(self, password: Secret) -> Plan:
        return self._plan(f"waste {password.reveal()}", None)

    def do(self, works: Sequence[Plan]) -> list[object]:
        assert len({work.together for work in works}) == 1
        self.batches.append(len(works))
        return [work.run() for work in works]

    def _plan(self, what: str, result: object) -> Plan:
        def run() -> object:
            self._work(what)
            return result

        cost = {"alone": None, "dear": 5}.get(what.split(maxsplit=1)[0], 4)
        return Plan(run, cost)

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
    gate: Gate, *, threads: int = 2, room: int = 10, deadline: timedelta = DEADLINE, lanes: int = 1
) -> AsyncIterator[tuple[Hasher, trio.Nursery]]:
    """A hasher that runs, and a nursery for its callers; both have ended when the block ends."""
    passwords = Hasher(gate, threads=threads, queue=room, deadline=deadline, lanes=lanes)
    async with running_hasher(passwords), trio.open_nursery() as callers:
        yield passwords, callers


@asynccontextmanager
async def running_hasher(passwords: Hasher) -> AsyncIterator[None]:
    """Run it while the block runs."""
    async with trio.open_nursery() as actors:
        await actors.start(passwords.run)
        yield
        actors.cancel_scope.cancel(reason="the test is over")


async def refused(call: Callable[[], object]) -> Unavailable:
    with pytest.raises(Unavailable) as no:
        await call()  # type: ignore[misc]  # a coroutine function, whatever it returns
    assert no.value.what == "hasher"
    return no.value
