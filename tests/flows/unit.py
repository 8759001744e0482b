"""One transaction on a `Shelf`: its drafts are seen by itself only until the commit, its locks are let go after it."""

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Final, Generic, TypeVar
from uuid import UUID

import trio

from regsvc.domain.account import Address, Owner
from regsvc.domain.delivery import Effect
from regsvc.domain.profile import EmailChange
from regsvc.domain.refusals import Refusal
from regsvc.domain.session import Ending, Family, Link, Opened, Role, Rotated, Session, User
from regsvc.domain.values import EmailKey
from tests.flows.receipt_fakes import Receipts

if TYPE_CHECKING:
    from tests.flows.fakes import Shelf

K = TypeVar("K")
V = TypeVar("V")
ORDER: Final = ("address", "user", "session")  # of locks


@dataclass(frozen=True)
class StoredCode:
    """A code of a user."""

    mac: bytes
    expires_at: datetime
    used: bool = False
    failures: int = 0

    def opens(self, macs: Sequence[bytes], now: datetime) -> bool:
        return not self.used and now < self.expires_at and self.mac in macs


@dataclass(frozen=True)
class Chained:
    """A refresh token with its place in the chain."""

    session: UUID
    link: Link
    parent: bytes | None = None


class Draft(MutableMapping[K, V], Generic[K, V]):
    """A table as one transaction sees it: what others committed, and over it what it wrote itself."""

    def __init__(self, table: dict[K, V]) -> None:
        self.table = table
        self.own: dict[K, V | None] = {}

    def __getitem__(self, key: K) -> V:
        value = self.own[key] if key in self.own else self.table.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: K, value: V) -> None:
        self.own[key] = value

    def __delitem__(self, key: K) -> None:
        self.own[key] = None

    def __iter__(self) -> Iterator[K]:
        return iter([key for key in {**self.table, **self.own} if self.get(key) is not None])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def commit(self) -> None:
        for key, value in self.own.items():
            if value is None:
                self.table.pop(key, None)
            else:
                self.table[key] = value


