"""A pool of connections in Trio's terms: fair, bounded, and whole after whatever happened to who used it.

Rule 1. Who waits is served in order of arrival; a connection that comes back, or is opened, goes to the first of them.
        Nobody overtakes: who comes while others wait, waits behind them.
Rule 2. Changing hands is synchronous: a connection is idle, lent, recovering or gone, never in between at a checkpoint.
Rule 3. Connections are opened by tasks of the pool, not of who waits: a cancelled wait leaves them to the next one.
Rule 4. One that comes back clean is lent on at once. One that does not (a statement cut, a transaction open, a session
        changed) recovers in a task of the pool, with a deadline; whoever gave it back does not wait.
Rule 5. What the server refuses is told to the first who waits, when no other connection could still serve them.
"""

import random
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any, Final, Literal, TypeAlias

import outcome
import trio
from asyncpg import InterfaceError, InternalClientError, PostgresError, Record

from regsvc.trio_asyncpg.bridge import LOG, Tasks
from regsvc.trio_asyncpg.connection import Connection
from regsvc.trio_asyncpg.errors import ConnectionLost
from regsvc.trio_asyncpg.figures import Counts, Limits, PoolStatistics
from regsvc.trio_asyncpg.hosts import Target, connect

Init: TypeAlias = Callable[[Connection], Awaitable[object]]

RECOVER_TIMEOUT: Final = 1.0  # seconds for a connection that came back unclean, then it is dropped
TRUSTED: Final = 0.001  # seconds since its last use within which an idle connection is lent without looking at it
RETRY_MIN: Final = 0.05  # seconds before the pool tries again to open what it wants open; doubles up to RETRY_MAX
RETRY_MAX: Final = 2.0  # seconds
PACE_MAX: Final = 5.0  # seconds between two looks at the idle connections, at most


class Lease:
    """Lends a connection for an `async with` block; see `Pool.acquire`."""

    __slots__ = ("_connection", "_pool", "_timeout")

    def __init__(self, pool: "Pool", timeout: float | None) -> None:
        self._pool = pool
        self._timeout = timeout
        self._connection: Connection

    async def __aenter__(self) -> Connection:
        self._connection = await self._pool._take(self._timeout)  # noqa: SLF001  # the same room
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        self._pool._give_back(self._connection)  # noqa: SLF001  # the same room


