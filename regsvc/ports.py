"""What the inside asks of the outside: Protocols, the values that cross them, and `Unavailable`.

Whoever implements a port raises `Unavailable` where the foreign library enters, and lets every other error through:
those are bugs. Times are aware and on the database's clock; `timedelta` wherever a duration leaves a function.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Protocol
from uuid import UUID

from regsvc.domain.account import Address
from regsvc.domain.delivery import Effect, Letter, Outcome, Parcel
from regsvc.domain.values import EmailKey, Secret


class Unavailable(Exception):  # noqa: N818 - it is a state of the world, not a mistake
    """Something outside is away or full: `what` names it (database, hasher, mail), `retry_after` is worth waiting."""

    def __init__(self, what: str, why: str = "", *, retry_after: timedelta = timedelta(seconds=1)) -> None:
        super().__init__(f"{what}: {why}" if why else what)
        self.what = what
        self.why = why
        self.retry_after = retry_after


# ------------------------------------------------------------------------------------------------- accounts


class Accounts(Protocol):
    """The addresses, inside a transaction."""

    async def load(self, key: EmailKey) -> tuple[Address, datetime]:
        """Lock the address (made if it is new), then read it, then the clock."""
        ...

    async def save(self, key: EmailKey, before: Address, after: Address) -> None:
        """Write what differs; a username taken in the meantime is left out of the new account."""
        ...


class Outgoing(Protocol):
    """What must leave the service, inside the transaction that causes it."""

    async def add(self, effects: Sequence[Effect], *, trace: str | None) -> None:
        """Write mails into the outbox (other processes are notified at the commit), and events into the audit trail."""
        ...


class Unit(Protocol):
    """One transaction: all of it, or nothing."""

    @property
    def accounts(self) -> Accounts:
        """The addresses."""
        ...

    @property
    def outgoing(self) -> Outgoing:
        """What must leave."""
        ...


Begin = Callable[[], AbstractAsyncContextManager[Unit]]
"""Open a transaction; leaving it commits, an error or a cancellation rolls back. Raises Unavailable."""


class MailState(Enum):
    """Where the newest mail of a registration is; the value is the word on the wire."""

    QUEUED = "queued"
    SENT = "sent"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class MailStatus:
    """The newest mail of a registration and the code it carried."""

    mail: MailState
    code_expires_at: datetime | None


class Directory(Protocol):
    """The addresses, read outside a transaction: what is seen here may have changed by the time of the lock."""

    async def look(self, key: EmailKey) -> tuple[Address, datetime]:
        """Read the address (empty if nobody ever used it) and the clock."""
        ...

    async def username_taken(self, username_key: str) -> bool:
        """Tell whether an account has that name."""
        ...

    async def mail_status(self, registration: UUID) -> MailStatus:
        """Tell where the registration's newest mail is."""
        ...


class Passwords(Protocol):
    """Slow hashing, done elsewhere. Raises Unavailable("hasher") at once when it could not be done in time."""

    async def hash(self, password: Secret) -> str:
        """Return a tagged hash to store."""
        ...

    async def check(self, password: Secret, stored: Sequence[str]) -> Sequence[bool]:
        """Check against each stored hash; with none, or with an unreadable one, the same work is done for nothing."""
        ...


class Crypto(Protocol):
    """Randomness, identifiers, and the keyed digests of short secrets."""

    def new_id(self) -> UUID:
        """Return a new UUID, version 7."""
        ...

    def new_code(self, digits: int) -> Secret:
        """Return a random code, every one as likely, leading zeros kept."""
        ...

    def mac(self, subject: UUID, purpose: str, code: Secret) -> bytes:
        """Return HMAC-SHA-256(pepper, subject | purpose | code)."""
        ...

    def pseudonym(self, key: EmailKey) -> str:
        """Return the name of an address in logs: a keyed hash, or the address itself where the operator allowed it."""
        ...


class News(Protocol):
    """Word, within this process and from the others, that a subject's mail was settled (sent or given up)."""

    async def wait(self, subject: UUID, seconds: float) -> None:
        """Return when there is word of `subject`, or after `seconds`."""
        ...


# ------------------------------------------------------------------------------------------------- delivery


@dataclass(frozen=True, slots=True)
class Minted:
    """A code was stored for the parcel's subject; this is whom it goes to."""

    email: str
    username: str | None
    locale: str | None
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class OutboxCounts:
    """Rows by state; `oldest` is how long the oldest unsent mail has been waiting."""

    ready: int
    leased: int
    dead: int
    oldest: timedelta | None


