"""What people change of their accounts, as pure functions: the password, and the address.

A new address is proved by a code mailed to it, and the old one is told. `now` is the database's clock, read after the
locks were held: that of the new address first, then the user's.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from regsvc.domain.account import Address, Code, Rules, ask, resend_available_at
from regsvc.domain.delivery import Effect, Letter, Mail, Publish
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.session import User
from regsvc.domain.values import Email

PROPOSAL_TTL: Final = timedelta(hours=1)  # how long a proposed address waits for its code, however often that is mailed


@dataclass(frozen=True, slots=True)
class EmailChange:
    """The address that a user wants to have; `code` once its mail has left."""

    email: Email
    expires_at: datetime
    code: Code | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Changed:
    """The account as it is to be, and what must leave."""

    user: User
    effects: tuple[Effect, ...]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A change of address that was accepted: `there` is the new address after its mail was counted."""

    change: EmailChange
    there: Address
    effects: tuple[Effect, ...]


@dataclass(frozen=True, slots=True)
class Missed:
    """A wrong code: `change` has one try less."""

    change: EmailChange
    refused: Refused


def change_password(user: User, password_hash: str, now: datetime) -> Changed:
    """Give `user`, who showed his password, another one."""
    return _with_password(user, password_hash, "user.password_changed", now)


def reset_password(user: User, password_hash: str, now: datetime) -> Changed:
    """Give `user`, who showed what was mailed to him, a password; it may be his first."""
    return _with_password(user, password_hash, "user.password_reset", now)


def _with_password(user: User, password_hash: str, name: str, now: datetime) -> Changed:
    changed = replace(user, password_hash=password_hash, updated_at=now)
    return Changed(changed, (Mail(Letter.PASSWORD_CHANGED, user.id), Publish(name, user.id, actor=user.id)))


def propose(user: User, email: Email, there: Address, now: datetime, rules: Rules) -> Proposal | Refused:
    """Have a code mailed to the address that `user` wants to have: `there` is that address under its lock.

    His own address is no other's: so its spelling can be changed, and nothing is special about it. The mail is counted
    with those that anybody may ask for, over all accounts, so that nobody mails a stranger in a loop.
    """
    if there.owner is not None and there.owner.id != user.id:
        return Refused(Refusal.USER_ALREADY_EXISTS)
    after, mails = ask(there, Letter.CHANGE_EMAIL, user.id, now, rules)
    if not mails:
        # The rule is the one of resends, over the letters that are asked for.
        at = resend_available_at(replace(there, mails=there.asked, mailed_at=there.asked_at), now, rules)
        return Refused(Refusal.RESEND_TOO_SOON, retry_after=at - now, resend_available_at=at)
    return Proposal(EmailChange(email, now + PROPOSAL_TTL), after, mails)


def confirm(
    user: User, change: EmailChange | None, there: Address, shown: Sequence[bytes], now: datetime, rules: Rules
) -> Changed | Missed | Refused:
    """Give `user` the address he proved: `there` is that address under its lock, `shown` the MACs of the code."""
    code = change.code if change is not None and now < change.expires_at else None
    if change is None or code is None or now >= code.expires_at:
        return Refused(Refusal.CODE_EXPIRED)
    if there.owner is not None and there.owner.id != user.id:
        return Refused(Refusal.USER_ALREADY_EXISTS)
    if code.failures >= rules.code_attempts:
        return Refused(Refusal.TOO_MANY_ATTEMPTS, attempts_left=0, retry_after=rules.resend_cooldown)
    if not any(hmac.compare_digest(code.mac, mac) for mac in shown):
        spent = replace(code, failures=code.failures + 1)
        left = rules.code_attempts - spent.failures
        return Missed(replace(change, code=spent), Refused(Refusal.INVALID_CODE, attempts_left=left))
    moved = replace(user, email=change.email.address, email_key=change.email.key, updated_at=now)
    told = Mail(Letter.EMAIL_CHANGED, user.id, {"to": user.email})
    return Changed(moved, (told, Publish("user.email_changed", user.id, actor=user.id)))
