"""Rate limits as arithmetic: the generic cell rate algorithm (GCRA, ITU-T I.371) over whole microseconds.

A bucket is one number, its *debt*: how long from now until it is whole again. Each take adds the policy's interval
(window ÷ limit), time pays it off, and a take that would lift the debt over `limit` intervals is refused and costs
nothing. So `limit` takes are good at once, and then one each interval; nothing has to be reset when a window ends.
Whole numbers, so that a dict, PostgreSQL and Redis come to the same answers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from functools import cached_property
from typing import Final

HOUR: Final = timedelta(hours=1)
MINUTE: Final = timedelta(minutes=1)
_MICROSECOND: Final = timedelta(microseconds=1)


class Limit(Enum):
    """What is limited; the value is the policy's name on the wire, in logs and in the stores."""

    GLOBAL = "global"  # requests of a client to an endpoint
    REGISTRATION = "registration"  # of a client
    LOGIN = "login"  # of a client
    LOGIN_ACCOUNT = "login-account"  # at an account, right or wrong
    ACTIVATION = "activation"  # of a claim, after its own password was right
    PASSWORD = "password"  # noqa: S105 - a name; wrong ones of a client at one account, on the routes that log nobody in
    GUESSING = "guessing"  # failed activations of everybody: beyond it nothing is refused, but somebody should look


@dataclass(frozen=True)  # without slots: what follows of it is asked for in every request, and kept
class Policy:
    """At most `limit` at once, and `limit` more spread over each `window`."""

    limit_of: Limit
    limit: int
    window: timedelta

    @cached_property
    def name(self) -> str:
        """Its name on the wire."""
        return self.limit_of.value

    @cached_property
    def interval(self) -> int:
        """Microseconds until one more is good; what a take costs."""
        return self.window // _MICROSECOND // self.limit

    @cached_property
    def span(self) -> int:
        """Microseconds of debt that a bucket bears."""
        return self.interval * self.limit


Policies = Mapping[Limit, Policy]


def policies(*, registrations: int, activations: int, logins: int, requests: int) -> Policies:
    """Return the policies of a service; a client may log in to three accounts as often as one may be logged in to."""
    found = (
        Policy(Limit.GLOBAL, requests, MINUTE),
        Policy(Limit.REGISTRATION, registrations, HOUR),
        Policy(Limit.LOGIN, 3 * logins, MINUTE),
        Policy(Limit.LOGIN_ACCOUNT, logins, MINUTE),
        Policy(Limit.ACTIVATION, activations, MINUTE),
        Policy(Limit.PASSWORD, logins, MINUTE),
        Policy(Limit.GUESSING, 300, HOUR),
    )
    return {policy.limit_of: policy for policy in found}


@dataclass(frozen=True, slots=True)
class Take:
    """One take out of the bucket that `key` has under `policy`; the key holds nothing that must not be stored."""

    policy: Policy
    key: str

    @property
    def bucket(self) -> str:
        """The bucket's name in a store."""
        return f"{self.policy.name}:{self.key}"


@dataclass(frozen=True, slots=True)
class Level:
    """How a bucket stands after a take; `debt` in microseconds."""

    policy: Policy
    allowed: bool
    debt: int

    @property
    def remaining(self) -> int:
        """How many more are good at once."""
        return max(0, self.policy.span - self.debt) // self.policy.interval

    @property
    def retry_after(self) -> timedelta:
        """How long until one more is good; nothing while some remain."""
        return max(0, self.debt + self.policy.interval - self.policy.span) * _MICROSECOND

    @property
    def reset(self) -> timedelta:
        """How long until all are good again; of a refused take: until one is."""
        return self.debt * _MICROSECOND if self.allowed else self.retry_after


def take(policy: Policy, debt: int) -> Level:
    """Take one from a bucket that owes `debt` microseconds.

    Less than nothing counts as nothing; more than the span, by another clock or a longer window, counts as the span.
    """
    before = min(max(0, debt), policy.span)
    after = before + policy.interval
    return (
        Level(policy, allowed=True, debt=after) if after <= policy.span else Level(policy, allowed=False, debt=before)
    )


def give_back(policy: Policy, debt: int) -> int:
    """Return what a bucket owes when an allowed take that it owes `debt` after is undone."""
    return max(0, debt - policy.interval)


def tightest(levels: Iterable[Level]) -> Level | None:
    """Return the level that a client should be told: one that refused it, else the one that is used up first."""
    return min(levels, key=lambda level: (level.allowed, level.remaining, -level.reset), default=None)
