"""What those ask for who move many accounts at once, into the service and out of it."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from regsvc.domain.session import User
from regsvc.domain.transfer import Outcome, Record
from regsvc.domain.values import Flaw


class Snapshot(Protocol):
    """The accounts as they all were at one moment."""

    async def count(self) -> int:
        """Return how many there are."""
        ...

    async def page(self, after: UUID | None, limit: int) -> Sequence[User]:
        """Return the accounts that follow the id `after`, in the order of ids; none at the end."""
        ...


class Roll(Protocol):
    """All accounts. For one task at a time."""

    async def take(self, records: Sequence[Record], *, update: bool, dry_run: bool) -> Sequence[Outcome]:
        """Settle the records in one transaction, and say in their order what became of each.

        No two of them have an address, an id or a username in common. With `dry_run` nothing is locked or written.
        Cancelled: nothing of it is written, unless it had all been. Raises Unavailable; where that comes from the
        commit, nobody knows whether it was done, and the same records again will tell.
        """
        ...

    def snapshot(self, *, disabled: bool | None) -> AbstractAsyncContextManager[Snapshot]:
        """Look, for the time of the block, at all accounts, or at those that are disabled, or at those that are not."""
        ...


class HashForms(Protocol):
    """What is known of stored password hashes without any password."""

    def flaw(self, stored: str) -> Flaw | None:
        """Say why no password could ever be checked against it, in words that do not repeat it; None: it can be."""
        ...

    def foreign(self, stored: str) -> bool:
        """Tell whether it was made under a secret that is not known here: well formed, and never right."""
        ...


@dataclass(frozen=True, slots=True)
class Transfer:
    """What `regsvc user export` and `regsvc user import` work with."""

    roll: Roll
    hashes: HashForms
