"""The ports of the flows, in memory: one lock an address, a transaction that keeps all or nothing, a clock one sets.

They stand in for PostgreSQL in the tests of flows only; that the real store does the same is shown in tests/store.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import trio

from regsvc.domain.account import Address
from regsvc.domain.delivery import Effect
from regsvc.domain.values import EmailKey, Secret
from regsvc.ports import MailState, MailStatus, Unit

START = datetime(2026, 11, 20, 11, tzinfo=UTC)


@dataclass
class Shelf:
    """What was committed, and the database's clock. `fail_at` raises `error` at the n-th call of any port."""

    addresses: dict[EmailKey, Address] = field(default_factory=dict)
    effects: list[tuple[Effect, str | None]] = field(default_factory=list)
    usernames: set[str] = field(default_factory=set)
    mail: dict[UUID, MailStatus] = field(default_factory=dict)
    locks: dict[EmailKey, trio.Lock] = field(default_factory=dict)
    now: datetime = START
    calls: int = 0
    fail_at: int | None = None
    error: type[Exception] = RuntimeError
    stall: trio.Event | None = None
    begun: int = 0

    async def called(self) -> None:
        """Count a call, maybe fail it; a scheduling point as a real one would be."""
        self.calls += 1
        if self.calls == self.fail_at:
            raise self.error("the n-th call")
        await trio.lowlevel.checkpoint()

    async def look(self, key: EmailKey) -> tuple[Address, datetime]:
        await self.called()
        return self.addresses.get(key, Address()), self.now

    async def username_taken(self, username_key: str) -> bool:
        await self.called()
        return username_key in self.usernames

    async def mail_status(self, registration: UUID) -> MailStatus:
        await self.called()
        return self.mail.get(registration, MailStatus(MailState.QUEUED, None))

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Unit]:
        self.begun += 1
        await self.called()
        transaction = Transaction(self)
        try:
            yield transaction
            await self.called()
            transaction.commit()
        finally:
            if transaction.lock is not None:
                transaction.lock.release()


@dataclass
class Transaction:
    """One transaction on a `Shelf`; it is its own accounts and its own outgoing."""

    shelf: Shelf
    lock: trio.Lock | None = None
    saved: dict[EmailKey, Address] = field(default_factory=dict)
    added: list[tuple[Effect, str | None]] = field(default_factory=list)

    @property
    def accounts(self) -> "Transaction":
        return self

    @property
    def outgoing(self) -> "Transaction":
        return self

    async def load(self, key: EmailKey) -> tuple[Address, datetime]:
        await self.shelf.called()
        lock = self.shelf.locks.setdefault(key, trio.Lock())
        await lock.acquire()
        self.lock = lock
        if self.shelf.stall is not None:
            await self.shelf.stall.wait()
        return self.shelf.addresses.get(key, Address()), self.shelf.now

    async def save(self, key: EmailKey, before: Address, after: Address) -> None:
        await self.shelf.called()
        assert self.lock is not None, "nothing is saved without the lock"
        assert self.shelf.addresses.get(key, Address()) == before
        self.saved[key] = after

    async def add(self, effects: Sequence[Effect], *, trace: str | None) -> None:
        await self.shelf.called()
        self.added += [(effect, trace) for effect in effects]

    def commit(self) -> None:
        self.shelf.addresses.update(self.saved)
        self.shelf.effects += self.added


@dataclass
class Hashing:
    """Passwords hashed by name; `busy` runs before each answer, where the real hasher takes its quarter of a second."""

    checked: list[int] = field(default_factory=list)
    busy: Callable[[], None] = lambda: None

    async def hash(self, password: Secret) -> str:
        await trio.lowlevel.checkpoint()
        self.busy()
        return f"hashed:{password.reveal()}"

    async def check(self, password: Secret, stored: Sequence[str]) -> Sequence[bool]:
        self.checked.append(len(stored))
        await trio.lowlevel.checkpoint()
        self.busy()
        return [hash_ == f"hashed:{password.reveal()}" for hash_ in stored]


@dataclass
class Dice:
    """Ids in a row, and MACs one can read."""

    made: int = 0

    def new_id(self) -> UUID:
        self.made += 1
        return UUID(int=self.made)

    def new_code(self, digits: int) -> Secret:
        return Secret("0" * digits)

    def mac(self, subject: UUID, purpose: str, code: Secret) -> bytes:
        return f"{subject}/{purpose}/{code.reveal()}".encode()

    def pseudonym(self, key: EmailKey) -> str:
        return f"~{len(key)}"


@dataclass
class Telegraph:
    """News whose waiting lets `happens` change the world."""

    happens: Callable[[UUID], None] = lambda subject: None
    waited: list[float] = field(default_factory=list)

    async def wait(self, subject: UUID, seconds: float) -> None:
        self.waited.append(seconds)
        self.happens(subject)
        await trio.sleep(seconds)


PATIENCE = timedelta(seconds=5)
