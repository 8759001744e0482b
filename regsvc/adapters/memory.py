"""Rate limits' buckets in this process alone: for one worker, and gone with it.

Memory is bounded. Each new bucket makes two old ones be looked at, those longest unseen first, and forgotten where they
are whole: so at most about half of what is kept is of no use. Beyond `most` buckets that all owe something, one of
sixteen goes, the emptiest for its size: to make an exhausted bucket be forgotten, one has to nearly exhaust as many
others as there is room for.
"""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice
from typing import Final, NamedTuple

import trio

from regsvc.domain import quota
from regsvc.domain.quota import Level, Take

MOST: Final = 100_000  # buckets; some 30 MB
LOOKED_AT: Final = 2  # old buckets for each new one
SAMPLE: Final = 16  # of which one goes when there is no room


class _Bucket(NamedTuple):
    whole_at: int  # microseconds of trio's clock
    span: int


class MemoryQuotas:
    """Buckets in a dict, by trio's clock; implements ports.Quotas. Holds at most `most` of them."""

    name = "memory"

    def __init__(self, *, most: int = MOST) -> None:
        self._most = most
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()  # in the order in which they were seen last

    def __len__(self) -> int:
        return len(self._buckets)

    async def take(self, takes: Sequence[Take]) -> Sequence[Level]:
        """Take from each bucket, without a checkpoint; return the levels in the same order."""
        now = _now()
        return [self._take(take, now) for take in takes]

    async def give_back(self, takes: Sequence[Take]) -> None:
        """Undo allowed takes, without a checkpoint."""
        now = _now()
        for take in takes:
            bucket = self._buckets.get(take.bucket)
            if bucket is not None:
                debt = quota.give_back(take.policy, bucket.whole_at - now)
                self._buckets[take.bucket] = _Bucket(now + debt, bucket.span)

    def _take(self, take: Take, now: int) -> Level:
        name, policy = take.bucket, take.policy
        bucket = self._buckets.get(name)
        level = quota.take(policy, bucket.whole_at - now if bucket is not None else 0)
        self._buckets[name] = _Bucket(now + level.debt, policy.span)
        self._buckets.move_to_end(name)
        if bucket is None:
            self._tidy(now)
        return level

    def _tidy(self, now: int) -> None:
        for name in list(islice(self._buckets, LOOKED_AT)):
            if self._buckets[name].whole_at <= now:
                del self._buckets[name]
            else:
                self._buckets.move_to_end(name)
        if len(self._buckets) > self._most:
            sample = list(islice(self._buckets.items(), SAMPLE))
            emptiest, _ = min(sample, key=lambda found: (found[1].whole_at - now) / found[1].span)
            del self._buckets[emptiest]


def _now() -> int:
    return int(trio.current_time() * 1_000_000)
