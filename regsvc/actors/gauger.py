"""Looks how things stand, so that the metrics can show it: this process each second, the outbox now and then.

The outbox is the same whoever asks, so one worker of the machine does: the one that finds the last census too old.
Two may find that at once, which costs a query and changes nothing.
"""

import os
import resource
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import trio

from regsvc import observe
from regsvc.observe import Gauge
from regsvc.ports import Census, Probe, Unavailable

PULSE: Final = 0.1  # seconds between two feelings of it: what stops the loop for longer is always noticed
EVERY: Final = 1.0  # seconds between two looks at this process
CENSUS_EVERY: Final = 5.0  # seconds between two looks at the outbox
PATIENCE: Final = 1.0  # seconds for each of the census' two questions
_STATM: Final = Path("/proc/self/statm")


@dataclass(frozen=True, slots=True)
class Calendar:
    """What all processes of the machine agree on: `now`, and when the `newest` census was."""

    now: Callable[[], float]
    newest: Callable[[], float]


async def run(
    look: Callable[[], Mapping[Gauge, float]],
    probe: Probe,
    census: Census,
    calendar: Calendar,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Gauge until cancelled; `look` tells of this process what its parts know, at once.

    Cancellation: nothing is left half done. Errors: none of the database's; what does not answer is what it tells.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_feel, look, name="pulse")
        nursery.start_soon(_visit, probe, census, calendar, name="census")
        task_status.started()


async def _feel(look: Callable[[], Mapping[Gauge, float]]) -> None:
    """Tell each second how this process stands, and how late the loop was at worst since then."""
    while True:
        worst, end = 0.0, trio.current_time() + EVERY
        while (now := trio.current_time()) < end:
            due = now + PULSE
            await trio.sleep_until(due)
            worst = max(worst, trio.current_time() - due)
        observe.gauge("loop_lag_seconds", worst)
        observe.gauge("resident_memory_bytes", resident_memory())
        for name, value in look().items():
            observe.gauge(name, value)
        observe.count_drops()


async def _visit(probe: Probe, census: Census, calendar: Calendar) -> None:
    while True:
        if calendar.now() - calendar.newest() >= CENSUS_EVERY:
            observe.gauge("database_up", float(await _answers(probe)))
            await _count(census)
            observe.gauge("census_at", calendar.now())
        await trio.sleep(EVERY)


async def _answers(probe: Probe) -> bool:
    with trio.move_on_after(PATIENCE):
        try:
            await probe.ping()
        except Unavailable:
            return False
        return True
    return False


async def _count(census: Census) -> None:
    """Count the outbox; what cannot be counted in time is left as it was: there may be too much of it."""
    with trio.move_on_after(PATIENCE):
        try:
            found = await census.outbox()
        except Unavailable:
            return
        observe.gauge("outbox_ready", found.ready)
        observe.gauge("outbox_leased", found.leased)
        observe.gauge("outbox_dead", found.dead)
        observe.gauge("outbox_oldest_seconds", found.oldest.total_seconds() if found.oldest is not None else 0.0)


def resident_memory() -> float:
    """Return the octets of memory that this process has; where that cannot be told, those it had at most."""
    with suppress(OSError):  # other systems have no such file, and a process may have no descriptor left to read it
        return float(_STATM.read_text("ascii").split()[1]) * _page()
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


@cache
def _page() -> int:
    return os.sysconf("SC_PAGE_SIZE")
