"""What carries mail."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from regsvc.domain.delivery import Letter, Outcome, Parcel
from regsvc.domain.values import Secret


@dataclass(frozen=True, slots=True)
class Minted:
    """Whom a letter goes to; where it carries a code, that was stored, and dies at `expires_at`.

    `owned`: it was for a claim, but the address has an account. It goes to that, and says so instead of the code.
    """

    email: str
    username: str | None
    locale: str | None
    expires_at: datetime | None
    owned: bool = False


@dataclass(frozen=True, slots=True)
class Imprint:
    """A secret as it is stored: its MAC, and how long it lives from its minting."""

    mac: bytes = field(repr=False)
    lifetime: timedelta


@dataclass(frozen=True, slots=True)
class OutboxCounts:
    """Rows by state; `oldest` is how long the oldest unsent mail has been waiting."""

    ready: int
    leased: int
    dead: int
    oldest: timedelta | None


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """So many `mails` are ready again; `at` is when that was, on the database's clock."""

    mails: int
    at: datetime


class Mailbag(Protocol):
    """The outbox as the mailer sees it. Every write is fenced by `Parcel.attempts`: a lapsed lease changes nothing."""

    async def lease(self, limit: int, lease: timedelta) -> Sequence[Parcel]:
        """Take up to `limit` due mails that nobody else has, oldest first; mails past their `not_after` become dead."""
        ...

    async def reclaim(
        self, since: datetime | None, seen: datetime | None, *, least: timedelta, most: timedelta
    ) -> Reclaimed:
        """Make lapsed leases ready again, for a mailer that came again and again `since` at `least` so long ago.

        And the last time was `seen`, at `most` so long ago: both are an `at` of then, None: never. Whoever was here for
        a shorter time, or comes later, finds nothing lapsed.
        """
        ...

    async def next_due(self) -> timedelta | None:
        """Return how long until the next ready mail is due (zero: now); None when there is none."""
        ...

    async def renew(self, parcels: Sequence[Parcel], lease: timedelta) -> None:
        """Prolong leases."""
        ...

    async def mint(self, parcel: Parcel, mac: bytes, lifetime: timedelta, link: Imprint | None = None) -> Minted | None:
        """Store the code's MAC, living from now, and beside it that of a claim's `link`.

        None when the subject is gone or a newer mail is queued for it; the parcel is deleted in that case, for there is
        nothing left to say. The subject is a claim, an account, or the
        address that an account wants to have, as the letter is.
        """
        ...

    async def address(self, parcel: Parcel) -> Minted | None:
        """Return whom a notice goes to; None, and the parcel is deleted, when the account is gone."""
        ...

    async def done(self, *parcels: Parcel) -> None:
        """Record that they were sent: all of those whose lease still holds, or none where it is Unavailable."""
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
    """A letter to write and hand over. `id` is stable over tries and makes the Message-ID.

    `code` is what the letter carries: digits, or the text of a reset token; None in a notice, `lifetime` too. `link` is
    the text of the token in an activation's link, which lives for `link_lifetime`.
    `created_at` is when it was asked for: when that happened of which a notice tells.
    """

    id: UUID
    letter: Letter
    to: str
    username: str | None
    locale: str | None
    code: Secret | None
    lifetime: timedelta | None
    created_at: datetime
    trace: str | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    link: Secret | None = None
    link_lifetime: timedelta | None = None

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What stands in the letter and nowhere else."""
        return tuple(secret for secret in (self.code, self.link) if secret is not None)


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
