"""The hasher's threads: each takes what waits, up to as many works as it can do at once, and does them.

Why threads of our own and not `trio.to_thread`: the priority of a thread, once lowered, cannot be raised again without
privileges, and Trio keeps finished threads for whoever asks next; mail and files would inherit ours. There are exactly
`threads` of them, which is the limit a CapacityLimiter would set. `run` starts and joins them.

How a job is handed over without a lock that a thread of low priority could hold against the event loop: jobs go through
a `SimpleQueue`, and whoever takes a job out of the set of those handed over (a thread to start it, or the loop because
its deadline passed or its caller left) has it. Taking from a set is atomic, so exactly one does.

Nobody waits for company: a work that is alone goes at once, on one lane. What waits is shared out between the threads,
so that two works on two idle threads take a core each.
"""

import contextlib
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

import trio

NICENESS: Final = 2
"""How much lower the threads' priority is. Linux weighs a busy thread at 1024, one at nice 2 at 655, at nice 19 at 15.

Enough that the event loop, when it wakes, is preferred to a hash. Little enough that hashing keeps two fifths of a core
(half would be its share without) while clients hammer at the door and the loop is busy telling them 503. At nice 19 it
would get one part in 70 then: the queue would not move, so that everyone was told 503, and came back.
"""
JOIN: Final = 5.0  # seconds the end waits for a hash that is being computed

Owner = TypeVar("Owner")


class Work(Protocol):
    """Something to do that takes long."""

    @property
    def together(self) -> int | None:
        """Works that are equal in this can be done at once; None: alone."""
        ...


class Job(Generic[Owner]):
    """A work, whose it is and, later, its end. `wait`: seconds until it was begun."""

    __slots__ = ("error", "made", "owner", "result", "wait", "work")

    def __init__(self, owner: Owner, work: Work) -> None:
        self.owner = owner
        self.work = work
        self.made = time.perf_counter()
        self.wait = 0.0
        self.result: object = None
        self.error: Exception | None = None


Batch = list[Job[Owner]]


class Hands(Generic[Owner]):
    """Threads that do jobs, up to `lanes` at once each; `finish` is told of each batch and its seconds, on the loop."""

    def __init__(
        self,
        do: Callable[[Sequence[Any]], Sequence[object]],
        finish: Callable[[Batch[Owner], float], None],
        *,
        threads: int,
        lanes: int,
        niceness: int = NICENESS,
    ) -> None:
        self.threads = threads
        self.lanes = lanes
        self._do = do
        self._finish = finish
        self._niceness = niceness
        self._inbox: queue.SimpleQueue[Job[Owner] | None] | None = None  # while `run` runs; None asks a thread to end
        self._handed: set[Job[Owner]] = set()  # over to the threads, and not begun
        self._running: set[Job[Owner]] = set()
        self._busy: set[int] = set()  # threads, by their identifiers

    # ------------------------------------------------------------------------------------- on the event loop

    @property
    def there(self) -> bool:
        """Whether anything handed over would be done."""
        return self._inbox is not None

    @property
    def width(self) -> int:
        """How many can be done at once."""
        return self.threads * self.lanes

    @property
    def idle(self) -> int:
        """How many threads would begin at once what they are given."""
        return self.threads - len(self._busy)

    @property
    def wanting(self) -> bool:
        """Whether they may need more before the loop looks again: no thread waits for it while a job waits."""
        return self.there and len(self._handed) < self.width

    @property
    def handed(self) -> int:
        """How many were handed over and not begun."""
        return len(self._handed)

    @property
    def running(self) -> int:
        """How many are being done."""
        return len(self._running)

    def waiting(self) -> set[Job[Owner]]:
        """Return those handed over and not begun; at once, while threads take from them."""
        return self._handed.copy()

    def give(self, job: Job[Owner]) -> None:
        """Hand a job over."""
        assert self._inbox is not None, "whoever gives has looked"  # noqa: S101 - a bug of ours, not a value
        self._handed.add(job)
        self._inbox.put(job)

    def take(self, job: Job[Owner]) -> bool:
        """Take a job that was handed over; False when somebody else has it."""
        try:
            self._handed.remove(job)
        except KeyError:
            return False
        return True

    async def run(
        self, leave: Callable[[], None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Do jobs until cancelled; then `leave` is called, to take away what waits.

        Cancellation: what is being done is finished (JOIN at most is waited for it). Errors: none of its own.
        """
        inbox: queue.SimpleQueue[Job[Owner] | None] = queue.SimpleQueue()
        token = trio.lowlevel.current_trio_token()
        threads = [
            threading.Thread(target=self._work, args=(inbox, token), name=f"hasher {n}", daemon=True)
            for n in range(self.threads)
        ]
        try:
            for thread in threads:
                thread.start()
            self._inbox = inbox
            task_status.started()
            await trio.sleep_forever()
        finally:
            self._inbox = None
            leave()
            for _ in threads:
                inbox.put(None)
            limiter = trio.CapacityLimiter(1)
            with trio.move_on_after(JOIN, shield=True):
                for thread in threads:
                    await trio.to_thread.run_sync(thread.join, JOIN, abandon_on_cancel=True, limiter=limiter)

    def _over(self, batch: Batch[Owner], took: float) -> None:
        self._running.difference_update(batch)
        self._finish(batch, took)

    # -------------------------------------------------------------------------------------- on the threads

    def _work(self, inbox: "queue.SimpleQueue[Job[Owner] | None]", token: trio.lowlevel.TrioToken) -> None:
        _step_back(self._niceness)
        first = inbox.get()
        while first is not None:
            batch, first = self._batch(first, inbox)
            if batch:
                self._busy.add(threading.get_ident())
                self._compute(batch, token)
                self._busy.discard(threading.get_ident())
            if first is _NOBODY:
                first = inbox.get()

    def _batch(self, first: Job[Owner], inbox: "queue.SimpleQueue[Job[Owner] | None]") -> "tuple[Batch[Owner], Any]":
        """Return `first` with what goes along with it, and what comes after them: a job, None, or nobody yet."""
        idle = max(1, self.threads - len(self._busy))
        most = min(self.lanes, -(-len(self._handed) // idle))
        batch = [first] if self.take(first) else []
        while len(batch) < most:
            try:
                other = inbox.get_nowait()
            except queue.Empty:
                break
            if other is None or (batch and not _together(batch[0], other)):
                return batch, other
            if self.take(other):
                batch.append(other)
        return batch, _NOBODY

    def _compute(self, batch: Batch[Owner], token: trio.lowlevel.TrioToken) -> None:
        for job in batch:
            self._running.add(job)
        began = time.perf_counter()
        error: Exception | None = RuntimeError("the scheme panicked")
        results: Sequence[object] = [None] * len(batch)
        with contextlib.suppress(BaseException):  # a panic of native code ends a request, not the process
            try:
                results, error = self._do([job.work for job in batch]), None
            except Exception as wrong:  # noqa: BLE001 - it is raised in the caller's task
                error = wrong
        took = time.perf_counter() - began
        for job, result in zip(batch, results, strict=True):
            job.wait, job.result, job.error = began - job.made, result, error
        with contextlib.suppress(trio.RunFinishedError):  # the loop is gone, and the callers with it
            token.run_sync_soon(self._over, batch, took)


_NOBODY: Final = object()


def _together(one: Job[Owner], other: Job[Owner]) -> bool:
    return one.work.together is not None and one.work.together == other.work.together


def _step_back(niceness: int) -> None:
    """Lower the calling thread's priority; Linux has one per thread."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):  # a sandbox may forbid it: slower probes, but it works
            os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, thread) + niceness))