@dataclass
class Transaction:
    """A Unit: its own accounts and its own outgoing; its people and sessions are beside it."""

    shelf: "Shelf"
    held: dict[tuple[str, object], trio.Lock] = field(default_factory=dict)
    saved: dict[EmailKey, Address] = field(default_factory=dict)
    added: list[tuple[Effect, str | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.users = Draft(self.shelf.users)
        self.logins = Draft(self.shelf.logins)
        self.chain = Draft(self.shelf.chain)
        self.codes = Draft(self.shelf.codes)
        self.changes = Draft(self.shelf.changes)
        self.kept = Draft(self.shelf.kept)

    @property
    def accounts(self) -> "Transaction":
        return self

    @property
    def outgoing(self) -> "Transaction":
        return self

    @property
    def receipts(self) -> Receipts:
        return Receipts(self)

    @property
    def people(self) -> "People":
        return People(self)

    @property
    def sessions(self) -> "Sessions":
        return Sessions(self)

    async def hold(self, kind: str, key: object) -> None:
        """Lock a row until the end; in the order of locks, so that nobody waits in a circle."""
        if (kind, key) in self.held:
            return
        later = ORDER[ORDER.index(kind) + 1 :]
        assert not [held for held, _ in self.held if held in later], f"{kind} is locked after {list(self.held)}"
        lock = self.shelf.locks.setdefault((kind, key), trio.Lock())
        await lock.acquire()
        self.held[kind, key] = lock
        if self.shelf.stall is not None:
            await self.shelf.stall.wait()

    def release(self) -> None:
        for lock in self.held.values():
            lock.release()

    async def load(self, key: EmailKey) -> tuple[Address, datetime]:
        await self.shelf.called()
        await self.hold("address", key)
        return self.shelf.addresses.get(key, Address()), self.shelf.now

    async def save(self, key: EmailKey, before: Address, after: Address) -> None:
        await self.shelf.called()
        assert ("address", key) in self.held, "nothing is saved without the lock"
        assert self.shelf.addresses.get(key, Address()) == before
        self.saved[key] = after
        if after.owner is not None and before.owner is None:
            self._activate(key, before, after.owner)

    def _activate(self, key: EmailKey, before: Address, owner: Owner) -> None:
        claim = next(claim for claim in before.claims if claim.id == owner.id)
        taken = claim.username and [
            u for u in self.users.values() if u.username and u.username.key == claim.username.key
        ]
        at = owner.activated_at
        user = User(owner.id, owner.email, key, owner.password_hash, claim.created_at, at, at, locale=claim.locale)
        self.users[owner.id] = user if taken else replace(user, username=claim.username)

    async def add(self, effects: Sequence[Effect], *, trace: str | None) -> None:
        await self.shelf.called()
        self.added += [(effect, trace) for effect in effects]

    def commit(self) -> None:
        self.shelf.addresses.update(self.saved)
        for user, after in self.users.own.items():
            self.shelf.drop(user)
            if after is not None:
                self.shelf.put(after)
        for draft in (self.logins, self.chain, self.codes, self.changes, self.kept):
            draft.commit()
        self.shelf.effects += self.added


@dataclass
class People:
    """The accounts inside a transaction."""

    unit: Transaction

    async def lock(self, user: UUID) -> tuple[User, datetime] | None:
        await self.unit.shelf.called()
        if user not in self.unit.users:
            return None
        await self.unit.hold("user", user)
        found = self.unit.users.get(user)
        return None if found is None else (found, self.unit.shelf.now)

    async def change(self, before: User, after: User) -> Refusal | None:
        await self._write(before.id)
        assert self.unit.users[before.id] == before
        others = [user for user in self.unit.users.values() if user.id != after.id]
        if after.username and after.username.key in [user.username.key for user in others if user.username]:
            return Refusal.USERNAME_TAKEN
        if after.email_key in [user.email_key for user in others]:
            return Refusal.USER_ALREADY_EXISTS
        self.unit.users[after.id] = after
        return None

    async def remove(self, user: UUID) -> None:
        await self._write(user)
        for session in [one for one in self.unit.logins.values() if one.user_id == user]:
            await self.unit.hold("session", session.id)
            del self.unit.logins[session.id]
            for digest in [digest for digest, link in self.unit.chain.items() if link.session == session.id]:
                del self.unit.chain[digest]
        for key in [key for key in self.unit.codes if key[0] == user]:
            del self.unit.codes[key]
        self.unit.changes.pop(user, None)
        del self.unit.users[user]

    async def last_admin(self, user: UUID) -> bool:
        await self.unit.shelf.called()
        others = [one for one in self.unit.users.values() if one.id != user and one.disabled_at is None]
        return Role.ADMIN not in [one.role for one in others]

    async def use_code(self, subject: UUID, purpose: str, macs: Sequence[bytes], now: datetime) -> bool:
        await self._write(subject)
        code = self.unit.codes.get((subject, purpose))
        if code is None or not code.opens(macs, now):
            return False
        self.unit.codes[subject, purpose] = replace(code, used=True)
        return True

    async def drop_codes(self, subject: UUID, *purposes: str) -> None:
        await self._write(subject)
        for purpose in purposes:
            self.unit.codes.pop((subject, purpose), None)
            if purpose == "change_email" and subject in self.unit.changes:
                self.unit.changes[subject] = replace(self.unit.changes[subject], code=None)

    async def propose(self, user: UUID, change: EmailChange, now: datetime) -> None:
        await self._write(user)
        assert now < change.expires_at
        assert change.code is None
        self.unit.changes[user] = change

    async def proposed(self, user: UUID) -> EmailChange | None:
        await self.unit.shelf.called()
        return self.unit.changes.get(user)

    async def spend(self, user: UUID, change: EmailChange) -> None:
        await self._write(user)
        self.unit.changes[user] = change

    async def settle(self, user: UUID) -> None:
        await self._write(user)
        self.unit.changes.pop(user, None)

    async def _write(self, user: UUID) -> None:
        await self.unit.shelf.called()
        assert ("user", user) in self.unit.held, "nothing is written without the lock"


@dataclass
class Sessions:
    """Sessions and their refresh tokens inside a transaction."""

    unit: Transaction

    async def devices(self, user: UUID, now: datetime) -> Mapping[str, int]:
        await self.unit.shelf.called()
        known = [session for session in self.unit.logins.values() if session.user_id == user]
        return {one.device: sum(s.alive(now) for s in known if s.device == one.device) for one in known}

    async def end_oldest(self, user: UUID, number: int, reason: Ending, now: datetime) -> Sequence[UUID]:
        alive = [one for one in self.unit.logins.values() if one.user_id == user and one.alive(now)]
        oldest = [one.id for one in sorted(alive, key=lambda one: (one.created_at, one.id))][:number]
        return [ended for one in sorted(oldest) for ended in await self.end(user, reason, now, only=one)]

    async def open(self, opened: Opened) -> None:
        await self.unit.shelf.called()
        assert opened.session.user_id in self.unit.users
        assert opened.session.id not in self.unit.logins
        self.unit.logins[opened.session.id] = opened.session
        self._chain(opened.session.id, opened.link, None)

    async def load(self, digest: bytes) -> tuple[Family, datetime] | None:
        await self.unit.shelf.called()
        if digest not in self.unit.chain:
            return None
        await self.unit.hold("session", self.unit.chain[digest].session)
        if (found := self.unit.chain.get(digest)) is None:
            return None
        session = self.unit.logins[found.session]
        successor = next((one.link for one in self.unit.chain.values() if one.parent == digest), None)
        return Family(self.unit.users[session.user_id], session, found.link, successor), self.unit.shelf.now

    async def rotate(self, rotated: Rotated) -> None:
        await self.unit.shelf.called()
        session = rotated.session
        assert ("session", session.id) in self.unit.held, "nothing is written without the lock"
        self.unit.logins[session.id] = session
        self.unit.chain[rotated.used.digest] = replace(self.unit.chain[rotated.used.digest], link=rotated.used)
        self._chain(session.id, rotated.link, rotated.used.digest)

    async def end(
        self, user: UUID, reason: Ending, now: datetime, *, only: UUID | None = None, but: UUID | None = None
    ) -> Sequence[UUID]:
        await self.unit.shelf.called()
        ended = []
        for session in [one.id for one in self.unit.logins.values() if one.user_id == user]:
            if only in (None, session) and session != but:
                await self.unit.hold("session", session)
                if (one := self._alive(session, now)) is not None:
                    self.unit.logins[session] = replace(one, ended_at=now, end_reason=reason)
                    ended.append(session)
                    for digest in [digest for digest, link in self.unit.chain.items() if link.session == session]:
                        del self.unit.chain[digest]
        return ended

    def _alive(self, session: UUID, now: datetime) -> Session | None:
        found = self.unit.logins.get(session)
        return found if found is not None and found.alive(now) else None

    def _chain(self, session: UUID, link: Link, parent: bytes | None) -> None:
        assert link.digest not in self.unit.chain
        leaves = [one for one in self.unit.chain.values() if one.session == session and one.link.used_at is None]
        assert not leaves, "a session has one unused link"
        assert parent is None or parent not in [one.parent for one in self.unit.chain.values()]
        self.unit.chain[link.digest] = Chained(session, link, parent)
