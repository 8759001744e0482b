"""What keeps it running."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Final, Protocol
from uuid import UUID

from regsvc.ports.delivery import OutboxCounts


class Heap(Enum):
    """A kind of rows that expire. Some are counted together (Swept), each is swept by itself."""

    REGISTRATIONS = "registrations"
    CODES = "codes"
    ADDRESSES = "addresses"
    SENT = "sent mails"
    DEAD = "dead mails"
    MAILBOX = "mailbox"
    LINKS = "links"
    SESSIONS = "sessions"
    EMAIL_CHANGES = "changes of address"
    LIMITS = "limits"
    ANSWERS = "answers"
    EVENTS = "events"


EVERYTHING: Final = frozenset(Heap)


@dataclass(frozen=True, slots=True)
class Swept:
    """How many rows a sweep removed, by kind; `more`: the heaps of which a batch was full."""

    registrations: int = 0
    codes: int = 0
    addresses: int = 0
    mails: int = 0
    sessions: int = 0
    limits: int = 0
    answers: int = 0
    events: int = 0
    more: frozenset[Heap] = frozenset()

    @property
    def total(self) -> int:
        """All of them."""
        accounts = self.registrations + self.codes + self.addresses + self.sessions
        return accounts + self.mails + self.limits + self.answers + self.events

    def __add__(self, later: "Swept") -> "Swept":
        return Swept(
            registrations=self.registrations + later.registrations,
            codes=self.codes + later.codes,
            addresses=self.addresses + later.addresses,
            mails=self.mails + later.mails,
            sessions=self.sessions + later.sessions,
            limits=self.limits + later.limits,
            answers=self.answers + later.answers,
            events=self.events + later.events,
            more=later.more,
        )


@dataclass(frozen=True, slots=True)
class Partitioned:
    """What was done to the partitions of the audit trail: months that have one now, rows put there, names dropped."""

    made: tuple[str, ...] = ()
    moved: int = 0
    dropped: tuple[str, ...] = ()


class Housekeeping(Protocol):
    """What tidies. Every method raises Unavailable."""

    async def turn(self, idle: timedelta) -> bool:
        """Tell whether it is the caller's turn: for so long no process of any machine took it. Zero: it takes it."""
        ...

    async def sweep(self, limit: int, heaps: frozenset[Heap] = EVERYTHING) -> Swept:
        """Remove up to `limit` expired rows from each heap; rows that others hold are passed over."""
        ...

    async def lag(self) -> timedelta:
        """Return for how long the oldest row that should be gone has been waiting for it; cheap."""
        ...

    async def partition(self) -> Partitioned:
        """Make the coming months' partitions of the audit trail, and drop those that are kept no longer.

        Nobody who writes to it waits for longer than a blink: what would take longer is left to the next time.
        """
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


class Census(Protocol):
    """How much there is of what operators watch."""

    async def outbox(self) -> OutboxCounts:
        """Count it; a number may stand for itself and more, beyond a bound that is worth no waiting.

        Raises Unavailable.
        """
        ...


class Probe(Protocol):
    """Whether the database is there and what it should be. Neither call waits longer than a second."""

    async def ping(self) -> timedelta:
        """Ask it something; return how long it took. Raises Unavailable."""
        ...

    async def migrated(self) -> bool:
        """Tell whether every migration this version ships was applied. Raises Unavailable."""
        ...
