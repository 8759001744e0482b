"""A whole history from its seed: processes, people, misfortunes, then health, and the invariants at its end.

Whatever chance decides is drawn from the seed: Trio's scheduler (as hypothesis-trio does), the clock that jumps when
nobody is ready, latencies, faults, randomness of codes and ids. So a seed has one history.
"""

import gc
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import trio
from trio.testing import MockClock

from regsvc import observe
from regsvc.domain import account, quota
from regsvc.domain.account import DuplicatePolicy
from regsvc.domain.values import Secret
from tests.simulation import invariants
from tests.simulation.base import Base
from tests.simulation.life import Knobs, Life, Outside
from tests.simulation.people import NAMES, Boss, Person, email
from tests.simulation.plan import Misfortune, Plan, Weather
from tests.simulation.relay import Mailboxes

HOUR: Final = 3600.0  # seconds of the history's own time: whoever is not done by then hangs


@dataclass(frozen=True)
class History:
    """What happened with a seed; `broken`: the invariants that did not hold, each in words."""

    seed: int
    lines: list[str]
    broken: list[str]

    def text(self) -> str:
        """Return all of it, to be read."""
        end = self.broken or ["all invariants hold"]
        return "\n".join([f"seed {self.seed}", *self.lines, *end]) + "\n"


def simulate(seed: int) -> History:
    """Run the history of a seed."""
    town = _Town(seed)
    with _seeded(seed), observe.open_log(town, level="error", fmt="json", strict=False):
        trio.run(town.run, clock=town.clock)
    return History(seed, town.lines, invariants.broken(town.base, town.knobs.rules))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Have Trio's scheduler decide by the seed; no garbage is collected meanwhile, for that comes when it comes."""
    scheduler: Any = trio._core._run  # where hypothesis reaches, too
    before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r.getstate(), gc.isenabled()
    gc.disable()
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True
    scheduler._r.seed(seed)
    try:
        yield
    finally:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = before[0]
        scheduler._r.setstate(before[1])
        if before[2]:
            gc.enable()


