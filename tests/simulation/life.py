"""One life of a service process in a simulation: its flows, its mailer, sweeper, listener and hasher, on fakes.

What the composition root does for a worker (regsvc/world), with the ports of a simulation beneath. A process that is
killed stops where it is: whatever it does next raises Killed, its locks are let go, its memory is gone.
"""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from math import inf
from typing import Final, TypeVar, cast
from uuid import UUID

import trio

from regsvc.actors import courier, listener, sweeper
from regsvc.actors.courier import bell_rope
from regsvc.actors.hasher import Hasher
from regsvc.actors.tally import Pace
from regsvc.domain import account, quota, session
from regsvc.domain.values import PasswordRules, Secret
from regsvc.flows.account import Accounts
from regsvc.flows.errand import Errand
from regsvc.flows.profile import Profiles
from regsvc.flows.quota import Limits
from regsvc.flows.recovery import Recovery
from regsvc.flows.session import Sessions
from regsvc.flows.staff import Staff
from regsvc.ports import Unavailable
from tests.flows.fakes import Dice, Members, Tokens
from tests.flows.quota_fakes import hidden
from tests.simulation.base import Base, Line
from tests.simulation.housekeeping import Broom, SharedBuckets, Wire
from tests.simulation.keys import Keys
from tests.simulation.mailbag import Bag
from tests.simulation.plan import Gate, Killed, Leaving, Plan, Weather
from tests.simulation.relay import Fingers, Mailboxes, Named, Relay
from tests.simulation.work import Desk

T = TypeVar("T")
PATIENCE: Final = timedelta(seconds=5)


class Lost:
    """What a client knows whose answer never came."""

    def __repr__(self) -> str:
        return "no answer"


LOST: Final = Lost()


