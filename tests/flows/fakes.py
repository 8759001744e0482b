"""The ports of the flows, in memory: a lock a row, a transaction that keeps all or nothing, a clock one sets.

They stand in for PostgreSQL in the tests of flows only; that the real store does the same is shown in tests/store.
What happens inside a transaction is in tests/flows/unit.py.
"""

import base64
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import trio

from regsvc.domain.account import Address, Owner
from regsvc.domain.delivery import Effect, Mail, Publish
from regsvc.domain.profile import EmailChange
from regsvc.domain.session import Session, User
from regsvc.domain.values import Email, EmailKey, Secret
from regsvc.ports import Access, MailState, MailStatus, Unavailable, Unit, Visit
from tests.flows.receipt_fakes import Kept
from tests.flows.unit import Chained, StoredCode, Transaction

START = datetime(2026, 11, 20, 11, tzinfo=UTC)
PASSWORD = "right password"
PATIENCE = timedelta(seconds=5)


@dataclass
class Shelf:
    """What was committed, and the database's clock. `fail_at` raises `error` at the n-th call of any port.

    It is its own Directory. An account is in `users`, and in its address as the owner; `put` keeps both true.
    """

    addresses: dict[EmailKey, Address] = field(default_factory=dict)
    users: dict[UUID, User] = field(default_factory=dict)
    logins: dict[UUID, Session] = field(default_factory=dict)
    chain: dict[bytes, Chained] = field(default_factory=dict)
    codes: dict[tuple[UUID, str], StoredCode] = field(default_factory=dict)  # of users; a claim has its own
    changes: dict[UUID, EmailChange] = field(default_factory=dict)
    kept: dict[bytes, Kept] = field(default_factory=dict)  # answers to requests with a key, and who is at work on one
    effects: list[tuple[Effect, str | None]] = field(default_factory=list)
    usernames: set[str] = field(default_factory=set)
    mail: dict[UUID, MailStatus] = field(default_factory=dict)
    locks: dict[tuple[str, object], trio.Lock] = field(default_factory=dict)
    now: datetime = START
    calls: int = 0
    fail_at: int | None = None
    error: type[Exception] = RuntimeError
    stall: trio.Event | None = None
    begun: int = 0

    def count(self) -> None:
        """Count a call, maybe fail it."""
        self.calls += 1
        if self.calls == self.fail_at:
            raise self.error("the n-th call")

    async def called(self) -> None:
        """Count a call; a scheduling point as a real one would be."""
        self.count()
        await trio.lowlevel.checkpoint()

    async def look(self, key: EmailKey) -> tuple[Address, datetime]:
        await self.called()
        return self.addresses.get(key, Address()), self.now

    async def username_taken(self, username_key: str) -> bool:
        await self.called()
        return username_key in self.usernames or self.named(username_key) is not None

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
            transaction.release()

    # What tests put in and look up.

    def member(self, email: str = "ada@example.org", password: str = PASSWORD, **parts: Any) -> User:
        """Put an account there; `parts` are those of a User."""
        read = Email.parse(email)
        assert isinstance(read, Email)
        number = 0xA000 + len(self.users)
        user = User(UUID(int=number), read.address, read.key, f"hashed:{password}", self.now, self.now, self.now)
        return self.put(replace(user, **parts))

    def put(self, user: User) -> User:
        """Write an account."""
        self.drop(user.id)
        self.users[user.id] = user
        there = self.addresses.get(user.email_key, Address())
        owner = Owner(user.id, user.email, user.password_hash, user.activated_at)
        self.addresses[user.email_key] = replace(there, owner=owner)
        return user

    def drop(self, user: UUID) -> None:
        """Delete an account, and nothing of what hangs on it."""
        if (gone := self.users.pop(user, None)) is not None:
            self.addresses[gone.email_key] = replace(self.addresses[gone.email_key], owner=None)

    def named(self, username_key: str) -> User | None:
        """Find an account by its name."""
        return next((u for u in self.users.values() if u.username and u.username.key == username_key), None)

    def alive(self, user: UUID) -> list[UUID]:
        """Return the sessions of a user that are alive."""
        return [s.id for s in self.logins.values() if s.user_id == user and s.alive(self.now)]

    def mails(self) -> list[Mail]:
        """Return the mails that were committed."""
        return [effect for effect, _ in self.effects if isinstance(effect, Mail)]

    def published(self) -> list[Publish]:
        """Return the events that were committed."""
        return [effect for effect, _ in self.effects if isinstance(effect, Publish)]


