"""The closed list of what is counted and measured, and where each number lies among a slab's cells.

Rule 1. Nothing that a client says becomes a label: routes and refusals are given at start, events and statuses are
        closed lists, and whatever fits none of them has one place of its own.
Rule 2. What does not depend on routes and refusals lies first and at the same places in every process: the supervisor
        knows neither, for it imports no web framework, and writes the part that it knows.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from itertools import count, takewhile
from typing import Final, Literal, TypeVar, get_args

from regsvc.observe.events import EVENTS
from regsvc.observe.shared import CELLS

Name = TypeVar("Name", bound=str)
Gauge = Literal[
    "workers_asked",
    "workers_alive",
    "hash_queue_waiting",
    "hash_queue_running",
    "hash_lanes",
    "outbox_ready",
    "outbox_leased",
    "outbox_dead",
    "outbox_oldest_seconds",
    "pool_idle",
    "pool_in_use",
    "pool_waiting",
    "connections",
    "requests_in_hand",
    "loop_lag_seconds",
    "sweeper_lag_seconds",
    "database_up",
    "resident_memory_bytes",
    "census_at",
    "started_at",
]
"""What goes up and down; the last two are times of `time.monotonic`, and are not shown."""

GAUGES: Final[tuple[Gauge, ...]] = get_args(Gauge)
LARGEST: Final[frozenset[Gauge]] = frozenset(
    ("hash_lanes", "loop_lag_seconds", "sweeper_lag_seconds", "started_at", "census_at")
)
"""Of which the largest of all processes counts, and not their sum."""
CENSUS: Final[tuple[Gauge, ...]] = (
    "outbox_ready",
    "outbox_leased",
    "outbox_dead",
    "outbox_oldest_seconds",
    "database_up",
)
"""What is the same whoever asks the database: the newest answer of all processes counts, however that one is now."""

Timing = Literal["hash_wait_seconds", "hash_duration_seconds", "mail_accept_to_sent_seconds"]
TIMINGS: Final[tuple[Timing, ...]] = get_args(Timing)

COUNTERS: Final = ("codes_expired", "log_lines_dropped")  # beside events, requests, statuses and refusals
CLASSES: Final = ("1xx", "2xx", "3xx", "4xx", "5xx")
STATUSES: Final = tuple(str(status.value) for status in HTTPStatus)
OTHER: Final = "other"
NO_ROUTE: Final = "none"
ROOMS: Final = (
    "account",
    "session",
    "profile",
    "administration",
    "operations",
    "documentation",
    "development",
    NO_ROUTE,
)

BUCKETS: Final = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
"""Upper bounds in seconds, of what Prometheus is shown; of few buckets, because each is a series of each room."""
SLOW_BUCKETS: Final = (0.05, 0.2, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0)
BOUNDS: Final[dict[Timing, tuple[float, ...]]] = {
    "hash_wait_seconds": BUCKETS,
    "hash_duration_seconds": BUCKETS,
    "mail_accept_to_sent_seconds": SLOW_BUCKETS,
}

RATIO: Final = 1.2  # of a fine bucket's bounds: the mean of both is at most (RATIO - 1) / (RATIO + 1) = 9.1 % off
SHORTEST: Final = 50e-6  # seconds
LONGEST: Final = 100.0
FINE: Final = tuple(takewhile(lambda bound: bound < LONGEST, (SHORTEST * RATIO**n for n in count())))
"""Upper bounds in seconds, of what percentiles are told by; one more bucket is for what is longer."""


@dataclass(frozen=True, slots=True)
class RouteLabel:
    """A route as it is counted: `asked` are the methods and templates by which requests to it are logged.

    `timed`: whether the time its requests take says anything; that of a stream is as long as somebody listens.
    """

    name: str
    room: str
    asked: tuple[tuple[str, str], ...] = ()
    timed: bool = True


@dataclass(frozen=True, slots=True)
class Labels:
    """What is given at start: the routes there are, and the names of refusals."""

    routes: tuple[RouteLabel, ...]
    refusals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Where a histogram lies: a cell for each bucket and one beyond, then the sum."""

    bounds: tuple[float, ...]
    first: int

    @property
    def sum(self) -> int:
        """The cell of the sum."""
        return self.first + len(self.bounds) + 1

    @property
    def beyond(self) -> int:
        """The cell after its last."""
        return self.sum + 1


@dataclass(frozen=True, slots=True)
class Span:
    """Where the fine histogram of a series lies: its buckets, its least, its most."""

    first: int

    @property
    def least(self) -> int:
        """The cell of the smallest value; 0 there: none was seen."""
        return self.first + len(FINE) + 1

    @property
    def most(self) -> int:
        """The cell of the largest value."""
        return self.least + 1

    @property
    def beyond(self) -> int:
        """The cell after its last."""
        return self.most + 1


@dataclass(frozen=True, slots=True)
class Layout:
    """Which cell is whose; `base` is how many lie where they lie in every process."""

    labels: Labels | None
    gauges: dict[Gauge, int]
    events: dict[str, int]
    counters: dict[str, int]
    timings: dict[Timing, Histogram]
    timing_spans: dict[Timing, Span]
    base: int
    fingerprint: int  # tells it from every other layout; never 0
    base_fingerprint: int  # the one of a process that knows no labels
    statuses: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    rooms: dict[str, Histogram] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)  # by route, the first of as many cells as CLASSES
    route_spans: dict[str, Span] = field(default_factory=dict)
    size: int = 0


def _fingerprint(labels: Labels | None) -> int:
    kept = (GAUGES, EVENTS, COUNTERS, TIMINGS, BOUNDS, FINE, CLASSES, STATUSES, ROOMS, BUCKETS, labels)
    return int.from_bytes(hashlib.sha256(repr(kept).encode()).digest()[:8]) or 1


def layout_of(labels: Labels | None = None) -> Layout:
    """Lay out the cells, `labels` known or not. Raises ValueError where a slab has not as many."""
    place = _Place()
    found = Layout(
        labels=labels,
        gauges=place.each(GAUGES),
        events=place.each(EVENTS),
        counters=place.each(COUNTERS),
        timings={name: place.histogram(BOUNDS[name]) for name in TIMINGS},
        timing_spans={name: place.span() for name in TIMINGS},
        base=place.next,
        fingerprint=_fingerprint(labels),
        base_fingerprint=_fingerprint(None),
        size=place.next,
    )
    if labels is None:
        return found
    names = [*(route.name for route in labels.routes), NO_ROUTE]
    found = replace(
        found,
        statuses=place.each((*STATUSES, OTHER)),
        refusals=place.each((*labels.refusals, OTHER)),
        rooms={room: place.histogram(BUCKETS) for room in ROOMS},
        classes={name: place.cells(len(CLASSES)) for name in names},
        route_spans={name: place.span() for name in names},
        size=place.next,
    )
    if found.size > CELLS:
        raise ValueError(f"{found.size} numbers are counted, and a slab has {CELLS}")
    return found


@dataclass(slots=True)
class _Place:
    """Gives away cells, one after the other."""

    next: int = 0

    def cells(self, number: int) -> int:
        first, self.next = self.next, self.next + number
        return first

    def each(self, names: Sequence[Name]) -> dict[Name, int]:
        return {name: self.cells(1) for name in names}

    def histogram(self, bounds: tuple[float, ...]) -> Histogram:
        found = Histogram(bounds, self.next)
        self.next = found.beyond
        return found

    def span(self) -> Span:
        found = Span(self.next)
        self.next = found.beyond
        return found
