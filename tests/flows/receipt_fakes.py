"""Tickets and receipts in memory, beside a Shelf: what one transaction keeps is there when it commits."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import trio

from regsvc.ports import Different, Finished, Running, Slot, Ticket, Unavailable, Unit

if TYPE_CHECKING:
    from tests.flows.unit import Transaction


@dataclass(frozen=True)
class Kept:
    """A row: whose turn it is, and the answer once there is one."""

    content: bytes
    holder: UUID
    answer: bytes | None = None


@dataclass
class Counter:
    """Tickets over the rows of a shelf. `away`: as is the database; `lapsed`: nobody's lease lasts."""

    rows: dict[bytes, Kept]
    away: bool = False
    lapsed: bool = False
    leases: list[timedelta] = field(default_factory=list)
    given_back: list[Ticket] = field(default_factory=list)

    async def take(self, slots: Sequence[Slot], lease: timedelta) -> Ticket | Finished | Running | Different:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise Unavailable("database", "it is not there")
        self.leases.append(lease)
        slot = slots[0]
        row = self.rows.get(slot.place)
        if row is None or (row.answer is None and self.lapsed):
            self.rows[slot.place] = row = Kept(slot.content, uuid4())
            return Ticket(slot.place, row.holder)
        if row.content != slot.content:
            return Different()
        return Running(timedelta(seconds=1)) if row.answer is None else Finished(row.answer)

    async def give_back(self, ticket: Ticket) -> bool:
        await trio.lowlevel.checkpoint()
        self.given_back.append(ticket)
        if self.away:
            raise Unavailable("database", "it is not there")
        row = self.rows.get(ticket.place)
        mine = row is not None and row.holder == ticket.holder and row.answer is None
        if mine:
            del self.rows[ticket.place]
        return mine


@dataclass
class Receipts:
    """The answers inside a transaction."""

    unit: "Transaction"

    async def keep(self, ticket: Ticket, answer: bytes) -> None:
        await self.unit.shelf.called()
        row = self.unit.kept.get(ticket.place)
        if row is None or row.holder != ticket.holder or row.answer is not None:
            raise Unavailable("receipts", "somebody else has the key")
        self.unit.kept[ticket.place] = replace(row, answer=answer)


@dataclass
class Notebook:
    """A flow's Receipt that writes outcomes down; only what was committed stays in `outcomes`."""

    ticket: Ticket = field(default_factory=lambda: Ticket(b"place", uuid4()))
    outcomes: list[object] = field(default_factory=list)

    def rows(self) -> dict[bytes, Kept]:
        """Return what a shelf has when the request begins."""
        return {self.ticket.place: Kept(b"content", self.ticket.holder)}

    async def keep(self, unit: Unit, outcome: object) -> None:
        self.outcomes.append(outcome)
        await unit.receipts.keep(self.ticket, repr(outcome).encode())
