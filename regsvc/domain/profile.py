"""A change of address as pure functions: the new address is proved by a code mailed to it, the old one is told.

`now` is the database's clock, read after the locks were held: that of the new address first, then the user's.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from regsvc.domain.account import Address, Code, Rules
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
class Moved:
    """The address was proved: the user with it, and what must leave."""

    user: User
    effects: tuple[Effect, ...]


@dataclass(frozen=True, slots=True)
class Missed:
    """A wrong code: `change` has one try less."""

    change: EmailChange
    refused: Refused


def confirm(
    user: User, change: EmailChange | None, there: Address, shown: Sequence[bytes], now: datetime, rules: Rules
) -> Moved | Missed | Refused:
    """Give `user` the address he proved: `there` is that address under its lock, `shown` the MACs of the code."""
    code = change.code if change is not None and now < change.expires_at else None
    if change is None or code is None or now >= code.expires_at:
        return Refused(Refusal.CODE_EXPIRED)
    if there.owner is not None:
        return Refused(Refusal.USER_ALREADY_EXISTS)
    if code.failures >= rules.code_attempts:
        return Refused(Refusal.TOO_MANY_ATTEMPTS, attempts_left=0, retry_after=rules.resend_cooldown)
    if not any(hmac.compare_digest(code.mac, mac) for mac in shown):
        spent = replace(code, failures=code.failures + 1)
        left = rules.code_attempts - spent.failures
        return Missed(replace(change, code=spent), Refused(Refusal.INVALID_CODE, attempts_left=left))
    moved = replace(user, email=change.email.address, email_key=change.email.key, updated_at=now)
    told = Mail(Letter.EMAIL_CHANGED, user.id, {"to": user.email})
    return Moved(moved, (told, Publish("user.email_changed", user.id, actor=user.id)))
