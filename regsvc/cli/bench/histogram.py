"""A histogram of times, as exact at a microsecond as at an hour, that never grows beyond its buckets.

Buckets as in HdrHistogram (Gil Tene): linear within each power of two, so that the error is a share of the value and
not of the range. By hand, for its Python package has no wheel for Linux on ARM, which we run on, so that it takes a
compiler there, and it brings setuptools and pbr to a server for these hundred lines. A property test holds ours to
exact percentiles.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

FINE: Final = 11  # bits of a value that are kept: 2048 steps up to 2.05 ms, then an error under 0.1 %
COARSE: Final = 8  # likewise: under 0.8 %
MICROSECONDS: Final = 1e6  # in a second


@dataclass(slots=True)
class Histogram:
    """Counts times in microseconds; they are put in, and taken out, in seconds."""

    bits: int = FINE
    counts: dict[int, int] = field(default_factory=dict)
    count: int = 0
    total: int = 0
    least: int = 0
    most: int = 0

    def record(self, seconds: float) -> None:
        """Count a time; one below zero is none at all."""
        value = max(int(seconds * MICROSECONDS), 0)
        shift = max(value.bit_length() - self.bits, 0)
        bucket = (shift << (self.bits - 1)) + (value >> shift)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.least = min(value, self.least) if self.count else value
        self.most = max(value, self.most)
        self.count += 1
        self.total += value

    def merge(self, other: "Histogram") -> None:
        """Count all that another one counted, which has as many bits."""
        if other.bits != self.bits:
            raise ValueError(f"buckets of {other.bits} bits do not go into those of {self.bits}")
        if not other.count:
            return
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.least = min(self.least, other.least) if self.count else other.least
        self.most = max(self.most, other.most)
        self.count += other.count
        self.total += other.total

    def quantile(self, share: float) -> float:
        """Return the time that `share` of all do not exceed (the nearest rank); NaN where there are none."""
        return next(iter(self.quantiles([share])), math.nan)

    def quantiles(self, shares: Iterable[float]) -> list[float]:
        """Return such a time for each of `shares`, which rise; none where nothing was counted."""
        if not self.count:
            return []
        buckets = iter(sorted(self.counts.items()))
        bucket, seen = -1, 0
        found = []
        for share in shares:
            # Shares are decimals: 0.999 of 1000 is 999, and not the 999.0000000000001 that a float may make of it.
            rank = max(math.ceil(round(share * self.count, 6)), 1)
            while seen < rank:
                bucket, count = next(buckets)
                seen += count
            found.append(min(self._highest(bucket), self.most) / MICROSECONDS)
        return found

    def known(self, share: float) -> bool:
        """Tell whether there are enough for such a share: a hundred times have no percentile beyond the 99th."""
        return round((1 - share) * self.count, 6) >= 1

    def above(self, seconds: float) -> int:
        """Return how many took longer, as exactly as the buckets are."""
        value = int(seconds * MICROSECONDS)
        return sum(count for bucket, count in self.counts.items() if self._highest(bucket) > value)

    def mean(self) -> float:
        """Return the mean in seconds; NaN where there are none."""
        return self.total / self.count / MICROSECONDS if self.count else math.nan

    def longest(self) -> float:
        """Return the longest time; NaN where there are none."""
        return self.most / MICROSECONDS if self.count else math.nan

    def as_json(self) -> dict[str, Any]:
        """Return all of it: buckets and counts, the smallest bucket first."""
        return {
            "bits": self.bits,
            "least_us": self.least,
            "most_us": self.most,
            "total_us": self.total,
            "counts": [list(pair) for pair in sorted(self.counts.items())],
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """Return what `as_json` wrote. Raises KeyError, TypeError, ValueError for anything else."""
        counts = {int(bucket): int(count) for bucket, count in plain["counts"]}
        bits, total, least, most = (int(plain[name]) for name in ("bits", "total_us", "least_us", "most_us"))
        return cls(bits, counts, sum(counts.values()), total, least, most)

    def _highest(self, bucket: int) -> int:
        """Return the largest value that is counted there: what is told is never less than what was."""
        half = self.bits - 1
        shift = max((bucket >> half) - 1, 0)
        return ((bucket - (shift << half) + 1) << shift) - 1
