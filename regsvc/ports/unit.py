"""One transaction."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from regsvc.domain.delivery import Effect
from regsvc.ports.account import Accounts
from regsvc.ports.receipt import Receipts
from regsvc.ports.session import People, Sessions


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
    def people(self) -> People:
        """The accounts."""
        ...

    @property
    def sessions(self) -> Sessions:
        """Their sessions."""
        ...

    @property
    def outgoing(self) -> Outgoing:
        """What must leave."""
        ...

    @property
    def receipts(self) -> Receipts:
        """What was answered."""
        ...


Begin = Callable[[], AbstractAsyncContextManager[Unit]]
"""Open a transaction; leaving it commits, an error or a cancellation rolls back. Raises Unavailable."""
