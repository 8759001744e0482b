"""Idempotency keys in a simulation: what http.receipt does around a flow, with their rows beneath.

A request with a key is asked again, of the same process or another, until somebody answers. However the processes die,
its work is done once, and whoever is told of it is told the same.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import trio

from regsvc.flows.errand import Errand
from regsvc.ports import Finished, Running, Ticket, Unavailable, Unit
from tests.flows import receipt_fakes
from tests.flows.receipt_fakes import Kept

if TYPE_CHECKING:
    from tests.simulation.base import Line
    from tests.simulation.work import Work

LEASE: Final = timedelta(seconds=25)
SOON: Final = timedelta(seconds=1)
GIVE_BACK: Final = 5.0  # seconds

ASKED: Final[ContextVar[str | None]] = ContextVar("ASKED", default=None)
"""The key of the request at hand; a transaction's work is counted for it."""


@dataclass(frozen=True)
class InUse:
    """Somebody else is at work on the request, for all that is known."""


@dataclass
class Slip:
    """The receipt of one request (flows.errand.Receipt)."""

    line: "Line"
    ticket: Ticket
    kept: bool = False

    async def keep(self, unit: Unit, outcome: object) -> None:
        answer = self.ticket.holder.bytes
        self.line.base.outcomes[answer] = outcome  # to be found by the row alone, which has to be committed for that
        await unit.receipts.keep(self.ticket, answer)
        self.kept = True


class Receipts(receipt_fakes.Receipts):
    """The answers inside a transaction: whoever takes a row that one is kept in waits for the commit."""

    unit: "Work"

    async def keep(self, ticket: Ticket, answer: bytes) -> None:
        await self.unit.hold("slot", ticket.place)
        await super().keep(ticket, answer)


class Keys:
    """Who does what a request with a key asks, as one life of a process reaches the rows."""

    def __init__(self, line: "Line") -> None:
        self.line, self.base = line, line.base

    async def once(self, key: str, errand: Errand, act: Callable[[Errand], Awaitable[object]]) -> object:
        """Do it unless it was done; return its outcome, or InUse."""
        match await self._take(key.encode()):
            case Ticket() as ticket:
                token = ASKED.set(key)
                try:
                    return await self._first(ticket, errand, act)
                finally:
                    ASKED.reset(token)
            case Finished(answer):
                return self.base.outcomes[answer]
            case _:
                return InUse()

    async def _first(self, ticket: Ticket, errand: Errand, act: Callable[[Errand], Awaitable[object]]) -> object:
        slip = Slip(self.line, ticket)
        try:
            answer = await act(replace(errand, receipt=slip))
        except BaseException:
            with trio.move_on_after(GIVE_BACK, shield=True):
                await self._give_back(ticket)
            raise
        return answer if slip.kept or await self._give_back(ticket) else InUse()

    async def _take(self, place: bytes) -> Ticket | Finished | Running:
        """What the statements take_slot and look_slot do."""
        async with self._statement(place):
            row, now = self.base.kept.get(place), self.base.now
            if row is not None and row.answer is not None:
                return Finished(row.answer)
            if row is not None and now < self.base.leases[place]:
                return Running(SOON)
            ticket = Ticket(place, self.line.new_id())
            self.base.kept[place], self.base.leases[place] = Kept(b"", ticket.holder), now + LEASE
        return ticket

    async def _give_back(self, ticket: Ticket) -> bool:
        with trio.move_on_after(GIVE_BACK, shield=True), suppress(Unavailable):
            async with self._statement(ticket.place):
                row = self.base.kept.get(ticket.place)
                mine = row is not None and row.holder == ticket.holder and row.answer is None
                if mine:
                    del self.base.kept[ticket.place]
            return mine
        return True  # for all that is known

    @asynccontextmanager
    async def _statement(self, place: bytes) -> AsyncIterator[None]:
        """A statement on a row, which waits for whoever has it locked; one way there, and one back."""
        gate = self.line.gate
        await gate.before()
        while self.base.locked("slot", place):  # noqa: ASYNC110 - a commit is not long
            await trio.sleep(0.01)
        gate.alive()
        yield
        await gate.after()
