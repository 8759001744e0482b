"""What administrators reach beside what everybody does: mails, the audit trail, the list of accounts; in memory."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID

from regsvc.domain import staff
from regsvc.domain.account import Claim
from regsvc.domain.delivery import Publish
from regsvc.domain.refusals import Refusal
from regsvc.domain.session import Role, Session, User
from regsvc.domain.staff import Entry, Sought, State
from regsvc.domain.values import Email, PasswordRules, Username
from regsvc.flows.staff import Staff
from regsvc.ports import MailRow, Occurrence, StaffUnit
from tests.flows.fakes import PATIENCE, Dice, Hashing, Members, Shelf
from tests.flows.unit import Draft, Transaction


@dataclass
class StaffShelf(Shelf):
    """A Shelf with mails and a trail; it is its own Roster."""

    letters: dict[UUID, MailRow] = field(default_factory=dict)
    trail: list[Occurrence] = field(default_factory=list)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[StaffUnit]:
        self.begun += 1
        await self.called()
        transaction = StaffTransaction(self)
        try:
            yield transaction
            await self.called()
            transaction.commit()
        finally:
            transaction.release()

    async def list(
        self, *, pattern: str | None, sought: Sought | None, before: UUID | None, limit: int
    ) -> Sequence[Entry]:
        await self.called()
        return [
            entry
            for entry in sorted(self.entries(), key=lambda entry: entry.id, reverse=True)
            if (before is None or entry.id < before) and _is(entry, sought) and _begins(entry, pattern)
        ][:limit]

    async def show(self, who: UUID) -> Entry | None:
        await self.called()
        return next((entry for entry in self.entries() if entry.id == who), None)

    async def events(
        self, *, subject: UUID | None, name: str | None, before: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[Occurrence]:
        await self.called()
        return [
            one
            for one in reversed(self.trail)
            if subject in (None, one.subject) and name in (None, one.name) and (not before or (one.at, one.id) < before)
        ][:limit]

    # What tests put in and look up.

    def entries(self) -> Sequence[Entry]:
        claims = [claim for address in self.addresses.values() for claim in address.claims]
        return [*map(staff.entry, self.users.values()), *map(claimed, claims)]

    def boss(self, name: str = "boss") -> User:
        """Put an administrator there."""
        return self.member(f"{name}@example.org", role=Role.ADMIN)

    def login(self, user: User, number: int = 1) -> Session:
        """Put a session there."""
        now = self.now
        session = Session(UUID(int=0xB000 + number), user.id, "curl", "192.0.2.7", now, now, now + timedelta(days=30))
        self.logins[session.id] = session
        return session

    def letter(self, subject: UUID, state: str = "dead", number: int = 1) -> MailRow:
        """Put a mail there."""
        now = self.now
        mail = MailRow(UUID(int=0xC000 + number), "activation", state, subject, 8, now, now, now, None, "550 no", None)
        self.letters[mail.id] = mail
        return mail

    def deeds(self) -> Sequence[tuple[str, UUID]]:
        """Return what was written down, and about whom."""
        return [(event.name, event.subject) for event in self.published()]


class StaffTransaction(Transaction):
    """A StaffUnit."""

    def __init__(self, shelf: StaffShelf) -> None:
        super().__init__(shelf)
        self.drawer = Draft(shelf.letters)
        self.trail = shelf.trail

    @property
    def enrolment(self) -> "Enrolment":
        return Enrolment(self)

    @property
    def desk(self) -> "Desk":
        return Desk(self.shelf, self.drawer)

    def commit(self) -> None:
        super().commit()
        self.drawer.commit()
        for event in [effect for effect, _ in self.added if isinstance(effect, Publish)]:
            id_ = UUID(int=0xE000 + len(self.trail))
            self.trail.append(
                Occurrence(id_, self.shelf.now, event.name, event.actor, event.subject, event.ip, event.data)
            )


@dataclass
class Enrolment:
    """Making accounts."""

    unit: StaffTransaction

    async def add(self, user: User) -> Refusal | None:
        await self.unit.shelf.called()
        assert ("address", user.email_key) in self.unit.held, "nobody is enrolled without the lock"
        names = [one.username.key for one in self.unit.users.values() if one.username]
        if user.username is not None and user.username.key in names:
            return Refusal.USERNAME_TAKEN
        self.unit.users[user.id] = user
        return None


@dataclass
class Desk:
    """The mails, in a transaction or not."""

    shelf: Shelf
    drawer: "Draft[UUID, MailRow] | dict[UUID, MailRow]"

    async def list(self, *, state: str | None, before: UUID | None, limit: int) -> Sequence[MailRow]:
        await self.shelf.called()
        found = sorted(self.drawer.values(), key=lambda mail: mail.id, reverse=True)
        return [m for m in found if state in (None, m.state) and (before is None or m.id < before)][:limit]

    async def show(self, mail: UUID) -> MailRow | None:
        await self.shelf.called()
        return self.drawer.get(mail)

    async def retry(self, mail: UUID) -> bool:
        await self.shelf.called()
        return self._settle(mail, replace(self.drawer[mail], state="ready"))

    async def discard(self, mail: UUID) -> bool:
        await self.shelf.called()
        return self._settle(mail, None)

    def _settle(self, mail: UUID, after: MailRow | None) -> bool:
        if self.drawer[mail].state != "dead":
            return False
        if after is None:
            del self.drawer[mail]
        else:
            self.drawer[mail] = after
        return True


@dataclass
class Office:
    """The flows of administrators, and the fakes under them."""

    shelf: StaffShelf = field(default_factory=StaffShelf)
    hashing: Hashing = field(default_factory=Hashing)
    dice: Dice = field(default_factory=Dice)

    @property
    def staff(self) -> Staff:
        return Staff(
            begin=self.shelf.begin,
            roster=self.shelf,
            members=Members(self.shelf),
            desk=Desk(self.shelf, self.shelf.letters),
            passwords=self.hashing,
            crypto=self.dice,
            password_rules=PasswordRules(common=frozenset({"password"})),
            patience=PATIENCE,
        )


def claimed(claim: Claim) -> Entry:
    name = claim.username.name if claim.username is not None else None
    locale = claim.locale.tag if claim.locale is not None else None
    return Entry(claim.id, claim.email, name, locale, Role.USER, claim.created_at, None, None)


def _is(entry: Entry, sought: Sought | None) -> bool:
    match sought:
        case None:
            return entry.state is not State.PENDING
        case Sought.ADMIN:
            return entry.role is Role.ADMIN
        case _:
            return bool(entry.state.value == sought.value)


def _begins(entry: Entry, pattern: str | None) -> bool:
    if pattern is None:
        return True
    beginning = re.sub(r"\\(.)", r"\1", pattern.removesuffix("%"))
    email = Email.parse(entry.email)
    name = Username.parse(entry.username or "")
    keys = [one.key for one in (email, name) if isinstance(one, Email | Username)]
    return any(key.startswith(beginning) for key in keys)
