"""What Prometheus and its kin are shown: readable by their own parsers, complete, the same in all forms, bounded."""

import shutil
import subprocess
from collections.abc import Sequence
from itertools import product

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families as read_plain

from regsvc.http.metrics import labels_of, report
from regsvc.http.routes import Route
from regsvc.http.table import routes
from regsvc.observe import EVENTS, Figures, layout_of
from regsvc.observe.catalogue import GAUGES, TIMINGS
from regsvc.observe.exposition import PREFIX, exposition
from regsvc.observe.metrics import Meter
from tests.observe.counted import LAYOUT, LIVEZ, REGISTER, openmetrics, read, said, series

SERIES_MAX = 500
FAMILIES = {
    **dict.fromkeys(("events", "http_requests", "http_responses", "refusals"), "counter"),
    **dict.fromkeys(("codes_expired", "log_lines_dropped", "worker_restarts"), "counter"),
    **dict.fromkeys(("http_request_duration_seconds", *TIMINGS), "histogram"),
    **dict.fromkeys(
        ("workers", "hash_queue_waiting", "hash_queue_running", "outbox", "outbox_oldest_seconds"), "gauge"
    ),
    **dict.fromkeys(("pool_connections", "pool_waiting", "connections", "requests_in_hand"), "gauge"),
    **dict.fromkeys(("loop_lag_seconds", "sweeper_lag_seconds", "database_up", "resident_memory_bytes"), "gauge"),
    "build": "info",
}


@pytest.fixture
def busy() -> Figures:
    """What two workers counted."""
    meters = Meter(LAYOUT), Meter(LAYOUT)
    for meter in meters:
        for number in range(1, 101):
            meter.count("http_request", said(duration_ms=number))
        meter.count("http_request", said("POST", "/users/register", 400, refusal="invalid_code"))
        meter.count("http_request", said("POST", "/users/register", 503))
        meter.count("activation_refused", {"refusal": "code_expired"})
        meter.count("registration_created", {})
        for timing in TIMINGS:
            meter.timing(timing, 0.25)
        for number, gauge in enumerate(GAUGES):
            meter.gauge(gauge, number)
    return read(*meters)


def families(figures: Figures) -> dict[str, Metric]:
    text = exposition(figures, "1.2.3", plain=False).decode()
    return {family.name: family for family in openmetrics(text)}


@pytest.mark.parametrize("counted", [True, False])
def test_every_metric_is_there_and_of_its_type(busy: Figures, *, counted: bool) -> None:
    found = families(busy if counted else read(Meter(LAYOUT)))
    types = {name.removeprefix(PREFIX): family.type for name, family in found.items()}
    assert types == FAMILIES | {name: "gauge" for name in GAUGES if name in types}
    assert all(family.documentation.endswith(".") for family in found.values())
    assert all(family.unit == family.name.rpartition("_")[2] for family in found.values() if family.unit)
    assert [
        family.name for family in found.values() if family.name.endswith(("_seconds", "_bytes")) and not family.unit
    ] == []


def test_both_texts_say_the_same(busy: Figures) -> None:
    plain = exposition(busy, "1.2.3", plain=True).decode()
    assert "# EOF" not in plain
    assert series(read_plain(plain)) == series(families(busy).values())


def test_prometheus_own_tool_finds_nothing_to_say(busy: Figures) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed here (Debian: prometheus)")
    text = exposition(busy, "1.2.3", plain=True)
    done = subprocess.run([tool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_json_has_the_same_numbers(busy: Figures) -> None:
    shown, told = series(families(busy).values()), report(busy, "here")
    assert told.request_counts == {LIVEZ: 200, REGISTER: 4}
    assert (told.status_counts, told.error_count) == ({"200": 200, "400": 2, "503": 2}, 2)
    assert shown[f"{PREFIX}http_requests_total", f"route={REGISTER}", "status=5xx"] == 2
    for label, counts in (("status", told.status_counts), ("refusal", told.refusals), ("event", told.events)):
        family = {"status": "http_responses", "refusal": "refusals", "event": "events"}[label]
        assert {n: v for (n, *_), v in shown.items() if n == f"{PREFIX}{family}_total"}, label
        for name, counted in counts.items():
            assert shown[f"{PREFIX}{family}_total", f"{label}={name}"] == counted
    business = told.business_metrics
    assert (business.registrations, business.codes_expired) == (2, shown[(f"{PREFIX}codes_expired_total",)])
    for name, timing in told.timings.items():
        assert shown[(f"{PREFIX}{name}_seconds_count",)] == timing.count == 2
        assert timing.p50 == timing.min == timing.max == 250.0
    latency = told.latencies[LIVEZ]
    assert (latency.count, latency.min, latency.max) == (200, 1.0, 100.0)
    for percentile, exact in ((latency.p50, 50), (latency.p95, 95), (latency.p99, 99)):
        assert percentile == pytest.approx(exact, rel=0.1)
    gauges = told.gauges.model_dump()
    for name, value in gauges.items():
        if (f"{PREFIX}{name}",) in shown:
            assert shown[(f"{PREFIX}{name}",)] == value
    assert gauges["outbox_dead"] == shown[f"{PREFIX}outbox", "state=dead"]
    assert gauges["pool_in_use"] == shown[f"{PREFIX}pool_connections", "state=in_use"]
    assert told.workers.asked == shown[f"{PREFIX}workers", "state=asked"]


def test_a_histogram_s_buckets_add_up(busy: Figures) -> None:
    shown = series(families(busy).values())
    name = f"{PREFIX}http_request_duration_seconds"
    below = {
        key[1]: value for key, value in shown.items() if key[0] == f"{name}_bucket" and key[2] == "room=operations"
    }
    assert below["le=0.005"] == 10
    assert below["le=0.05"] == 100
    assert below["le=+Inf"] == below["le=0.1"] == shown[f"{name}_count", "room=operations"] == 200
    assert shown[f"{name}_sum", "room=operations"] == pytest.approx(2 * 5.05)
    assert list(below.values()) == sorted(below.values())


def reachable(table: Sequence[Route]) -> Figures:
    """All that a service with these routes can ever count: each route answers all that it names, and breaks."""
    layout = layout_of(labels_of(table))
    meter = Meter(layout)
    for route in table:
        statuses = {route.success.status, *(kind.status for kind in route.problems), 500, 503}
        for path, status in product(route.paths, statuses):
            meter.count("http_request", said(route.method, path, status))
    for refusal in layout.refusals:
        meter.count("http_request", said("GET", "unmatched", 404, refusal=refusal))
    for status in (405, 500, 503):
        meter.count("http_request", said("GET", "unmatched", status))
    for event in EVENTS:
        meter.count(event, {})
    return read(meter)


def test_there_are_never_more_series_than_promised() -> None:
    found = series(families(reachable(routes(development=False))).values())
    assert len(found) <= SERIES_MAX
    assert len(series(families(read(Meter(LAYOUT))).values())) < 100, "what was not seen is not shown"
