"""Slow hashing on a few threads of lower priority, behind a queue that is fair, and that says no at once.

Who is next decides the event loop (see `turns`). What the threads (see `hands`) will need until it looks again, as many
as they can do at once, it has handed over to them already, so that no thread waits for the loop while a job waits for a
thread.

Whose place a newcomer may take when there is no room: one of a client that keeps more than the newcomer's will, even
afterwards. So every client can come to hold its share of the room, and no job is put out for the sake of its equal.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol

import trio

from regsvc import observe
from regsvc.actors.hands import NICENESS, Hands, Job, Work
from regsvc.actors.turns import Client, Turns
from regsvc.domain.values import Secret
from regsvc.ports import Unavailable

FIRST_GUESS: Final = timedelta(milliseconds=250)  # of one hash: bcrypt at 12 rounds; replaced by what is measured
OUTLIER: Final = 4  # times the mean: a batch counts as no more, else a stall refuses people for dozens of batches
RETRY_LEAST: Final = timedelta(seconds=1)  # Retry-After has whole seconds
CONFIDENCE: Final = 0.75
"""Of the deadline: who waits is done within that, or refused at once.

A hash takes longer as the machine gets busier; a refusal after the whole wait would be worth less than one now. What
counts is the end, for which people wait: with more lanes each batch takes longer. But whose first job is begun at once
is done, however long that takes, as far as his last one is begun by then.
"""


class Scheme(Protocol):
    """A slow hash. Plans are quick, and made on the loop; `do` runs on the hasher's threads, and lets go of the GIL."""

    def to_hash(self, password: Secret) -> Work:
        """Plan a tagged hash to store: a str."""
        ...

    def to_check(self, password: Secret, stored: str) -> Work:
        """Plan to tell whether `password` is the one of `stored`: a bool; an unreadable one costs the same."""
        ...

    def to_waste(self, password: Secret) -> Work:
        """Plan the work of a check for nothing."""
        ...

    def do(self, works: Sequence[Any]) -> Sequence[object]:
        """Do works that are equal in `together`, or a single one; return a result for each."""
        ...

    def outdated(self, stored: str) -> bool:
        """Tell whether it would not be made as it is any more. Quick."""
        ...


@dataclass(frozen=True, slots=True)
class HasherStatistics:
    """Jobs `waiting` (of so many `clients`) and `running`; since the start `done`, and `left` by their callers.

    `refused`: calls that met no room, were too late or were foretold to be, or whose place another client's took.
    `mean`: what a thread took lately, for one job or for as many as it did at once.
    """

    waiting: int
    clients: int
    running: int
    done: int
    refused: int
    left: int
    mean: timedelta
    threads: int
    lanes: int


class _Call:
    """What one caller waits for: all of its jobs, or the first thing that went wrong. `over` is set on the loop.

    `until`: when its jobs have to be begun, by Trio's clock.
    """

    __slots__ = ("client", "error", "jobs", "missing", "over", "span", "until")

    def __init__(self, client: Client, works: Sequence[Work], until: float) -> None:
        self.client = client
        self.until = until
        self.jobs = [Job(self, work) for work in works]
        self.missing = len(works)
        self.error: Exception | None = None
        self.over = trio.Event()
        self.span: observe.Span | observe.NoSpan = observe.NO_SPAN


