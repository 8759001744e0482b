"""One transaction of a flow."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from regsvc.store.account import Accounts
from regsvc.store.database import Database
from regsvc.store.delivery import Outgoing
from regsvc.store.sql import Statements


@dataclass(frozen=True, slots=True)
class Unit:
    """What a flow reaches within one transaction; implements ports.Unit."""

    accounts: Accounts
    outgoing: Outgoing


@dataclass(frozen=True, slots=True)
class Units:
    """Begins transactions; `begin` implements ports.Begin."""

    queries: Mapping[str, Statements]
    database: Database
    new_id: Callable[[], UUID]
    origin: str

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Unit]:
        """Open a transaction: leaving the block commits, an error or a cancellation rolls back. Raises Unavailable.

        Unavailable at the end means that nobody knows whether it was committed.
        """
        async with self.database.transaction() as session:
            yield Unit(
                Accounts(self.queries["account"], session),
                Outgoing(self.queries["delivery"], session, self.new_id, self.origin),
            )
