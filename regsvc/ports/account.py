"""What the flows of an address ask for."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol
from uuid import UUID

from regsvc.domain.account import Address
from regsvc.domain.values import EmailKey


class Accounts(Protocol):
    """The addresses, inside a transaction."""

    async def load(self, key: EmailKey) -> tuple[Address, datetime]:
        """Lock the address (made if it is new), then read it, then the clock."""
        ...

    async def save(self, key: EmailKey, before: Address, after: Address) -> None:
        """Write what differs; a username taken in the meantime is left out of the new account."""
        ...


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


class News(Protocol):
    """Word, within this process and from the others, that a subject's mail was settled (sent or given up)."""

    async def wait(self, subject: UUID, seconds: float) -> None:
        """Return when there is word of `subject`, or after `seconds`."""
        ...
