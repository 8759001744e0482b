"""asyncpg driven natively by Trio's own sockets: no asyncio event loop runs anywhere.

asyncpg's protocol, codecs, prepared statements, cursors and COPY as documented there, awaited from Trio tasks; the
sockets, timeouts, cancellation, transactions and the pool are ours.

Errors, everywhere:
- what the server refuses: `asyncpg.PostgresError` and its kind; wrong use: `asyncpg.InterfaceError`;
- a deadline of this package (a command's, the pool's, a connect's): the builtin `TimeoutError`, which is an OSError, so
  catch it first; a caller's own cancel scope is left alone and raises `trio.Cancelled` as ever;
- a connection that cannot be made or is lost: OSError, `ConnectionLost` where there was one.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal

import trio

from regsvc.trio_asyncpg.bridge import Tasks
from regsvc.trio_asyncpg.connection import Connection
from regsvc.trio_asyncpg.errors import ConnectionLost
from regsvc.trio_asyncpg.figures import Limits, PoolStatistics
from regsvc.trio_asyncpg.hosts import connect, read_target
from regsvc.trio_asyncpg.notifications import Notification, Notifications
from regsvc.trio_asyncpg.pool import RECOVER_TIMEOUT, Init, Pool
from regsvc.trio_asyncpg.transaction import Isolation, Transaction

__all__ = [
    "Connection",
    "ConnectionLost",
    "Isolation",
    "Notification",
    "Notifications",
    "Pool",
    "PoolStatistics",
    "Transaction",
    "open_connection",
    "open_pool",
]


@asynccontextmanager
async def open_pool(  # noqa: PLR0913  # knobs, all keyword-only
    dsn: str,
    *,
    min_size: int = 2,
    max_size: int = 10,
    acquire_timeout: float = 5.0,
    command_timeout: float | None = 5.0,
    connect_timeout: float = 5.0,
    max_lifetime: float = 1800.0,
    max_idle: float = 300.0,
    health_check: float = 30.0,
    statement_cache_size: int = 100,
    reset: Literal["when_needed", "always"] = "when_needed",
    init: Init | None = None,
    server_settings: dict[str, str] | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[Pool]:
    """Open a pool for the time of an `async with` block; all times in seconds.

    Does not wait for the server: `min_size` connections are opened in the background, again and again while the server
    is away, and a failing server is told to who acquires. `connect_timeout` is for each host. `command_timeout` holds
    each statement that has no `timeout` of its own. `init(connection)` prepares each new connection. `reset="always"`
    is for databases whose functions change the session: see `cleanliness`. `statement_cache_size=0` is for pgbouncer
    in transaction mode.

    When the block ends, however it does, statements already cancelled are waited for (1 s), then every connection ends.
    Errors: ValueError or asyncpg's for a DSN that cannot be read; what the body raised, as it was raised.
    """
    target = read_target(
        dsn,
        timeout=connect_timeout,
        command_timeout=command_timeout,
        statement_cache_size=statement_cache_size,
        server_settings=server_settings,
        ssl_context=ssl_context,
    )
    limits = Limits(
        min_size=min_size,
        max_size=max_size,
        acquire_timeout=acquire_timeout,
        max_lifetime=max_lifetime,
        max_idle=max_idle,
        health_check=health_check,
        reset=reset,
    )
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        tasks = Tasks(nursery)
        pool = Pool(target, limits, tasks, init)
        try:
            yield pool
        except Exception as exc:  # noqa: BLE001  # raised again below, outside the nursery, which would wrap it
            failure = exc
        finally:
            pool.stop()
            with trio.move_on_after(RECOVER_TIMEOUT, shield=True):
                await pool.recovered()
            pool.close()
            tasks.close()
    if failure is not None:
        raise failure


@asynccontextmanager
async def open_connection(
    dsn: str,
    *,
    command_timeout: float | None = 5.0,
    connect_timeout: float = 5.0,
    statement_cache_size: int = 100,
    init: Init | None = None,
    server_settings: dict[str, str] | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[Connection]:
    """Open one connection for the time of an `async with` block; the knobs are those of `open_pool`.

    Errors: as `open_pool`, and those of connecting: OSError (TimeoutError among them), or what the server said.
    """
    target = read_target(
        dsn,
        timeout=connect_timeout,
        command_timeout=command_timeout,
        statement_cache_size=statement_cache_size,
        server_settings=server_settings,
        ssl_context=ssl_context,
    )
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        tasks = Tasks(nursery)
        try:
            connection = await connect(target, tasks)
            try:
                if init is not None:
                    await init(connection)
                yield connection
            finally:
                with trio.move_on_after(RECOVER_TIMEOUT, shield=True), suppress(ConnectionLost):
                    await connection.settled()
                connection.terminate()
        except Exception as exc:  # noqa: BLE001  # as in open_pool
            failure = exc
        finally:
            tasks.close()
    if failure is not None:
        raise failure
