"""How mail leaves: which letters there are, and what becomes of a parcel after a try; nothing is sent here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Final, assert_never
from uuid import UUID

NOT_AFTER: Final = timedelta(minutes=30)  # a first code that comes later than this helps nobody
NOTICE_NOT_AFTER: Final = timedelta(days=3)  # a notice tells what happened, and is worth reading late
OUTAGE_WAIT_MAX: Final = timedelta(seconds=15)  # mail is out within 30 s of the relay's return (invariant I1)
DEFER_WAIT: Final = timedelta(seconds=3)  # doubled at each try: eight tries span 6 minutes, longer than greylisting
DEFER_WAIT_MAX: Final = timedelta(minutes=5)
LINK: Final = "link"  # the purpose of the token in an activation's link, in its MAC and in `codes`
ERROR_MAX: Final = 300  # characters of a relay's words that are kept


class Letter(Enum):
    """The letters the service writes; the value is the outbox row's topic and the template's name."""

    ACTIVATION = "activation"  # to a claim: the short code and a link, which need the claim's password
    VERIFY = "verify"  # to a claim: the longer code, which is a proof alone
    RESET = "reset"  # to a user: the 128-bit token of a new password
    CHANGE_EMAIL = "change_email"  # to the address that a user wants to have: a code
    PASSWORD_CHANGED = "password_changed"  # noqa: S105 - a name
    EMAIL_CHANGED = "email_changed"  # to the address that it was
    NEW_DEVICE = "new_device"
    REGISTERED_AGAIN = "registered_again"  # to an account, instead of what a claim beside it would be mailed

    @property
    def purpose(self) -> str | None:
        """What the secret in it is for, as `codes` and its MAC have it; None: it carries none."""
        return _PURPOSES.get(self)

    @property
    def notice(self) -> bool:
        """Whether it tells what happened, and carries no secret."""
        return self.purpose is None

    @property
    def not_after(self) -> timedelta:
        """How long after it was asked for it may still be sent."""
        return NOTICE_NOT_AFTER if self.notice else NOT_AFTER


_PURPOSES: Final = {
    Letter.ACTIVATION: "activate",
    Letter.VERIFY: "verify",
    Letter.RESET: "reset",
    Letter.CHANGE_EMAIL: "change_email",
}


@dataclass(frozen=True, slots=True)
class Mail:
    """A letter that must reach the subject; `data` is what it says besides, no secret among it.

    A subject that does not exist (any more) is no error: its mail is dropped when it would be written.
    """

    letter: Letter
    subject: UUID
    data: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Publish:
    """Something that happened and is written into the audit trail under `name`; no secret is in `data`.

    `actor` is the account that did it, None for the subject itself, the service, or a machine with the admin token.
    """

    name: str
    subject: UUID
    actor: UUID | None = None
    ip: str | None = None
    data: Mapping[str, str] = field(default_factory=dict, hash=False)


Effect = Mail | Publish


@dataclass(frozen=True, slots=True)
class Parcel:
    """An outbox row under lease. `attempts` counts this try and fences the lease: a later one has a higher count."""

    id: UUID
    letter: Letter
    subject: UUID
    trace: str | None
    attempts: int
    created_at: datetime
    leased_at: datetime
    not_after: datetime
    data: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The relay took the mail (250 after the dot)."""


@dataclass(frozen=True, slots=True)
class Deferred:
    """The relay wants it again later (4xx), or nobody knows whether it took it (the answer after the dot was lost)."""

    reason: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """The relay will never take it (5xx)."""

    reason: str


@dataclass(frozen=True, slots=True)
class Outage:
    """The relay was not there, or fell silent before the dot: certainly not delivered, and no fault of this mail."""

    reason: str


Outcome = Accepted | Deferred | Rejected | Outage


@dataclass(frozen=True, slots=True)
class Done:
    """The parcel was delivered."""


@dataclass(frozen=True, slots=True)
class Again:
    """The parcel is tried again after `wait`; `refund` gives the try back: an outage is no fault of the mail."""

    wait: timedelta
    reason: str
    refund: bool


@dataclass(frozen=True, slots=True)
class Dead:
    """The parcel is given up: a dead letter."""

    reason: str


Verdict = Done | Again | Dead


def verdict(
    parcel: Parcel, outcome: Outcome, now: datetime, *, attempts_max: int, outages: int, jitter: float
) -> Verdict:
    """Decide what becomes of `parcel`; `now` is on the database's clock.

    `outages`: how many tries in a row the relay has been away, this one counted; `jitter`: a number in [0, 1).
    """
    match outcome:
        case Accepted():
            return Done()
        case Rejected(reason):
            return Dead(reason[:ERROR_MAX])
        case Outage(reason):
            return _again(parcel, outage_wait(outages, jitter), reason, now, refund=True)
        case Deferred(reason) if parcel.attempts >= attempts_max:
            return Dead(f"given up after {parcel.attempts} tries: {reason}"[:ERROR_MAX])
        case Deferred(reason):
            wait = _spread(DEFER_WAIT * 2 ** min(parcel.attempts - 1, 10), DEFER_WAIT_MAX, jitter)
            return _again(parcel, wait, reason, now, refund=False)
        case _:
            assert_never(outcome)


def _again(parcel: Parcel, wait: timedelta, reason: str, now: datetime, *, refund: bool) -> Verdict:
    """Put the parcel off, unless it would come too late to be of use."""
    if now + wait >= parcel.not_after:
        return Dead(f"expired: {reason}"[:ERROR_MAX])
    return Again(wait, reason[:ERROR_MAX], refund)


def outage_wait(outages: int, jitter: float) -> timedelta:
    """Return how long to leave a relay alone that has failed `outages` times in a row (1 or more)."""
    return _spread(timedelta(seconds=0.5) * 2 ** min(outages - 1, 10), OUTAGE_WAIT_MAX, jitter)


def _spread(wait: timedelta, longest: timedelta, jitter: float) -> timedelta:
    """Take between half and all of `wait`, so that those put off together do not come back together."""
    return min(wait, longest) * (0.5 + jitter / 2)