class _Town:
    """One history while it runs; implements people.Town, and observe.Stream for lines that tell of bugs."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(f"history {seed}")
        self.seed = seed
        self.lines: list[str] = []
        self.base, self.boxes, self.weather = Base(), Mailboxes(), Weather()
        self.plan = Plan.draw(rng)
        self.knobs = _knobs(rng)
        self.clock = MockClock(autojump_threshold=0)
        self.outside = Outside(self.base, self.boxes, self.plan, self.weather, self.knobs, self.say)
        self.lives: list[Life] = []
        self.ledger = self.base.ledger
        self.hangs_up, self.closes = self.plan.hangs_up, self.plan.ends
        self.keyed = random.Random(f"keys of {seed}").random() < 1 / 3  # of its own: the other histories are as ever
        self.ending = False

    # ---------------------------------------------------------------------------------------------- telling

    def say(self, line: str) -> None:
        self.lines.append(f"{trio.current_time():9.3f} {line}")

    def write(self, data: bytes, /) -> int:
        """Take a line of the log: at this level it tells of a bug."""
        self.ledger.breaks("I10", data.decode())
        return len(data)

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        raise OSError("these lines go into the ledger")

    # ---------------------------------------------------------------------------------------------- running

    async def run(self) -> None:
        plan = self.plan
        self.say(f"{plan} {self.knobs.rules.duplicates}")
        with trio.move_on_after(HOUR) as hour:
            async with trio.open_nursery() as hosts:
                self.lives = [self._begin(number, 0) for number in range(plan.processes)]
                for number in range(plan.processes):
                    hosts.start_soon(self._host, number)
                async with trio.open_nursery() as striking:
                    for misfortune in plan.misfortunes:
                        striking.start_soon(self._strike, misfortune)
                    async with trio.open_nursery() as people:
                        for person in self._people():
                            people.start_soon(person.live, self.rng.randint(3, 8))
                    await trio.sleep(self.rng.choice((0, 1, 1, 20)))
                    striking.cancel_scope.cancel(reason="health begins")
                await self._recover()
                self.ending = True
                for life in self.lives:
                    life.stop()
        if hour.cancelled_caught:
            self.ledger.breaks("I10", "the history does not end")

    def pick(self, rng: random.Random) -> Life:
        return rng.choice(self.lives)

    def _begin(self, number: int, lived: int) -> Life:
        name = f"p{number}.{lived}"
        return Life(self.outside, name, random.Random(f"{self.seed} {name}"))

    async def _host(self, number: int) -> None:
        """Keep a process there: when one ends, the next one begins."""
        lived = 0
        while True:
            await self.lives[number].run()
            if not self.ending:
                await trio.sleep(self.rng.uniform(0.1, 3))
            if self.ending:
                return
            lived += 1
            self.lives[number] = self._begin(number, lived)

    def _people(self) -> list[Person]:
        rng = self.rng
        number = rng.randint(2, 4)
        addresses = rng.sample(NAMES, rng.randint(1, number))
        people: list[Person] = []
        for n in range(number):
            address = addresses[n % len(addresses)]
            reads = n < len(addresses) or rng.random() < 0.2
            name = f"{address}{'' if n < len(addresses) else n}"
            mind = random.Random(f"{self.seed} {name} {n}")
            people.append(
                Person(self, name, email(f"{address}@example.org"), Secret(f"password of {name}"), mind, reads)
            )
        if rng.random() < 0.4:
            mind = random.Random(f"{self.seed} boss")
            people.append(Boss(self, "boss", email("boss@example.org"), Secret("password of boss"), mind, reads=True))
        return people

    async def _strike(self, misfortune: Misfortune) -> None:
        await trio.sleep(misfortune.at)
        lasts, life = misfortune.lasts, self.lives[misfortune.whom]
        self.say(f"! {misfortune.fate} {life.name} for {lasts:.1f} s")
        match misfortune.fate:
            case "kill":
                life.kill()
            case "stop":
                life.stop()
            case "jump":  # the processes' clock alone
                self.ledger.cut_off.update(one.name for one in self.lives)
                self.base.skew -= timedelta(seconds=lasts)
                self.clock.jump(lasts)
            case "database":
                self.weather.database_away += 1
                for one in self.lives:
                    one.wire.cut()
                await trio.sleep(lasts)
                self.weather.database_away -= 1
            case "relay":
                self.weather.relay_away += 1
                await trio.sleep(lasts)
                self.weather.relay_away -= 1
            case "cut":
                self.ledger.cut_off.add(life.name)
                life.gate.cut += 1
                life.wire.cut()
                await trio.sleep(lasts)
                life.gate.cut -= 1
            case "hang":
                self.ledger.cut_off.add(life.name)
                life.gate.hanging += 1
                await trio.sleep(lasts)
                life.gate.hanging -= 1

    async def _recover(self) -> None:
        """Let all be well, and see that what is on its way arrives."""
        self.weather.database_away, self.weather.relay_away, self.weather.over = 0, 0, True
        for life in self.lives:
            life.gate.cut = life.gate.hanging = 0
        self.say("! health")
        healthy = self.base.now
        for limit in (invariants.SOON, invariants.LAST):
            while self.base.now < healthy + limit and invariants.waiting(self.base):  # noqa: ASYNC110 - time passes
                await trio.sleep(1.0)
            self.ledger.broken += invariants.late(self.base, healthy)


def _knobs(rng: random.Random) -> Knobs:
    rules = account.Rules(
        duplicates=rng.choice(tuple(DuplicatePolicy)),
        pending_ttl=rng.choice((timedelta(hours=24), timedelta(seconds=70))),
        resend_cooldown=rng.choice((timedelta(seconds=30), timedelta(seconds=2))),
        code_attempts=rng.choice((5, 2)),
    )
    few = rng.random() < 0.5
    return Knobs(
        rules,
        quota.policies(
            registrations=5 if few else 1000,
            activations=5 if few else 1000,
            logins=5 if few else 1000,
            requests=1000,
        ),
    )
