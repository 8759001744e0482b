"""What the flows of administrators ask for."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from regsvc.domain.refusals import Refusal
from regsvc.domain.session import User
from regsvc.domain.staff import Entry, Sought
from regsvc.ports.delivery import MailDesk
from regsvc.ports.unit import Unit


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A line of the audit trail; `actor` is the account that did it, where there was one."""

    id: UUID
    at: datetime
    name: str
    actor: UUID | None
    subject: UUID | None
    ip: str | None
    data: Mapping[str, str]


class Roster(Protocol):
    """The accounts and the audit trail as an administrator looks at them, outside a transaction."""

    async def list(
        self, *, pattern: str | None, sought: Sought | None, before: UUID | None, limit: int
    ) -> Sequence[Entry]:
        """List accounts, newest first, from before the one `before`; `pattern` (of LIKE) is of a key of theirs."""
        ...

    async def show(self, who: UUID) -> Entry | None:
        """Return an account, or a registration that waits for its code."""
        ...

    async def events(
        self, *, subject: UUID | None, name: str | None, before: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[Occurrence]:
        """List what happened, the newest first, from before a time and the id of an event of that time."""
        ...


class Enrolment(Protocol):
    """Making accounts, inside a transaction that holds the address's lock."""

    async def add(self, user: User) -> Refusal | None:
        """Store a new account; or nothing, and say why: USERNAME_TAKEN, USER_ALREADY_EXISTS."""
        ...


class StaffUnit(Unit, Protocol):
    """One transaction of an administrator."""

    @property
    def enrolment(self) -> Enrolment:
        """Making accounts."""
        ...

    @property
    def desk(self) -> MailDesk:
        """The mails."""
        ...


StaffBegin = Callable[[], AbstractAsyncContextManager[StaffUnit]]
"""As Begin."""
