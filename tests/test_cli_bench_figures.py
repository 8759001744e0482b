"""`regsvc bench`: figures. Percentiles against exact ones, arrivals against their rate, a run against its JSON."""

import json
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regsvc.cli.bench.compare import as_json, changes, differences
from regsvc.cli.bench.histogram import COARSE, FINE, Histogram
from regsvc.cli.bench.record import Recorder
from regsvc.cli.bench.run import NoRun, Run, class_of, is_good
from regsvc.cli.bench.verdict import is_void, warnings
from tests.benching import plan, ran, recorded

SHARES = (0.0001, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0)
MICRO = st.one_of(st.integers(0, 5000), st.integers(0, 10**7), st.integers(0, 3600 * 10**6))


def filled(values: list[int], bits: int = FINE) -> Histogram:
    found = Histogram(bits)
    for value in values:
        found.record((value + 0.5) / 1e6)
    return found


# ------------------------------------------------------------------------------------------------ histogram


@given(st.lists(MICRO, min_size=1, max_size=300), st.sampled_from([FINE, COARSE]))
def test_percentiles_are_those_of_the_sorted_list(values: list[int], bits: int) -> None:
    found = filled(values, bits)
    exact = sorted(values)
    for share in SHARES:
        value = exact[max(math.ceil(round(share * len(exact), 6)), 1) - 1]
        told = round(found.quantile(share) * 1e6)
        assert value <= told <= value * (1 + 2 ** (1 - bits)), share
    assert found.quantiles(SHARES) == [found.quantile(share) for share in SHARES]
    assert round(found.longest() * 1e6) == exact[-1]
    assert found.least == exact[0]
    assert found.mean() * 1e6 == pytest.approx(sum(values) / len(values))
    assert found.count == len(values)


@given(st.lists(MICRO, max_size=50), st.lists(MICRO, max_size=50))
def test_two_together_are_as_one(some: list[int], others: list[int]) -> None:
    merged = filled(some)
    merged.merge(filled(others))
    assert merged == filled(some + others)
    assert Histogram.of(json.loads(json.dumps(merged.as_json()))) == merged


@given(st.lists(MICRO, min_size=1, max_size=100), MICRO)
def test_how_many_took_longer(values: list[int], bound: int) -> None:
    least = sum(value > bound * (1 + 2 ** (1 - FINE)) for value in values)
    most = sum(value > bound * (1 - 2 ** (1 - FINE)) - 1 for value in values)
    assert least <= filled(values).above(bound / 1e6) <= most


def test_the_odd_ones() -> None:
    empty = Histogram()
    assert empty.quantiles(SHARES) == []
    assert all(math.isnan(value) for value in (empty.quantile(0.5), empty.mean(), empty.longest()))
    before = Histogram()
    before.record(-0.001)  # a clock that is read twice may seem to go back
    assert (before.count, before.longest()) == (1, 0.0)
    with pytest.raises(ValueError, match="8 bits"):
        before.merge(Histogram(COARSE))
    assert [filled([1] * 100).known(share) for share in (0.5, 0.99, 0.999)] == [True, True, False]


# ------------------------------------------------------------------------------------------------- arrivals


@pytest.mark.parametrize("rate", [0.5, 7.0, 333.0])
def test_even_arrivals_are_even(rate: float) -> None:
    times = [*plan(rate=rate, duration=20.0, warm_up=4.0).times()]
    assert len(times) == math.ceil(24 * rate)
    assert times[0] == 0
    assert all(later - earlier == pytest.approx(1 / rate) for earlier, later in pairwise(times))


def test_in_a_closed_loop_nobody_is_due() -> None:
    assert [*plan(rate=None).times()] == []


def test_random_arrivals_have_their_rate_and_their_seed() -> None:
    some = [[*plan(rate=200.0, duration=50.0, arrivals="random", seed=seed).times()] for seed in (1, 1, 2)]
    assert some[0] == some[1] != some[2]
    for times in some:
        assert len(times) == pytest.approx(10_000, rel=0.05)
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert sum(gap > 1 / 200 for gap in gaps) / len(gaps) == pytest.approx(math.exp(-1), rel=0.06)


def test_a_curve_has_as_many_points_as_can_be_seen() -> None:
    assert [plan(duration=seconds).interval for seconds in (1.0, 120.0, 121.0, 3600.0, 1e6)] == [1, 1, 2, 30, 3600]


# ---------------------------------------------------------------------------------------------------- a run


def test_what_was_due_in_the_warm_up_is_forgotten() -> None:
    recorder = Recorder(1.0, since=10.0, until=20.0)
    recorder.came(9.9, 9.9)
    recorder.step("x", 9.9, 9.95, "200")
    recorder.queued(9.0, 9.5)
    recorder.went(9.9)
    assert (recorder.offered, recorder.finished, recorder.waited.count, recorder.steps) == (0, 0, 0, {})
    recorder.step("x", 9.9, 10.5, "503")  # an answer that came in time is one, whenever it was due
    recorder.step("x", 19.9, 20.5, "200")  # but not one that did not
    recorder.step("x", 15.0, 16.0, "timeout")  # nor none
    assert (recorder.in_time, recorder.good) == (1, 0)
    assert {outcome: times.count for outcome, times in recorder.steps["x"].items()} == {"200": 1, "timeout": 1}


