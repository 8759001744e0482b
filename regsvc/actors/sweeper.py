"""Tidies: expired rows go, in small batches, and the audit trail's months come and go.

Rule 1. Nothing is ever correct because it ran.
Rule 2. One of all sweepers sweeps; the others look every so often whether it still does.
Rule 3. It works a quarter of the time at most: however many rows are due, whoever registers meanwhile hardly notices.
"""

from datetime import timedelta
from typing import Final

import trio

from regsvc import observe
from regsvc.ports import EVERYTHING, Housekeeping, Swept, Unavailable

EVERY: Final = timedelta(seconds=60)
BATCH: Final = 1000  # rows of each kind in one statement: tens of milliseconds, and few locks
EARLY: Final = 0.9  # of `EVERY` has to be over for a sweep to begin: nobody wakes to the millisecond
REST: Final = 3.0  # times as long as a batch took
REST_MAX: Final = 10.0  # seconds; who rested longer would lose its turn
AT_ONCE: Final = timedelta(0)


async def run(
    housekeeping: Housekeeping,
    *,
    every: timedelta = EVERY,
    batch: int = BATCH,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Sweep until nothing more is found, every so often, until cancelled.

    Cancellation: a batch is one statement, done or not done. Errors: none; without a database it tries again next time.
    """
    task_status.started()
    while True:
        try:
            if await housekeeping.turn(every * EARLY):
                await _partition(housekeeping)
                await _sweep(housekeeping, batch)
            await _look(housekeeping)
        except Unavailable as away:
            observe.database_away(away.why)
        else:
            observe.database_back()
        await trio.sleep(every.total_seconds())


async def _partition(housekeeping: Housekeeping) -> None:
    done = await housekeeping.partition()
    if done.made or done.dropped:
        observe.emit("audit_partitions", made=done.made, moved=done.moved, dropped=done.dropped)


async def _look(housekeeping: Housekeeping) -> timedelta:
    """Measure how late the sweeping is; everybody does so, whoever's turn it is, so that nobody shows an old figure."""
    lag = await housekeeping.lag()
    observe.gauge("sweeper_lag_seconds", lag.total_seconds())
    return lag


async def _sweep(housekeeping: Housekeeping, batch: int) -> None:
    began, done, lag = trio.current_time(), Swept(more=EVERYTHING), timedelta(0)
    try:
        while done.more:
            lag = max(lag, await _look(housekeeping))
            asked_at = trio.current_time()
            done += await housekeeping.sweep(batch, done.more)
            if done.more:
                await housekeeping.turn(AT_ONCE)  # whoever sees a long sweep under way does not begin another
                await trio.sleep(min((trio.current_time() - asked_at) * REST, REST_MAX))
    finally:
        if done.total:  # also of a sweep that was broken off: those rows are gone
            _tell(done, lag, took=trio.current_time() - began)


def _tell(done: Swept, lag: timedelta, *, took: float) -> None:
    observe.emit(
        "sweep_done",
        registrations=done.registrations,
        codes=done.codes,
        addresses=done.addresses,
        mails=done.mails,
        sessions=done.sessions,
        limits=done.limits,
        answers=done.answers,
        events=done.events,
        lag_s=round(lag.total_seconds(), 3),
        took_ms=round(took * 1000),
    )
