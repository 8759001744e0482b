"""The buckets of limits in memory, on a clock one sets, and limits over them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from regsvc.domain import quota
from regsvc.domain.quota import Level, Limit, Policies, Take
from regsvc.flows.errand import Errand
from regsvc.flows.quota import Limits
from regsvc.ports import Unavailable

SECOND: Final = 1_000_000  # microseconds
CLIENT: Final = "192.0.2.1"
FREE: Final = quota.policies(registrations=10**6, activations=10**6, logins=10**6, requests=10**6)
FEW: Final = quota.policies(registrations=5, activations=3, logins=10, requests=1000)


@dataclass
class Buckets:
    """Implements ports.Quotas; `trips` are the bucket names of each round trip. `away`: it says so, after a while."""

    name: str = "memory"
    now: int = 0
    whole_at: dict[str, int] = field(default_factory=dict)
    trips: list[list[str]] = field(default_factory=list)
    away: bool = False

    async def take(self, takes: Sequence[Take]) -> Sequence[Level]:
        await self._trip(takes)
        levels = [quota.take(take.policy, self.whole_at.get(take.bucket, 0) - self.now) for take in takes]
        self.whole_at |= {take.bucket: self.now + level.debt for take, level in zip(takes, levels, strict=True)}
        return levels

    async def give_back(self, takes: Sequence[Take]) -> None:
        await self._trip(takes)
        for take in takes:
            debt = quota.give_back(take.policy, self.whole_at[take.bucket] - self.now)
            self.whole_at[take.bucket] = self.now + debt

    def owed(self, bucket: str) -> int:
        """Return how many of its policy's intervals a bucket owes."""
        limit = Limit(bucket.partition(":")[0])
        return max(0, self.whole_at.get(bucket, 0) - self.now) // FEW[limit].interval

    async def _trip(self, takes: Sequence[Take]) -> None:
        self.trips.append([take.bucket for take in takes])
        await trio.lowlevel.checkpoint()
        if self.away:
            raise Unavailable("limits", "it is not there")


def hidden(text: str) -> str:
    """Hide a name so that one can see what was hidden."""
    return f"#{text[::-1]}"


def limited(buckets: Buckets, policies: Policies = FEW, *, enabled: bool = True) -> Limits:
    """Return limits over these buckets."""
    return Limits(buckets, policies, hidden, enabled=enabled)


def metered(limits: Limits, client: str | None = CLIENT) -> Errand:
    """Return the errand of a new request of a client."""
    return Errand(client, limits.meter(client))
