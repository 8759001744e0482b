"""Counting: every event once, whatever the log's level, by names that are known, and never in anybody's way."""

import io
import math
import sys
import threading
from itertools import chain
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from regsvc import observe
from regsvc.http.metrics import labels_of
from regsvc.http.table import routes
from regsvc.observe import EVENTS, Labels, Layout, RouteLabel, layout_of, open_log, read_figures
from regsvc.observe.catalogue import FINE, GAUGES, OTHER, SHORTEST, Gauge, Timing
from regsvc.observe.figures import Figures, Summary, of_cells
from regsvc.observe.metrics import Meter
from regsvc.observe.shared import CELLS, Shared
from tests.observe.counted import LABELS, LAYOUT, LIVEZ, REGISTER, read, said

ODD = st.one_of(
    st.none(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.integers()), st.just({}), st.just(object)
)


def test_a_request_is_counted_by_its_canonical_route() -> None:
    meter = Meter(LAYOUT)
    meter.count("http_request", said())
    meter.count("http_request", said("HEAD"))
    meter.count("http_request", said("POST", "/users/register", 409, refusal="invalid_code", duration_ms=300))
    meter.count("http_request", said("POST", "/v1/users/register", 201))
    meter.count("http_request", said("GET", "unmatched", 404, refusal="nobody knows this one"))
    meter.count("http_request", said("DELETE", "/livez", 405))
    found = read(meter)
    assert found.events() == {"http_request": 6}
    assert sorted(found.requests()) == [
        (LIVEZ, "2xx", 2),
        (REGISTER, "2xx", 1),
        (REGISTER, "4xx", 1),
        ("none", "4xx", 2),
    ]
    assert found.statuses() == {"200": 2, "201": 1, "404": 1, "405": 1, "409": 1}
    assert found.refusals() == {"invalid_code": 1, OTHER: 1}
    histogram, buckets, total = found.room("account")
    assert sum(buckets) == 2
    assert total == pytest.approx(0.3015)
    assert buckets[histogram.bounds.index(0.5)] == 1
    assert sum(found.room("none")[1]) == 2
    assert sum(found.room("profile")[1]) == 0
    assert told(found, REGISTER) == (2, 0.0015, 0.3)


@pytest.mark.parametrize(("status", "name", "kind"), [(99, OTHER, "1xx"), (299, OTHER, "2xx"), (777, OTHER, "5xx")])
def test_a_status_that_nobody_knows_has_its_place(status: int, name: str, kind: str) -> None:
    meter = Meter(LAYOUT)
    meter.count("http_request", said(status=status))
    assert read(meter).statuses() == {name: 1}
    assert list(read(meter).requests()) == [(LIVEZ, kind, 1)]


def test_what_reaches_no_route_is_counted_once() -> None:
    meter = Meter(LAYOUT)
    meter.count("request_unreadable", {"status": 408, "reason": "RequestTimeout: too slow"})
    meter.count("request_unreadable", {"status": 422, "reason": "weak", "method": "POST", "route": "/users/register"})
    meter.count("http_request", said("POST", "/users/register", 422))
    assert read(meter).statuses() == {"408": 1, "422": 1}
    assert sorted(read(meter).requests()) == [(REGISTER, "4xx", 1), ("none", "4xx", 1)]


def test_codes_that_came_too_late_and_mails_are_counted() -> None:
    meter = Meter(LAYOUT)
    meter.count("activation_refused", {"refusal": "activation_code_expired"})
    meter.count("activation_refused", {"refusal": "invalid_activation_code"})
    meter.count("profile_refused", {"refusal": "code_expired"})
    meter.count("mail_sent", {"accept_ms": 250.0, "send_ms": 3.0})
    found = read(meter)
    assert found.counter("codes_expired") == 2
    summary = found.timing_summary("mail_accept_to_sent_seconds")
    assert summary == Summary(1, 0.25, 0.25, 0.25, 0.25, 0.25)
    assert found.timing("mail_accept_to_sent_seconds")[2] == pytest.approx(0.25)


@given(st.sampled_from(EVENTS), st.dictionaries(st.sampled_from([*said(), "accept_ms", "reason"]), ODD))
@example("mail_sent", {"accept_ms": math.nan, "duration_ms": math.nan})
@example("mail_sent", {"accept_ms": math.inf, "duration_ms": math.inf, "status": math.inf})
@example("http_request", {"duration_ms": -math.inf, "status": 10**400})
def test_counting_never_raises(event: observe.Event, fields: dict[str, Any]) -> None:
    meter = Meter(LAYOUT)
    meter.count(event, fields)
    meter.count("http_request", {**said(), **fields})
    found = read(meter)
    assert found.events()[event] >= 1
    assert set(found.refusals()) <= {*LABELS.refusals, OTHER}
    assert all(math.isfinite(value) for value in found.summed)


@given(st.floats())
def test_a_timing_never_raises(seconds: float) -> None:
    meter = Meter(LAYOUT)
    meter.timing("hash_wait_seconds", seconds)
    summary = read(meter).timing_summary("hash_wait_seconds")
    assert (summary is None) == (not math.isfinite(seconds))


