"""Slow hashing on a few threads of lower priority, behind a queue that is fair, and that says no at once.

Why threads of our own and not `trio.to_thread`: the priority of a thread, once lowered, cannot be raised again without
privileges, and Trio keeps finished threads for whoever asks next; mail and files would inherit ours. There are exactly
`threads` of them, which is the limit a CapacityLimiter would set. `run` starts and joins them.

Who is next decides the event loop (see `turns`). What the threads will need until it looks again, a batch for each, it
has handed over to them already, so that no thread waits for the loop while a job waits for a thread.

How a job is handed over without a lock that a thread of low priority could hold against the event loop: jobs go through
a `SimpleQueue`, and whoever takes a job out of the set of those handed over (a thread to start it, or the loop because
its deadline passed or its caller left) has it. Taking from a set is atomic, so exactly one does.

Whose place a newcomer may take when there is no room: one of a client that keeps more than the newcomer's will, even
afterwards. So every client can come to hold its share of the room, and no job is put out for the sake of its equal.
"""

import contextlib
import os
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final, Protocol

import trio

from regsvc import observe
from regsvc.actors.turns import Client, Turns
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
    """Jobs `waiting` (of so many `clients`) and `running`; since the start `done`, and `left` by their callers.

    `refused`: calls that met no room or came too late, or whose place another client's took.
    """

    waiting: int
    clients: int
    running: int
    done: int
    refused: int
    left: int
    mean: timedelta
    threads: int


class _Call:
    """What one caller waits for: all of its jobs, or the first thing that went wrong. `over` is set on the loop."""

    __slots__ = ("client", "error", "jobs", "missing", "over")

    def __init__(self, client: Client, works: Sequence[Callable[[], object]]) -> None:
        self.client = client
        self.jobs = [_Job(self, work) for work in works]
        self.missing = len(works)
        self.error: Exception | None = None
        self.over = trio.Event()


class _Job:
    """One run of the scheme and, later, its end."""

    __slots__ = ("call", "error", "result", "work")

    def __init__(self, call: _Call, work: Callable[[], object]) -> None:
        self.call = call
        self.work = work
        self.result: object = None
        self.error: Exception | None = None


Inbox = queue.SimpleQueue[_Job | None]
"""The way to the threads; None asks one of them to end."""


