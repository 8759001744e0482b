"""What the flows of people who have an account ask for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from regsvc.domain.profile import EmailChange
from regsvc.domain.refusals import Refusal
from regsvc.domain.session import Ending, Family, Opened, Rotated, Session, User
from regsvc.domain.values import EmailKey


class People(Protocol):
    """The accounts, inside a transaction. The order of locks: an address, a user, a session."""

    async def lock(self, user: UUID) -> tuple[User, datetime] | None:
        """Lock the account, then read it, then the clock; None when there is none."""
        ...

    async def change(self, before: User, after: User) -> Refusal | None:
        """Write what differs, under the lock; or nothing, and say why: USERNAME_TAKEN, USER_ALREADY_EXISTS (address).

        `updated_at` is written as `after` has it. The transaction stays usable after a refusal.
        """
        ...

    async def remove(self, user: UUID) -> None:
        """Delete the account under its lock, with its sessions, tokens, codes and unsent mails."""
        ...

    async def last_admin(self, user: UUID) -> bool:
        """Tell whether nobody but `user` is an administrator who is not disabled; holds that still until the commit."""
        ...

    async def use_code(self, subject: UUID, purpose: str, macs: Sequence[bytes], now: datetime) -> bool:
        """Use the code up if it is one of `macs`, was not used, and lives at `now`; tell whether it was."""
        ...

    async def drop_codes(self, subject: UUID, *purposes: str) -> None:
        """Delete codes."""
        ...

    async def propose(self, user: UUID, change: EmailChange, now: datetime) -> None:
        """Store the address that the user wants to have instead of any before it; its old code dies."""
        ...

    async def proposed(self, user: UUID) -> EmailChange | None:
        """Return it with its code."""
        ...

    async def spend(self, user: UUID, change: EmailChange) -> None:
        """Write the failures of its code."""
        ...

    async def settle(self, user: UUID) -> None:
        """Delete it with its code."""
        ...


class Sessions(Protocol):
    """Sessions and their refresh tokens, inside a transaction."""

    async def devices(self, user: UUID, now: datetime) -> Mapping[str, int]:
        """Return the devices of all sessions of the user that are still known, to how many of them are alive."""
        ...

    async def open(self, opened: Opened) -> None:
        """Store a session and its first link."""
        ...

    async def load(self, digest: bytes) -> tuple[Family, datetime] | None:
        """Lock the session of a refresh token, then read all of it, then the clock; None for an unknown token."""
        ...

    async def rotate(self, rotated: Rotated) -> None:
        """Write that a link was used, its successor, and the session's last use."""
        ...

    async def end(
        self, user: UUID, reason: Ending, now: datetime, *, only: UUID | None = None, but: UUID | None = None
    ) -> Sequence[UUID]:
        """End the user's sessions that are alive (or just `only`, or all `but` one); return which."""
        ...

    async def end_oldest(self, user: UUID, number: int, reason: Ending, now: datetime) -> Sequence[UUID]:
        """End so many of the user's sessions that are alive, those first that were opened first; return which."""
        ...


@dataclass(frozen=True, slots=True)
class Visit:
    """Whom a session belongs to, as both are now."""

    user: User
    session: Session
    now: datetime


class Members(Protocol):
    """The accounts, read outside a transaction: what is seen here may have changed by the time of the lock."""

    async def by_email(self, key: EmailKey) -> User | None:
        """Find an account by its address."""
        ...

    async def by_username(self, key: str) -> User | None:
        """Find an account by its name."""
        ...

    async def by_id(self, user: UUID) -> User | None:
        """Find an account."""
        ...

    async def visit(self, session: UUID) -> Visit | None:
        """Read a session and its account in one statement; ended ones too."""
        ...

    async def sessions(self, user: UUID) -> Sequence[Session]:
        """Return the sessions that are alive, the newest first."""
        ...

    async def code_alive(self, subject: UUID, purpose: str, macs: Sequence[bytes]) -> bool:
        """Tell whether one of `macs` is the code of the subject, unused and alive."""
        ...
