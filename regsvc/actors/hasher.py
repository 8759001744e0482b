"""Slow hashing on a few threads of lower priority, behind a queue that says no at once.

Why threads of our own and not `trio.to_thread`: the priority of a thread, once lowered, cannot be raised again without
privileges, and Trio keeps finished threads for whoever asks next; mail and files would inherit ours. There are exactly
`threads` of them, which is the limit a CapacityLimiter would set. `run` starts and joins them.

How a job is handed over without a lock that a thread of low priority could hold against the event loop: jobs go through
a `SimpleQueue`, and whoever takes a job out of the set of waiting ones (a thread to start it, or the loop because its
deadline passed or its caller left) has it. Taking from a set is atomic, so exactly one does.
"""

import contextlib
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final, Protocol

import trio

from regsvc import observe
from regsvc.domain.values import Secret
from regsvc.ports import Unavailable

NICENESS: Final = 2
"""How much lower the threads' priority is. Linux weighs a busy thread at 1024, one at nice 2 at 655, at nice 19 at 15.

Enough that the event loop, when it wakes, is preferred to a hash. Little enough that hashing keeps two fifths of a core
(half would be its share without) while clients hammer at the door and the loop is busy telling them 503. At nice 19 it
would get one part in 70 then: the queue would not move, so that everyone was told 503, and came back.
"""
FIRST_GUESS: Final = timedelta(milliseconds=250)  # of one hash: bcrypt at 12 rounds; replaced by what is measured
RETRY_LEAST: Final = timedelta(seconds=1)  # Retry-After has whole seconds
CONFIDENCE: Final = 0.75
"""Of the deadline: who would wait longer is refused at once.

A hash takes longer as the machine gets busier; a refusal after the whole wait would be worth less than one now.
"""
JOIN: Final = 5.0  # seconds the end waits for a hash that is being computed
BATCH: Final = 1  # how many waiting jobs a thread takes at a time


class Scheme(Protocol):
    """A slow hash. Called on the hasher's threads; releases the GIL while it works."""

    def hash(self, password: Secret) -> str:
        """Return a tagged hash to store."""
        ...

    def check(self, password: Secret, stored: str) -> bool:
        """Tell whether `password` is the one of `stored`; an unreadable one is wrong, after the same work."""
        ...

    def waste(self, password: Secret) -> None:
        """Do the work of a check for nothing."""
        ...

    def outdated(self, stored: str) -> bool:
        """Tell whether `hash` would not make it as it is any more. Quick."""
        ...


@dataclass(frozen=True, slots=True)
class HasherStatistics:
    """Jobs `waiting` and `running`; since the start `done`, `refused` (no room or too late) and `left` by callers."""

    waiting: int
    running: int
    done: int
    refused: int
    left: int
    mean: timedelta
    threads: int


class _Job:
    """One call of the scheme and, later, its end; `over` is set on the event loop."""

    __slots__ = ("error", "over", "result", "work")

    def __init__(self, work: Callable[[], object]) -> None:
        self.work = work
        self.over = trio.Event()
        self.result: object = None
        self.error: Exception | None = None


Inbox = queue.SimpleQueue[_Job | None]
"""The way to the threads; None asks one of them to end."""


