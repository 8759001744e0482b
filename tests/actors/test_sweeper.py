"""The sweeper: tidies in batches, says what it removed, outlives the database."""

from dataclasses import replace
from datetime import timedelta

import pytest
import trio
from trio.testing import MockClock

from regsvc.actors import sweeper
from regsvc.ports import Swept
from tests.fakes import AWAY, Broom
from tests.lines import Lines

FULL = Swept(1000, 3, 0, 0, 4, 5, 0, more=True)
REST = Swept(20, 0, 1, 7, 2, 0, 6, more=False)
NOTHING = Swept(0, 0, 0, 0, 0, 0, 0, more=False)


async def sweep_for(seconds: float, broom: Broom) -> None:
    with trio.move_on_after(seconds):
        await sweeper.run(broom, every=timedelta(seconds=60))


async def test_sweeps_until_nothing_more_is_found_then_waits(autojump_clock: MockClock, log: Lines) -> None:
    broom = Broom([FULL, FULL, REST])
    await sweep_for(130, broom)
    assert broom.at == pytest.approx([0, 0, 0, 60, 120])
    [line] = log.of("sweep_done")
    kinds = "registrations", "codes", "addresses", "mails", "sessions", "limits", "answers"
    assert [line[kind] for kind in kinds] == [2020, 6, 1, 7, 10, 10, 6]


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
