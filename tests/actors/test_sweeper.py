"""The sweeper: tidies in batches, says what it removed, outlives the database."""

from dataclasses import replace
from datetime import timedelta

import pytest
import trio
from trio.testing import MockClock

from regsvc import observe
from regsvc.actors import sweeper
from regsvc.observe.catalogue import layout_of
from regsvc.ports import EVERYTHING, Heap, Partitioned, Swept
from tests.fakes import AWAY, Broom
from tests.lines import Lines

FULL = Swept(1000, 3, 0, 0, 4, 5, 0, more=frozenset({Heap.REGISTRATIONS}))
REST = Swept(20, 0, 1, 7, 2, 0, 6, 8)
NOTHING = Swept()


async def sweep_for(seconds: float, broom: Broom) -> None:
    with trio.move_on_after(seconds):
        await sweeper.run(broom, every=timedelta(seconds=60))


async def test_sweeps_until_nothing_more_is_found_then_waits(autojump_clock: MockClock, log: Lines) -> None:
    broom = Broom([FULL, FULL, REST])
    await sweep_for(130, broom)
    assert broom.at == pytest.approx([0, 0, 0, 60, 120])
    # What had no full batch is not asked for again: some of it is read from end to end.
    assert broom.asked == [EVERYTHING, {Heap.REGISTRATIONS}, {Heap.REGISTRATIONS}, EVERYTHING, EVERYTHING]
    [line] = log.of("sweep_done")
    kinds = "registrations", "codes", "addresses", "mails", "sessions", "limits", "answers", "events"
    assert [line[kind] for kind in kinds] == [2020, 6, 1, 7, 10, 10, 6, 8]


async def test_says_nothing_when_nothing_was_removed(autojump_clock: MockClock, log: Lines) -> None:
    await sweep_for(200, Broom([NOTHING]))
    assert not log.events


@pytest.mark.parametrize("kind", ["limits", "answers"])
async def test_tells_of_a_sweep_that_found_one_kind_alone(autojump_clock: MockClock, log: Lines, kind: str) -> None:
    await sweep_for(50, Broom([replace(NOTHING, limits=kind == "limits", answers=kind == "answers")]))
    [line] = log.of("sweep_done")
    assert line[kind] == 1


async def test_outlives_the_database_and_tells_of_what_was_done_before(autojump_clock: MockClock, log: Lines) -> None:
    broom = Broom([FULL, AWAY, AWAY, REST])
    await sweep_for(190, broom)
    assert broom.at == pytest.approx([0, 0, 60, 120, 180])
    assert log.events == ["sweep_done", "database_unavailable", "sweep_done", "database_recovered"]
    assert [line["registrations"] for line in log.of("sweep_done")] == [1000, 20]


async def test_a_bug_leaves(autojump_clock: MockClock) -> None:
    with pytest.raises(LookupError):
        await sweeper.run(Broom([LookupError("a bug")]))


async def test_rests_longer_than_it_works_and_keeps_its_turn_meanwhile(autojump_clock: MockClock) -> None:
    broom = Broom([FULL, FULL, REST], takes=2)
    await sweep_for(50, broom)
    assert broom.at == pytest.approx([0, 8, 16])
    assert broom.turns == [timedelta(seconds=54), timedelta(0), timedelta(0)]


async def test_does_not_rest_so_long_that_another_would_take_over(autojump_clock: MockClock) -> None:
    broom = Broom([FULL, REST], takes=30)
    await sweep_for(80, broom)
    assert broom.at == pytest.approx([0, 40])


async def test_leaves_a_sweep_to_whose_turn_it_is(autojump_clock: MockClock, log: Lines) -> None:
    broom = Broom([REST], partitions=[Partitioned(("2026-12",))], mine=[False, False, True])
    await sweep_for(130, broom)
    assert broom.at == pytest.approx([120])
    assert log.events == ["audit_partitions", "sweep_done"]


async def test_tells_how_late_it_was_at_its_worst(autojump_clock: MockClock, log: Lines) -> None:
    await sweep_for(50, Broom([FULL, FULL, REST], lags=[7.0, 9.25, 0.0]))
    [line] = log.of("sweep_done")
    assert line["lag_s"] == 9.25


async def test_tells_what_became_of_the_audit_trail(autojump_clock: MockClock, log: Lines) -> None:
    made, dropped = Partitioned(("2026-12", "2027-01"), 3, ("events_2025_11",)), Partitioned((), 0, ("a",))
    await sweep_for(190, Broom([], partitions=[made, Partitioned(), AWAY, dropped]))
    lines = log.of("audit_partitions")
    assert [(line["made"], line["moved"], line["dropped"]) for line in lines] == [
        (["2026-12", "2027-01"], 3, ["events_2025_11"]),
        ([], 0, ["a"]),
    ]
    assert log.events == ["audit_partitions", "database_unavailable", "audit_partitions", "database_recovered"]


@pytest.mark.parametrize("mine", [True, False])
async def test_shows_how_late_the_sweeping_is_whoever_sweeps(autojump_clock: MockClock, *, mine: bool) -> None:
    shown: list[float] = []

    class Watched(Broom):
        async def lag(self) -> timedelta:
            shown.append(cells[layout.gauges["sweeper_lag_seconds"]])
            return await super().lag()

    with observe.open_log(Lines()) as log:
        layout = layout_of()
        log.start_counting(layout)
        assert log.meter is not None
        cells = log.meter.cells
        await sweep_for(70, Watched([], lags=[7.0, 0.5, 3.0], mine=[mine, False]))
        shown.append(cells[layout.gauges["sweeper_lag_seconds"]])
    assert shown == ([0.0, 7.0, 0.5, 3.0] if mine else [0.0, 7.0, 0.5])
