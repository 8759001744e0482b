"""asyncpg's protocol with the parts replaced that call asyncio instead of its loop.

The rest of asyncpg only awaits futures (see `bridge`). Here are: waiting for a cancelled statement (`asyncio.timeout`,
`asyncio.shield`), `executemany` (`asyncio.sleep(0)`, `asyncio.Event`), and COPY (`asyncio.wait_for`, and cleaning up
after `asyncio.CancelledError`, which a cancelled Trio task does not raise).
"""

import weakref
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias

import trio
from asyncpg import Record

from regsvc.trio_asyncpg import internals
from regsvc.trio_asyncpg.bridge import Future, driven
from regsvc.trio_asyncpg.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Iterator

    _Protocol: TypeAlias = internals.Protocol[Record]
else:
    _Protocol = internals.Protocol


class _InterruptedError(Exception):
    """Carries a `trio.Cancelled` through COPY, which cleans up after an `Exception` only."""

    def __init__(self, cancelled: trio.Cancelled) -> None:
        self.cancelled = cancelled


class Protocol(_Protocol):
    """asyncpg's protocol on a `Transport`; its Connection sets `cancelling` while a statement is being cancelled."""

    wire: Transport
    cancelling: tuple[Future, Future] | None = None  # the request was sent; its statement is over
    _connection: Callable[[], Any] = staticmethod(lambda: None)

    def set_connection(self, connection: Any) -> None:
        """Tell the protocol its Connection, once there is one; it is held weakly."""
        super().set_connection(connection)
        self._connection = weakref.ref(connection)

    def connection_lost(self, exc: Exception | None) -> None:
        """Learn that no more will come, and see to it that the Connection ends too: asyncpg does not in each case."""
        super().connection_lost(exc)
        self._give_up()

    def _give_up(self) -> None:
        connection = self._connection()
        if connection is not None:
            connection.terminate()

    async def _wait_for_cancellation(self, timeout: float | None = None) -> float | None:  # noqa: ASYNC109  # asyncpg's
        """Wait until the statement cancelled before is over, and return what is left of `timeout`.

        Its answer may still be under way; nothing else can be asked on this connection before. Past the timeout the
        connection is given up, since nobody knows what the server does.
        """
        if self.cancelling is None:
            return timeout
        started = trio.current_time()
        with trio.CancelScope(deadline=inf if timeout is None else started + timeout) as scope:
            await self.settled()
        if scope.cancelled_caught:
            self._give_up()
            raise TimeoutError("the statement cancelled before did not end in time")
        return timeout if timeout is None else max(timeout - (trio.current_time() - started), 0.001)

    async def settled(self) -> None:
        """Wait until no statement is being cancelled."""
        if self.cancelling is not None:
            sent, acknowledged = self.cancelling
            await sent.wait_done()
            await acknowledged.wait_done()
            self.cancelling = None

    async def bind_execute_many(
        self,
        state: Any,
        args: Iterable[Sequence[object]],
        portal_name: str,
        timeout: Any,  # noqa: ASYNC109  # asyncpg's signature
        return_rows: bool = False,  # noqa: FBT001, FBT002  # asyncpg's signature
    ) -> Any:
        """Send one statement with many arguments, waiting for the transport between the pieces."""
        with self._deadline(timeout):
            work = super().bind_execute_many(state, args, portal_name, internals.NO_TIMEOUT, return_rows)
            return await driven(work, self._pause)

    async def copy_in(  # type: ignore[override]  # the stubs take any object
        self,
        copy_stmt: str,
        reader: Any,
        data: Any,
        records: Any,
        record_stmt: Any,
        timeout: Any,  # noqa: ASYNC109
    ) -> str:
        """Send COPY data, waiting for the transport between the pieces."""
        if reader is not None and hasattr(reader, "__aiter__"):
            reader = _Paced(reader, self.wire)
        if records is not None:
            records = _Paced(records, self.wire)
        with self._deadline(timeout), _uninterrupted():
            return await super().copy_in(copy_stmt, reader, data, records, record_stmt, internals.NO_TIMEOUT)

    async def copy_out(  # type: ignore[override]  # the stubs take any object
        self,
        copy_stmt: str,
        sink: Callable[[bytes], Awaitable[object]],
        timeout: Any,  # noqa: ASYNC109
    ) -> str:
        """Receive COPY data; the server waits while `sink` does."""

        async def interruptible(buffer: bytes) -> None:
            try:
                await sink(buffer)
            except trio.Cancelled as exc:
                raise _InterruptedError(exc) from None  # noqa: ASYNC104  # _uninterrupted raises it again

        with self._deadline(timeout), _uninterrupted():
            return await super().copy_out(copy_stmt, interruptible, internals.NO_TIMEOUT)

    async def _pause(self) -> None:
        await trio.lowlevel.checkpoint()
        await self.wire.drained()

    @contextmanager
    def _deadline(self, timeout: Any) -> "Iterator[None]":
        """Hold a whole operation to a timeout of asyncpg's kinds: None is the connection's own, NO_TIMEOUT is none."""
        seconds = None if timeout is internals.NO_TIMEOUT else self._get_timeout(timeout)
        with trio.CancelScope(deadline=inf if seconds is None else trio.current_time() + seconds) as scope:
            yield
        if scope.cancelled_caught:
            raise TimeoutError(f"the statement took longer than {seconds} s")


@contextmanager
def _uninterrupted() -> "Iterator[None]":
    try:
        yield
    except _InterruptedError as exc:
        raise exc.cancelled from None


class _Paced:
    """Iterates over what COPY sends, no faster than the transport takes it."""

    def __init__(self, items: Any, wire: Transport) -> None:
        self._wire = wire
        self._next = items.__aiter__().__anext__ if hasattr(items, "__aiter__") else _asynchronous(iter(items))

    def __aiter__(self) -> "_Paced":
        return self

    async def __anext__(self) -> Any:
        try:
            if self._wire.is_full():
                await self._wire.drained()
            return await self._next()
        except trio.Cancelled as exc:
            raise _InterruptedError(exc) from None  # noqa: ASYNC104  # _uninterrupted raises it again


def _asynchronous(items: "Iterator[Any]") -> Callable[[], Awaitable[Any]]:
    async def following() -> Any:  # noqa: ASYNC124  # the form that asyncpg wants
        for item in items:
            return item
        raise StopAsyncIteration

    return following
