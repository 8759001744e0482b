"""What administrators do to accounts, as pure functions: who acts, what changes, and what is written down of it.

Rule 1. Every change is a deed, every deed is an event of the audit trail, and what changes nothing leaves none.
Rule 2. `now` is the database's clock, read after the account was locked.
"""

import re
import unicodedata
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Final
from uuid import UUID

from regsvc.domain.account import NO_PASSWORD
from regsvc.domain.delivery import Publish
from regsvc.domain.session import Role, User
from regsvc.domain.values import Email, Locale, Username

_WILD: Final = re.compile(r"[\\%_]")  # what means more than itself in a LIKE


class By(Enum):
    """What gives somebody the right to administer; the value is the word in the audit trail."""

    ACCOUNT = "account"
    ADMIN_TOKEN = "admin_token"  # noqa: S105 - a name
    COMMAND_LINE = "command_line"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who administers: the account `user`, or somebody without one."""

    by: By
    user: UUID | None = None
    ip: str | None = None

    @property
    def name(self) -> str:
        """How the log calls him."""
        return self.by.value if self.user is None else str(self.user)


class Deed(Enum):
    """What an administrator did; the value is its name in the log, and after `admin.` in the audit trail."""

    CREATED = "user_created"
    DISABLED = "user_disabled"
    ENABLED = "user_enabled"
    PROMOTED = "user_promoted"
    DEMOTED = "user_demoted"
    DELETED = "user_deleted"
    SESSIONS_ENDED = "sessions_ended"
    MAIL_RETRIED = "mail_retried"
    MAIL_DISCARDED = "mail_discarded"


class State(Enum):
    """How an account stands; the value is the word on the wire."""

    ACTIVE = "active"
    DISABLED = "disabled"
    PENDING = "pending"  # a registration: nobody has proved its address yet


class Sought(Enum):
    """Which accounts are asked for; pending ones are shown to those who ask for them only."""

    ACTIVE = "active"
    DISABLED = "disabled"
    ADMIN = "admin"  # disabled ones too
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class Entry:
    """An account or a registration as an administrator sees it."""

    id: UUID
    email: str
    username: str | None
    locale: str | None
    role: Role
    created_at: datetime
    activated_at: datetime | None
    disabled_at: datetime | None

    @property
    def state(self) -> State:
        """How it stands."""
        if self.activated_at is None:
            return State.PENDING
        return State.ACTIVE if self.disabled_at is None else State.DISABLED


def entry(user: User) -> Entry:
    """Return an account as an administrator sees it."""
    return Entry(
        id=user.id,
        email=user.email,
        username=user.username.name if user.username is not None else None,
        locale=user.locale.tag if user.locale is not None else None,
        role=user.role,
        created_at=user.created_at,
        activated_at=user.activated_at,
        disabled_at=user.disabled_at,
    )


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to become of an account; None leaves it as it is."""

    disabled: bool | None = None
    role: Role | None = None


@dataclass(frozen=True, slots=True)
class Changed:
    """What a wish does: the account after it, and the deeds that it takes; none, where all is so already."""

    user: User
    deeds: tuple[Deed, ...] = ()


def change(user: User, wish: Wish, now: datetime) -> Changed:
    """Do what is wished."""
    after, deeds = user, []
    if wish.disabled is not None and wish.disabled != (user.disabled_at is not None):
        after = replace(after, disabled_at=now if wish.disabled else None)
        deeds.append(Deed.DISABLED if wish.disabled else Deed.ENABLED)
    if wish.role is not None and wish.role is not user.role:
        after = replace(after, role=wish.role)
        deeds.append(Deed.PROMOTED if wish.role is Role.ADMIN else Deed.DEMOTED)
    return Changed(replace(after, updated_at=now), tuple(deeds)) if deeds else Changed(user)


def administers(user: User) -> bool:
    """Tell whether the account may administer."""
    return user.role is Role.ADMIN and user.disabled_at is None


def publish(deed: Deed, subject: UUID, actor: Actor, **data: str) -> Publish:
    """Return what is written into the audit trail."""
    if actor.user is None:
        data["by"] = actor.by.value
    return Publish(f"admin.{deed.value}", subject, actor.user, actor.ip, data)


@dataclass(frozen=True, slots=True)
class Newcomer:
    """An account to be made, whose address nobody proves: whoever makes it answers for that."""

    email: Email
    username: Username | None = None
    locale: Locale | None = None
    role: Role = Role.USER


def newcomer(id_: UUID, who: Newcomer, password_hash: str | None, now: datetime) -> User:
    """Return the account; without a password it has none until it resets one."""
    return User(
        id=id_,
        email=who.email.address,
        email_key=who.email.key,
        password_hash=password_hash or NO_PASSWORD,
        created_at=now,
        activated_at=now,
        updated_at=now,
        username=who.username,
        locale=who.locale,
        role=who.role,
    )


def beginning(query: str) -> str:
    """Return the pattern (of LIKE) of the keys that begin as `query` does, however that is written.

    A whole address is taken as identity sees it. The beginning of one is folded as far as it can be: what is missing of
    a domain in another script decides how that is encoded, so such a domain is found by the whole of it.
    """
    whole = Email.parse(query)
    if isinstance(whole, Email):
        begun: str = whole.key
    else:
        begun = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", query.strip()).casefold())
    return _WILD.sub(r"\\\g<0>", begun) + "%"
