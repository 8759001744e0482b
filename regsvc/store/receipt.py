"""Requests with an Idempotency-Key in PostgreSQL: who does what one asks, and what was answered."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from regsvc.ports import Different, Finished, Running, Slot, Ticket, Unavailable
from regsvc.store.database import Database, Session
from regsvc.store.sql import Statements

LIFE: Final = timedelta(hours=24)  # of an answer, from when it was first asked for
STRANGERS_MAX: Final = 10  # bodies other than the first; a client that mixes its keys up sends one or two
SOON: Final = timedelta(seconds=1)  # most requests are answered by then
_TRIES: Final = 3  # the row may go between a take that fails and the look


@dataclass(frozen=True, slots=True)
class Tickets:
    """Implements ports.Tickets."""

    queries: Statements
    database: Database
    new_id: Callable[[], UUID]

    async def take(self, slots: Sequence[Slot], lease: timedelta) -> Ticket | Finished | Running | Different:
        """Take the right to do what a request asks, or say why it is not to be had. Raises Unavailable."""
        slot, *earlier = slots
        for other in earlier:
            if (found := await self._look(other)) is not None:
                return found
        ticket = Ticket(slot.place, self.new_id())
        for _ in range(_TRIES):
            taken = await self.queries.value(
                "take_slot",
                self.database.pool,
                slot=slot.place,
                body_mac=slot.content,
                holder=ticket.holder,
                lease=lease,
                life=LIFE,
            )
            if taken is not None:
                return ticket
            if (found := await self._look(slot)) is not None:
                return found
        return Running(SOON)

    async def _look(self, slot: Slot) -> Finished | Running | Different | None:
        """Return how it stands; None when nobody has it."""
        row = await self.queries.row(
            "look_slot",
            self.database.pool,
            slot=slot.place,
            body_mac=slot.content,
            strangers_max=STRANGERS_MAX,
        )
        if row is None:
            return None
        if not row["same"]:
            return Different()
        return Running(SOON) if row["answer"] is None else Finished(row["answer"])

    async def give_back(self, ticket: Ticket) -> bool:
        """Free the key again, unless an answer was kept; False: it was not the holder's. Raises Unavailable."""
        back = await self.queries.value("give_slot_back", self.database.pool, slot=ticket.place, holder=ticket.holder)
        return back is not None


@dataclass(frozen=True, slots=True)
class Receipts:
    """Implements ports.Receipts."""

    queries: Statements
    session: Session

    async def keep(self, ticket: Ticket, answer: bytes) -> None:
        """Keep the answer. Raises Unavailable when the ticket is no longer the holder's."""
        kept = await self.queries.value(
            "keep_answer", self.session, slot=ticket.place, holder=ticket.holder, answer=answer
        )
        if kept is None:
            raise Unavailable("receipts", "the lease was over, and somebody else has the key")