class Mailbag(Protocol):
    """The outbox as the mailer sees it. Every write is fenced by `Parcel.attempts`: a lapsed lease changes nothing."""

    async def lease(self, limit: int, lease: timedelta) -> Sequence[Parcel]:
        """Take up to `limit` due mails that nobody else has, oldest first; mails past their `not_after` become dead."""
        ...

    async def reclaim(self) -> int:
        """Make lapsed leases ready again; return how many."""
        ...

    async def next_due(self) -> timedelta | None:
        """Return how long until the next ready mail is due (zero: now); None when there is none."""
        ...

    async def renew(self, parcels: Sequence[Parcel], lease: timedelta) -> None:
        """Prolong leases."""
        ...

    async def mint(self, parcel: Parcel, mac: bytes, lifetime: timedelta) -> Minted | None:
        """Store the code's MAC, living from now; None when the subject is gone or a newer mail is queued for it.

        The parcel is deleted in that case: there is nothing left to say.
        """
        ...

    async def done(self, parcel: Parcel) -> None:
        """Record that it was sent."""
        ...

    async def again(self, parcel: Parcel, wait: timedelta, reason: str, *, refund: bool) -> None:
        """Put it back for later; `refund` takes the try back."""
        ...

    async def dead(self, parcel: Parcel, reason: str) -> None:
        """Give it up; the registration it was for no longer holds the address."""
        ...

    async def counts(self) -> OutboxCounts:
        """Count."""
        ...


@dataclass(frozen=True, slots=True)
class Dispatch:
    """A letter to write and hand over. `id` is stable over tries and makes the Message-ID."""

    id: UUID
    letter: Letter
    to: str
    username: str | None
    locale: str | None
    code: Secret
    lifetime: timedelta
    trace: str | None = None


class Transport(Protocol):
    """A way out for mail."""

    async def send(self, dispatch: Dispatch) -> Outcome:
        """Write the letter and hand it over. Never raises for what a relay does; ends within the channel's timeout.

        Cancelled: the conversation is cut; whether a mail whose last dot was sent is delivered is not known then.
        """
        ...


@dataclass(frozen=True, slots=True)
class MailRow:
    """An outbox row as an operator sees it."""

    id: UUID
    letter: str
    state: str
    subject: UUID
    attempts: int
    created_at: datetime
    not_before: datetime
    not_after: datetime
    sent_at: datetime | None
    last_error: str | None
    trace: str | None


class MailDesk(Protocol):
    """The outbox as an operator works on it."""

    async def list(self, *, state: str | None, before: UUID | None, limit: int) -> Sequence[MailRow]:
        """List mails, newest first, from before the row `before`."""
        ...

    async def show(self, mail: UUID) -> MailRow | None:
        """Return one."""
        ...

    async def retry(self, mail: UUID) -> bool:
        """Make a dead mail ready again, with all its tries and a new `not_after`; False when it is not a dead one."""
        ...

    async def discard(self, mail: UUID) -> bool:
        """Delete a dead mail; False when it is not a dead one."""
        ...


@dataclass(frozen=True, slots=True)
class BoxedMail:
    """A mail in the development mailbox; `raw` is the RFC 5322 message."""

    id: UUID
    at: datetime
    sender: str
    to: str
    subject: str
    text: str = field(repr=False)
    html: str = field(repr=False)
    raw: bytes = field(repr=False)


class Mailbox(Protocol):
    """The development mailbox, shared by all processes on the database."""

    async def put(self, *, sender: str, to: str, subject: str, text: str, html: str, raw: bytes) -> None:
        """Keep a mail."""
        ...

    async def list(self, *, to: str | None, start: int, limit: int) -> tuple[int, Sequence[BoxedMail]]:
        """Return how many there are, and those from `start` on, newest first; `to` matches an address in any case."""
        ...

    async def show(self, mail: UUID) -> BoxedMail | None:
        """Return one."""
        ...

    async def remove(self, mail: UUID) -> bool:
        """Delete one; False when there is none of that id."""
        ...

    async def clear(self) -> int:
        """Delete all; return how many."""
        ...


# ------------------------------------------------------------------------------------------------- operations


@dataclass(frozen=True, slots=True)
class Swept:
    """How many rows a sweep removed, by kind; `more` when a batch was full."""

    registrations: int
    codes: int
    addresses: int
    mails: int
    more: bool

    @property
    def total(self) -> int:
        """All of them."""
        return self.registrations + self.codes + self.addresses + self.mails


class Housekeeping(Protocol):
    """What tidies."""

    async def sweep(self, limit: int) -> Swept:
        """Remove up to `limit` expired rows of each kind; rows that others hold are passed over."""
        ...


class NoticeKind(Enum):
    """What another process tells; the value is the channel's name."""

    OUTBOX = "regsvc_outbox"
    SETTLED = "regsvc_settled"


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