class Hasher:
    """ports.Passwords over a scheme. Clients have their turns one after the other, each job `deadline` for its start.

    `queue`: how many jobs may wait, those included that a thread is about to take; 0: nothing is hashed.
    """

    def __init__(
        self, scheme: Scheme, *, threads: int, queue: int, deadline: timedelta, niceness: int = NICENESS
    ) -> None:
        self._scheme = scheme
        self._threads = threads
        self._room = queue
        self._deadline = deadline
        self._niceness = niceness
        self._inbox: Inbox | None = None  # while `run` runs
        self._calls: set[_Call] = set()  # that are not over
        self._turns: Turns[_Job] = Turns()
        self._handed: set[_Job] = set()  # over to the threads, and not begun
        self._running: set[_Job] = set()
        self._done = self._refused = self._left = 0
        self._mean = FIRST_GUESS.total_seconds()
        self._complaints = _OncePerSecond()

    async def hash(self, password: Secret, client: str | None = None) -> str:
        """Return a tagged hash to store; see ports.Passwords. Cancelled: the job gives up its place."""
        [stored] = await self._do(client, [partial(self._scheme.hash, password)])
        return str(stored)

    async def check(self, password: Secret, stored: Sequence[str], client: str | None = None) -> Sequence[bool]:
        """Check against each; see ports.Passwords. All are admitted, or none; nobody costs as much as somebody."""
        if not stored:
            await self._do(client, [partial(self._scheme.waste, password)])
            return []
        works = [partial(self._scheme.check, password, one) for one in stored]
        return [bool(right) for right in await self._do(client, works)]

    def outdated(self, stored: str) -> bool:
        """Tell whether a hash that was right should be made anew; see ports.Passwords."""
        return self._scheme.outdated(stored)

    def statistics(self) -> HasherStatistics:
        """Count."""
        return HasherStatistics(
            waiting=len(self._turns) + len(self._handed),
            clients=len(self._loads()),
            running=len(self._running),
            done=self._done,
            refused=self._refused,
            left=self._left,
            mean=timedelta(seconds=self._mean),
            threads=self._threads,
        )

    # ------------------------------------------------------------------------------------- on the event loop

    async def _do(self, client: Client, works: Sequence[Callable[[], object]]) -> list[object]:
        self._admit(client, len(works))
        call = _Call(client, works)
        self._calls.add(call)
        for job in call.jobs:
            self._turns.add(client, job)
        self._hand_over()
        try:
            with trio.move_on_after(self._deadline.total_seconds()):
                await call.over.wait()
            if not call.over.is_set() and self._withdraw(call):
                raise self._full(client)
            await call.over.wait()  # what is left of it is being computed
        finally:
            self._calls.discard(call)
            self._left += self._withdraw(call)  # its caller left, or one of its jobs went wrong
            self._hand_over()
        if call.error is not None:
            raise call.error
        return [job.result for job in call.jobs]

    def _admit(self, client: Client, jobs: int) -> None:
        if self._inbox is None:
            raise Unavailable("hasher", "it is not running")
        hopeless = self._wait_of(client, jobs) > self._deadline.total_seconds() * CONFIDENCE
        if hopeless or not self._make_room(client, jobs):
            raise self._full(client, jobs)

    def _make_room(self, client: Client, jobs: int) -> bool:
        """See to it that `jobs` more find room; False, and nobody was put out, when those of others are no fewer."""
        lacking = len(self._turns) + len(self._handed) + jobs - self._room
        if lacking <= 0:
            return True
        loads = self._loads()
        share = loads[client] + jobs
        if sum(min(self._turns.of(one), max(0, loads[one] - share)) for one in self._turns.clients) < lacking:
            return False
        while lacking > 0:
            heaviest = max(self._turns.clients, key=loads.__getitem__)
            call = self._turns.newest(heaviest).call
            gone = self._withdraw(call)
            self._settle(call, self._full(heaviest))
            loads[heaviest] -= gone
            lacking -= gone
        return True

    def _loads(self) -> Counter[Client]:
        """How many jobs of each client wait."""
        handed = self._handed.copy()  # at once, while threads take from it
        return Counter({client: self._turns.of(client) for client in self._turns.clients}) + Counter(
            job.call.client for job in handed
        )

    def _wait_of(self, client: Client, jobs: int) -> float:
        """Seconds until the last of `jobs` more of a client is started; those running are half done on average."""
        place = len(self._handed) + self._turns.before(client, jobs)
        return (place + len(self._running) / 2) * self._mean / self._threads

    def _full(self, client: Client, jobs: int = 1) -> Unavailable:
        self._refused += 1
        waiting = len(self._turns) + len(self._handed)
        # When its turn would come. Sooner, most would be told no again, and each no takes time from a hash.
        predicted = self._wait_of(client, jobs)
        wait = max(RETRY_LEAST, timedelta(seconds=predicted))
        if refused := self._complaints.count():
            observe.emit(
                "hash_queue_full",
                waiting=waiting,
                clients=len(self._loads()),
                predicted_wait_s=round(predicted, 3),
                retry_after_s=round(wait.total_seconds(), 3),
                refused=refused,
            )
        return Unavailable("hasher", f"{waiting} are waiting", retry_after=wait)

    def _hand_over(self) -> None:
        """Hand over what the threads may need before the loop looks again."""
        while self._inbox is not None and self._turns and len(self._handed) < self._threads * BATCH:
            job = self._turns.next()
            self._handed.add(job)
            self._inbox.put(job)

    def _withdraw(self, call: _Call) -> int:
        """Take out those jobs of a call that wait; return how many they were."""
        return sum(self._turns.remove(call.client, job) or self._take(job) for job in call.jobs)

    def _take(self, job: _Job) -> bool:
        """Take a job that was handed over; False when somebody else has it."""
        try:
            self._handed.remove(job)
        except KeyError:
            return False
        return True

    def _settle(self, call: _Call, error: Exception | None) -> None:
        """Tell the caller how it ended, unless that is known already."""
        if not call.over.is_set():
            call.error = error
            call.over.set()

    def _finish(self, job: _Job, took: float) -> None:
        self._running.discard(job)
        self._done += 1
        # The first one replaces the guess; then it follows a change of load within a dozen hashes.
        self._mean += (took - self._mean) / (1 if self._done == 1 else 8)
        job.call.missing -= 1
        if job.error is not None or job.call.missing == 0:
            self._settle(job.call, job.error)
        self._hand_over()

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
        for call in self._calls:
            if self._withdraw(call):
                self._settle(call, Unavailable("hasher", "it was stopped"))

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
