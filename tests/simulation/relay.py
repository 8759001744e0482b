"""The relay of a simulation, the mailboxes behind it, and the hasher's hands: what is slow outside of the database."""

import queue
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import trio

from regsvc.actors.hands import _NOBODY, Hands, Job
from regsvc.actors.hasher import _Call
from regsvc.domain.delivery import Accepted, Deferred, Outage, Outcome, Rejected
from regsvc.domain.values import Secret
from regsvc.ports import Dispatch
from tests.simulation.base import Base
from tests.simulation.ledger import Conversation
from tests.simulation.plan import Gate, Plan, Relaying, Weather

TIMEOUT: Final = 10.0  # seconds; the channel's own deadline for a mail
REFUSALS: Final[Mapping[Relaying, Outcome]] = {
    "4xx": Deferred("451 later"),
    "5xx": Rejected("550 no"),
    "silent": Outage("silence before the dot"),
}


class Mailboxes:
    """What arrived, by address; an arrival wakes those who wait for one."""

    def __init__(self) -> None:
        self.mails: dict[str, list[Dispatch]] = defaultdict(list)
        self.arrived = trio.Event()

    def put(self, dispatch: Dispatch) -> None:
        """Deliver a mail."""
        self.mails[dispatch.to.lower()].append(dispatch)
        self.arrived.set()
        self.arrived = trio.Event()


class Relay:
    """Implements ports.Transport for one life of a process; does to each mail what the plan has in store."""

    def __init__(
        self, base: Base, boxes: Mailboxes, plan: Plan, weather: Weather, gate: Gate, say: Callable[[str], None]
    ) -> None:
        self.base, self.boxes, self.weather, self.gate, self.say = base, boxes, weather, gate, say
        self.kinds = [kind for kind, _ in plan.relaying]
        self.weights = [weight for _, weight in plan.relaying]

    async def send(self, dispatch: Dispatch) -> Outcome:
        ledger = self.base.ledger
        talk = Conversation(dispatch, ledger.asked[dispatch.id][0], self.gate.name, self.base.now)
        ledger.conversations.append(talk)
        outcome = await self._converse(talk)
        self.gate.alive()
        shown = "taken, and its answer lost" if outcome is None else type(outcome).__name__
        self.say(f"{self.gate.name} mails {dispatch.letter.value} {dispatch.id} to {dispatch.to}: {shown}")
        return outcome if outcome is not None else Deferred("the answer after the dot was lost")

    async def _converse(self, talk: Conversation) -> Outcome | None:
        """Say it; None when the mail was taken and the answer was lost."""
        rng = self.gate.rng
        kind: Relaying = "accept" if self.weather.over else rng.choices(self.kinds, self.weights)[0]
        await trio.sleep(rng.uniform(2.5, 9.5) if kind == "slow" else rng.expovariate(10))
        if self.weather.relay_away or kind == "nobody":
            return Outage("connection refused")
        if kind == "silent":
            await trio.sleep(TIMEOUT)
        if kind in REFUSALS:
            return REFUSALS[kind]
        self.gate.alive()
        talk.dot = self.base.now
        self.boxes.put(talk.dispatch)
        if kind == "hush":
            await trio.sleep(TIMEOUT)
            return None
        await trio.sleep(rng.expovariate(50))
        if kind == "drop":
            return None
        talk.accepted = self.base.now
        return Accepted()


@dataclass(frozen=True)
class Plain:
    """A plan of the scheme: its result is known."""

    result: object
    together: int | None = 4


class Named:
    """A hasher's scheme that hashes by name: `hashed:` now, `old:` before."""

    def to_hash(self, password: Secret) -> Plain:
        return Plain(f"hashed:{password.reveal()}")

    def to_check(self, password: Secret, stored: str) -> Plain:
        return Plain(stored in (f"hashed:{password.reveal()}", f"old:{password.reveal()}"))

    def to_waste(self, password: Secret) -> Plain:
        return Plain(None)

    def do(self, works: Sequence[Any]) -> Sequence[object]:
        return [work.result for work in works]

    def outdated(self, stored: str) -> bool:
        return stored.startswith("old:")


class Fingers(Hands[_Call]):
    """The hasher's hands as tasks instead of threads: a batch takes its time on Trio's clock."""

    def __init__(
        self,
        do: Callable[[Sequence[Any]], Sequence[object]],
        finish: Callable[[list[Job[_Call]], float], None],
        rng: random.Random,
    ) -> None:
        super().__init__(do, finish, threads=2, lanes=2)
        self._rng = rng
        self._more = trio.Event()

    def give(self, job: Job[_Call]) -> None:
        super().give(job)
        self._more.set()

    async def run(
        self, leave: Callable[[], None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        inbox: queue.SimpleQueue[Job[_Call] | None] = queue.SimpleQueue()
        self._inbox = inbox
        try:
            async with trio.open_nursery() as nursery:
                for finger in range(self.threads):
                    nursery.start_soon(self._do_jobs, finger, inbox, name=f"hasher {finger}")
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._inbox = None
            leave()

    async def _do_jobs(self, finger: int, inbox: "queue.SimpleQueue[Job[_Call] | None]") -> None:
        first: Any = _NOBODY
        while True:
            if first is _NOBODY:
                try:
                    first = inbox.get_nowait()
                except queue.Empty:
                    if self._more.is_set():
                        self._more = trio.Event()
                    await self._more.wait()
                    continue
            batch, first = self._batch(first, inbox)
            if batch:
                self._busy.add(finger)
                self._running.update(batch)
                took = self._rng.uniform(0.2, 0.4)
                await trio.sleep(took)
                results = self._do([job.work for job in batch])
                for job, result in zip(batch, results, strict=True):
                    job.wait, job.result = 0.0, result
                self._busy.discard(finger)
                self._over(batch, took)
