"""The life of a session as pure functions: who may log in, what a refresh token opens, what ends it.

Rule 1. A session is a login on a device and a chain of refresh tokens: each is used once, its use makes the next link.
Rule 2. A link that was used is shown again by somebody whose answer was lost, within the grace and while its successor
        is unused: he gets that same successor. Later it is a copy in wrong hands: the whole session ends.
Rule 3. `now` is the database's clock, read after the lock was held; tokens are known here by their digests only.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Final
from uuid import UUID

from regsvc.domain.delivery import Effect, Letter, Mail, Publish
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.values import EmailKey, Locale, Username

_PRODUCT: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,31}")
_PROGRAMS: Final = (  # the first that is found names the program: most pretend to be those further down
    ("Edg", "Edge"), ("OPR/", "Opera"), ("SamsungBrowser", "Samsung Internet"), ("Firefox", "Firefox"),
    ("FxiOS", "Firefox"), ("CriOS", "Chrome"), ("Chrome", "Chrome"), ("Safari", "Safari"),
)  # fmt: skip
_SYSTEMS: Final = (
    ("Android", "Android"), ("iPhone", "iPhone"), ("iPad", "iPad"), ("Windows", "Windows"), ("CrOS", "ChromeOS"),
    ("Macintosh", "macOS"), ("Mac OS", "macOS"), ("Linux", "Linux"),
)  # fmt: skip


class Role(Enum):
    """What an account may do; the value is the word on the wire."""

    USER = "user"
    ADMIN = "admin"


class Ending(Enum):
    """Why a session ended; the value is the word in the database and in the log."""

    LOGOUT = "logout"
    LOGOUT_ALL = "logout_all"
    REVOKED = "revoked"  # by its owner, from another session
    REUSED = "refresh_reused"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105 - a reason
    PASSWORD_RESET = "password_reset"  # noqa: S105 - a reason
    DISABLED = "disabled"
    STAFF = "staff"  # by an administrator
    SUPERSEDED = "superseded"  # by a newer one: there were too many


@dataclass(frozen=True, slots=True)
class Rules:
    """The knobs of sessions."""

    refresh_ttl: timedelta = timedelta(days=7)  # of each refresh token, from its making
    session_max: timedelta = timedelta(days=30)  # of the whole chain
    refresh_grace: timedelta = timedelta(seconds=10)
    sessions_max: int = 100  # that are alive, of one account: nobody has so many devices, a program logs in there


@dataclass(frozen=True, slots=True)
class User:
    """An account. `email` as its owner typed it, `email_key` as identity sees it."""

    id: UUID
    email: str
    email_key: EmailKey
    password_hash: str = field(repr=False)
    created_at: datetime
    activated_at: datetime
    updated_at: datetime
    username: Username | None = None
    locale: Locale | None = None
    role: Role = Role.USER
    disabled_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """A login on a device; `expires_at` is the absolute end, however often it is refreshed."""

    id: UUID
    user_id: UUID
    device: str
    ip: str | None
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None
    end_reason: Ending | None = None

    def alive(self, now: datetime) -> bool:
        """Tell whether it is neither ended nor over."""
        return self.ended_at is None and now < self.expires_at


@dataclass(frozen=True, slots=True)
class Link:
    """A refresh token in a session's chain, by its SHA-256."""

    digest: bytes = field(repr=False)
    expires_at: datetime
    used_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """What a refresh token opens: its link, the link made by its use, the session and its user, under their lock."""

    user: User
    session: Session
    link: Link
    successor: Link | None = None


@dataclass(frozen=True, slots=True)
class Person:
    """An account with what a login of it is compared with."""

    user: User
    # Of all its sessions that are still known, ended ones too, to how many of them are alive:
    devices: Mapping[str, int] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Login:
    """Somebody showed the right password, or another proof. `password_hash` is what it was checked against."""

    session: UUID
    digest: bytes = field(repr=False)  # of the refresh token he gets
    device: str
    ip: str | None
    password_hash: str | None = field(default=None, repr=False)  # None: it was no password


@dataclass(frozen=True, slots=True)
class Opened:
    """A session that begins, with its first link, and how many of the oldest ones end for it."""

    session: Session
    link: Link
    surplus: int = 0


def login(person: Person, event: Login, now: datetime, rules: Rules) -> tuple[Opened | Refused, tuple[Effect, ...]]:
    """Open a session; a device that the account was never used from is told to its owner, the very first one is not."""
    user = person.user
    if event.password_hash is not None and event.password_hash != user.password_hash:
        return Refused(Refusal.INVALID_CREDENTIALS), ()
    if user.disabled_at is not None:
        return Refused(Refusal.ACCOUNT_DISABLED), ()
    ends = now + rules.session_max
    session = Session(event.session, user.id, event.device, event.ip, now, now, ends)
    surplus = max(sum(person.devices.values()) + 1 - rules.sessions_max, 0)
    opened = Opened(session, Link(event.digest, min(now + rules.refresh_ttl, ends)), surplus)
    if not person.devices or event.device in person.devices:
        return opened, ()
    return opened, (Mail(Letter.NEW_DEVICE, user.id, {"device": event.device}),)


@dataclass(frozen=True, slots=True)
class Rotated:
    """The token was used for the first time: `link` is its successor."""

    session: Session
    used: Link
    link: Link


@dataclass(frozen=True, slots=True)
class Repeated:
    """The token was used a moment ago, and its answer may be lost: the same successor again."""

    link: Link


@dataclass(frozen=True, slots=True)
class Reused:
    """The token was used before, by somebody else perhaps: the session ends."""

    session: Session


def refresh(family: Family, digest: bytes, now: datetime, rules: Rules) -> Rotated | Repeated | Reused | Refused:
    """Use a refresh token; `digest` is that of the successor it would get."""
    session, link, successor = family.session, family.link, family.successor
    if not session.alive(now) or family.user.disabled_at is not None:
        return Refused(Refusal.INVALID_REFRESH_TOKEN)
    if link.used_at is None:
        if now >= link.expires_at:
            return Refused(Refusal.INVALID_REFRESH_TOKEN)
        new = Link(digest, min(now + rules.refresh_ttl, session.expires_at))
        return Rotated(replace(session, last_used_at=now), replace(link, used_at=now), new)
    unused = successor is not None and successor.used_at is None
    if successor is not None and unused and now < link.used_at + rules.refresh_grace:
        return Repeated(successor)
    return Reused(replace(session, ended_at=now, end_reason=Ending.REUSED))


def ended(user: UUID, reason: Ending, sessions: int, *, ip: str | None = None) -> tuple[Effect, ...]:
    """Return what is written down when sessions of a user end: nothing where none did."""
    if sessions == 0:
        return ()
    return (Publish("sessions.ended", user, ip=ip, data={"reason": reason.value, "sessions": str(sessions)}),)


def device(user_agent: str | None) -> str:
    """Name the program and the system of a `User-Agent`, in words of ours: `Firefox on Windows`, `curl`, `unknown`.

    By hand, for the libraries carry tables of a megabyte to tell models of phones apart; people want to know which of
    their devices it was. Nothing but a product's bare name is taken over from what the client says.
    """
    told = (user_agent or "")[:512]
    if told.startswith("Mozilla/"):
        program = next((name for mark, name in _PROGRAMS if mark in told), None)
        system = next((name for mark, name in _SYSTEMS if mark in told), None)
        return " on ".join(part for part in (program or "a browser", system) if part)
    found = _PRODUCT.match(told)
    return found[0] if found else "unknown"
