"""The limits of a worker: what its requests may still do, taken from buckets that all workers share.

Rule 1. A store of buckets that is away lets everything pass, and nobody waits for it: limits serve people, and codes
        that are guessed at are counted elsewhere. The log says so once an outage.
Rule 2. A bucket's key holds no e-mail address: a store may be another machine's, and may be looked into.
Rule 3. What a request took is told in its answer, whatever that is: its meter remembers every level.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, assert_never

import trio

from regsvc import observe
from regsvc.domain.quota import Level, Limit, Policies, Policy, Take, give_back, tightest
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.values import Secret
from regsvc.flows.errand import Errand
from regsvc.ports import Passwords, Quotas, Unavailable

AT_THE_FRONT: Final = frozenset((Limit.GLOBAL, Limit.REGISTRATION, Limit.LOGIN))  # taken before a request is read
LEFT_ALONE: Final = 1.0  # seconds; then one request, and no other, asks a store that is away again
TOLD_MOST: Final = 10  # lines of refusals by one policy in one second: a flood of requests is none of the log
ALARM_EVERY: Final = 60.0  # seconds
NO_ADDRESS: Final = "-"  # who comes by a socket of the machine; all of them are one client
EVERYBODY: Final = "everybody"


async def check(
    passwords: Passwords, password: Secret, stored: Sequence[str], subject: str, errand: Errand
) -> Sequence[bool] | Refused:
    """Check a password at `subject` (an address's key, an id), unless the client was wrong there too often.

    Each check is counted before it begins, so that many at once are cut exactly, and no more once it was right: whoever
    has the password is not limited. Raises Unavailable("hasher"), which counts for nothing.
    """
    refused = await errand.meter.take(Limit.PASSWORD, subject)
    if refused is not None:
        return refused
    right: Sequence[bool] = ()
    full: Unavailable | None = None
    try:
        right = await passwords.check(password, stored, errand.client)
    except Unavailable as outage:
        full = outage
    if any(right) or full is not None:
        await errand.meter.give_back(Limit.PASSWORD, subject)
    if full is not None:
        raise full
    return right


@dataclass(frozen=True, slots=True)
class Count:
    """What became of the takes of a policy in this worker: `unseen` ones passed while the store was away."""

    allowed: int
    refused: int
    unseen: int


@dataclass(frozen=True, slots=True)
class LimitStatistics:
    """How the limits stand in this worker, since its start; `up`: the store answered when it was last asked."""

    enabled: bool
    store: str
    up: bool
    policies: Mapping[Policy, Count]


class Limits:
    """The limits of a worker. `hidden` names an e-mail address, a username or an id by a keyed hash.

    With `enabled` false nothing is limited; only guesses at codes are counted still.
    """

    def __init__(
        self, quotas: Quotas, policies: Policies, hidden: Callable[[str], str], *, enabled: bool = True
    ) -> None:
        self.enabled, self.hidden = enabled, hidden
        self._store = _Store(quotas)
        self._policies = policies
        self._tallies = {limit: _Tally(policy) for limit, policy in policies.items()}
        self._alarm_again = -math.inf

    def meter(self, client: str | None) -> "RequestMeter":
        """Return the meter of one request; `client` is whom its limits count."""
        return RequestMeter(self, client)

    async def take(self, asked: Sequence[tuple[Limit, str]], client: str | None) -> Sequence[Level]:
        """Take one for each limit and key, in one round trip; return the levels, or none when nobody knows them."""
        takes = [Take(self._policies[limit], key) for limit, key in asked]
        levels = await self._store.take(takes)
        if levels is None:
            for limit, _ in asked:
                self._tallies[limit].unseen += 1
            return ()
        for level in levels:
            self._tallies[level.policy.limit_of].note(level, client)
        return levels

    async def give_back(self, limit: Limit, key: str) -> None:
        """Undo an allowed take."""
        await self._store.give_back([Take(self._policies[limit], key)])

    async def failed_activation(self) -> None:
        """Count a failed activation of anybody; where they are too many for mistakes, say so, once a minute at most."""
        for level in await self.take([(Limit.GUESSING, EVERYBODY)], None):
            now = trio.current_time()
            if not level.allowed and now >= self._alarm_again:
                self._alarm_again = now + ALARM_EVERY
                window = level.policy.window.total_seconds()
                observe.emit("code_guessing_suspected", failures=level.policy.limit, window_s=window)

    def statistics(self) -> LimitStatistics:
        """Count."""
        counts = {tally.policy: Count(tally.allowed, tally.refused, tally.unseen) for tally in self._tallies.values()}
        return LimitStatistics(self.enabled, self._store.quotas.name, self._store.away_since is None, counts)


class RequestMeter:
    """The limits of one request; implements flows.errand.Meter."""

    __slots__ = ("_client", "_levels", "_limits")

    def __init__(self, limits: Limits, client: str | None) -> None:
        self._limits, self._client = limits, client
        self._levels: dict[tuple[Limit, str], Level] = {}  # by limit and key

    @property
    def level(self) -> Level | None:
        """What the client should be told of all that was taken; None: nothing was."""
        return tightest(self._levels.values())

    async def enter(self, limits: Sequence[Limit], route: str) -> Refused | None:
        """Take what a request to `route` costs whatever it says; return the refusal when one of it was too many."""
        return await self._take([(limit, self._key(limit, route)) for limit in limits])

    async def take(self, limit: Limit, subject: str) -> Refused | None:
        """Count one against `subject`; return the refusal when there were too many."""
        return await self._take([(limit, self._key(limit, subject))])

    async def give_back(self, limit: Limit, subject: str) -> None:
        """Count it no more: it was right."""
        took = limit, self._key(limit, subject)
        level = self._levels.get(took)
        if level is not None and level.allowed:
            await self._limits.give_back(*took)
            self._levels[took] = Level(level.policy, allowed=True, debt=give_back(level.policy, level.debt))

    async def failed_activation(self) -> None:
        """Count a failed activation for the alarm, which is rung whether or not anything is limited."""
        await self._limits.failed_activation()

    async def _take(self, asked: Sequence[tuple[Limit, str]]) -> Refused | None:
        if not self._limits.enabled:
            return None
        levels = await self._limits.take(asked, self._client)
        self._levels.update(zip(asked, levels, strict=False))  # none where the store is away
        refused = tightest(level for level in levels if not level.allowed)
        return None if refused is None else Refused(Refusal.RATE_LIMITED, retry_after=refused.retry_after)

    def _key(self, limit: Limit, subject: str) -> str:
        client = self._client or NO_ADDRESS
        match limit:
            case Limit.GLOBAL:
                return f"{client} {subject}"  # a route's name
            case Limit.REGISTRATION | Limit.LOGIN:
                return client
            case Limit.LOGIN_ACCOUNT:
                return self._limits.hidden(subject)
            case Limit.PASSWORD:
                return f"{client} {self._limits.hidden(subject)}"
            case Limit.ACTIVATION:
                return subject  # a registration's id
            case Limit.GUESSING:
                return EVERYBODY
            case _:
                assert_never(limit)


@dataclass(slots=True)
class _Store:
    """The store of buckets, which may be away."""

    quotas: Quotas
    away_since: float | None = None
    ask_again: float = -math.inf
    unseen: int = 0  # takes of this outage

    async def take(self, takes: Sequence[Take]) -> Sequence[Level] | None:
        """Take, or pass unseen."""
        if self._left_alone():
            self.unseen += len(takes)
            return None
        try:
            levels = await self.quotas.take(takes)
        except Unavailable as outage:
            self._away(outage)
            self.unseen += len(takes)
            return None
        self._back()
        return levels

    async def give_back(self, takes: Sequence[Take]) -> None:
        """Give back, or forget it: the client is in the store's debt for a while."""
        if self._left_alone():
            return
        try:
            await self.quotas.give_back(takes)
        except Unavailable as outage:
            self._away(outage)
        else:
            self._back()

    def _left_alone(self) -> bool:
        """Tell whether not to ask now; whoever may ask a store that is away does so for all the others."""
        if self.away_since is None:
            return False
        now = trio.current_time()
        if now < self.ask_again:
            return True
        self.ask_again = now + LEFT_ALONE
        return False

    def _away(self, outage: Unavailable) -> None:
        now = trio.current_time()
        self.ask_again = now + LEFT_ALONE
        if self.away_since is None:
            self.away_since = now
            observe.emit("rate_limit_store_down", store=self.quotas.name, reason=outage.why)

    def _back(self) -> None:
        if self.away_since is not None:
            away_s = round(trio.current_time() - self.away_since, 3)
            observe.emit("rate_limit_store_up", store=self.quotas.name, away_s=away_s, unseen=self.unseen)
            self.away_since, self.unseen = None, 0


@dataclass(slots=True)
class _Tally:
    """What became of the takes of a policy, and how many lines told of it."""

    policy: Policy
    allowed: int = 0
    refused: int = 0
    unseen: int = 0
    second: float = field(default=-math.inf)  # when the second began in which `told` lines were written
    told: int = 0
    untold: int = 0

    def note(self, level: Level, client: str | None) -> None:
        """Count a take; the log is told of a refusal, unless it was told of many this second."""
        if level.allowed:
            self.allowed += 1
            return
        self.refused += 1
        if self.policy.limit_of is Limit.GUESSING:
            return  # nobody is refused for it
        now = trio.current_time()
        if now - self.second >= 1:
            self.second, self.told = now, 0
        if self.told == TOLD_MOST:
            self.untold += 1
            return
        self.told += 1
        after = round(level.retry_after.total_seconds(), 3)
        observe.emit("rate_limited", policy=self.policy.name, client=client, retry_after_s=after, untold=self.untold)
        self.untold = 0
