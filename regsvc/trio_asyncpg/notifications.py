"""LISTEN and NOTIFY as an async iterator."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from regsvc.trio_asyncpg import internals

if TYPE_CHECKING:
    from regsvc.trio_asyncpg.connection import Connection

UNLISTEN_TIMEOUT: Final = 1.0  # seconds; past it the session is reset, or dropped, when it goes back to its pool


@dataclass(frozen=True, slots=True)
class Notification:
    """What `NOTIFY channel, 'payload'` brought; `pid` is the server process of the sender."""

    channel: str
    payload: str
    pid: int


class Notifications:
    """Async iterator over the notifications of some channels, in the order the server sent them.

    One task may iterate. It ends with ConnectionLost, after all that came before.
    """

    def __init__(self, capacity: int) -> None:
        self._waiting: deque[Notification] = deque()
        self._capacity = capacity
        self._bell = trio.Event()
        self._lost: Exception | None = None
        self.dropped = 0  # how many were thrown away, oldest first, because nobody took them in time

    def __aiter__(self) -> "Notifications":
        return self

    async def __anext__(self) -> Notification:
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._waiting:
            if self._lost is not None:
                raise self._lost
            self._bell = trio.Event()
            await self._bell.wait()
        return self._waiting.popleft()

    def deliver(self, notification: Notification) -> None:
        """Add one; called by the reader of the connection."""
        if len(self._waiting) == self._capacity:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(notification)
        self._bell.set()

    def lose(self, error: Exception) -> None:
        """Raise `error` once all that came has been taken."""
        self._lost = error
        self._bell.set()


@asynccontextmanager
async def listening(connection: "Connection", channels: tuple[str, ...], capacity: int) -> AsyncIterator[Notifications]:
    """LISTEN to `channels` until the block ends; see `Connection.listen`."""
    if not channels:
        raise ValueError("listen to which channels?")
    notifications = Notifications(capacity)
    streams = connection.streams
    try:
        for channel in channels:
            # First the stream, then LISTEN: a notification may follow it at once.
            streams.setdefault(channel, set()).add(notifications)
            await connection.execute(f"LISTEN {internals.quote_ident(channel)}")
        yield notifications
    finally:
        idle = []
        for channel in channels:
            listeners = streams.get(channel, set())
            listeners.discard(notifications)
            if not listeners and streams.pop(channel, None) is not None:
                idle.append(f"UNLISTEN {internals.quote_ident(channel)}")
        if idle and not connection.is_closed():
            with trio.move_on_after(UNLISTEN_TIMEOUT, shield=True):
                await _unlisten(connection, ";".join(idle))


async def _unlisten(connection: "Connection", query: str) -> None:
    try:
        await connection.execute(query)
    except OSError:
        connection.terminate()  # it is of no use to anyone, and the error that ends the block is the one to be seen