class Chance(Dice):
    """Crypto whose randomness is the seed's. Its ids are as version 7: by the process's own clock, which may be off."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng
        self._off = rng.choice((0, 0, -3_600_000, 3_600_000))  # milliseconds

    def new_id(self) -> UUID:
        at = 1_800_000_000_000 + self._off + round(trio.current_time() * 1000)
        return UUID(int=(at << 80) | (7 << 76) | (2 << 62) | self._rng.getrandbits(60))

    def new_code(self, digits: int) -> Secret:
        return Secret(f"{self._rng.randrange(10**digits):0{digits}}")

    def new_token(self) -> Secret:
        return Secret(f"{self._rng.getrandbits(128):032x}")

    def new_refresh(self) -> Secret:
        return Secret(f"{self._rng.getrandbits(128):043}")


@dataclass(frozen=True)
class Knobs:
    """How the service of a history is set up."""

    rules: account.Rules
    policies: quota.Policies


@dataclass(frozen=True)
class Outside:
    """What outlives every process."""

    base: Base
    boxes: Mailboxes
    plan: Plan
    weather: Weather
    knobs: Knobs
    say: Callable[[str], None]


class Life:
    """A process from its start to its end; `serve` is its front door."""

    def __init__(self, outside: Outside, name: str, rng: random.Random) -> None:
        self.outside, self.name = outside, name
        base, plan, weather = outside.base, outside.plan, outside.weather
        self.gate = Gate(name, plan, weather, rng)
        self.crypto = Chance(rng)
        self.line = Line(base, self.gate, name, self.crypto.new_id)
        self.wire = Wire(self.line)
        self.keys = Keys(self.line)
        self.relay = Relay(base, outside.boxes, plan, weather, self.gate, outside.say)
        self.hasher = Hasher(Named(), threads=2, lanes=2, queue=16, deadline=timedelta(seconds=5))
        self.hasher._hands = Fingers(self.hasher._scheme.do, self.hasher._finish, rng)
        self.newsroom = listener.Newsroom()
        self.rope, self.heard = trio.open_memory_channel[None](1)
        self.ring = bell_rope(self.rope)
        self.pace = Pace(concurrency=4, jitter=rng.random)
        self.limits = Limits(SharedBuckets(self.line), outside.knobs.policies, hidden)
        self.scope = trio.CancelScope()
        self.open: dict[int, trio.CancelScope] = {}
        self.requests = 0
        self.stopping = False
        self._build()

    def _build(self) -> None:
        begin, line, members = self.line.begin, self.line, Members(self.line)
        rules, strength = self.outside.knobs.rules, PasswordRules()
        self.accounts = Accounts(begin, line, self.hasher, self.crypto, self.newsroom, self.ring, rules, PATIENCE)
        self.sessions = Sessions(
            begin, members, line, self.hasher, self.crypto, Tokens(), self.ring, session.Rules(), rules, PATIENCE
        )
        self.recovery = Recovery(begin, members, self.hasher, self.crypto, self.ring, rules, strength, PATIENCE)
        self.profiles = Profiles(begin, self.hasher, self.crypto, self.ring, rules, strength, PATIENCE)
        self.staff = Staff(begin, line, members, Desk(line), self.hasher, self.crypto, strength, PATIENCE)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Live until killed, or stopped and drained."""
        self.outside.base.ears.append(self.wire)
        mailer = partial(courier.run, self.heard, Bag(self.line), self.relay, self.crypto, pace=self.pace)
        hear = partial(listener.run, self.wire, self.newsroom, self.ring, lambda: None)
        try:
            with self.scope:
                async with trio.open_nursery() as standing:
                    for name, actor in (("listener", hear), ("hasher", self.hasher.run)):
                        standing.start_soon(self._keep, name, actor, name=f"{self.name} {name}")
                    standing.start_soon(self._keep, "sweeper", partial(sweeper.run, Broom(self.line)))
                    task_status.started()
                    await self._keep("mailer", mailer)
                    standing.cancel_scope.cancel(reason="the mailer has drained")
        except BaseExceptionGroup as group:
            if group.split(Killed)[1] is not None:
                raise
        except Killed:
            pass
        finally:
            self.outside.base.ears.remove(self.wire)

    async def _keep(self, name: str, actor: Callable[[], Awaitable[None]]) -> None:
        """Run an actor: that it crashes is a bug."""
        while True:
            try:
                return await actor()
            except Exception as crash:  # noqa: BLE001 - whatever it is, it is told
                self.outside.base.ledger.breaks("I10", f"the {name} crashed: {crash!r}")
                await trio.sleep(1)

    def kill(self) -> None:
        """End it where it is: nothing of it runs on."""
        ledger = self.outside.base.ledger
        mine = [talk.dispatch.id for talk in ledger.conversations if talk.process == self.name and talk.dot is not None]
        ledger.in_hand.update(mail for mail in mine if mail not in ledger.written)
        self.gate.dead = True
        self._hang_up_on_all("killed")
        self.scope.cancel(reason="killed")

    def stop(self) -> None:
        """Take no more requests, and drain."""
        self.stopping = True
        self._hang_up_on_all("stopping")
        self.rope.close()

    def _hang_up_on_all(self, why: str) -> None:
        for scope in list(self.open.values()):
            scope.cancel(reason=why)

    async def serve(
        self, client: str, work: Callable[["Life", Errand], Awaitable[T]], *, calls: int = 0, seconds: float = inf
    ) -> T | Lost:
        """Do a request; LOST when its answer never came. Its client hangs up at its n-th call, or after `seconds`."""
        if self.gate.dead or self.stopping:
            await trio.sleep(0.05)
            return LOST
        self.requests += 1
        number, scope, answer = self.requests, trio.CancelScope(), cast("T | Lost", LOST)
        task = trio.lowlevel.current_task()
        try:
            with scope:
                self.open[number] = scope
                if seconds < inf:
                    scope.relative_deadline = seconds
                if calls:
                    self.gate.leaving[task] = Leaving(scope, calls)
                answer = await self._answer(client, work)
        except Killed:
            return LOST
        finally:
            del self.open[number]
            self.gate.leaving.pop(task, None)
        return LOST if scope.cancel_called else answer

    async def _answer(self, client: str, work: Callable[["Life", Errand], Awaitable[T]]) -> T | Lost:
        answer: T | Lost = LOST
        try:
            answer = await work(self, Errand(client, self.limits.meter(client)))
            self.gate.alive()
        except Unavailable as away:
            self.outside.say(f"{client} 503 {away}")
        except Exception as bug:  # noqa: BLE001 - whatever it is, it is a 500 and told
            self.outside.base.ledger.breaks("I10", f"an answer that is a bug: {bug!r}")
        return answer
