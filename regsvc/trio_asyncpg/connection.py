"""asyncpg's Connection, with what it leaves to asyncio done by Trio, and transactions that survive cancellation."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import asyncpg
import trio
from asyncpg import Record, exceptions

from regsvc.trio_asyncpg.bridge import Future, Loop
from regsvc.trio_asyncpg.cleanliness import leaves_session_clean
from regsvc.trio_asyncpg.errors import ConnectionLost
from regsvc.trio_asyncpg.notifications import Notification, Notifications, listening
from regsvc.trio_asyncpg.transaction import Isolation, Transaction

if TYPE_CHECKING:
    from regsvc.trio_asyncpg.protocol import Protocol

    _Connection: TypeAlias = asyncpg.Connection[Record]
else:
    _Connection = asyncpg.Connection

CANCEL_TIMEOUT: Final = 1.0  # seconds for the server to take a CancelRequest, before the connection is given up
RESET: Final = "SET SESSION AUTHORIZATION DEFAULT; DISCARD TEMP"  # as in DISCARD ALL, and absent from asyncpg's reset


class Connection(_Connection):
    """One session with the server; `regsvc.trio_asyncpg.open_connection` and a pool make them.

    Everything in asyncpg's documentation of Connection holds, awaited from Trio tasks, but for these:
    `transaction` is ours; a lost connection raises ConnectionLost, an OSError; `listen` is the way to notifications.
    A cancelled or timed out statement is cancelled on the server too; the next one waits until that has happened.
    """

    __slots__ = (
        "_in_use",
        "_savepoints",
        "born",
        "cancel_request",
        "checked_at",
        "dirty",
        "expires_at",
        "idle_since",
        "on_closed",
        "siblings",
        "streams",
    )

    # asyncpg's own, of which its stubs do not know or know less.
    _aborted: bool
    _loop: Loop
    _pool_release_ctr: int
    _protocol: "Protocol"
    _query_loggers: set[object]
    _stmt_cache: Any

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.born = self.idle_since = self.checked_at = trio.current_time()
        self.expires_at = inf
        self.dirty = False  # whether the session may differ from a fresh one
        self._in_use = True
        self._savepoints = 0
        self.streams: dict[str, set[Notifications]] = {}
        self.cancel_request: Callable[[], Awaitable[None]]
        self.on_closed: Callable[[Connection], object] | None = None
        self.siblings: Callable[[], Iterable[Connection]] = lambda: (self,)

    def transaction(  # type: ignore[override]  # ours: asyncpg's cannot be left by a cancelled task
        self, *, isolation: Isolation | None = None, readonly: bool = False, deferrable: bool = False
    ) -> Transaction:
        """Return `async with` block that is all committed, or nothing of it; within another one, a savepoint.

        COMMIT and ROLLBACK are shielded from cancellation and have a deadline, after which the connection is dropped.
        """
        self._check_open()
        return Transaction(self, isolation=isolation, readonly=readonly, deferrable=deferrable)

    def listen(self, *channels: str, capacity: int = 1000) -> AbstractAsyncContextManager[Notifications]:
        """Return an `async with` block whose value is an async iterator over what NOTIFY sends to `channels`.

        The iterator ends with ConnectionLost. A consumer that is `capacity` behind loses the oldest; `dropped` counts.
        """
        self._check_open()
        return listening(self, channels, capacity)

    def backend_key(self) -> tuple[int, int]:
        """Return what a CancelRequest names this session by."""
        return self._protocol.backend_pid, self._protocol.backend_secret

    def new_savepoint(self) -> str:
        """Return a name for a savepoint that this session has not used."""
        self._savepoints += 1
        return f"savepoint_{self._savepoints}"

    # What the pool asks.

    def is_settled(self) -> bool:
        """Whether no statement is being cancelled and no transaction open."""
        protocol = self._protocol
        return protocol.cancelling is None and not protocol.is_in_transaction()

    def is_abandoned(self) -> bool:
        """Whether a statement is under way that nobody cancelled: another task still uses the connection."""
        return self._protocol.cancelling is None and not self._loop.last.done()

    def looks_alive(self) -> bool:
        """Say whether the server has not hung up, with one system call."""
        return not self.is_closed() and self._protocol.wire.looks_alive()

    def hand_out(self) -> None:
        """Let it be used."""
        self._in_use = True

    def take_back(self) -> None:
        """Refuse further use, by whoever still holds it, until it is handed out again."""
        self._in_use = False
        self._pool_release_ctr += 1  # asyncpg's own guard, on prepared statements and cursors

    async def recover(self) -> None:
        """Make the session like new: wait for a cancelled statement, roll back, reset what may have been set."""
        protocol = self._live()
        await protocol.settled()
        if protocol.is_in_transaction():
            await protocol.query("ROLLBACK", None)
        if self.dirty:
            self.streams.clear()
            await protocol.query(self.get_reset_query() + RESET, None)
            self.dirty = False

    async def ping(self) -> None:
        """Ask the server for no column of no table, and wait for its answer."""
        await self._live().query("SELECT", None)

    async def settled(self) -> None:
        """Wait until a cancelled statement is over."""
        await self._live().settled()

    def is_in_transaction(self) -> bool:
        """Whether a transaction is open, as the server said last."""
        return not self._aborted and self._protocol.is_in_transaction()

    # What asyncpg calls.

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str:  # noqa: ASYNC109
        """Execute one command, or several without arguments; return the status of the last."""
        self.dirty = self.dirty or not leaves_session_clean(query)
        return await super().execute(query, *args, timeout=timeout)

    async def _execute(
        self,
        query: str,
        args: Any,
        limit: int,
        timeout: float | None,  # noqa: ASYNC109  # asyncpg's signature
        *,
        return_status: bool = False,
        ignore_custom_codec: bool = False,
        record_class: Any = None,
    ) -> Any:
        """Execute a statement from the cache by the shortest way, or let asyncpg take its own."""
        self.dirty = self.dirty or not leaves_session_clean(query)
        state = self._stmt_cache.get((query, record_class or Record, ignore_custom_codec))
        if state is not None and not self._query_loggers:
            try:
                return await self._protocol.bind_execute(state, args, "", limit, return_status, timeout)
            except exceptions.OutdatedSchemaCacheError:
                self._drop_global_type_cache()
                self._drop_global_statement_cache()
                raise
            except exceptions.InvalidCachedStatementError:
                # Another session altered a table: prepare once more, unless the error broke a transaction.
                self._drop_global_statement_cache()
                if self._protocol.is_in_transaction():
                    raise
        with self._between_steps():
            return await super()._execute(  # type: ignore[misc]  # not in the stubs
                query,
                args,
                limit,
                timeout,
                return_status=return_status,
                ignore_custom_codec=ignore_custom_codec,
                record_class=record_class,
            )

    async def _prepare(self, query: str, **knobs: Any) -> Any:
        self.dirty = self.dirty or not leaves_session_clean(query)
        return await super()._prepare(query, **knobs)  # type: ignore[misc]  # not in the stubs

    async def _executemany(self, query: str, *args: Any, **knobs: Any) -> Any:
        self.dirty = self.dirty or not leaves_session_clean(query)
        with self._between_steps():
            return await super()._executemany(query, *args, **knobs)  # type: ignore[misc]  # not in the stubs

    @contextmanager
    def _between_steps(self) -> Iterator[None]:
        """Raise ConnectionLost where asyncpg prepared, lost the connection, and has no protocol left to go on with."""
        try:
            yield
        except AttributeError as error:
            if self._aborted:
                raise ConnectionLost("the connection ended between two steps of a statement") from error
            raise

    def _process_notification(self, pid: int, channel: str, payload: str) -> None:
        for stream in self.streams.get(channel, ()):
            stream.deliver(Notification(channel, payload, pid))
        super()._process_notification(pid, channel, payload)  # type: ignore[misc]  # not in the stubs

    def _drop_global_statement_cache(self) -> None:
        for connection in self.siblings():
            connection._drop_local_statement_cache()  # type: ignore[attr-defined]  # noqa: SLF001  # not in the stubs

    def _drop_global_type_cache(self) -> None:
        for connection in self.siblings():
            connection._drop_local_type_cache()  # type: ignore[attr-defined]  # noqa: SLF001  # not in the stubs

    def _live(self) -> "Protocol":
        if self._aborted:
            raise ConnectionLost("the connection is closed")
        return self._protocol

    def _check_open(self) -> None:
        if self._aborted or not self._protocol.is_connected():
            raise ConnectionLost("the connection is closed")
        if not self._in_use:
            raise exceptions.InterfaceError("the connection was given back to its pool")

    def _cleanup(self) -> None:
        super()._cleanup()  # type: ignore[misc]  # not in the stubs
        streams, self.streams = self.streams, {}
        for stream in {stream for listeners in streams.values() for stream in listeners}:
            stream.lose(ConnectionLost("the connection ended"))
        if self.on_closed is not None:
            self.on_closed(self)

    def _cancel_current_command(self, waiter: Future, cancel_waiter: Future) -> None:
        self._protocol.cancelling = (waiter, cancel_waiter)
        self._loop.tasks.spawn(self._cancel_on_server, waiter, name=f"trio_asyncpg cancel {self._protocol.wire.name}")

    async def _cancel_on_server(self, sent: Future) -> None:
        try:
            with trio.move_on_after(CANCEL_TIMEOUT) as scope:
                await self.cancel_request()
            if scope.cancelled_caught:
                self.terminate()  # nobody knows whether a late CancelRequest would hit the next statement
        except OSError:
            self.terminate()
        finally:
            if not sent.done():
                sent.set_result(None)
