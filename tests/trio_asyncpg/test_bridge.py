"""What stands in for asyncio: futures, timers, tasks."""

import asyncio
import types
from collections.abc import Generator

import pytest
import trio
import trio.lowlevel

from regsvc.trio_asyncpg import ConnectionLost
from regsvc.trio_asyncpg.bridge import COMPACT_ABOVE, Future, Loop, Tasks, Timers, driven
from regsvc.trio_asyncpg.internals import ConnectionDoesNotExistError
from tests.trio_asyncpg.conftest import open_tasks


async def test_a_future_brings_its_result_to_who_waits() -> None:
    future, seen = Future(), []

    async def wait() -> None:
        seen.append(await future)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, name="waits")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await future
        future.set_result(7)
    assert seen == [7]
    assert await future == 7
    assert future.exception() is None
    assert not future.cancel()


async def test_a_future_that_fails_or_is_cancelled() -> None:
    failed = Future()
    failed.set_exception(KeyError())
    with pytest.raises(KeyError):
        await failed
    assert isinstance(failed.exception(), KeyError)
    with pytest.raises(asyncio.InvalidStateError):
        failed.set_result(1)
    with pytest.raises(asyncio.InvalidStateError):
        Future().result()
    cut = Future()
    called: list[bool] = []
    cut.add_done_callback(lambda future: called.append(future.cancelled()))
    with trio.move_on_after(0):
        await cut
    assert called == [True]
    with pytest.raises(asyncio.CancelledError):
        cut.result()
    cut.add_done_callback(lambda future: called.append(future.done()))
    assert called == [True, True]


def test_only_asyncpgs_own_word_for_a_lost_connection_is_translated() -> None:
    cause = OSError("gone")
    own = ConnectionDoesNotExistError("closed")
    own.__cause__ = cause
    lost, told = Future(), Future()
    lost.set_exception(own)
    told.set_exception(told_by_server := ValueError())
    assert isinstance(lost.exception(), ConnectionLost)
    assert lost.exception().__cause__ is cause  # type: ignore[union-attr]  # asserted the line before
    assert told.exception() is told_by_server


async def test_waiting_for_the_end_of_a_future_leaves_it_alone() -> None:
    future = Future()
    with trio.move_on_after(0.01):
        await future.wait_done()
    assert not future.done()
    async with trio.open_nursery() as nursery:
        for n in range(2):
            nursery.start_soon(future.wait_done, name=f"waits {n}")
        await trio.testing.wait_all_tasks_blocked()
        future.set_exception(KeyError())
    await future.wait_done()


async def test_timers_ring_in_order_and_not_when_cancelled(autojump_clock: trio.testing.MockClock) -> None:
    rang: list[tuple[str, float]] = []
    async with open_tasks() as tasks:
        loop, start = Loop(tasks), trio.current_time()

        def ring(name: str) -> None:
            rang.append((name, round(loop.time() - start, 3)))

        loop.call_later(3, ring, "late")
        loop.call_later(1, ring, "early")
        cut = loop.call_later(2, ring, "never")
        await trio.sleep(1.5)
        cut.cancel()
        cut.cancel()
        loop.call_later(0.1, ring, "between")
        await trio.sleep(5)
        loop.call_later(1, ring, "again")
        await trio.sleep(5)
    assert rang == [("early", 1.0), ("between", 1.6), ("late", 3.0), ("again", 7.5)]
    assert autojump_clock.autojump_threshold == 0


def test_cancelled_timers_do_not_pile_up() -> None:
    timers = Timers()
    kept = timers.add(1e9, lambda: None, ())
    for _ in range(COMPACT_ABOVE * 10):
        timers.add(1e9, lambda: None, ()).cancel()
    assert len(timers._heap) <= COMPACT_ABOVE * 2 + 2
    assert kept in timers._heap


async def test_tasks_outlive_a_cancellation_of_their_owner_until_closed() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("work")

    with trio.CancelScope() as owner:
        async with open_tasks() as tasks:
            tasks.spawn(work, name="work")
            await trio.testing.wait_all_tasks_blocked()
            owner.cancel(reason="the owner is cancelled")
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
            assert ended == []
    tasks.spawn(work, name="too late")
    assert ended == ["work"]


async def test_a_task_begun_as_its_owner_closes_ends_at_once() -> None:
    async with trio.open_nursery() as nursery:
        tasks = Tasks(nursery)
        nursery.start_soon(tasks._shelter, trio.sleep_forever, (), name="late")
        tasks.close()


async def test_a_listener_after_the_end_is_not_run() -> None:
    async def listener() -> None:
        await trio.lowlevel.checkpoint()
        raise AssertionError

    async with open_tasks() as tasks:
        loop = Loop(tasks)
    assert loop.is_closed()
    loop.create_task(listener())


async def test_what_a_listener_in_a_task_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def listener() -> None:
        await trio.lowlevel.checkpoint()
        raise KeyError("heard")

    async with open_tasks() as tasks:
        Loop(tasks).create_task(listener())
        await trio.testing.wait_all_tasks_blocked()
        Loop(tasks).call_exception_handler({"message": "as asyncpg says"})
    assert "heard" in caplog.text
    assert "as asyncpg says" in caplog.text


@types.coroutine
def bare_yield() -> Generator[None, None, None]:
    yield


async def test_driven_turns_a_bare_yield_into_a_pause_and_lets_all_else_through() -> None:
    paused: list[int] = []

    async def pause() -> None:
        await trio.lowlevel.checkpoint()
        paused.append(len(paused))

    async def work() -> str:
        await bare_yield()
        await trio.lowlevel.checkpoint()
        await bare_yield()
        with pytest.raises(KeyError):
            await failing()
        return "done"

    async def failing() -> None:
        with trio.move_on_after(0.01):
            await trio.sleep_forever()
        raise KeyError

    assert await driven(work(), pause) == "done"
    assert paused == [0, 1]


@pytest.mark.parametrize("cleanup", ["returns", "raises"])
async def test_driven_tells_of_a_cancelled_pause_as_a_timeout(cleanup: str) -> None:
    told = False

    async def work() -> None:
        nonlocal told
        try:
            await bare_yield()
        except TimeoutError:
            told = True
            if cleanup == "raises":
                raise

    with trio.move_on_after(0.01) as scope:
        await driven(work(), trio.sleep_forever)
    assert told
    assert scope.cancelled_caught


async def test_driven_hands_a_cancellation_to_the_work() -> None:
    told = False

    async def work() -> None:
        nonlocal told
        try:
            await trio.sleep_forever()
        finally:
            told = True

    with trio.move_on_after(0.01) as scope:
        await driven(work(), trio.sleep_forever)
    assert told
    assert scope.cancelled_caught


async def test_driven_leaves_a_timeout_of_the_work_alone() -> None:
    async def work() -> None:
        await trio.lowlevel.checkpoint()
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await driven(work(), trio.sleep_forever)