class Hasher:
    """ports.Passwords over a scheme. Clients have their turns one after the other, each job `deadline` for its start.

    `queue`: how many jobs may wait, those included that a thread is about to take; 0: nothing is hashed. `lanes`: how
    many a thread does at once. `stretch`: how much longer so many take than one; believed until it was seen.
    """

    def __init__(
        self,
        scheme: Scheme,
        *,
        threads: int,
        queue: int,
        deadline: timedelta,
        lanes: int = 1,
        stretch: float = 1.0,
        niceness: int = NICENESS,
    ) -> None:
        self._scheme = scheme
        self._room = queue
        self._deadline = deadline
        self._stretch = stretch
        self._hands: Hands[_Call] = Hands(scheme.do, self._finish, threads=threads, lanes=lanes, niceness=niceness)
        self._calls: set[_Call] = set()  # that are not over
        self._turns: Turns[Job[_Call]] = Turns()
        self._announced: Counter[Client] = Counter()
        self._done = self._refused = self._left = 0
        self._mean = FIRST_GUESS.total_seconds()
        self._mean_of_full = 0.0  # the mean of batches that were full; 0: there was none yet
        self._complaints = _OncePerSecond()

    @contextmanager
    def announced(self, client: str | None = None) -> Iterator[None]:
        """Refuse a call that would be refused after all that were announced; see ports.Passwords."""
        if not self._hands.there:
            raise Unavailable("hasher", "it is not running")
        own = self._announced[client] + 1
        if self._hopeless(client, own, self._ahead(client, own)) or not self._has_room(client):
            raise self._full(client)
        self._announced[client] = own
        try:
            yield
        finally:
            self._announced[client] -= 1
            if not self._announced[client]:
                del self._announced[client]

    async def hash(self, password: Secret, client: str | None = None) -> str:
        """Return a tagged hash to store; see ports.Passwords. Cancelled: the job gives up its place."""
        [stored] = await self._do(client, [self._scheme.to_hash(password)])
        return str(stored)

    async def check(self, password: Secret, stored: Sequence[str], client: str | None = None) -> Sequence[bool]:
        """Check against each; see ports.Passwords. All are admitted, or none; nobody costs as much as somebody."""
        if not stored:
            await self._do(client, [self._scheme.to_waste(password)])
            return []
        works = [self._scheme.to_check(password, one) for one in stored]
        return [bool(right) for right in await self._do(client, works)]

    def outdated(self, stored: str) -> bool:
        """Tell whether a hash that was right should be made anew; see ports.Passwords."""
        return self._scheme.outdated(stored)

    def statistics(self) -> HasherStatistics:
        """Count."""
        return HasherStatistics(
            waiting=self._waiting,
            clients=len(self._loads()),
            running=self._hands.running,
            done=self._done,
            refused=self._refused,
            left=self._left,
            mean=timedelta(seconds=self._mean),
            threads=self._hands.threads,
            lanes=self._hands.lanes,
        )

    # ------------------------------------------------------------------------------------- on the event loop

    @property
    def _waiting(self) -> int:
        return len(self._turns) + self._hands.handed

    async def _do(self, client: Client, works: Sequence[Work]) -> list[object]:
        self._admit(client, len(works))
        call = _Call(client, works, trio.current_time() + self._deadline.total_seconds())
        self._calls.add(call)
        for job in call.jobs:
            self._turns.add(client, job)
        self._hand_over()
        with observe.span("hash", "hash") as call.span:
            await self._see_through(call)
        return [job.result for job in call.jobs]

    async def _see_through(self, call: _Call) -> None:
        try:
            with trio.move_on_at(call.until):
                await call.over.wait()
            if not call.over.is_set() and self._withdraw(call):
                raise self._full(call.client)
            await call.over.wait()  # what is left of it is being computed
        finally:
            self._calls.discard(call)
            self._left += self._withdraw(call)  # its caller left, or one of its jobs went wrong
            self._hand_over()
        if call.error is not None:
            raise call.error

    def _admit(self, client: Client, jobs: int) -> None:
        if not self._hands.there:
            raise Unavailable("hasher", "it is not running")
        if self._hopeless(client, jobs) or not self._make_room(client, jobs):
            raise self._full(client, jobs)

    def _hopeless(self, client: Client, jobs: int, ahead: int = 0) -> bool:
        wait = self._wait_of(client, jobs, ahead)
        if self._wait_of(client, 1, ahead) > 0:  # nothing of it begins at once, so its end counts
            wait += self._batch
        return wait > self._deadline.total_seconds() * CONFIDENCE

    def _ahead(self, client: Client, jobs: int) -> int:
        """Return how many announced jobs of others have their turn before the last of `jobs` more of a client."""
        place = self._turns.of(client) + jobs
        return sum(min(many, place) for other, many in self._announced.items() if other != client)

    def _has_room(self, client: Client) -> bool:
        """Tell whether one more would find room after all that were announced, or somebody would have to give way."""
        lacking = self._waiting + self._announced.total() + 1 - self._room
        loads = self._loads() + self._announced
        return lacking <= 0 or self._could_leave(loads, loads[client] + 1) >= lacking

    def _could_leave(self, loads: Counter[Client], share: int) -> int:
        """Return how many wait that could be put out for a client that comes to hold `share`."""
        return sum(min(self._turns.of(one), max(0, loads[one] - share)) for one in self._turns.clients)

    def _make_room(self, client: Client, jobs: int) -> bool:
        """See to it that `jobs` more find room; False, and nobody was put out, when those of others are no fewer."""
        lacking = self._waiting + jobs - self._room
        if lacking <= 0:
            return True
        loads = self._loads()
        if self._could_leave(loads, loads[client] + jobs) < lacking:
            return False
        while lacking > 0:
            heaviest = max(self._turns.clients, key=loads.__getitem__)
            call = self._turns.newest(heaviest).owner
            gone = self._withdraw(call)
            self._settle(call, self._full(heaviest))
            loads[heaviest] -= gone
            lacking -= gone
        return True

    def _loads(self) -> Counter[Client]:
        """How many jobs of each client wait."""
        return Counter({client: self._turns.of(client) for client in self._turns.clients}) + Counter(
            job.owner.client for job in self._hands.waiting()
        )

    def _wait_of(self, client: Client, jobs: int, ahead: int = 0) -> float:
        """Seconds until the last of `jobs` more of a client is started, with so many more ahead of it; 0: at once.

        Those running are half done on average.
        """
        place = self._hands.handed + self._turns.before(client, jobs) + ahead
        if place < self._hands.idle:
            return 0.0
        return (place + self._hands.running / 2) * self._batch / self._hands.width

    @property
    def _batch(self) -> float:
        """Seconds that a batch will take in which somebody is done who waited.

        It is full, and takes longer than a lone hash: by a fifth, or by half where two threads share a cache.
        """
        return max(self._mean, self._mean_of_full or self._mean * self._stretch)

    def _full(self, client: Client, jobs: int = 1) -> Unavailable:
        self._refused += 1
        waiting = self._waiting
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
        while self._turns and self._hands.wanting:
            self._hands.give(self._turns.next())

    def _withdraw(self, call: _Call) -> int:
        """Take out those jobs of a call that wait; return how many they were."""
        return sum(self._turns.remove(call.client, job) or self._hands.take(job) for job in call.jobs)

    def _refuse_late(self) -> None:
        """Refuse now who would be done after the deadline, for it goes slower than was foretold; the last comes first.

        Else they would be told no at the deadline, or be done long after it, and keep others waiting until then.
        """
        now = trio.current_time()
        while self._turns:
            call = self._turns.last().owner
            ahead = self._waiting - 1 + self._hands.running / 2
            if now + ahead * self._batch / self._hands.width + self._batch <= call.until:
                return
            self._withdraw(call)
            self._settle(call, self._full(call.client))

    def _settle(self, call: _Call, error: Exception | None) -> None:
        """Tell the caller how it ended, unless that is known already."""
        if not call.over.is_set():
            call.error = error
            call.over.set()

    def _finish(self, batch: list[Job[_Call]], took: float) -> None:
        self._done += len(batch)
        self._mean = took if self._done == len(batch) else _follow(self._mean, took)  # the first replaces the guess
        if len(batch) == self._hands.lanes:
            self._mean_of_full = _follow(self._mean_of_full, took) if self._mean_of_full else took
        for job in batch:
            observe.timing("hash_wait_seconds", job.wait)
            observe.timing("hash_duration_seconds", took)
            if span := job.owner.span:
                span.part("hash_wait", job.made, job.made + job.wait)
                span.part("hash_work", job.made + job.wait, job.made + job.wait + took)
            job.owner.missing -= 1
            if job.error is not None or job.owner.missing == 0:
                self._settle(job.owner, job.error)
        self._hand_over()
        self._refuse_late()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:  # noqa: ASYNC128
        """Compute until cancelled.

        Cancellation: a hash that is being computed is finished (for a while it is waited for), jobs that wait are
        refused as Unavailable. Errors: none of its own; what a scheme raises goes to the caller.
        """
        await self._hands.run(self._refuse_all, task_status=task_status)

    def _refuse_all(self) -> None:
        for call in self._calls:
            if self._withdraw(call):
                self._settle(call, Unavailable("hasher", "it was stopped"))


def _follow(mean: float, took: float) -> float:
    """Return a mean that follows a change of load within a dozen batches; one that stood still is an outlier."""
    return mean + (min(took, OUTLIER * mean) - mean) / 8


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
