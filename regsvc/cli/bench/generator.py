"""Makes people come: each when he is due (open loop), or as soon as the one before him is done (closed, `--rate max`).

In an open loop nobody waits for those before him, as people do not who know nothing of each other, and a step took
what passed since it was due. A generator that waits for an answer before it asks again asks less while the service is
slow, and so does not see how slow it is: coordinated omission.
"""

import gc
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

import trio

from regsvc.cli.bench.alarm import Wait, open_alarm
from regsvc.cli.bench.scenarios import Journey, Person, Place

T = TypeVar("T")
HEAD_START: Final = 0.1  # seconds from the start to the first arrival
BREATH: Final = 32  # arrivals that are begun at once, where the generator is late, before others get a turn
PAUSE: Final = 0.1  # seconds after a request without an answer in a closed loop, which would spin else
RARELY: Final = 50_000  # objects made before garbage is looked for: what a request makes goes with it


async def come(
    arrivals: Iterable[tuple[float, T]],
    visit: Callable[[T, float], Awaitable[None]],
    *,
    began: float,
    wait: Wait,
    name: str = "visit",
) -> None:
    """Start `visit(who, due)` for each arrival when it is due, `began` plus its time; return when all are done.

    Times rise. Nobody waits for those before him. Whatever leaves a visit ends them all.
    """
    begun = 0
    async with trio.open_nursery() as people:
        for at, who in arrivals:
            due = began + at
            if trio.current_time() < due:
                await wait(due)
            elif (begun := begun + 1) % BREATH == 0:
                await trio.lowlevel.checkpoint()
            people.start_soon(visit, who, due, name=name)


@dataclass(slots=True)
class Generator:
    """A run as it goes. It may be cancelled at any time: what was counted until then is what it came to."""

    place: Place
    journey: Journey
    began: float | None = None  # on Trio's clock, the warm-up with it
    ended: float | None = None
    alarm: Callable[[], AbstractContextManager[Wait]] = open_alarm  # the clock's, where that is none of this world
    busy: float = 0.0  # the share of a core that this process took while it counted

    @property
    def seconds(self) -> float:
        """How long was counted: to the last arrival; those who were waited for after that came before."""
        recorder = self.place.recorder
        if self.began is None or self.ended is None:
            return 0.0
        return max(min(self.ended, recorder.until) - recorder.since, 0.0)

    async def run(self) -> None:
        """Do what is planned, and wait for those who are on their way."""
        plan, recorder = self.place.plan, self.place.recorder
        self.began = trio.current_time() + HEAD_START
        recorder.since = self.began + plan.warm_up
        recorder.until = recorder.since + plan.duration
        with self.alarm() as wait, rare_garbage():
            try:
                async with trio.open_nursery() as beside:
                    beside.start_soon(self._watch, name="processor time")
                    if plan.rate is None:
                        await self._closed()
                    else:
                        arrivals = ((at, number) for number, at in enumerate(plan.times()))
                        await come(arrivals, self._visit, began=self.began, wait=wait)
                        await wait(recorder.until)  # the gap behind the last arrival is part of its rate
                    beside.cancel_scope.cancel(reason="everybody is done")
            finally:
                self.ended = trio.current_time()

    async def _visit(self, number: int, due: float) -> None:
        place = self.place
        place.recorder.came(due, trio.current_time())
        await self.journey(Person(place, number, due))
        place.recorder.went(due)

    async def _closed(self) -> None:
        """Have as many people as connections, each of whom comes again as soon as he is done."""
        assert self.began is not None  # noqa: S101 - run has set it
        await trio.sleep_until(self.began)
        numbers = iter(range(1 << 62))
        async with trio.open_nursery() as people:
            for _ in range(self.place.plan.connections):
                people.start_soon(self._again_and_again, numbers, name="visits")

    async def _again_and_again(self, numbers: Iterator[int]) -> None:
        place = self.place
        while (now := trio.current_time()) < place.recorder.until:
            place.recorder.came(now, now)
            person = Person(place, next(numbers), now)
            await self.journey(person)
            place.recorder.went(now)
            if person.lost:
                await trio.sleep(PAUSE)

    async def _watch(self) -> None:
        """Keep account of what this process itself takes, each second, from the end of the warm-up on."""
        recorder = self.place.recorder
        await trio.sleep_until(recorder.since)
        began, spent = trio.current_time(), time.process_time()
        while trio.current_time() < recorder.until:
            await trio.sleep(min(1.0, max(recorder.until - trio.current_time(), 0.001)))
            self.busy = (time.process_time() - spent) / (trio.current_time() - began)


@contextmanager
def rare_garbage() -> Iterator[None]:
    """Look for garbage rarely, and never in what was there before: it stops everything for a while."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(RARELY, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
