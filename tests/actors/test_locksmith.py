"""The locksmith: loads the keys at once, at word of them, now and then, and when one's turn comes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from regsvc.actors import locksmith
from regsvc.actors.courier import bell_rope
from regsvc.actors.keeper import keep
from regsvc.ports import Unavailable
from tests.fakes import AWAY
from tests.lines import Lines


@dataclass
class Ring:
    """A ring that notes when it was loaded; a key of it is due at `due`."""

    away: bool = False
    due: float | None = None
    loads: list[float] = field(default_factory=list)
    loaded: bool = False
    error: Exception = AWAY

    async def load(self) -> None:
        self.loads.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self.away:
            raise self.error
        self.loaded = True

    def due_in(self) -> timedelta | None:
        left = None if self.due is None else self.due - trio.current_time()
        return timedelta(seconds=left) if left is not None and left > 0 else None


@asynccontextmanager
async def at_work(ring: Ring) -> AsyncIterator[trio.MemorySendChannel[None]]:
    """A locksmith at work, and his bell; he has ended when the block ends."""
    bell, heard = trio.open_memory_channel[None](1)
    async with trio.open_nursery() as nursery:
        await nursery.start(locksmith.run, heard, ring)
        await wait_all_tasks_blocked()
        yield bell
        bell.close()


async def test_the_keys_are_there_before_he_says_that_he_is(autojump_clock: MockClock) -> None:
    ring = Ring()
    async with at_work(ring):
        assert ring.loads == pytest.approx([0])


async def test_he_looks_every_half_a_minute_and_at_word_of_keys(autojump_clock: MockClock) -> None:
    ring = Ring()
    async with at_work(ring) as bell:
        await trio.sleep(45)
        bell_rope(bell)()
        await trio.sleep(35)
    assert ring.loads == pytest.approx([0, 30, 45, 75])


async def test_he_looks_when_a_key_s_turn_comes(autojump_clock: MockClock) -> None:
    ring = Ring(due=12)
    async with at_work(ring):
        await trio.sleep(50)
    assert ring.loads == pytest.approx([0, 12, 42])


async def test_without_a_database_there_is_nothing_to_start_with(autojump_clock: MockClock) -> None:
    _, heard = trio.open_memory_channel[None](1)
    with pytest.raises(Unavailable):
        await locksmith.run(heard, Ring(away=True))


async def test_he_outlives_the_database_and_looks_again_soon(autojump_clock: MockClock, log: Lines) -> None:
    ring = Ring()
    async with at_work(ring):
        ring.away = True
        await trio.sleep(32.5)
        ring.away = False
        await trio.sleep(40)
    assert ring.loads == pytest.approx([0, 30, 31, 32, 33, 63])
    assert log.events == ["database_unavailable", "database_recovered"]


async def test_a_new_start_needs_no_database_where_the_keys_are_there(autojump_clock: MockClock, log: Lines) -> None:
    ring = Ring(error=LookupError("a bug"))
    bell, heard = trio.open_memory_channel[None](1)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(keep, partial(locksmith.run, heard, ring), name="locksmith"))
        ring.away = True
        await trio.sleep(30.05)
        ring.error = AWAY
        await trio.sleep(60)
        ring.away = False
        await trio.sleep(10)
        bell.close()
    assert log.events.count("actor_crashed") == 1
    assert ring.loads[-1] > 60
    assert log.events[-1] == "actor_stopped"


async def test_cancelled_he_goes(autojump_clock: MockClock) -> None:
    _bell, heard = trio.open_memory_channel[None](1)
    with trio.move_on_after(100) as scope:
        await locksmith.run(heard, Ring())
    assert scope.cancelled_caught