def test_an_event_that_is_filtered_is_counted_and_one_of_before_is_not() -> None:
    lines = io.BytesIO()
    with open_log(lines, level="error", fmt="json") as log:
        observe.emit("worker_started", pid=7)
        observe.gauge("pool_idle", 3)
        observe.timing("hash_wait_seconds", 1)
        observe.count_drops()
        before = log.meter
        observe.start_counting(LAYOUT)
        observe.emit("worker_started", pid=7)
        observe.exception("http_bug", ValueError("x"), method="GET", route="/livez")
        observe.gauge("pool_idle", 3)
        observe.timing("hash_wait_seconds", 1)
        assert log.meter is not None
        found = read(log.meter)
    assert before is None
    assert found.events() == {"worker_started": 1, "http_bug": 1}
    assert found.gauge("pool_idle") == 3
    assert found.timing_summary("hash_wait_seconds") is not None
    assert lines.getvalue().count(b"\n") == 1


def test_lines_that_the_log_dropped_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_log(io.BytesIO(), fmt="json") as log:
        observe.start_counting(LAYOUT)
        for dropped in (3, 3, 5):
            monkeypatch.setattr(log, "_dropped", dropped)
            observe.count_drops()
        assert log.meter is not None
        assert read(log.meter).counter("log_lines_dropped") == 5


# ------------------------------------------------------------------------------------------------- several processes


def shared_of(slabs: int) -> Shared:
    return Shared.create(slabs)


def test_workers_are_added_up_and_a_successor_counts_on() -> None:
    shared = shared_of(3)
    first, second = (Meter(LAYOUT, shared.slabs[number], worker=number) for number in (1, 2))
    for meter, took in ((first, 10), (second, 30), (second, 20)):
        meter.count("http_request", said(duration_ms=took))
        meter.gauge("pool_idle", 2)
        meter.gauge("loop_lag_seconds", took / 1000)
    before = read_figures(LAYOUT, shared)
    assert before.statuses() == {"200": 3}
    assert (before.gauge("pool_idle"), before.gauge("loop_lag_seconds")) == (4, 0.02)
    assert told(before, LIVEZ) == (3, 0.01, 0.03)
    shared.slabs[1].leave()
    gone = read_figures(LAYOUT, shared)
    assert (gone.statuses(), gone.gauge("pool_idle")) == ({"200": 3}, 2)
    successor = Meter(LAYOUT, shared.slabs[1], worker=1)
    again = read_figures(LAYOUT, shared)
    assert (again.statuses(), again.gauge("pool_idle")) == ({"200": 3}, 2), "what its predecessor had is not its own"
    successor.count("http_request", said(duration_ms=5))
    assert read_figures(LAYOUT, shared).statuses() == {"200": 4}
    assert told(read_figures(LAYOUT, shared), LIVEZ) == (4, 0.005, 0.03)


def told(found: Figures, route: str) -> tuple[int, float, float]:
    summary = found.route_summary(route)
    assert summary is not None
    return summary.count, round(summary.least, 9), round(summary.most, 9)


def test_the_supervisor_counts_without_knowing_routes() -> None:
    shared = shared_of(2)
    supervisor, worker = Meter(layout_of(), shared.slabs[0]), Meter(LAYOUT, shared.slabs[1], worker=1)
    supervisor.count("worker_restarted", {"pid": 1})
    supervisor.count("http_request", said())
    supervisor.gauge("workers_asked", 1)
    worker.count("http_request", said())
    found = read_figures(LAYOUT, shared)
    assert found.events() == {"worker_restarted": 1, "http_request": 2}
    assert (found.statuses(), found.gauge("workers_asked")) == ({"200": 1}, 1)
    assert shared.slabs[0].worker == 0
    assert [slab.number for slab in shared.taken(LAYOUT.fingerprint)] == [1]


def test_numbers_of_another_version_are_passed_over() -> None:
    shared = shared_of(2)
    other = layout_of(Labels((*LABELS.routes, RouteLabel("GET /new", "operations")), LABELS.refusals))
    Meter(other, shared.slabs[1], worker=1).count("http_request", said())
    assert read_figures(LAYOUT, shared).events() == {}
    assert read_figures(other, shared).events() == {"http_request": 1}
    assert len({LAYOUT.fingerprint, other.fingerprint, LAYOUT.base_fingerprint}) == 3
    assert LAYOUT.base_fingerprint == layout_of().fingerprint == other.base_fingerprint


def test_the_newest_census_counts_whoever_made_it() -> None:
    shared = shared_of(3)
    meters = [Meter(LAYOUT, shared.slabs[number], worker=number) for number in (1, 2)]
    for meter, at, dead in zip(meters, (200.0, 100.0), (7, 3), strict=True):
        meter.gauge("outbox_dead", dead)
        meter.gauge("database_up", 1)
        meter.gauge("census_at", at)
    assert read_figures(LAYOUT, shared).gauge("outbox_dead") == 7
    shared.slabs[1].leave()
    assert read_figures(LAYOUT, shared).gauge("outbox_dead") == 7
    successor = Meter(LAYOUT, shared.slabs[1], worker=1)
    assert read_figures(LAYOUT, shared).gauge("outbox_dead") == 7
    successor.gauge("outbox_dead", 0)
    assert read_figures(LAYOUT, shared).gauges()["outbox_dead"] == 0


