"""What keeps it running."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Swept:
    """How many rows a sweep removed, by kind; `more` when a batch was full."""

    registrations: int
    codes: int
    addresses: int
    mails: int
    sessions: int
    limits: int
    answers: int
    more: bool

    @property
    def total(self) -> int:
        """All of them."""
        accounts = self.registrations + self.codes + self.addresses + self.sessions
        return accounts + self.mails + self.limits + self.answers


class Housekeeping(Protocol):
    """What tidies."""

    async def sweep(self, limit: int) -> Swept:
        """Remove up to `limit` expired rows of each kind; rows that others hold are passed over."""
        ...


class NoticeKind(Enum):
    """What another process tells; the value is the channel's name."""

    OUTBOX = "regsvc_outbox"
    SETTLED = "regsvc_settled"
    KEYS = "regsvc_keys"


@dataclass(frozen=True, slots=True)
class Notice:
    """A notification; `subject` where it is about one."""

    kind: NoticeKind
    subject: UUID | None


class Notices(Protocol):
    """Word from the other processes."""

    def listen(self) -> AbstractAsyncContextManager[AsyncIterator[Notice]]:
        """Open a subscription; iterating raises Unavailable when it is lost."""
        ...


class Probe(Protocol):
    """Whether the database is there and what it should be. Neither call waits longer than a second."""

    async def ping(self) -> timedelta:
        """Ask it something; return how long it took. Raises Unavailable."""
        ...

    async def migrated(self) -> bool:
        """Tell whether every migration this version ships was applied. Raises Unavailable."""
        ...
