"""A mailer in its office: with fakes at its ports, a bell and a count."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

from regsvc.actors import courier
from regsvc.actors.courier import bell_rope
from regsvc.actors.tally import Pace, Tally
from regsvc.domain.delivery import Accepted, Outage, Outcome
from regsvc.ports import Dispatch
from tests.fakes import Dice, Post, Relay

PACE = Pace(concurrency=4, jitter=lambda: 1.0)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Office:
    """A mailer with its ports, its bell and its count."""

    def __init__(self, post: Post | None = None, relay: Relay | None = None, pace: Pace = PACE) -> None:
        self.post = post or Post()
        self.relay = relay or Relay()
        self.pace = pace
        self.tally = Tally()
        self.dice = Dice()
        self.bell, self.ringing = trio.open_memory_channel[None](1)
        self.ring = bell_rope(self.bell)
        self.run = partial(courier.run, self.ringing, self.post, self.relay, self.dice, pace=pace, tally=self.tally)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[trio.Nursery]:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.run)
            yield nursery
            nursery.cancel_scope.cancel(reason="the test is over")

    async def until(self, condition: Callable[[], bool], *, within: float = 3600) -> float:
        """Let time pass until it is so; return how many seconds that took."""
        began = trio.current_time()
        with trio.fail_after(within):
            while not condition():  # noqa: ASYNC110 - the clock jumps: this is how a test lets time pass
                await trio.sleep(max(0.01, (trio.current_time() - began) / 100))
        return trio.current_time() - began


class Unplugged:
    """A relay that one can unplug and plug in."""

    def __init__(self) -> None:
        self.away = False
        self.tried: list[float] = []

    async def __call__(self, dispatch: Dispatch) -> Outcome:
        self.tried.append(trio.current_time())
        await trio.sleep(1 if self.away else 0.01)
        return Outage("connection refused") if self.away else Accepted()
