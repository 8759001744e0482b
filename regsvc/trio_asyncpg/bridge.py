"""What asyncpg's protocol asks of an event loop, answered by Trio: futures, timers, tasks.

Written by hand because nothing published does it: trio-asyncio runs a whole asyncio loop inside Trio and costs several
times as much per query. asyncpg's coroutines only ever await futures made by `loop.create_future()`, so a future whose
`__await__` parks the Trio task is enough; no asyncio event loop runs anywhere.
"""

import asyncio
import heapq
import logging
import types
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from math import inf
from typing import Any, Final, TypeVar

import trio

from regsvc.trio_asyncpg.errors import ConnectionLost
from regsvc.trio_asyncpg.internals import ConnectionDoesNotExistError, InternalClientError

T = TypeVar("T")

LOG: Final = logging.getLogger(__name__)
FILE_THREADS: Final = 4  # threads for files handed to COPY; of the same order as the connections that copy at once
COMPACT_ABOVE: Final = 256  # timers; below that, sweeping out cancelled ones costs more than keeping them

_PENDING: Final = 0
_DONE: Final = 1
_FAILED: Final = 2
_CANCELLED: Final = 3


class Future:
    """A result that one Trio task waits for; what asyncpg takes for an `asyncio.Future`.

    Callbacks run at once, inside `set_result` and its like. A cancelled wait cancels the future, which is how asyncpg
    learns that it has to cancel the statement.
    """

    __slots__ = ("_callbacks", "_state", "_task", "_value")

    def __init__(self) -> None:
        self._state = _PENDING
        self._value: Any = None
        self._task: trio.lowlevel.Task | None = None
        self._callbacks: list[Callable[[Future], object]] = []

    def __await__(self) -> Generator[Any, Any, Any]:
        if self._state == _PENDING:
            if self._task is not None:
                raise trio.BusyResourceError("another task already waits for this future")
            self._task = trio.lowlevel.current_task()
            wait = trio.lowlevel.wait_task_rescheduled(self._abort)  # noqa: ASYNC105  # awaited on the next line
            yield from wait.__await__()
        return self.result()

    def _abort(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._task = None
        self.cancel()
        return trio.lowlevel.Abort.SUCCEEDED

    def done(self) -> bool:
        """Whether it has a result, an exception, or was cancelled."""
        return self._state != _PENDING

    def cancelled(self) -> bool:
        """Whether the wait for it was given up."""
        return self._state == _CANCELLED

    def result(self) -> Any:
        """Return the result or raise the exception."""
        if self._state == _DONE:
            return self._value
        if self._state == _FAILED:
            raise self._value
        if self._state == _CANCELLED:
            raise asyncio.CancelledError
        raise asyncio.InvalidStateError("the result is not there yet")

    def exception(self) -> BaseException | None:
        """Return the exception, or None where there is a result."""
        if self._state == _FAILED:
            return self._value  # type: ignore[no-any-return]  # set by set_exception only
        self.result()
        return None

    def set_result(self, value: Any) -> None:
        """Finish it with `value` and wake who waits."""
        self._finish(_DONE, value)

    def set_exception(self, error: BaseException) -> None:
        """Finish it with `error`, which is raised where it is awaited.

        asyncpg says that a connection was lost with a PostgresError made by itself, or, when the server has said its
        last word but not hung up yet, that the protocol is in the wrong state; here both become an OSError.
        """
        if type(error) is ConnectionDoesNotExistError or (
            type(error) is InternalClientError and str(error).startswith("cannot switch to state")
        ):
            lost = ConnectionLost(str(error))
            lost.__cause__ = error.__cause__
            error = lost
        self._finish(_FAILED, error)

    def cancel(self, msg: object = None) -> bool:
        """Give up waiting; False when it was done already."""
        if self._state != _PENDING:
            return False
        self._finish(_CANCELLED, None)
        return True

    def add_done_callback(self, callback: Callable[["Future"], object]) -> None:
        """Call `callback(self)` when done, or now."""
        if self._state == _PENDING:
            self._callbacks.append(callback)
        else:
            callback(self)

    async def wait_done(self) -> None:
        """Wait until it is done, whatever it brings; cancelling this wait leaves the future alone."""
        if self._state == _PENDING:
            event = trio.Event()
            self.add_done_callback(lambda _: event.set())
            await event.wait()

    def _finish(self, state: int, value: Any) -> None:
        if self._state != _PENDING:
            raise asyncio.InvalidStateError("the future is done already")
        self._state = state
        self._value = value
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None
        for callback in self._callbacks:
            callback(self)


class Timer:
    """A call due at `when` (Trio's clock); what asyncpg takes for an `asyncio.TimerHandle`."""

    __slots__ = ("_timers", "args", "callback", "when")

    def __init__(self, timers: "Timers", when: float, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._timers = timers
        self.when = when
        self.callback: Callable[..., object] | None = callback
        self.args = args

    def cancel(self) -> None:
        """Drop the call; nothing when it was made or dropped before."""
        if self.callback is not None:
            self.callback = None
            self.args = ()
            self._timers.cancelled()

    def __lt__(self, other: "Timer") -> bool:
        return self.when < other.when


class Timers:
    """All deadlines of one loop on one heap, served by one task: a command timeout then costs no cancel scope.

    A cancelled timer stays on the heap until it is due or until half of the heap is cancelled ones.
    """

    __slots__ = ("_dead", "_heap", "_sleep")

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._dead = 0
        self._sleep = trio.CancelScope(deadline=inf)

    def add(self, when: float, callback: Callable[..., object], args: tuple[Any, ...]) -> Timer:
        """Call `callback(*args)` at `when`."""
        timer = Timer(self, when, callback, args)
        heapq.heappush(self._heap, timer)
        self._sleep.deadline = min(when, self._sleep.deadline)
        return timer

    def cancelled(self) -> None:
        """Note that one timer on the heap is dead; called by `Timer.cancel`."""
        self._dead += 1
        if self._dead > COMPACT_ABOVE and self._dead * 2 > len(self._heap):
            self._heap = [timer for timer in self._heap if timer.callback is not None]
            heapq.heapify(self._heap)
            self._dead = 0

    async def run(self) -> None:
        """Make each call when it is due, until cancelled."""
        while True:
            # The scope made before: `add` may have moved its deadline already.
            with self._sleep:
                await trio.sleep_forever()
            self._sleep = trio.CancelScope(deadline=inf)
            self._call_due(trio.current_time())
            self._sleep.deadline = self._heap[0].when if self._heap else inf

    def _call_due(self, now: float) -> None:
        while self._heap and self._heap[0].when <= now:
            timer = heapq.heappop(self._heap)
            callback, timer.callback = timer.callback, None
            if callback is None:
                self._dead -= 1
            else:
                callback(*timer.args)


class Tasks:
    """The tasks that serve connections, in the nursery of whoever owns these.

    They are sheltered from a cancellation of the owner: a COMMIT shielded by its caller needs the reader alive. They
    end when `close` is called, which the owner does when its body has ended, however it ended.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._shelters: set[trio.CancelScope] = set()
        self.closed = False
        self.timers = Timers()
        self.threads = trio.CapacityLimiter(FILE_THREADS)
        self._wanted: deque[tuple[Callable[..., Awaitable[object]], tuple[object, ...], str]] = deque()
        self._bell = trio.Event()
        nursery.start_soon(self._shelter, self.timers.run, (), name="trio_asyncpg timers")
        nursery.start_soon(self._shelter, self._start_wanted, (), name="trio_asyncpg starter")

    def spawn(self, function: Callable[..., Awaitable[object]], *args: object, name: str) -> None:
        """Run `function(*args)` in the nursery, sheltered; not at all once closed.

        Another task starts it: asyncpg asks for a CancelRequest while Trio walks over the tasks of a cancelled scope,
        and a new one among them would break that walk.
        """
        self._wanted.append((function, args, name))
        self._bell.set()

    async def _start_wanted(self) -> None:
        while True:
            await self._bell.wait()
            self._bell = trio.Event()
            while self._wanted:
                function, args, name = self._wanted.popleft()
                self._nursery.start_soon(self._shelter, function, args, name=name)

    async def _shelter(self, function: Callable[..., Awaitable[object]], args: tuple[object, ...]) -> None:
        # No deadline of its own: `close`, in the owner's finally clause, is what ends it.
        with trio.CancelScope(shield=True) as scope:
            self._shelters.add(scope)
            if self.closed:
                scope.cancel(reason="closed before the task began")
            try:
                await function(*args)
            finally:
                self._shelters.discard(scope)

    def close(self) -> None:
        """End every task."""
        self.closed = True
        for scope in self._shelters:
            scope.cancel(reason="the owner of the connections is done")


class Loop:
    """The event loop that asyncpg sees, one for each connection: futures, timers, tasks, nothing else."""

    def __init__(self, tasks: Tasks) -> None:
        self.tasks = tasks
        self.last = Future()  # the last one made, which tells whether a statement is under way
        self.last.set_result(None)

    def create_future(self) -> Future:
        """Make a future."""
        self.last = future = Future()
        return future

    def time(self) -> float:
        """Return the time of Trio's clock."""
        return trio.current_time()

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call `callback(*args)` in `delay` seconds."""
        return self.tasks.timers.add(trio.current_time() + delay, callback, args)

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Call `callback(*args)` now; asyncpg tells listeners of its own kind this way, and they must keep order.

        What a listener raises is logged: it runs inside the reader, whose connection is not to blame.
        """
        try:
            callback(*args)
        except Exception:
            LOG.exception("a listener failed: %r", callback)

    def create_task(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Run a listener that is a coroutine function in a task of its own; what it raises is logged."""

        async def run() -> None:
            try:
                await coroutine
            except Exception:
                LOG.exception("a listener failed: %r", coroutine)

        if self.tasks.closed:
            coroutine.close()
        else:
            self.tasks.spawn(run, name="trio_asyncpg listener")

    async def run_in_executor(self, _executor: None, function: Callable[..., T], *args: Any) -> T:
        """Run `function(*args)` on a thread; asyncpg reads and writes the files of COPY this way."""
        return await trio.to_thread.run_sync(function, *args, limiter=self.tasks.threads)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Log what asyncpg has to say to its loop."""
        LOG.error("%s", context.get("message"))

    def is_closed(self) -> bool:
        """Whether the owner of the connections is done."""
        return self.tasks.closed

    def get_debug(self) -> bool:
        """Say no: asyncpg need not note where each connection was made."""
        return False


@types.coroutine
def driven(coroutine: Coroutine[Any, Any, T], pause: Callable[[], Awaitable[None]]) -> Generator[Any, Any, T]:
    """Run a coroutine of asyncpg that also calls `asyncio.sleep(0)`: each such bare yield becomes `await pause()`.

    When the pause is cancelled, the coroutine is told of a timeout, which it knows how to clean up after; the
    cancellation goes on once it has.
    """
    cancelled: trio.Cancelled | None = None
    resume = partial(coroutine.send, None)
    try:
        while True:
            trap = resume()
            if trap is not None:
                # Trio answers with an outcome, a cancellation too, which its own coroutine further in unwraps.
                resume = partial(coroutine.send, (yield trap))
                continue
            try:
                yield from pause().__await__()
            except trio.Cancelled as exc:  # noqa: ASYNC103  # raised in the last line
                cancelled = exc
                resume = partial(coroutine.throw, TimeoutError())
            else:
                resume = partial(coroutine.send, None)
    except StopIteration as stop:
        if cancelled is None:
            return stop.value  # type: ignore[no-any-return]  # the coroutine's own result
    except TimeoutError:
        if cancelled is None:
            raise
    raise cancelled