@dataclass
class Members:
    """The accounts of a `Shelf`, read outside a transaction."""

    shelf: Shelf

    async def by_email(self, key: EmailKey) -> User | None:
        await self.shelf.called()
        return next((user for user in self.shelf.users.values() if user.email_key == key), None)

    async def by_username(self, key: str) -> User | None:
        await self.shelf.called()
        return self.shelf.named(key)

    async def by_id(self, user: UUID) -> User | None:
        await self.shelf.called()
        return self.shelf.users.get(user)

    async def visit(self, session: UUID) -> Visit | None:
        await self.shelf.called()
        found = self.shelf.logins.get(session)
        return None if found is None else Visit(self.shelf.users[found.user_id], found, self.shelf.now)

    async def sessions(self, user: UUID) -> Sequence[Session]:
        await self.shelf.called()
        alive = [self.shelf.logins[session] for session in self.shelf.alive(user)]
        return sorted(alive, key=lambda session: (session.created_at, session.id), reverse=True)

    async def code_alive(self, subject: UUID, purpose: str, macs: Sequence[bytes]) -> bool:
        await self.shelf.called()
        code = self.shelf.codes.get((subject, purpose))
        return code is not None and code.opens(macs, self.shelf.now)


@dataclass
class Hashing:
    """Passwords hashed by name: `hashed:` now, `old:` before. `busy` runs before each answer, where the real hasher
    takes its quarter of a second; `full` has no place for another hash, `crowded` not for any announced call.
    """

    checked: list[int] = field(default_factory=list)
    busy: Callable[[], None] = lambda: None
    full: bool = False
    crowded: bool = False

    @contextmanager
    def announced(self, client: str | None = None) -> Iterator[None]:
        if self.crowded:
            raise Unavailable("hasher", "crowded")
        yield

    async def hash(self, password: Secret, client: str | None = None) -> str:
        await trio.lowlevel.checkpoint()
        self.busy()
        if self.full:
            raise Unavailable("hasher", "full")
        return f"hashed:{password.reveal()}"

    async def check(self, password: Secret, stored: Sequence[str], client: str | None = None) -> Sequence[bool]:
        self.checked.append(len(stored))
        await trio.lowlevel.checkpoint()
        self.busy()
        return [hash_ in (f"hashed:{password.reveal()}", f"old:{password.reveal()}") for hash_ in stored]

    def outdated(self, stored: str) -> bool:
        return stored.startswith("old:")


@dataclass
class Dice:
    """Ids in a row, and MACs one can read. `previous` is the secret before this one, while both are good."""

    made: int = 0
    secret: str = ""
    previous: str | None = None

    def turn(self, secret: str) -> None:
        """Rotate the secret."""
        self.secret, self.previous = secret, self.secret

    def new_id(self) -> UUID:
        self.made += 1
        return UUID(int=self.made)

    def new_code(self, digits: int) -> Secret:
        return Secret("0" * digits)

    def new_token(self) -> Secret:
        self.made += 1
        return Secret(f"{self.made:032x}")

    def new_refresh(self) -> Secret:
        self.made += 1
        return Secret(f"{self.made:043}")

    def mac(self, subject: UUID, purpose: str, code: Secret) -> bytes:
        return self._mac(self.secret, subject, purpose, code)

    def macs(self, subject: UUID, purpose: str, code: Secret) -> Sequence[bytes]:
        return [self._mac(secret, subject, purpose, code) for secret in self._secrets()]

    def successors(self, token: Secret) -> Sequence[Secret]:
        return [
            Secret(base64.urlsafe_b64encode(_sha(f"{secret} {token.reveal()}")).decode().rstrip("="))
            for secret in self._secrets()
        ]

    def digest(self, token: Secret) -> bytes:
        return _sha(token.reveal())

    def pseudonym(self, key: EmailKey) -> str:
        return f"~{len(key)}"

    def _secrets(self) -> list[str]:
        return [self.secret] if self.previous is None else [self.secret, self.previous]

    def _mac(self, secret: str, subject: UUID, purpose: str, code: Secret) -> bytes:
        return f"{subject}/{purpose}/{code.reveal()}{secret}".encode()


def _sha(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


@dataclass
class Tokens:
    """Access tokens one can read: `access.<user>.<session>.<end>`. `busy` runs before each answer."""

    lifetime: timedelta = timedelta(minutes=30)
    busy: Callable[[], None] = lambda: None

    def issue(self, user: User, session: UUID, now: datetime) -> Secret:
        self.busy()
        return Secret(f"access.{user.id}.{session}.{(now + self.lifetime).timestamp():.0f}")

    async def read(self, token: str) -> Access | None:
        await trio.lowlevel.checkpoint()
        self.busy()
        match token.split("."):
            case ["access", user, session, ends]:
                return Access(UUID(user), UUID(session), datetime.fromtimestamp(int(ends), UTC))
            case _:
                return None

    def public(self) -> Mapping[str, object]:
        return {"keys": []}


@dataclass
class Telegraph:
    """News whose waiting lets `happens` change the world."""

    happens: Callable[[UUID], None] = lambda subject: None
    waited: list[float] = field(default_factory=list)

    async def wait(self, subject: UUID, seconds: float) -> None:
        self.waited.append(seconds)
        self.happens(subject)
        await trio.sleep(seconds)