def test_what_nobody_counted_is_nothing() -> None:
    found = read_figures(LAYOUT, shared_of(2))
    assert (found.events(), list(found.requests()), found.route_summary(LIVEZ)) == ({}, [], None)
    assert set(found.gauges().values()) == {0.0}


def test_threads_lose_nothing() -> None:
    meter, interval = Meter(LAYOUT), sys.getswitchinterval()

    def count() -> None:
        for _ in range(20_000):
            meter.count("library_message", {})

    threads = [threading.Thread(target=count) for _ in range(4)]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert read(meter).events() == {"library_message": 80_000}


# ------------------------------------------------------------------------------------------------- percentiles

SECONDS = st.floats(SHORTEST, FINE[-1])


@given(st.lists(st.lists(SECONDS, max_size=60), min_size=1, max_size=4))
def test_percentiles_are_right_to_a_tenth_over_all_workers(workers: list[list[float]]) -> None:
    meters = [Meter(LAYOUT) for _ in workers]
    for meter, took in zip(meters, workers, strict=True):
        for seconds in took:
            meter.timing("hash_wait_seconds", seconds)
    found, everything = read(*meters).timing_summary("hash_wait_seconds"), sorted(chain(*workers))
    assert (found is None) == (not everything)
    if found is not None:
        assert (found.count, found.least, found.most) == (len(everything), everything[0], everything[-1])
        for share, estimate in ((0.5, found.p50), (0.95, found.p95), (0.99, found.p99)):
            exact = everything[math.ceil(share * len(everything)) - 1]
            assert estimate == pytest.approx(exact, rel=0.1)


def test_what_is_beyond_all_buckets_is_at_least_that_long() -> None:
    meter = Meter(LAYOUT)
    for seconds in (0.0, 1e-7, 1e5):
        meter.timing("hash_wait_seconds", seconds)
    found = read(meter).timing_summary("hash_wait_seconds")
    assert found is not None
    assert found.least <= 1e-9
    assert 1e-7 <= found.p50 <= SHORTEST
    assert FINE[-1] <= found.p99 <= found.most == 1e5


def test_a_number_that_came_while_others_were_read_is_not_looked_for_in_vain() -> None:
    meter = Meter(LAYOUT)
    meter.timing("hash_wait_seconds", 1.0)
    torn = list(meter.cells[: LAYOUT.size])
    span = LAYOUT.timing_spans["hash_wait_seconds"]
    torn[span.least] = 0.0  # its bucket was read after it, its least before it
    found = of_cells(LAYOUT, [torn]).timing_summary("hash_wait_seconds")
    assert found is not None
    assert found.least <= found.p50 <= found.most == 1.0


# ------------------------------------------------------------------------------------------------- the layout


@pytest.fixture(scope="module")
def whole() -> Layout:
    return layout_of(labels_of(routes(development=True)))


def test_no_two_numbers_share_a_cell(whole: Layout) -> None:
    taken: list[int] = [*whole.gauges.values(), *whole.events.values(), *whole.counters.values()]
    taken += [*whole.statuses.values(), *whole.refusals.values()]
    for histogram in (*whole.timings.values(), *whole.rooms.values()):
        taken += range(histogram.first, histogram.beyond)
    for span in (*whole.timing_spans.values(), *whole.route_spans.values()):
        taken += range(span.first, span.beyond)
    for first in whole.classes.values():
        taken += range(first, first + 5)
    assert sorted(taken) == list(range(whole.size))
    assert whole.base == layout_of().size
    assert {name: whole.events[name] for name in EVENTS} == layout_of().events


def test_every_route_finds_room_and_there_is_some_left(whole: Layout) -> None:
    assert whole.size < CELLS * 0.9, "routes need more cells soon: see shared.CELLS"


def test_more_routes_than_there_is_room_for_are_refused() -> None:
    many = tuple(RouteLabel(f"GET /{number}", "account") for number in range(CELLS))
    with pytest.raises(ValueError, match="a slab has"):
        layout_of(Labels(many, ()))


def test_the_closed_lists_are_what_their_types_say() -> None:
    assert get_args(Gauge) == GAUGES
    assert set(get_args(Timing)) == set(LAYOUT.timings)


def test_how_long_somebody_listens_is_no_duration() -> None:
    labels = labels_of(routes(development=False))
    meter = Meter(layout_of(labels))
    stream = "/v1/admin/logs/stream"
    meter.count("http_request", said("GET", stream, 200, duration_ms=3_600_000))
    found = read(meter)
    assert list(found.requests()) == [(f"GET {stream}", "2xx", 1)]
    assert sum(found.room("administration")[1]) == 0
    assert found.route_summary(f"GET {stream}") is None
