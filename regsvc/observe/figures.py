"""Reading: the numbers of all processes of the service, added up."""

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from regsvc.observe.catalogue import (
    CENSUS,
    CLASSES,
    FINE,
    GAUGES,
    LARGEST,
    RATIO,
    SHORTEST,
    Gauge,
    Histogram,
    Layout,
    Span,
    Timing,
)
from regsvc.observe.shared import Shared

Cells = Sequence[float]
ESTIMATES: Final = (
    2 * SHORTEST / (1 + RATIO),
    *(2 * low * RATIO / (1 + RATIO) for low in FINE),
)
"""What a value of each fine bucket is taken for: the harmonic mean of its bounds, as far from the one as the other."""


@dataclass(frozen=True, slots=True)
class Summary:
    """How long something took, in seconds: `least` and `most` are exact, the others within 10 %."""

    count: int
    p50: float
    p95: float
    p99: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What was counted until a moment; only what was seen at least once is there."""

    layout: Layout
    slabs: tuple[Cells, ...]  # of all processes that ever were, the supervisor's without what it does not know
    summed: Cells
    alive: tuple[Cells, ...]  # of those that are

    def events(self) -> dict[str, int]:
        """Count events by name."""
        return self._seen(self.layout.events)

    def counter(self, name: str) -> int:
        """Return one of COUNTERS."""
        return int(self.summed[self.layout.counters[name]])

    def statuses(self) -> dict[str, int]:
        """Count answers by status."""
        return self._seen(self.layout.statuses)

    def refusals(self) -> dict[str, int]:
        """Count refusals by name."""
        return self._seen(self.layout.refusals)

    def requests(self) -> Iterator[tuple[str, str, int]]:
        """Yield route, class of status, and how many requests were answered so."""
        for route, first in self.layout.classes.items():
            for number, name in enumerate(CLASSES):
                if counted := int(self.summed[first + number]):
                    yield route, name, counted

    def room(self, name: str) -> tuple[Histogram, Sequence[int], float]:
        """Return the histogram of a room: buckets, counted by their bounds and beyond, and the sum."""
        return self._histogram(self.layout.rooms[name])

    def timing(self, name: Timing) -> tuple[Histogram, Sequence[int], float]:
        """Return the histogram of a timing, likewise."""
        return self._histogram(self.layout.timings[name])

    def route_summary(self, route: str) -> Summary | None:
        """Return how long requests to a route took; None: there was none."""
        return self._summary(self.layout.route_spans[route])

    def timing_summary(self, name: Timing) -> Summary | None:
        """Return how long something took."""
        return self._summary(self.layout.timing_spans[name])

    def gauge(self, name: Gauge) -> float:
        """Return how something stands on the machine."""
        cell = self.layout.gauges[name]
        if name in CENSUS:
            asked = self.layout.gauges["census_at"]
            newest = max(self.slabs, key=lambda cells: cells[asked], default=None)
            return 0.0 if newest is None else newest[cell]
        values = [cells[cell] for cells in self.alive]
        return max(values, default=0.0) if name in LARGEST else math.fsum(values)

    def gauges(self) -> dict[Gauge, float]:
        """Return all of them."""
        return {name: self.gauge(name) for name in GAUGES}

    def _seen(self, places: dict[str, int]) -> dict[str, int]:
        return {name: int(self.summed[cell]) for name, cell in places.items() if self.summed[cell]}

    def _histogram(self, histogram: Histogram) -> tuple[Histogram, Sequence[int], float]:
        buckets = [int(counted) for counted in self.summed[histogram.first : histogram.sum]]
        return histogram, buckets, self.summed[histogram.sum]

    def _summary(self, span: Span) -> Summary | None:
        buckets = self.summed[span.first : span.least]
        if not (counted := int(sum(buckets))):
            return None
        least = min((cells[span.least] for cells in self.slabs if cells[span.least]), default=0.0)
        most = max(cells[span.most] for cells in self.slabs)
        p50, p95, p99 = (min(max(_quantile(buckets, counted, share), least), most) for share in (0.5, 0.95, 0.99))
        return Summary(counted, p50, p95, p99, least, most)


def _quantile(buckets: Cells, counted: int, share: float) -> float:
    """Return about the smallest value that `share` of all do not exceed (the nearest rank)."""
    return ESTIMATES[bisect_left(list(accumulate(buckets)), math.ceil(share * counted))]


def read_figures(layout: Layout, shared: Shared) -> Figures:
    """Add up what all processes counted, those that are gone too."""
    known = {layout.fingerprint: layout.size, layout.base_fingerprint: layout.base}
    found = [
        (slab.pid, list[float](slab.cells[:size])) for slab in shared.slabs if (size := known.get(slab.fingerprint))
    ]
    return of_cells(layout, [cells for _, cells in found], [cells for pid, cells in found if pid])


def of_cells(layout: Layout, slabs: Sequence[list[float]], alive: Sequence[list[float]] | None = None) -> Figures:
    """Add up cells; those of `alive`, which are all of them unless it is said, are of processes that are."""
    for cells in slabs:
        cells.extend([0.0] * (layout.size - len(cells)))
    summed: Cells = [math.fsum(column) for column in zip(*slabs, strict=True)] or [0.0] * layout.size
    return Figures(layout, tuple(slabs), summed, tuple(slabs if alive is None else alive))
