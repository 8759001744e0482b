"""How much there is of what operators watch."""

from dataclasses import dataclass
from typing import Final

from regsvc.ports import OutboxCounts
from regsvc.store.database import Database
from regsvc.store.sql import Statements

MOST: Final = 100_000  # rows of a state: more are not counted, which takes about 50 ms


@dataclass(frozen=True, slots=True)
class Census:
    """Counts; implements ports.Census."""

    sql: Statements
    database: Database

    async def outbox(self) -> OutboxCounts:
        """Count what waits, is being carried and was given up, each up to MOST, and how old the oldest is."""
        row = await self.sql.row("count_outbox", self.database.pool, most=MOST)
        assert row is not None, "an aggregate brings a row"  # noqa: S101 - a bug of ours, no value
        return OutboxCounts(row["ready"], row["leased"], row["dead"], row["oldest"])
