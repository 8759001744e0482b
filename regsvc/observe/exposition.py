"""The numbers as Prometheus and its kin read them: OpenMetrics 1.0, or Prometheus' older text.

The families and both texts are prometheus_client's; its registry, its own metrics and its multiprocess mode are not
used (`shared` says why): a collector gives it what `figures` has added up.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from regsvc.observe.catalogue import NO_ROUTE, ROOMS, TIMINGS, Gauge, Histogram, Timing
from regsvc.observe.figures import Figures

PREFIX: Final = "regsvc_"
OPENMETRICS: Final = openmetrics.CONTENT_TYPE_LATEST
PLAIN: Final = CONTENT_TYPE_PLAIN_0_0_4

_STATES: Final[dict[str, tuple[str, dict[str, Gauge]]]] = {
    "workers": ("Worker processes of this machine.", {"asked": "workers_asked", "alive": "workers_alive"}),
    "outbox": (
        "What waits to be carried, is being carried, or was given up; counted to a hundred thousand.",
        {"ready": "outbox_ready", "leased": "outbox_leased", "dead": "outbox_dead"},
    ),
    "pool_connections": (
        "Connections to the database, of all workers.",
        {"idle": "pool_idle", "in_use": "pool_in_use"},
    ),
}
_GAUGES: Final[dict[Gauge, str]] = {
    "hash_queue_waiting": "Passwords that wait to be hashed.",
    "hash_queue_running": "Passwords that are being hashed.",
    "hash_lanes": "Passwords that a thread hashes at once; 1: one after another.",
    "outbox_oldest_seconds": "The age of the oldest that waits or is being carried.",
    "pool_waiting": "Tasks that wait for a connection to the database.",
    "connections": "Connections of clients.",
    "requests_in_hand": "Requests that are being read or answered.",
    "loop_lag_seconds": "How late the event loop came to what was due; of the worker where it was latest.",
    "sweeper_lag_seconds": "For how long the oldest row that is to be swept should be gone.",
    "database_up": "Whether the database answers within a second: 1 or 0.",
    "resident_memory_bytes": "Memory of all workers.",
}
_TIMINGS: Final[dict[Timing, str]] = {
    "hash_wait_seconds": "How long passwords waited for their hash to begin.",
    "hash_duration_seconds": "How long hashing a password took.",
    "mail_accept_to_sent_seconds": "From the acceptance of a request to the relay's 250 for its mail.",
}
_UNITS: Final = ("seconds", "bytes")


@dataclass(frozen=True, slots=True)
class Exposition(Collector):
    """A moment's numbers as families of metrics."""

    figures: Figures
    version: str

    def collect(self) -> Iterable[Metric]:
        """Yield them all; labels are there once they were seen, metrics always."""
        yield from self._counters()
        yield from self._histograms()
        yield from self._gauges()

    def _counters(self) -> Iterator[Metric]:
        known = self.figures
        yield _counted("events", "Events of the log, whatever its level.", "event", known.events())
        requests = CounterMetricFamily(
            f"{PREFIX}http_requests", "Answered requests, by route and class of status.", labels=("route", "status")
        )
        for route, status, counted in known.requests():
            requests.add_metric((route, status), counted)
        yield requests
        yield _counted("http_responses", "Answers, by status.", "status", known.statuses())
        yield _counted("refusals", "What was refused, by its name in the log.", "refusal", known.refusals())
        for name, meaning, value in (
            ("codes_expired", "Codes that were shown too late.", known.counter("codes_expired")),
            ("log_lines_dropped", "Lines that the log had no room for.", known.counter("log_lines_dropped")),
            ("worker_restarts", "Workers that were replaced.", known.events().get("worker_restarted", 0)),
        ):
            yield CounterMetricFamily(f"{PREFIX}{name}", meaning, value=value)

    def _histograms(self) -> Iterator[Metric]:
        rooms = HistogramMetricFamily(
            f"{PREFIX}http_request_duration_seconds",
            "From a request's head to its answer, by what its route is about; streams and long polls too.",
            labels=("room",),
            unit="seconds",
        )
        for room in ROOMS:
            histogram, counted, total = self.figures.room(room)
            if sum(counted) or room == NO_ROUTE:  # the family has one series at least
                rooms.add_metric((room,), _buckets(histogram, counted), total)
        yield rooms
        for name in TIMINGS:
            histogram, counted, total = self.figures.timing(name)
            buckets = _buckets(histogram, counted)
            yield HistogramMetricFamily(PREFIX + name, _TIMINGS[name], buckets, total, unit="seconds")

    def _gauges(self) -> Iterator[Metric]:
        values = self.figures.gauges()
        for name, (meaning, states) in _STATES.items():
            family = GaugeMetricFamily(PREFIX + name, meaning, labels=("state",))
            for state, source in states.items():
                family.add_metric((state,), values[source])
            yield family
        for gauge, meaning in _GAUGES.items():
            unit = next((unit for unit in _UNITS if gauge.endswith(unit)), "")
            yield GaugeMetricFamily(PREFIX + gauge, meaning, value=values[gauge], unit=unit)
        yield InfoMetricFamily(f"{PREFIX}build", "What runs here.", {"version": self.version})


def _counted(name: str, meaning: str, label: str, counts: dict[str, int]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, meaning, labels=(label,))
    for value, counted in counts.items():
        family.add_metric((value,), counted)
    return family


def _buckets(histogram: Histogram, counted: Sequence[int]) -> list[tuple[str, float]]:
    bounds = (*(str(bound) for bound in histogram.bounds), "+Inf")
    return list(zip(bounds, map(float, accumulate(counted)), strict=True))


def exposition(figures: Figures, version: str, *, plain: bool) -> bytes:
    """Return the text that goes with OPENMETRICS, or with PLAIN."""
    families = Exposition(figures, version)
    text: bytes = (generate_latest if plain else openmetrics.generate_latest)(families)
    return text
