"""The gauger: how a process stands, each second; the outbox now and then, by whoever finds the last census too old."""

import resource
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from regsvc.actors import gauger
from regsvc.observe import Gauge, open_log, start_counting
from regsvc.observe.figures import Figures
from regsvc.observe.metrics import Meter
from regsvc.ports import OutboxCounts, Unavailable
from tests.lines import Lines
from tests.observe.counted import LAYOUT, read

BOOTED = 1000.0  # seconds on the machine's clock when a test begins
AWAY = Unavailable("database", "it is not there")


@dataclass
class Town:
    """A database that can freeze or go away, and the clock and the board of a machine."""

    counts: OutboxCounts = field(default_factory=lambda: OutboxCounts(3, 2, 1, timedelta(seconds=7)))
    newest: float = 0.0
    frozen: bool = False
    away: bool = False
    slow: bool = False
    at: list[float] = field(default_factory=list)

    async def ping(self) -> timedelta:
        self.at.append(trio.current_time())
        await self._answer()
        return timedelta(milliseconds=1)

    async def migrated(self) -> bool:
        raise NotImplementedError("nobody asks that")

    async def outbox(self) -> OutboxCounts:
        if self.slow:
            await trio.sleep_forever()
        await self._answer()
        return self.counts

    async def _answer(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.frozen:
            await trio.sleep_forever()
        if self.away:
            raise AWAY


@pytest.fixture
def meter() -> Iterator[Meter]:
    """Where it is counted."""
    with open_log(Lines(), level="debug", fmt="json") as log:
        start_counting(LAYOUT)
        assert log.meter is not None
        yield log.meter


async def gauge_for(seconds: float, town: Town, meter: Meter, look: Mapping[Gauge, float] | None = None) -> Figures:
    board = meter.layout.gauges["census_at"]
    calendar = gauger.Calendar(lambda: BOOTED + trio.current_time(), lambda: max(town.newest, meter.cells[board]))
    with trio.move_on_after(seconds):
        await gauger.run(lambda: look or {}, town, town, calendar)
    return read(meter)


async def test_each_second_it_tells_how_the_process_stands(autojump_clock: MockClock, meter: Meter) -> None:
    found = await gauge_for(1.5, Town(), meter, {"pool_idle": 4, "connections": 7})
    assert (found.gauge("pool_idle"), found.gauge("connections")) == (4, 7)
    assert found.gauge("loop_lag_seconds") == pytest.approx(0)
    assert found.gauge("resident_memory_bytes") > 10_000_000


async def test_the_outbox_is_counted_every_five_seconds(autojump_clock: MockClock, meter: Meter) -> None:
    town = Town()
    found = await gauge_for(12, town, meter)
    assert town.at == pytest.approx([0, 5, 10])
    assert found.gauge("database_up") == 1
    assert [found.gauge(name) for name in ("outbox_ready", "outbox_leased", "outbox_dead")] == [3, 2, 1]
    assert found.gauge("outbox_oldest_seconds") == 7
    town.counts = OutboxCounts(0, 0, 0, None)
    assert (await gauge_for(6, town, meter)).gauge("outbox_oldest_seconds") == 0


async def test_who_finds_a_census_that_is_new_makes_none(autojump_clock: MockClock, meter: Meter) -> None:
    town = Town(newest=BOOTED + 3)
    await gauge_for(10, town, meter)
    assert town.at == pytest.approx([8])


@pytest.mark.parametrize("how", ["frozen", "away"])
async def test_without_a_database_it_says_so_and_goes_on(autojump_clock: MockClock, meter: Meter, how: str) -> None:
    town = Town()
    await gauge_for(3, town, meter)
    setattr(town, how, True)
    found = await gauge_for(8, town, meter, {"connections": 9})
    assert found.gauge("database_up") == 0
    assert (found.gauge("outbox_ready"), found.gauge("connections")) == (3, 9), "nobody knows better"
    assert found.gauge("loop_lag_seconds") == pytest.approx(0)
    setattr(town, how, False)
    assert (await gauge_for(8, town, meter)).gauge("database_up") == 1


async def test_an_outbox_too_large_to_be_counted_is_no_outage(autojump_clock: MockClock, meter: Meter) -> None:
    town = Town(slow=True)
    found = await gauge_for(8, town, meter)
    assert (found.gauge("database_up"), found.gauge("outbox_ready")) == (1, 0)


async def test_a_loop_that_was_stopped_was_late(autojump_clock: MockClock, meter: Meter) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gauge_for, 1.99, Town(), meter, name="gauger")
        await trio.sleep(0.55)
        autojump_clock.jump(0.25)
    late = read(meter).gauge("loop_lag_seconds")
    assert 0.1 < late <= 0.25


async def test_lines_that_were_dropped_are_told(
    autojump_clock: MockClock, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regsvc.observe.log._current._dropped", 4)
    assert (await gauge_for(2.5, Town(), meter)).counter("log_lines_dropped") == 4


@pytest.mark.parametrize("place", ["/proc/nowhere", "/proc"], ids=["it is not there", "it cannot be opened"])
def test_memory_is_told_where_the_kernel_does_not_show_it(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    shown = gauger.resident_memory()
    monkeypatch.setattr(gauger, "_STATM", Path(place))
    most = float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    monkeypatch.setattr(sys, "platform", "linux")
    assert gauger.resident_memory() >= most * 1024 >= shown / 2
    monkeypatch.setattr(sys, "platform", "darwin")
    assert gauger.resident_memory() < most * 1024
