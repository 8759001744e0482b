"""The database of a simulation: one set of rows that every process of the service reaches over a line of its own.

Flows and mailer meet on the same rows, as on PostgreSQL: claims, codes and the outbox are tables, an address is what is
read from them under its lock. What a transaction does with them is in tests/simulation/work.py, what the mailer does in
tests/simulation/mailbag.py. The rows outlive every process.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

import trio

from regsvc.domain import staff
from regsvc.domain.account import Address
from regsvc.domain.profile import EmailChange
from regsvc.domain.session import Session, User
from regsvc.domain.staff import Entry
from regsvc.domain.values import EmailKey
from regsvc.ports import MailState, MailStatus, Notice, Occurrence
from regsvc.store.account import MAIL
from tests.fakes import START
from tests.flows.receipt_fakes import Kept
from tests.flows.staff_fakes import StaffShelf, claimed
from tests.flows.unit import Chained, StoredCode
from tests.simulation.ledger import Ledger
from tests.simulation.plan import Gate
from tests.simulation.rows import Cargo, Held, address_of
from tests.simulation.work import Work


class Ear(Protocol):
    """Whoever listens."""

    def say(self, notice: Notice, origin: str) -> None: ...


@dataclass
class Base:
    """The rows, their locks, and the clock that decides. `skew`: how far that is from the processes' clocks."""

    users: dict[UUID, User] = field(default_factory=dict)
    logins: dict[UUID, Session] = field(default_factory=dict)
    chain: dict[bytes, Chained] = field(default_factory=dict)
    codes: dict[tuple[UUID, str], StoredCode] = field(default_factory=dict)
    changes: dict[UUID, EmailChange] = field(default_factory=dict)
    kept: dict[bytes, Kept] = field(default_factory=dict)
    leases: dict[bytes, datetime] = field(default_factory=dict)  # of what is kept, until when
    outcomes: dict[bytes, object] = field(default_factory=dict)  # what the answers in `kept` tell
    claims: dict[UUID, Held] = field(default_factory=dict)
    counters: dict[EmailKey, Address] = field(default_factory=dict)
    outbox: dict[UUID, Cargo] = field(default_factory=dict)
    trail: list[Occurrence] = field(default_factory=list)
    buckets: dict[str, int] = field(default_factory=dict)
    locks: dict[tuple[str, object], trio.Lock] = field(default_factory=dict)
    swept_at: datetime | None = None
    skew: timedelta = timedelta(0)
    ears: list[Ear] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)

    @property
    def now(self) -> datetime:
        """The database's clock."""
        return START + timedelta(seconds=trio.current_time()) + self.skew

    def locked(self, kind: str, key: object) -> bool:
        """Tell whether somebody holds a row."""
        lock = self.locks.get((kind, key))
        return lock is not None and lock.locked()

    def notify(self, notice: Notice, origin: str) -> None:
        """Tell every process that listens."""
        for ear in list(self.ears):
            ear.say(notice, origin)


class Line(StaffShelf):
    """The database as one life of a process reaches it; as a shelf, it is the Directory, the Roster, and begins."""

    def __init__(self, base: Base, gate: Gate, name: str, new_id: Callable[[], UUID]) -> None:
        self.base, self.gate, self.name, self.new_id = base, gate, name, new_id
        super().__init__(
            users=base.users,
            logins=base.logins,
            chain=base.chain,
            codes=base.codes,
            changes=base.changes,
            kept=base.kept,
            locks=base.locks,
            trail=base.trail,
        )

    @property
    def now(self) -> datetime:
        return self.base.now

    @now.setter
    def now(self, _: datetime) -> None:
        """Nobody sets the database's clock."""

    async def called(self) -> None:
        await self.gate.before()

    async def look(self, key: EmailKey) -> tuple[Address, datetime]:
        await self.called()
        base = self.base
        counters = base.counters.get(key, Address())
        return address_of(key, base.users.values(), base.claims.values(), base.codes, counters), self.now

    async def mail_status(self, registration: UUID) -> MailStatus:
        await self.called()
        rows = [r for r in self.base.outbox.values() if r.subject == registration and r.letter.value == "activation"]
        if not rows:
            return MailStatus(MailState.FAILED, None)
        newest = max(rows, key=lambda row: (row.created_at, row.id))
        code = self.base.codes.get((registration, "activate"))
        return MailStatus(MAIL[newest.state], None if code is None or code.used else code.expires_at)

    def entries(self) -> Sequence[Entry]:
        claims = [held.claim for held in self.base.claims.values() if held.claim.expires_at > self.now]
        return [*map(staff.entry, self.users.values()), *map(claimed, claims)]

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Work]:
        """Open a transaction of a flow."""
        await self.called()
        work = Work(self)
        try:
            yield work
            await self.gate.effect(work.commit)
        finally:
            work.release()

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[Work]:
        """Open a transaction of one statement: one way there, and one back."""
        await self.called()
        work = Work(self)
        try:
            yield work
            self.gate.alive()
            work.commit()
        finally:
            work.release()
        await self.gate.after()