def test_curves_have_a_point_for_each_interval() -> None:
    line = recorded(plan(duration=60.0)).timeline(60.0)
    assert (line.interval, sum(line.offered), len(line.offered)) == (1.0, 1200, 60)
    assert sum(line.answered["5xx"]) == 12
    assert sum(line.answered["2xx"]) == 1248
    assert line.steps["GET /livez"]["max"][30] == pytest.approx(10, rel=0.01)
    assert line.steps["GET /livez"]["p50"][30] == pytest.approx(5, rel=0.01)
    assert line.steps["register"]["p99"][5] is None  # a 503


def test_what_was_latest_is_of_the_last_whole_interval_or_of_the_first() -> None:
    recorder = Recorder(30.0, until=60.0)
    recorder.step("x", 1.0, 1.5, "200")
    assert recorder.latest(-1) == recorder.latest(0) == [("x", 1, 500.0, 500.0, 500.0)]
    recorder.step("x", 31.0, 32.0, "200")
    assert recorder.latest(0) == [("x", 1, 500.0, 500.0, 500.0)]
    assert recorder.latest(1)[0][-1] == 1000
    assert recorder.latest(5) == []


def test_a_run_is_the_same_after_its_json() -> None:
    run = ran(warnings=("something",), interrupted=True)
    written = json.dumps(run.as_json())
    assert Run.of(json.loads(written)) == run
    figures = json.loads(written)["steps"]["GET /livez"]["200"]
    assert (figures["count"], figures["per_s"], figures["p50_ms"]) == (1200, 20.0, pytest.approx(5, rel=0.01))
    assert figures["p99.99_ms"] is None  # there were not as many


@pytest.mark.parametrize("plain", [{}, [], 5, None, {"format": 2}, {"format": 1}, {"format": 1, "timeline": {}}])
def test_what_is_no_run_is_refused(plain: object) -> None:
    with pytest.raises(NoRun):
        Run.of(plain)


def test_outcomes_are_told_apart() -> None:
    assert [is_good(word) for word in ("200", "304", "done", "404", "503", "timeout")] == [True] * 3 + [False] * 3
    assert [class_of(word) for word in ("201", "404", "503", "done", "timeout")] == ["2xx", "4xx", "5xx", "2xx", "none"]


# -------------------------------------------------------------------------------------------------- verdicts


def having(outcome: str, count: int = 1) -> Run:
    return ran(steps={"x": {outcome: filled([5] * count)}})


def test_nothing_is_said_where_nothing_is_wrong() -> None:
    assert warnings(ran()) == ()
    assert not is_void(ran())


def test_limits_are_named_with_what_lifts_them() -> None:
    found = having("429", 3)
    assert "REGSVC_ENABLE_RATE_LIMITING=false" in warnings(found)[0]
    assert is_void(found)


def test_a_run_without_a_good_answer_is_none() -> None:
    assert warnings(having("refused", 7)) == ("No answer was good: refused (7).",)
    assert is_void(having("503"))
    assert not is_void(having("304"))
    assert not is_void(ran(steps={}))


def test_a_generator_that_cannot_keep_up_says_so() -> None:
    few, many = filled([100] * 990 + [11_000] * 9), filled([100] * 980 + [40_000] * 20)
    assert warnings(ran(late=few)) == ()
    assert "2.0% of the arrivals" in warnings(ran(late=many))[0]
    assert "p99 40 ms" in warnings(ran(late=many))[0]
    assert "95% of a core" in warnings(ran(busy=0.95))[0]
    assert "--connections" in warnings(ran(waited=filled([7000])))[0]
    assert "5 arrivals were still" in warnings(ran(unfinished=5))[0]


# ------------------------------------------------------------------------------------------------- two runs


def test_a_run_is_compared_with_a_slower_one() -> None:
    one = ran()
    other = ran(recorded(one.plan, factor=2.0), good_per_s=10.0)
    found = {(it.step, it.outcome, it.figure): it for it in changes(one, other)}
    assert found["GET /livez", "200", "p99 ms"].ratio == pytest.approx(2, rel=0.01)
    assert found["GET /livez", "200", "p99 ms"].colour == "red"
    assert found["all", "", "good per s"].colour == "red"
    assert found["all", "", "answers per s"].colour == ""
    assert ("GET /livez", "200", "p99.9 ms") not in found  # one of 1,200 is no percentile
    assert next(it for it in changes(other, one) if it.figure == "p99 ms").colour == "green"
    assert differences(one, other) == []
    assert as_json(one, other)["differences"] == []
    assert len(json.dumps(as_json(one, other))) > 500


def test_what_makes_runs_hard_to_compare_is_said() -> None:
    other = ran(plan=plan(rate=None, scenario="login"), host="another", warnings=("Late.",))
    told = differences(ran(), other)
    assert "Not the same rate: 50 and max." in told
    assert "Not the same scenario: light and login." in told
    assert "Not the same machine: a machine and another." in told
    assert told[-1] == "B: Late."
    only = ran(steps={"login": {"200": filled([5])}}, answered_per_s=0.0)
    steps = {(it.step, it.figure) for it in changes(only, other)}
    assert {("login", "count"), ("GET /livez", "count")} <= steps
    assert next(changes(only, other)).ratio is None