class Pool:
    """Connections to lend; `regsvc.trio_asyncpg.open_pool` makes one, and its block's end closes it."""

    def __init__(self, target: Target, limits: Limits, tasks: Tasks, init: Init | None) -> None:
        self._target = target
        self._limits = limits
        self._tasks = tasks
        self._init = init
        self._idle: deque[Connection] = deque()  # the last one given back is lent first: the others may expire
        self._lent: set[Connection] = set()
        self._recovering: set[Connection] = set()
        self._opening = 0
        self._waiters: OrderedDict[trio.lowlevel.Task, float] = OrderedDict()  # and when they came
        self._counts = Counts()
        self._failure: Exception | None = None  # of the last attempt to open a connection, unless one succeeded since
        self._retry = RETRY_MIN
        self._retry_at = 0.0
        self._closed = False
        self._changed = trio.Event()
        tasks.spawn(self._keep, name="trio_asyncpg pool keeper")

    def acquire(self, timeout: float | None = None) -> Lease:
        """Return an `async with` block whose value is a connection of one's own until the block ends.

        Waits in turn for `timeout` seconds, or the pool's `acquire_timeout`; then builtin TimeoutError. OSError or
        asyncpg's errors when none is open and the server refuses. May return without a checkpoint other than for
        cancellation. Cancelled: nothing is lost, whatever was under way is cleaned up by the pool.
        """
        return Lease(self, timeout)

    async def fetch(self, query: str, *args: object, timeout: float | None = None) -> list[Record]:  # noqa: ASYNC109
        """Run a query on a connection of its own; return the rows."""
        connection = await self._take(None)
        try:
            return await connection.fetch(query, *args, timeout=timeout)
        finally:
            self._give_back(connection)

    async def fetchrow(self, query: str, *args: object, timeout: float | None = None) -> Record | None:  # noqa: ASYNC109
        """Run a query on a connection of its own; return the first row, or None."""
        connection = await self._take(None)
        try:
            return await connection.fetchrow(query, *args, timeout=timeout)
        finally:
            self._give_back(connection)

    async def fetchval(
        self,
        query: str,
        *args: object,
        column: int = 0,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> Any:
        """Run a query on a connection of its own; return one value of the first row, or None."""
        connection = await self._take(None)
        try:
            return await connection.fetchval(query, *args, column=column, timeout=timeout)
        finally:
            self._give_back(connection)

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str:  # noqa: ASYNC109
        """Execute a command, or several without arguments, on a connection of its own; return the last status."""
        connection = await self._take(None)
        try:
            return await connection.execute(query, *args, timeout=timeout)
        finally:
            self._give_back(connection)

    async def executemany(
        self,
        command: str,
        args: Iterable[Sequence[object]],
        *,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> None:
        """Execute a command once for each of `args`, all of them or none, on a connection of its own."""
        connection = await self._take(None)
        try:
            await connection.executemany(command, args, timeout=timeout)
        finally:
            self._give_back(connection)

    def statistics(self) -> PoolStatistics:
        """Return what the pool is doing now and how often it did what."""
        return PoolStatistics(
            size=self._size(),
            idle=len(self._idle),
            in_use=len(self._lent),
            recovering=len(self._recovering),
            opening=self._opening,
            waiting=len(self._waiters),
            **asdict(self._counts),
        )

    # Lending and taking back: synchronous but for the wait.

    async def _take(self, timeout: float | None) -> Connection:  # noqa: ASYNC109  # a wait for one's turn, see acquire
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise InterfaceError("the pool is closed")
        if not self._waiters:
            connection = self._pop_idle()
            if connection is not None:
                self._lend(connection)
                return connection
        return await self._wait_turn(self._limits.acquire_timeout if timeout is None else timeout)

    async def _wait_turn(self, seconds: float) -> Connection:
        task = trio.lowlevel.current_task()

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            del self._waiters[task]
            return trio.lowlevel.Abort.SUCCEEDED

        self._waiters[task] = trio.current_time()
        self._open_wanted()
        with trio.move_on_after(seconds):
            # Once rescheduled it has its connection, whatever the deadline says by the time it runs.
            connection: Connection = await trio.lowlevel.wait_task_rescheduled(abort)
            return connection
        self._counts.timed_out += 1
        now = self.statistics()
        raise TimeoutError(
            f"no connection within {seconds} s: {now.size} open, {now.in_use} in use, {now.opening} opening, "
            f"{now.waiting} more waiting"
        ) from self._failure

    def _pop_idle(self) -> Connection | None:
        now = trio.current_time()
        while self._idle:
            connection = self._idle.pop()
            if now >= connection.expires_at:
                self._drop(connection, "expired")
            elif now - connection.idle_since > TRUSTED and not connection.looks_alive():
                self._drop(connection, "lost")
            else:
                return connection
        return None

    def _lend(self, connection: Connection) -> None:
        self._lent.add(connection)
        connection.hand_out()

    def _give_back(self, connection: Connection) -> None:
        if connection not in self._lent:
            return  # it ended meanwhile
        self._lent.discard(connection)
        connection.take_back()
        if connection.is_closed():
            self._drop(connection, "lost")
        elif connection.is_abandoned():
            LOG.warning("a connection was given back while another task used it; it is dropped")
            self._drop(connection, "dropped")
        elif connection.is_settled() and not connection.dirty and self._limits.reset == "when_needed":
            self._put(connection)
        else:
            connection.dirty = connection.dirty or self._limits.reset == "always"
            self._nurse(connection, connection.recover)

    def _put(self, connection: Connection) -> None:
        """Lend it to who waits longest, or keep it."""
        now = trio.current_time()
        if self._closed or now >= connection.expires_at:
            self._drop(connection, "expired")
            self._open_wanted()
        elif self._waiters:
            task, _ = self._waiters.popitem(last=False)
            self._lend(connection)
            trio.lowlevel.reschedule(task, outcome.Value(connection))
        else:
            connection.idle_since = now
            self._idle.append(connection)

    # Ending connections.

    def _drop(self, connection: Connection, why: Literal["lost", "dropped", "expired"]) -> None:
        connection.on_closed = None
        setattr(self._counts, why, getattr(self._counts, why) + 1)
        connection.terminate()
        self._changed.set()

    def _lose(self, connection: Connection) -> None:
        """Forget a connection that ended by itself; called by it, once."""
        connection.on_closed = None
        self._counts.lost += 1
        self._lent.discard(connection)
        self._recovering.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._changed.set()
        self._open_wanted()

    def _nurse(self, connection: Connection, cure: Callable[[], Awaitable[None]]) -> None:
        self._recovering.add(connection)
        self._tasks.spawn(self._recover, connection, cure, name="trio_asyncpg recovery")

    async def _recover(self, connection: Connection, cure: Callable[[], Awaitable[None]]) -> None:
        well = False
        try:
            with trio.move_on_after(RECOVER_TIMEOUT):
                await cure()
                well = True
        except (OSError, PostgresError, InterfaceError, InternalClientError) as exc:
            LOG.debug("a connection is dropped: %s", exc)
        finally:
            if connection in self._recovering:
                self._recovering.discard(connection)
                if well:
                    self._counts.recovered += cure == connection.recover
                    self._put(connection)
                else:
                    self._drop(connection, "dropped")
            self._changed.set()

    # Opening connections.

    def _size(self) -> int:
        return len(self._idle) + len(self._lent) + len(self._recovering)

    def _all(self) -> list[Connection]:
        return [*self._idle, *self._lent, *self._recovering]

    def _open_wanted(self) -> None:
        """Start opening what waiters and `min_size` ask for; after a failure when due, or when all depends on it."""
        size = self._size()
        patient = size > 0 or not self._waiters
        if self._closed or (patient and trio.current_time() < self._retry_at):
            return
        wanted = min(max(len(self._waiters), self._limits.min_size - size), self._limits.max_size - size)
        while self._opening < wanted:
            self._opening += 1
            self._tasks.spawn(self._open, name="trio_asyncpg opening")

    async def _open(self) -> None:
        begun = trio.current_time()
        try:
            connection = await self._connect()
        except Exception as exc:  # noqa: BLE001  # what `init` raises too belongs to who waits
            self._opening -= 1
            self._refuse(exc, begun)
            return
        except BaseException:
            self._opening -= 1
            raise
        self._opening -= 1
        self._counts.opened += 1
        self._failure, self._retry, self._retry_at = None, RETRY_MIN, 0.0
        connection.siblings = self._all
        connection.on_closed = self._lose
        age = self._limits.max_lifetime * random.uniform(0.9, 1)  # noqa: S311  # lest all end at once
        connection.expires_at = connection.born + age
        connection.take_back()
        self._put(connection)

    async def _connect(self) -> Connection:
        connection = await connect(self._target, self._tasks)
        if self._init is not None:
            try:
                with trio.fail_after(self._target.timeout):
                    await self._init(connection)
            except trio.TooSlowError:
                connection.terminate()
                raise TimeoutError(f"init took longer than {self._target.timeout} s") from None
            except BaseException:
                connection.terminate()
                raise
            connection.dirty = False  # what init sets up is what fresh means here
        if not connection.looks_alive():
            connection.terminate()
            raise ConnectionLost("the server hung up on a new connection")
        return connection

    def _refuse(self, error: Exception, begun: float) -> None:
        if self._failure is None:
            LOG.warning("no connection to PostgreSQL: %r", error)
        self._counts.refused += 1
        self._failure = error
        self._retry_at = trio.current_time() + self._retry
        self._retry = min(2 * self._retry, RETRY_MAX)
        if self._waiters and self._size() == 0:
            task, since = next(iter(self._waiters.items()))
            if since <= begun:  # an attempt from before they came says nothing about now
                del self._waiters[task]
                trio.lowlevel.reschedule(task, outcome.Error(error))
        self._open_wanted()
        self._changed.set()

    # Keeping.

    async def _keep(self) -> None:
        """Open what is missing, look after what lies idle; until the pool is closed."""
        while True:
            self._open_wanted()
            self._look_after_idle()
            self._changed = trio.Event()
            with trio.move_on_after(self._pace()):
                await self._changed.wait()

    def _pace(self) -> float:
        limits = self._limits
        pace = min(PACE_MAX, limits.max_lifetime / 4, limits.max_idle / 4, limits.health_check / 4)
        overdue = self._retry_at - trio.current_time()
        return min(pace, overdue) if overdue > 0 else pace

    def _look_after_idle(self) -> None:
        now = trio.current_time()
        for connection in list(self._idle):
            spare = self._size() > self._limits.min_size and now - connection.idle_since > self._limits.max_idle
            if now >= connection.expires_at or spare:
                self._idle.remove(connection)
                self._drop(connection, "expired")
            elif now - connection.checked_at > self._limits.health_check:
                self._idle.remove(connection)
                connection.checked_at = now
                self._nurse(connection, connection.ping)

    # Closing, as `open_pool` does.

    def stop(self) -> None:
        """Lend no more, and tell so who waits."""
        self._closed = True
        while self._waiters:
            task, _ = self._waiters.popitem(last=False)
            trio.lowlevel.reschedule(task, outcome.Error(InterfaceError("the pool is closed")))

    async def recovered(self) -> None:
        """Wait until no connection recovers: a statement that was cut is then over on the server too."""
        while self._recovering:
            self._changed = trio.Event()
            await self._changed.wait()

    def close(self) -> None:
        """End every connection."""
        for connection in self._all():
            connection.on_closed = None
            connection.terminate()
        self._idle.clear()
        self._lent.clear()
        self._recovering.clear()
