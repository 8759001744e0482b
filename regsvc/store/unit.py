"""One transaction of a flow."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from regsvc.store.account import Accounts
from regsvc.store.database import Database
from regsvc.store.delivery import Outgoing
from regsvc.store.desk import MailDesk
from regsvc.store.profile import People
from regsvc.store.receipt import Receipts
from regsvc.store.session import Sessions
from regsvc.store.sql import Statements
from regsvc.store.staff import Enrolment


@dataclass(frozen=True, slots=True)
class Unit:
    """What a flow reaches within one transaction; implements ports.Unit and ports.StaffUnit."""

    accounts: Accounts
    people: People
    sessions: Sessions
    outgoing: Outgoing
    receipts: Receipts
    enrolment: Enrolment
    desk: MailDesk


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
                People(self.queries["profile"], session),
                Sessions(self.queries["session"], session),
                Outgoing(self.queries["delivery"], session, self.new_id, self.origin),
                Receipts(self.queries["receipt"], session),
                Enrolment(self.queries["staff"], session),
                MailDesk(self.queries["desk"], session),
            )
