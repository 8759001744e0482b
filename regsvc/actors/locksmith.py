"""Keeps the signing keys in memory as fresh as those in the database: a new key is known before its turn comes.

The bell rings when another process made a key, and after a new connection to hear of it; word may be lost, so the keys
are looked at every half a minute as well.
"""

from datetime import timedelta
from typing import Final, Protocol

import trio

from regsvc import observe
from regsvc.ports import Unavailable

EVERY: Final = timedelta(seconds=30)
AGAIN: Final = timedelta(seconds=1)  # while the database is away


class Ring(Protocol):
    """The signing keys in memory."""

    @property
    def loaded(self) -> bool:
        """Whether there was a load that came to its end."""
        ...

    async def load(self) -> None:
        """Read all keys. Raises Unavailable; the ring stays as it was then."""
        ...

    def due_in(self) -> timedelta | None:
        """Return how long until a key begins to sign or retires; None when all stays as it is."""
        ...


async def run(
    bell: trio.MemoryReceiveChannel[None],
    ring: Ring,
    *,
    every: timedelta = EVERY,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Load the ring, then again at each ring of the bell, every so often, and when a key's turn comes or ends.

    Ends when `bell` is closed by its last sender; it is not closed here. Cancellation: the ring is the old one or the
    new one. Errors: Unavailable from the very first load, for without keys nobody comes in; later the old ring stays.
    """
    if not ring.loaded:
        await ring.load()
    task_status.started()
    wait = _wait(ring, every)
    while True:
        with trio.move_on_after(wait.total_seconds()):
            try:
                await bell.receive()
            except trio.EndOfChannel:
                return
        wait = _wait(ring, every) if await _load(ring) else min(every, AGAIN)


async def _load(ring: Ring) -> bool:
    try:
        await ring.load()
    except Unavailable as away:
        observe.database_away(away.why)
        return False
    observe.database_back()
    return True


def _wait(ring: Ring, every: timedelta) -> timedelta:
    due_in = ring.due_in()
    return every if due_in is None else min(due_in, every)
