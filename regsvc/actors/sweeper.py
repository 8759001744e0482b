"""Tidies: expired rows go, in small batches; nothing is ever correct because it ran."""

from datetime import timedelta
from typing import Final

import trio

from regsvc import observe
from regsvc.ports import Housekeeping, Swept, Unavailable

EVERY: Final = timedelta(seconds=60)
BATCH: Final = 1000  # rows of each kind in one statement: tens of milliseconds, and few locks


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
            await _sweep(housekeeping, batch)
        except Unavailable as away:
            observe.database_away(str(away))
        else:
            observe.database_back()
        await trio.sleep(every.total_seconds())


async def _sweep(housekeeping: Housekeeping, batch: int) -> None:
    began = trio.current_time()
    done = Swept(registrations=0, codes=0, addresses=0, mails=0, sessions=0, limits=0, answers=0, more=True)
    try:
        while done.more:
            done = _sum(done, await housekeeping.sweep(batch))
            await trio.lowlevel.checkpoint()  # whatever the port does, a long sweep can be cancelled
    finally:
        if done.total:  # also of a sweep that was broken off: those rows are gone
            observe.emit(
                "sweep_done",
                registrations=done.registrations,
                codes=done.codes,
                addresses=done.addresses,
                mails=done.mails,
                sessions=done.sessions,
                limits=done.limits,
                answers=done.answers,
                took_ms=round((trio.current_time() - began) * 1000),
            )


def _sum(before: Swept, now: Swept) -> Swept:
    return Swept(
        registrations=before.registrations + now.registrations,
        codes=before.codes + now.codes,
        addresses=before.addresses + now.addresses,
        mails=before.mails + now.mails,
        sessions=before.sessions + now.sessions,
        limits=before.limits + now.limits,
        answers=before.answers + now.answers,
        more=now.more,
    )