class Hasher:
    """ports.Passwords over a scheme. Jobs wait in the order they came, each at most `deadline` for its start."""

    def __init__(
        self, scheme: Scheme, *, threads: int, queue: int, deadline: timedelta, niceness: int = NICENESS
    ) -> None:
        self._scheme = scheme
        self._threads = threads
        self._room = queue
        self._deadline = deadline
        self._niceness = niceness
        self._inbox: Inbox | None = None  # while `run` runs
        self._waiting: set[_Job] = set()
        self._running: set[_Job] = set()
        self._done = self._refused = self._left = 0
        self._mean = FIRST_GUESS.total_seconds()
        self._complaints = _OncePerSecond()

    async def hash(self, password: Secret, client: str | None = None) -> str:
        """Return a tagged hash to store; see ports.Passwords. Cancelled: the job gives up its place."""
        [stored] = await self._do([partial(self._scheme.hash, password)])
        return str(stored)

    async def check(self, password: Secret, stored: Sequence[str], client: str | None = None) -> Sequence[bool]:
        """Check against each; see ports.Passwords. All are admitted, or none; nobody costs as much as somebody."""
        if not stored:
            await self._do([partial(self._scheme.waste, password)])
            return []
        works = [partial(self._scheme.check, password, one) for one in stored]
        return [bool(right) for right in await self._do(works)]

    def outdated(self, stored: str) -> bool:
        """Tell whether a hash that was right should be made anew; see ports.Passwords."""
        return self._scheme.outdated(stored)

    def statistics(self) -> HasherStatistics:
        """Count."""
        return HasherStatistics(
            waiting=len(self._waiting),
            running=len(self._running),
            done=self._done,
            refused=self._refused,
            left=self._left,
            mean=timedelta(seconds=self._mean),
            threads=self._threads,
        )

    # ------------------------------------------------------------------------------------- on the event loop

    async def _do(self, works: Sequence[Callable[[], object]]) -> list[object]:
        inbox = self._admit(len(works))
        jobs = [_Job(work) for work in works]
        start_by = trio.current_time() + self._deadline.total_seconds()
        self._waiting.update(jobs)
        for job in jobs:
            inbox.put(job)
        try:
            return [await self._end_of(job, start_by) for job in jobs]
        finally:
            for job in jobs:  # only those that have not started: their caller left, or one before was refused
                if self._take(job):
                    self._left += 1

    async def _end_of(self, job: _Job, start_by: float) -> object:
        with trio.move_on_at(start_by):
            await job.over.wait()
        if not job.over.is_set():
            if self._take(job):
                raise self._full(len(self._waiting))
            await job.over.wait()  # it is being computed
        if job.error is not None:
            raise job.error
        return job.result

    def _admit(self, jobs: int) -> Inbox:
        waiting = len(self._waiting)
        if self._inbox is None:
            raise Unavailable("hasher", "it is not running")
        hopeless = self._wait_at(waiting + jobs - 1) > self._deadline.total_seconds() * CONFIDENCE
        if waiting + jobs > self._room or hopeless:
            raise self._full(waiting)
        return self._inbox

    def _wait_at(self, place: int) -> float:
        """Seconds until the job that `place` others wait before is started; those running are half done on average."""
        return (place + len(self._running) / 2) * self._mean / self._threads

    def _full(self, waiting: int) -> Unavailable:
        self._refused += 1
        # When those now waiting are through. Sooner, most would be told no again, and each no takes time from a hash.
        wait = max(RETRY_LEAST, timedelta(seconds=self._wait_at(waiting)))
        if refused := self._complaints.count():
            observe.emit(
                "hash_queue_full",
                waiting=waiting,
                predicted_wait_s=round(self._wait_at(waiting), 3),
                retry_after_s=round(wait.total_seconds(), 3),
                refused=refused,
            )
        return Unavailable("hasher", f"{waiting} are waiting", retry_after=wait)

    def _take(self, job: _Job) -> bool:
        """Take a job that waits; False when somebody else has it."""
        try:
            self._waiting.remove(job)
        except KeyError:
            return False
        return True

    def _finish(self, job: _Job, took: float) -> None:
        self._running.discard(job)
        self._done += 1
        # The first one replaces the guess; then it follows a change of load within a dozen hashes.
        self._mean += (took - self._mean) / (1 if self._done == 1 else 8)
        job.over.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Compute until cancelled.

        Cancellation: a hash that is being computed is finished (JOIN at most is waited for it), jobs that wait are
        refused as Unavailable. Errors: none of its own; what a scheme raises goes to the caller.
        """
        inbox: Inbox = queue.SimpleQueue()
        token = trio.lowlevel.current_trio_token()
        threads = [
            threading.Thread(target=self._work, args=(inbox, token), name=f"hasher {n}", daemon=True)
            for n in range(self._threads)
        ]
        try:
            for thread in threads:
                thread.start()
            self._inbox = inbox
            task_status.started()
            await trio.sleep_forever()
        finally:
            self._inbox = None
            self._refuse_all()
            for _ in threads:
                inbox.put(None)
            limiter = trio.CapacityLimiter(1)
            with trio.move_on_after(JOIN, shield=True):
                for thread in threads:
                    await trio.to_thread.run_sync(thread.join, JOIN, abandon_on_cancel=True, limiter=limiter)

    def _refuse_all(self) -> None:
        for job in list(self._waiting):
            if self._take(job):
                job.error = Unavailable("hasher", "it was stopped")
                job.over.set()

    # -------------------------------------------------------------------------------------- on the threads

    def _work(self, inbox: Inbox, token: trio.lowlevel.TrioToken) -> None:
        _step_back(self._niceness)
        while batch := _next(inbox, BATCH):
            for job in batch:
                if job is not None and self._take(job):
                    self._compute(job, token)
            if None in batch:
                return

    def _compute(self, job: _Job, token: trio.lowlevel.TrioToken) -> None:
        self._running.add(job)
        began = time.perf_counter()
        job.error = RuntimeError("the scheme panicked")
        with contextlib.suppress(BaseException):  # a panic of native code ends a request, not the process
            try:
                job.result, job.error = job.work(), None
            except Exception as error:  # noqa: BLE001 - it is raised in the caller's task
                job.error = error
        took = time.perf_counter() - began
        with contextlib.suppress(trio.RunFinishedError):  # the loop is gone, and the caller with it
            token.run_sync_soon(self._finish, job, took)


def _next(inbox: Inbox, most: int) -> list[_Job | None]:
    """Wait for a job, then take what else waits, up to `most` in all."""
    batch = [inbox.get()]
    with contextlib.suppress(queue.Empty):
        while len(batch) < most and batch[-1] is not None:
            batch.append(inbox.get_nowait())
    return batch


def _step_back(niceness: int) -> None:
    """Lower the calling thread's priority; Linux has one per thread."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):  # a sandbox may forbid it: slower probes, but it works
            os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, thread) + niceness))


class _OncePerSecond:
    """Lets one complaint a second through, with the number of those it stands for."""

    def __init__(self) -> None:
        self._held = 0
        self._next = float("-inf")

    def count(self) -> int:
        """Count one; return how many to tell of now, 0 for none."""
        self._held += 1
        now = trio.current_time()
        if now < self._next:
            return 0
        self._next = now + 1
        held, self._held = self._held, 0
        return held
