"""Keeps an actor running: a crash is logged, counted and followed by a new start, until there are too many."""

from collections import deque
from collections.abc import Awaitable
from typing import Final, Protocol, TypeVar

import trio

from regsvc import observe
from regsvc.ports import Unavailable

FIRST_WAIT: Final = 0.1  # seconds before the first new start; doubled at each crash
LONGEST_WAIT: Final = 5.0  # seconds; ten crashes then take 25 s, so that a hopeless actor is found out in a minute
CRASHES: Final = 10  # within WINDOW; one more new start would not help either
WINDOW: Final = 60.0  # seconds

T_contra = TypeVar("T_contra", contravariant=True)
Started_co = TypeVar("Started_co", covariant=True)
Result_co = TypeVar("Result_co", covariant=True)


class Actor(Protocol[Started_co, Result_co]):
    """An actor's `run` with everything bound but its task status."""

    def __call__(self, *, task_status: trio.TaskStatus[Started_co]) -> Awaitable[Result_co]:
        """Run."""
        ...


class KeeperGaveUp(Exception):  # noqa: N818 - it is what happened
    """An actor crashed too often; its worker must end, and be replaced."""


class _FirstStart(trio.TaskStatus[T_contra]):
    """Passes the first `started` on; the starter waits for one only."""

    def __init__(self, task_status: trio.TaskStatus[T_contra]) -> None:
        self._task_status = task_status
        self.seen = False

    def started(self, value: T_contra | None = None) -> None:
        if not self.seen:
            self.seen = True
            self._task_status.started(value)  # type: ignore[arg-type]  # None where T is None, which mypy cannot relate
            observe.emit("actor_started")


async def keep(  # noqa: ASYNC128 - `started` is called by the actor
    run: Actor[Started_co, Result_co],
    *,
    name: str,
    crashes: int = CRASHES,
    within: float = WINDOW,
    task_status: trio.TaskStatus[Started_co] = trio.TASK_STATUS_IGNORED,
) -> Result_co:
    """Run the actor until it returns, and return what it returned; start it anew after each crash.

    `started` is passed on once, from whichever start came that far. Cancellation: passes through.
    Errors: KeeperGaveUp after `crashes` crashes `within` seconds; Unavailable before the first `started`: it stands on
    something that is not there, which the worker must hear of.
    """
    recent: deque[float] = deque(maxlen=crashes)
    first = _FirstStart(task_status)
    restarts = 0
    with observe.bind(actor=name):
        while True:
            try:
                result = await run(task_status=first)
            except Exception as crash:
                wait = _count(recent, crash, within)
                if isinstance(crash, Unavailable) and not first.seen:
                    raise
                if wait is None:
                    raise KeeperGaveUp(f"{name} crashed {crashes} times in {within:g} s") from crash
                await trio.sleep(wait)
                restarts += 1
                observe.emit("actor_restarted", restarts=restarts, wait_s=wait)
            else:
                observe.emit("actor_stopped")
                return result


def _count(recent: deque[float], crash: Exception, within: float) -> float | None:
    """Log the crash; return how long to wait before the next start, None when it is one too many."""
    now = trio.current_time()
    recent.append(now)
    lately = sum(now - at < within for at in recent)
    observe.exception("actor_crashed", crash, crashes=lately)
    return None if lately == recent.maxlen else min(FIRST_WAIT * 2.0 ** (lately - 1), LONGEST_WAIT)
