"""The whole store: every port that PostgreSQL stands behind, over one pool."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

import trio

from regsvc import ports
from regsvc.domain.values import Secret
from regsvc.store.account import Directory
from regsvc.store.census import Census
from regsvc.store.database import open_database
from regsvc.store.delivery import Mailbag
from regsvc.store.desk import MailDesk
from regsvc.store.housekeeping import Housekeeping
from regsvc.store.keys import KeyShelf
from regsvc.store.mailbox import Mailbox
from regsvc.store.migrations import Ledger, read_migrations
from regsvc.store.notices import Notices
from regsvc.store.probe import Probe
from regsvc.store.quota import Quotas
from regsvc.store.receipt import Tickets
from regsvc.store.session import Members
from regsvc.store.sql import Statements, folder, read_queries
from regsvc.store.staff import Roster
from regsvc.store.unit import Units
from regsvc.trio_asyncpg import PoolStatistics

TIMEOUT: Final = timedelta(seconds=5)
EVENTS_KEPT: Final = timedelta(days=365)
STATEMENT_CACHE: Final = 200  # statements a connection keeps prepared; all that there are


@dataclass(frozen=True, slots=True)
class Store:
    """The ports of the inside, each ready for use from any task."""

    begin: ports.StaffBegin
    directory: ports.Directory
    members: ports.Members
    keys: ports.KeyShelf
    mailbag: ports.Mailbag
    desk: ports.MailDesk
    roster: ports.Roster
    mailbox: ports.Mailbox
    housekeeping: ports.Housekeeping
    notices: ports.Notices
    probe: ports.Probe
    census: ports.Census
    quotas: ports.Quotas
    tickets: ports.Tickets
    statistics: Callable[[], PoolStatistics]


@asynccontextmanager
async def open_store(
    dsn: Secret,
    *,
    new_id: Callable[[], UUID],
    pool_min: int = 2,
    pool_max: int = 10,
    timeout: timedelta = TIMEOUT,  # noqa: ASYNC109 - of each wait for a connection and each statement
    statement_cache: int = STATEMENT_CACHE,
    events_kept: timedelta = EVENTS_KEPT,
) -> AsyncIterator[Store]:
    """Open the store for the time of the block; does not wait for the database, which may come and go.

    `new_id` makes UUIDs of version 7. `timeout` is that of each wait for a connection and of each statement;
    `statement_cache` is 0 behind a proxy that pools transactions. `events_kept`: of the audit trail, by whole months.
    Raises StatementError and MigrationError for SQL files that do not fit, ValueError for a DSN that cannot be read;
    its connections end with the block.
    """
    queries, ledger = await trio.to_thread.run_sync(_read, limiter=trio.CapacityLimiter(1))
    async with open_database(
        dsn, pool_min=pool_min, pool_max=pool_max, timeout=timeout, statement_cache=statement_cache
    ) as database:
        origin = str(new_id())
        yield Store(
            begin=Units(queries, database, new_id, origin).begin,
            directory=Directory(queries["account"], database),
            members=Members(queries["session"], database),
            keys=KeyShelf(queries["keys"], database),
            mailbag=Mailbag(queries["delivery"], database),
            desk=MailDesk(queries["desk"], database.pool),
            roster=Roster(queries["staff"], database),
            mailbox=Mailbox(queries["mailbox"], database, new_id),
            housekeeping=Housekeeping(queries["housekeeping"], database, events_kept),
            notices=Notices(database, origin),
            census=Census(queries["census"], database),
            probe=Probe(queries["probe"], database, ledger),
            quotas=Quotas(queries["quota"], database),
            tickets=Tickets(queries["receipt"], database, new_id),
            statistics=database.pool.statistics,
        )


def _read() -> tuple[dict[str, Statements], Ledger]:
    place = folder()
    queries = read_queries(place / "queries")
    return queries, Ledger(queries["migrations"], read_migrations(place / "migrations"))
