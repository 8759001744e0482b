"""What goes wrong in one history: drawn from its seed, so that the same seed has the same misfortunes.

A `Gate` stands between one life of a service process and all that is outside: it lets each call of a port wait, fail
before or after its effect, or find that its process was killed.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

import trio

from regsvc.ports import Unavailable

AWAY_AFTER: Final = 0.05  # seconds until whoever asks something that is away hears so

Fate = Literal["kill", "stop", "database", "cut", "relay", "jump", "hang"]
Relaying = Literal["accept", "slow", "4xx", "5xx", "nobody", "silent", "drop", "hush"]


class Killed(BaseException):
    """The process is no more: nothing of it may run on. No Exception, for no handler of the service may see it."""


@dataclass(frozen=True)
class Misfortune:
    """Something that happens at a time, to process `whom`, for `lasts` seconds."""

    at: float
    fate: Fate
    whom: int
    lasts: float


@dataclass(frozen=True)
class Plan:
    """The misfortunes of a history, and how often small ones happen. `quiet`: nothing does."""

    processes: int
    ends: float  # when nobody begins anything any more; health comes soon after
    fails: float  # of all calls of ports, before their effect, and as many after it
    waits: float  # of all calls, that take their time
    hangs_up: float  # of all requests
    relaying: tuple[tuple[Relaying, int], ...]
    misfortunes: tuple[Misfortune, ...] = field(repr=False)

    @classmethod
    def draw(cls, rng: random.Random) -> "Plan":
        """Draw one; a sixth of all histories are quiet, so that what goes wrong in those needs no misfortune."""
        processes, ends = rng.choice((1, 2, 2, 2, 3)), rng.uniform(20, rng.choice((50, 50, 130)))
        if rng.random() < 1 / 6:
            return cls(processes, ends, 0.0, 0.2, 0.0, (("accept", 1), ("slow", 1)), ())
        fates: tuple[Fate, ...] = ("kill", "kill", "stop", "database", "cut", "relay", "jump", "hang")
        kinds = rng.sample(fates, rng.randint(1, 4))
        misfortunes = [
            Misfortune(rng.uniform(0, ends), rng.choice(kinds), rng.randrange(processes), rng.choice((0.3, 2, 8, 25)))
            for _ in range(rng.randint(0, 6))
        ]
        bad = rng.choice((0, 0, 1, 4))
        relaying: tuple[tuple[Relaying, int], ...] = (
            ("accept", 12), ("slow", 4), ("4xx", bad), ("5xx", rng.choice((0, bad))), ("nobody", bad),
            ("silent", rng.choice((0, bad))), ("drop", bad), ("hush", rng.choice((0, bad))),
        )  # fmt: skip
        fails, hangs_up = rng.choice((0.0, 0.0, 0.01, 0.05)), rng.choice((0.0, 0.1, 0.3))
        ordered = tuple(sorted(misfortunes, key=lambda one: one.at))
        return cls(processes, ends, fails, rng.choice((0.05, 0.2)), hangs_up, relaying, ordered)


@dataclass
class Weather:
    """What is so for everybody now. `over`: health has begun."""

    database_away: int = 0  # how many misfortunes keep it away
    relay_away: int = 0
    over: bool = False


@dataclass
class Leaving:
    """A request whose client hangs up at its n-th call of a port, before it or on the way back."""

    scope: trio.CancelScope
    calls: int


class Gate:
    """What one life of a process meets at its ports."""

    def __init__(self, name: str, plan: Plan, weather: Weather, rng: random.Random) -> None:
        self.name, self.plan, self.weather, self.rng = name, plan, weather, rng
        self.dead = False
        self.cut = 0  # how many misfortunes keep the database from this process alone
        self.hanging = 0  # how many let nothing of it through, either way, until they are over
        self.leaving: dict[trio.lowlevel.Task, Leaving] = {}  # requests whose clients will hang up

    async def before(self, what: str = "database") -> None:
        """Wait as a call on its way does. Raises Unavailable: it did not arrive; Killed."""
        rng = self.rng
        if self.leaving:
            self._leave()
        if rng.random() < self.plan.waits:
            await trio.sleep(rng.expovariate(100))
        elif rng.random() < 0.75:
            await trio.lowlevel.checkpoint()
        while self.hanging and not self.dead:  # noqa: ASYNC110 - time passes until it is over
            await trio.sleep(0.25)
        self.alive()
        if self.cut or self.weather.database_away:
            await trio.sleep(AWAY_AFTER)
            self.alive()
            raise Unavailable(what, "it is not there")
        self._fail(what)

    async def after(self, what: str = "database") -> None:
        """Wait as an answer on its way does. Raises Unavailable: nobody knows whether it was done; Killed."""
        if self.leaving:
            self._leave()
        if self.rng.random() < self.plan.waits:
            await trio.lowlevel.checkpoint()
        self.alive()
        if self.cut or self.weather.database_away:
            raise Unavailable(what, "the connection was lost")
        self._fail(what)

    async def effect(self, do: Callable[[], None], what: str = "database") -> None:
        """Call `do` on the other side; killed on the way, half of all calls arrive nevertheless."""
        try:
            await self.before(what)
        except Killed:
            if self.rng.random() < 0.5 and not self.weather.database_away:
                do()
            raise
        do()
        await self.after(what)

    def alive(self) -> None:
        """Raise Killed where the process was."""
        if self.dead:
            raise Killed

    def _leave(self) -> None:
        """Have the client of the request that calls hang up, if that is where it does."""
        leaving = self.leaving.get(trio.lowlevel.current_task())
        if leaving is not None:
            leaving.calls -= 1
            if leaving.calls == 0:
                leaving.scope.cancel(reason="the client hung up")

    def _fail(self, what: str) -> None:
        if self.plan.fails and not self.weather.over and self.rng.random() < self.plan.fails:
            raise Unavailable(what, "this call failed")
