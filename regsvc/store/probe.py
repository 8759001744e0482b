"""Whether the database is there and what it should be."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import trio

from regsvc.ports import Unavailable
from regsvc.store.database import Database
from regsvc.store.migrations import Ledger, MigrationError
from regsvc.store.sql import Statements

PATIENCE: Final = 1.0  # seconds; a health probe that waits longer is itself a failure


@dataclass(frozen=True, slots=True)
class Probe:
    """Asks the database how it is; implements ports.Probe."""

    sql: Statements
    database: Database
    ledger: Ledger

    async def ping(self) -> timedelta:
        """Ask it something; return how long it took. Raises Unavailable, after a second at the latest."""
        began = trio.current_time()
        with trio.move_on_after(PATIENCE):
            await self.sql.value("ping", self.database.pool)
            return timedelta(seconds=trio.current_time() - began)
        raise Unavailable("database", f"no answer within {PATIENCE:g} s")

    async def migrated(self) -> bool:
        """Tell whether every migration this version ships was applied, as it is shipped. Raises Unavailable."""
        with trio.move_on_after(PATIENCE):
            try:
                return not await self.ledger.missing(self.database.pool)
            except MigrationError:
                return False  # `migrate` says what does not fit; a probe only says that something does not
        raise Unavailable("database", f"no answer within {PATIENCE:g} s")
