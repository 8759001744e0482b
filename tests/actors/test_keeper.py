"""Who keeps the actors running."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from regsvc.actors.keeper import KeeperGaveUp, keep
from regsvc.ports import Unavailable
from tests.lines import Lines


@dataclass
class Player:
    """An actor that crashes `crashes` times, each after `after` seconds, then plays to the end."""

    crashes: int
    after: float = 0.0
    error: Callable[[], Exception] = lambda: ValueError("stage fright")
    starts: list[float] = field(default_factory=list)

    async def run(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> str:
        self.starts.append(trio.current_time())
        task_status.started(f"start {len(self.starts)}")
        await trio.sleep(self.after)
        if len(self.starts) <= self.crashes:
            raise self.error()
        return "the end"


async def test_returns_what_the_actor_returns(autojump_clock: MockClock, log: Lines) -> None:
    player = Player(crashes=0)
    assert await keep(player.run, name="player") == "the end"
    assert log.events == ["actor_started", "actor_stopped"]
    assert {line["actor"] for line in log.all} == {"player"}


async def test_starts_a_crashed_actor_anew_and_says_why(autojump_clock: MockClock, log: Lines) -> None:
    player = Player(crashes=3)
    assert await keep(player.run, name="player") == "the end"
    waits = [b - a for a, b in zip(player.starts, player.starts[1:], strict=False)]
    assert waits == pytest.approx([0.1, 0.2, 0.4])
    assert [line["crashes"] for line in log.of("actor_crashed")] == [1, 2, 3]
    assert [line["restarts"] for line in log.of("actor_restarted")] == [1, 2, 3]
    crashed = log.of("actor_crashed")[0]
    assert (crashed["level"], crashed["error"], crashed["reason"]) == ("error", "ValueError", "stage fright")
    assert "in run" in crashed["traceback"]


async def test_passes_the_first_start_on_and_no_other(autojump_clock: MockClock) -> None:
    player = Player(crashes=2)
    async with trio.open_nursery() as nursery:
        started: str = await nursery.start(partial(keep, player.run, name="player"))
    assert started == "start 1"
    assert len(player.starts) == 3


async def test_gives_up_after_ten_crashes_in_a_minute(autojump_clock: MockClock, log: Lines) -> None:
    player = Player(crashes=1000)
    with pytest.raises(KeeperGaveUp, match=r"player crashed 10 times in 60 s") as gave_up:
        await keep(player.run, name="player")
    assert len(player.starts) == len(log.of("actor_crashed")) == 10
    assert trio.current_time() < 60
    assert isinstance(gave_up.value.__cause__, ValueError)


async def test_a_crash_now_and_then_is_no_reason_to_give_up(autojump_clock: MockClock, log: Lines) -> None:
    player = Player(crashes=30, after=7)
    assert await keep(player.run, name="player") == "the end"
    assert max(line["wait_s"] for line in log.of("actor_restarted")) <= 5


async def test_a_missing_foundation_at_the_start_is_not_waited_for(log: Lines) -> None:
    async def run(*, task_status: trio.TaskStatus[None]) -> None:  # noqa: ASYNC128 - it never comes that far
        await trio.lowlevel.checkpoint()
        raise Unavailable("database")

    with pytest.raises(Unavailable):
        await keep(run, name="player")
    assert log.events == ["actor_crashed"]


async def test_a_foundation_lost_later_is_a_crash_like_any_other(autojump_clock: MockClock) -> None:
    player = Player(crashes=2, error=lambda: Unavailable("database"))
    assert await keep(player.run, name="player") == "the end"


async def test_cancellation_passes_and_starts_nothing(autojump_clock: MockClock) -> None:
    player = Player(crashes=0, after=100)
    with trio.move_on_after(1) as scope:
        await keep(player.run, name="player")
    assert scope.cancelled_caught
    assert len(player.starts) == 1
