"""What truly happened in a history: noted where it happened, whoever was told of it, and kept through every kill."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from regsvc.domain.delivery import Letter
from regsvc.domain.quota import Policy
from regsvc.domain.values import EmailKey, Secret
from regsvc.ports import Dispatch


@dataclass(frozen=True)
class Mint:
    """A secret that was stored for a letter."""

    subject: UUID
    purpose: str
    mac: bytes
    at: datetime
    expires_at: datetime


@dataclass(frozen=True)
class Activation:
    """A claim that became an account."""

    claim: UUID
    purpose: str
    mac: bytes
    at: datetime
    failures: int  # that the code had until then


@dataclass
class Conversation:
    """A mail that a relay was told of: when its dot came, and when its 250 was heard, if either did."""

    dispatch: Dispatch
    subject: UUID
    process: str
    began: datetime
    dot: datetime | None = None
    accepted: datetime | None = None


@dataclass(frozen=True)
class Acknowledged:
    """A registration that its client was told is stored."""

    claim: UUID
    key: EmailKey


@dataclass(frozen=True)
class Activated:
    """An activation as its client knows it: what was shown, and what was told."""

    claim: UUID
    password: str
    code: Secret
    purpose: str


@dataclass
class Ledger:
    """All of it. Whatever is about a commit was noted at the commit; `broken` are rules that something broke there."""

    committed: dict[UUID, datetime] = field(default_factory=dict)  # claims and accounts
    passwords: dict[UUID, str] = field(default_factory=dict)  # of claims: the stored hash
    mints: list[Mint] = field(default_factory=list)
    activations: list[Activation] = field(default_factory=list)
    spent: Counter[EmailKey] = field(default_factory=Counter)  # tries of short codes, by address
    asked: dict[UUID, tuple[UUID, Letter]] = field(default_factory=dict)  # outbox rows that were ever there
    ended: dict[UUID, str] = field(default_factory=dict)  # claims that went, and how
    dropped: set[UUID] = field(default_factory=set)  # mails that nobody waited for any more
    conversations: list[Conversation] = field(default_factory=list)
    written: set[UUID] = field(default_factory=set)  # mails whose sending is written down
    copied: set[UUID] = field(default_factory=set)  # sessions of which a used token was shown too late
    discarded: set[UUID] = field(default_factory=set)  # dead mails that an administrator took away
    lapsed: set[UUID] = field(default_factory=set)  # claims that were over when a mail of theirs was to leave
    retried: set[UUID] = field(default_factory=set)  # dead mails that an administrator had sent again
    in_hand: set[UUID] = field(default_factory=set)  # mails told to a relay by a mailer that was killed before it wrote
    cut_off: set[str] = field(default_factory=set)  # processes that alone lost the database, or time
    acknowledged: list[Acknowledged] = field(default_factory=list)
    activated: list[Activated] = field(default_factory=list)
    missed: Counter[EmailKey] = field(default_factory=Counter)  # answers "wrong code", by address
    takes: dict[str, list[tuple[int, Policy]]] = field(default_factory=dict)  # of each bucket, when they were allowed
    effects: Counter[str] = field(default_factory=Counter)  # transactions that did something, by Idempotency-Key
    answers: dict[str, list[object]] = field(default_factory=dict)  # what was told, by Idempotency-Key
    broken: list[str] = field(default_factory=list)

    def breaks(self, rule: str, what: str) -> None:
        """Note that a rule was broken."""
        self.broken.append(f"{rule}: {what}")
