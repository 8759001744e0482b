"""The way to PostgreSQL, and the boundary at which what can befall it becomes `Unavailable`.

What says that the database is away, full, in recovery, or that somebody else was first, is the state of the world: it
is raised as Unavailable, and worth a retry. Everything else asyncpg raises (syntax, types, constraints) is a bug of
ours and goes through as it is.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Final, TypeAlias

from asyncpg import Record, exceptions

from regsvc.domain.values import Secret
from regsvc.ports import Unavailable
from regsvc.trio_asyncpg import Connection, Isolation, Notifications, Pool, open_connection, open_pool

Row: TypeAlias = Record
Session: TypeAlias = Connection | Pool
"""Where a statement runs: a pool gives it a transaction of its own."""

ISOLATION: Final[Isolation] = "read_committed"
"""Said aloud: what waits for a lock and reads on in the next statement would not see anew under another default."""

OUTAGES: Final = (
    OSError,  # no way there, a lost connection, a deadline (TimeoutError is one)
    exceptions.PostgresConnectionError,  # class 08; also what a pooler says of itself
    exceptions.InvalidAuthorizationSpecificationError,  # class 28: credentials are being rotated, or pg_hba.conf
    exceptions.InvalidCatalogNameError,  # the database is not there (yet, or just being restored)
    exceptions.InsufficientResourcesError,  # class 53: too many connections, disk full, out of memory
    exceptions.OperatorInterventionError,  # class 57: shutdown, starting up, a statement cancelled from outside
    exceptions.PostgresSystemError,  # class 58: I/O errors
    exceptions.TransactionRollbackError,  # class 40: deadlock, serialization failure
    exceptions.LockNotAvailableError,
    exceptions.ReadOnlySQLTransactionError,  # a primary that has become a standby
    exceptions.IdleInTransactionSessionTimeoutError,
    exceptions.TargetServerAttributeNotMatched,  # none of the hosts is what the DSN asks for
    exceptions.InvalidCachedStatementError,  # a migration changed a table under a prepared statement: prepared anew
)


@contextmanager
def outages() -> Iterator[None]:
    """Raise what the database's state is to blame for as Unavailable; a bug is raised without the rows it is about."""
    try:
        yield
    except OUTAGES as exc:
        raise unavailable(exc) from exc
    except exceptions.PostgresError as exc:
        exc.detail = None  # "Failing row contains (…)": bugs are logged with their words
        raise


def unavailable(exc: BaseException) -> Unavailable:
    """Say what happened."""
    return Unavailable("database", first_line(exc))


def first_line(exc: BaseException) -> str:
    """Name an error in a line; what PostgreSQL adds in others (DETAIL) may hold values."""
    words = str(exc).partition("\n")[0]
    return f"{type(exc).__name__}: {words}" if words else type(exc).__name__


class _Edges:
    """Translates what the two ends of a block raise, and nothing from within it.

    Statements in the block were translated where they ran; an OSError of another kind is not for us to explain.
    """

    def __init__(self) -> None:
        self._own: BaseException | None = None

    @contextmanager
    def outside(self) -> Iterator[None]:
        try:
            yield
        except OUTAGES as exc:
            if exc is self._own:
                raise
            raise unavailable(exc) from exc

    @contextmanager
    def inside(self) -> Iterator[None]:
        try:
            yield
        except BaseException as exc:
            self._own = exc
            raise


class Database:
    """A pool of connections to one database; `open_database` makes it."""

    def __init__(self, dsn: Secret, pool: Pool) -> None:
        self.pool = pool
        self._dsn = dsn

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """All of the block, or nothing of it. Raises Unavailable from its beginning and its end.

        Unavailable from the end means that nobody knows whether it was committed. Cancelled within: it was not.
        """
        edges = _Edges()
        with edges.outside():
            async with self.pool.acquire() as connection, connection.transaction(isolation=ISOLATION):
                with edges.inside():
                    yield connection

    @asynccontextmanager
    async def listening(self, *channels: str) -> AsyncIterator[Notifications]:
        """Hear channels on a connection of its own. Raises Unavailable at both ends, and ConnectionLost in between."""
        async with open_dedicated(self._dsn) as connection:
            edges = _Edges()
            with edges.outside():
                async with connection.listen(*channels) as notifications:
                    with edges.inside():
                        yield notifications


@asynccontextmanager
async def open_dedicated(dsn: Secret) -> AsyncIterator[Connection]:
    """A connection outside any pool, whose statements take as long as they take. Raises Unavailable at both ends."""
    edges = _Edges()
    with edges.outside():
        async with open_connection(dsn.reveal(), command_timeout=None, statement_cache_size=0) as connection:
            with edges.inside():
                yield connection


@asynccontextmanager
async def transaction(
    connection: Connection, *, isolation: Isolation = ISOLATION, readonly: bool = False
) -> AsyncIterator[None]:
    """As `Database.transaction`, on a connection that one has."""
    edges = _Edges()
    with edges.outside():
        async with connection.transaction(isolation=isolation, readonly=readonly):
            with edges.inside():
                yield


class Taken(Exception):  # noqa: N818 - somebody was first: a fact, no mistake
    """A statement would write what another row has: `index` names the unique index that refuses it."""

    def __init__(self, index: str) -> None:
        super().__init__(index)
        self.index = index


@asynccontextmanager
async def attempt(connection: Connection) -> AsyncIterator[None]:
    """Undo the block alone where a unique index refuses it, and raise Taken; the transaction around goes on."""
    edges = _Edges()
    try:
        with edges.outside():
            async with connection.transaction():
                with edges.inside():
                    yield
    except exceptions.UniqueViolationError as exc:
        raise Taken(str(exc.constraint_name)) from exc


async def copy_rows(
    connection: Connection, table: str, columns: Sequence[str], rows: Sequence[Sequence[object]]
) -> bool:
    """Put rows into a table by COPY, within a transaction: all of them, or none where one is there already (False).

    In half the time of an INSERT from arrays; but it knows no ON CONFLICT. Raises Unavailable.
    """
    try:
        with outages():
            async with connection.transaction():
                await connection.copy_records_to_table(table, columns=columns, records=rows)
    except exceptions.UniqueViolationError:
        return False
    return True


class ScriptError(Exception):
    """PostgreSQL refuses a script; says why in a line, without the values that it names."""


async def run_script(connection: Connection, text: str) -> None:
    """Execute several statements at once. Raises ScriptError for what is wrong with them, Unavailable for the rest."""
    try:
        with outages():
            await connection.execute(text)
    except exceptions.PostgresError as exc:
        raise ScriptError(first_line(exc)) from exc


@asynccontextmanager
async def open_database(
    dsn: Secret,
    *,
    pool_min: int,
    pool_max: int,
    timeout: timedelta,  # noqa: ASYNC109 - of each wait for a connection and each statement
    statement_cache: int,
) -> AsyncIterator[Database]:
    """Open the pool; does not wait for the database. Its connections end with the block."""
    seconds = timeout.total_seconds()
    async with open_pool(
        dsn.reveal(),
        min_size=pool_min,
        max_size=pool_max,
        acquire_timeout=seconds,
        command_timeout=seconds,
        connect_timeout=seconds,
        statement_cache_size=statement_cache,
    ) as pool:
        yield Database(dsn, pool)
