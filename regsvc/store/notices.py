"""Word from the other processes: LISTEN on a connection of its own, past any transaction-pooling proxy.

Behind such a proxy LISTEN hears nothing; whoever waits for word also looks for himself now and then.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from regsvc.ports import Notice, NoticeKind
from regsvc.store.database import Database, outages
from regsvc.trio_asyncpg import Notification, Notifications


@dataclass(frozen=True, slots=True)
class Notices:
    """Subscribes; implements ports.Notices. What this process itself put into the outbox, its own bell has told."""

    database: Database
    origin: str

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[AsyncIterator[Notice]]:
        """Open a subscription; iterating raises Unavailable when it is lost. What is not understood is passed over."""
        async with self.database.listening(*(kind.value for kind in NoticeKind)) as notifications:
            yield _Stream(notifications, self.origin)


class _Stream:
    """Async iterator over notices."""

    def __init__(self, notifications: Notifications, origin: str) -> None:
        self._notifications = notifications
        self._origin = origin

    def __aiter__(self) -> "_Stream":
        return self

    async def __anext__(self) -> Notice:
        while True:
            with outages():
                notification = await anext(self._notifications)
            notice = _notice(notification)
            if notice is not None and notification.payload != self._origin:
                return notice


def _notice(notification: Notification) -> Notice | None:
    """Read a notification; None for what somebody else put on the channel."""
    kind = NoticeKind(notification.channel)
    if kind is not NoticeKind.SETTLED:
        return Notice(kind, None)
    try:
        return Notice(kind, UUID(notification.payload))
    except ValueError:
        return None
