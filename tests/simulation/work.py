"""One transaction on the rows of a simulation: what the statements of sql/queries do, with their locks.

Accounts and sessions are those of tests/flows/unit.py; here is what reaches claims, codes and the outbox.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

import trio

from regsvc.domain.account import Address, Claim, Code, Owner, Way
from regsvc.domain.delivery import Effect, Mail, Publish
from regsvc.domain.refusals import Refusal
from regsvc.domain.session import Family, Role, Rules, User
from regsvc.domain.values import EmailKey
from regsvc.ports import MailRow, Notice, NoticeKind, Occurrence, Unavailable
from tests.flows import unit
from tests.flows.unit import Draft, StoredCode
from tests.simulation.keys import ASKED, Receipts
from tests.simulation.ledger import Activation, Mint
from tests.simulation.rows import SECRETS, WAITING, Cargo, Held, address_of

if TYPE_CHECKING:
    from tests.simulation.base import Line

ORDER: Final = ("address", "user", "admins", "session", "outbox", "username", "slot")
GRACE: Final = Rules().refresh_grace


class Work(unit.Transaction):
    """Implements ports.StaffUnit; its drafts are seen by itself only until the commit."""

    shelf: "Line"

    def __init__(self, line: "Line") -> None:
        super().__init__(line)
        self.base = base = line.base
        self.claims = Draft(base.claims)
        self.counters = Draft(base.counters)
        self.outbox = Draft(base.outbox)
        self.happened: list[Publish] = []
        self.notices: list[Notice] = []
        self.activations: list[tuple[EmailKey, Activation]] = []
        self.spent: list[tuple[EmailKey, int]] = []
        self.ended: list[tuple[UUID, str]] = []
        self.mints: list[Mint] = []
        self.dropped: list[UUID] = []
        self.copied: list[UUID] = []
        self.asked = ASKED.get()

    @property
    def receipts(self) -> Receipts:
        return Receipts(self)

    @property
    def people(self) -> "People":
        return People(self)

    @property
    def sessions(self) -> "Sessions":
        return Sessions(self)

    @property
    def enrolment(self) -> "Enrolment":
        return Enrolment(self)

    @property
    def desk(self) -> "Desk":
        return Desk(self.shelf, self)

    async def hold(self, kind: str, key: object) -> None:
        """Lock a row until the end, in the order of locks; whoever waited was perhaps killed meanwhile."""
        if (kind, key) in self.held:
            return
        later = ORDER[ORDER.index(kind) + 1 :]
        mine = kind == "user" and key in self.users.own  # made in this transaction: nobody else can wait for it
        others = [held for held, _ in self.held if held in later]
        assert mine or not others, f"{kind} is locked after {list(self.held)}"
        lock = self.base.locks.setdefault((kind, key), trio.Lock())
        if lock.locked():
            await lock.acquire()
        else:
            lock.acquire_nowait()
        self.held[kind, key] = lock
        self.shelf.gate.alive()

    def release(self) -> None:
        for place, lock in self.held.items():
            lock.release()
            if not lock.locked():
                self.base.locks.pop(place, None)

    # ------------------------------------------------------------------------------------------- addresses

    def address(self, key: EmailKey) -> Address:
        """Read an address as this transaction sees it."""
        counters = self.counters.get(key, Address())
        return address_of(key, self.users.values(), self.claims.values(), self.codes, counters)

    async def load(self, key: EmailKey) -> tuple[Address, datetime]:
        await self.shelf.called()
        await self.hold("address", key)
        if key not in self.counters:
            self.counters[key] = Address()
        return self.address(key), self.shelf.now

    async def save(self, key: EmailKey, before: Address, after: Address) -> None:
        await self.shelf.called()
        assert ("address", key) in self.held, "nothing is saved without the lock"
        if after.owner != before.owner:
            assert before.owner is None
            assert after.owner is not None
            await self._become(key, before, after.owner)
            before = replace(before, owner=after.owner, claims=())
        known = {claim.id: claim for claim in before.claims}
        kept = {claim.id for claim in after.claims}
        for gone in known:
            if gone not in kept:
                await self.end_claim(gone, "given up")
        for claim in after.claims:
            if claim.id not in known:
                self._write_claim(key, claim)
            elif claim != known[claim.id]:
                self._change_claim(key, known[claim.id], claim)
        self.counters[key] = replace(after, owner=None, claims=())

    def _write_claim(self, key: EmailKey, claim: Claim) -> None:
        self.claims[claim.id] = Held(key, replace(claim, code=None, link=None, verify=None))

    def _change_claim(self, key: EmailKey, was: Claim, claim: Claim) -> None:
        if claim.id in self.claims:
            self._write_claim(key, claim)
        for purpose, code, old in (("activate", claim.code, was.code), ("verify", claim.verify, was.verify)):
            row = self.codes.get((claim.id, purpose))
            if code is not None and old is not None and code != old and row is not None:
                self.codes[claim.id, purpose] = replace(row, failures=code.failures)
                if purpose == "activate":
                    self.spent.append((key, code.failures - old.failures))

    async def _become(self, key: EmailKey, before: Address, owner: Owner) -> None:
        """What the statements `activate` and `insert_unnamed_user` do."""
        claim = next(claim for claim in before.claims if claim.id == owner.id)
        assert owner.way is not None
        purpose = owner.way.value
        code = {Way.CODE: claim.code, Way.LINK: claim.link, Way.VERIFY: claim.verify}[owner.way]
        row, held = self.codes.get((claim.id, purpose)), self.claims.get(claim.id)
        used = row is not None and code is not None and row.mac == code.mac
        if not used or row is None or row.used or row.expires_at <= owner.activated_at:
            raise Unavailable("database", "the registration changed around its address's lock")
        if held is None or held.claim.password_hash != claim.password_hash:
            raise Unavailable("database", "the registration changed around its address's lock")
        for other in [one.claim.id for one in self.claims.values() if one.key == key]:
            await self.end_claim(other, "became an account" if other == claim.id else "lost to another", kept=purpose)
        self.codes[claim.id, purpose] = replace(row, used=True)
        if key in [user.email_key for user in self.users.values()]:
            raise Unavailable("database", "an account was made around its address's lock")
        at = owner.activated_at
        user = User(owner.id, owner.email, key, owner.password_hash, claim.created_at, at, at, locale=claim.locale)
        if claim.username is not None and not await self.name_taken(claim.username.key, user.id):
            user = replace(user, username=claim.username)
        self.users[user.id] = user
        self.activations.append((key, Activation(claim.id, purpose, row.mac, at, row.failures)))

    async def end_claim(self, claim: UUID, how: str, *, kept: str | None = None) -> None:
        """Delete a claim with its secrets and with what was still to be mailed for it; `kept`: but that secret."""
        self.claims.pop(claim, None)
        for purpose in SECRETS:
            if purpose != kept or how != "became an account":
                self.codes.pop((claim, purpose), None)
        await self.drop_mails(claim, WAITING)
        self.ended.append((claim, how))

    async def drop_mails(self, subject: UUID, states: Sequence[str]) -> None:
        """Delete the mails of a subject that are in one of these states once they are held."""
        for mail in [row.id for row in self.outbox.values() if row.subject == subject and row.state in states]:
            await self.hold("outbox", mail)
            row = self.outbox.get(mail)
            if row is not None and row.state in states:
                del self.outbox[mail]

    async def name_taken(self, key: str, but: UUID) -> bool:
        """Tell whether another account has a name; of those who take it at once, the others wait for one."""
        await self.hold("username", key)
        return any(user.username and user.username.key == key and user.id != but for user in self.users.values())

    # -------------------------------------------------------------------------------------- what must leave

    def mint(self, minted: Mint, code: StoredCode) -> None:
        """Store the secret of a letter; one for a change of address stands with that, as in tests/flows."""
        change = self.changes.get(minted.subject)
        if minted.purpose == "change_email":
            assert change is not None
            self.changes[minted.subject] = replace(change, code=Code(code.mac, code.expires_at))
        else:
            self.codes[minted.subject, minted.purpose] = code
        self.mints.append(minted)

    async def add(self, effects: Sequence[Effect], *, trace: str | None) -> None:
        if not effects:
            return
        await self.shelf.called()
        now = self.shelf.now
        for effect in effects:
            if isinstance(effect, Mail):
                id_, letter = self.shelf.new_id(), effect.letter
                until = now + letter.not_after
                self.outbox[id_] = Cargo(id_, effect.subject, now, until, now, letter, effect.data, trace)
            else:
                self.happened.append(effect)
        if any(isinstance(effect, Mail) for effect in effects):
            self.notices.append(Notice(NoticeKind.OUTBOX, None))

    def commit(self) -> None:
        base, now = self.base, self.base.now
        self._note(now)
        for draft in (
            self.users, self.logins, self.chain, self.codes, self.changes, self.kept, self.claims, self.counters,
            self.outbox,
        ):  # fmt: skip
            draft.commit()
        for event in self.happened:
            id_ = self.shelf.new_id()
            base.trail.append(Occurrence(id_, now, event.name, event.actor, event.subject, event.ip, event.data))
        for notice in self.notices:
            base.notify(notice, self.shelf.name)

    def _note(self, now: datetime) -> None:
        """Write into the ledger what is about to be true."""
        ledger = self.base.ledger
        for claim, held in self.claims.own.items():
            if held is not None and claim not in ledger.committed:
                ledger.committed[claim], ledger.passwords[claim] = now, held.claim.password_hash
        for user, row in self.users.own.items():
            if row is not None:
                ledger.committed.setdefault(user, now)
        for mail, letter in self.outbox.own.items():
            if letter is not None:
                ledger.asked[mail] = letter.subject, letter.letter
                if letter.state == "sent":
                    ledger.written.add(mail)
        for key, spent in self.spent:
            ledger.spent[key] += spent
        ledger.activations += [activation for _, activation in self.activations]
        if self.asked and (self.mints or self.activations or self.ended or self.spent or self.happened):
            ledger.effects[self.asked] += 1
        ledger.ended.update(self.ended)
        ledger.mints += self.mints
        ledger.dropped.update(self.dropped)
        ledger.copied.update(self.copied)


class People(unit.People):
    """The accounts inside a transaction, with what the database sees to: unique names, mails that go along."""

    unit: Work

    async def change(self, before: User, after: User) -> Refusal | None:
        if after == before:
            return None
        await self._write(before.id)
        new = after.username if after.username != before.username else None
        if new is not None and await self.unit.name_taken(new.key, after.id):
            return Refusal.USERNAME_TAKEN
        others = [user.email_key for user in self.unit.users.values() if user.id != after.id]
        if after.email_key in others:
            return Refusal.USER_ALREADY_EXISTS
        self.unit.users[after.id] = after
        return None

    async def remove(self, user: UUID) -> None:
        work, key = self.unit, self.unit.users[user].email_key
        await super().remove(user)
        await work.drop_mails(user, ("ready", "leased", "sent", "dead"))
        held = [one.claim.id for one in work.claims.values() if one.key == key]
        if ("address", key) in work.held or not work.base.locked("address", key):
            for claim in held:  # beside an account; not under our lock, so what somebody holds is passed over
                await work.end_claim(claim, "went with the account")

    async def last_admin(self, user: UUID) -> bool:
        await self.unit.shelf.called()
        await self.unit.hold("admins", "all")
        others = [one for one in self.unit.users.values() if one.id != user and one.disabled_at is None]
        return Role.ADMIN not in [one.role for one in others]


class Sessions(unit.Sessions):
    """Sessions inside a transaction; a token that was copied, and shown again, is noted."""

    unit: Work

    async def load(self, digest: bytes) -> tuple[Family, datetime] | None:
        found = await super().load(digest)
        if found is not None and found[0].session.alive(found[1]) and _copied(*found):
            self.unit.copied.append(found[0].session.id)
        return found


def _copied(family: Family, now: datetime) -> bool:
    """Tell whether this link was used, and by now nobody can show it again whose answer was lost."""
    used_at, successor = family.link.used_at, family.successor
    lost = successor is not None and successor.used_at is None
    return used_at is not None and not (lost and now < used_at + GRACE)


class Enrolment:
    """Making accounts."""

    def __init__(self, work: Work) -> None:
        self.work = work

    async def add(self, user: User) -> Refusal | None:
        await self.work.shelf.called()
        if user.username is not None and await self.work.name_taken(user.username.key, user.id):
            return Refusal.USERNAME_TAKEN
        if user.email_key in [one.email_key for one in self.work.users.values()]:
            return Refusal.USER_ALREADY_EXISTS
        self.work.users[user.id] = user
        return None


class Desk:
    """The outbox as an operator works on it; without a transaction it only looks."""

    def __init__(self, line: "Line", work: Work | None = None) -> None:
        self.line, self.work = line, work
        self.rows = line.base.outbox if work is None else work.outbox

    async def list(self, *, state: str | None, before: UUID | None, limit: int) -> Sequence[MailRow]:
        await self.line.called()
        found = sorted(self.rows.values(), key=lambda row: row.id, reverse=True)
        return [_seen(r) for r in found if state in (None, r.state) and (before is None or r.id < before)][:limit]

    async def show(self, mail: UUID) -> MailRow | None:
        await self.line.called()
        row = self.rows.get(mail)
        return None if row is None else _seen(row)

    async def retry(self, mail: UUID) -> bool:
        row = await self._dead(mail)
        if row is None or self.work is None:
            return False
        now = self.line.now
        self.work.outbox[mail] = replace(
            row, state="ready", attempts=0, not_before=now, not_after=now + row.letter.not_after
        )
        self.line.base.ledger.retried.add(mail)
        self.work.notices.append(Notice(NoticeKind.OUTBOX, None))
        return True

    async def discard(self, mail: UUID) -> bool:
        if await self._dead(mail) is None or self.work is None:
            return False
        del self.work.outbox[mail]
        self.line.base.ledger.discarded.add(mail)
        return True

    async def _dead(self, mail: UUID) -> Cargo | None:
        await self.line.called()
        if self.work is not None:
            await self.work.hold("outbox", mail)
        row = self.rows.get(mail)
        return row if row is not None and row.state == "dead" else None


def _seen(row: Cargo) -> MailRow:
    return MailRow(
        row.id, row.letter.value, row.state, row.subject, row.attempts, row.created_at, row.not_before, row.not_after,
        None, row.error, row.trace,
    )  # fmt: skip
