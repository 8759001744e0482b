"""Waiting for what happens elsewhere: in another process, on another thread."""

from collections.abc import Awaitable, Callable

import trio

LOOK_EVERY = 0.02  # seconds


async def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    """Return when `condition()` is true; raise trio.TooSlowError after `seconds`."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - nobody in this process could set an event
            await trio.sleep(LOOK_EVERY)


async def until_asked(condition: Callable[[], Awaitable[object]], seconds: float = 15.0) -> None:
    """The same for a condition that has to be asked for."""
    with trio.fail_after(seconds):
        while not await condition():  # noqa: ASYNC110 - as above
            await trio.sleep(LOOK_EVERY)


async def until_more(count: Callable[[], int], number: int = 1, seconds: float = 15.0) -> None:
    """Return when `count()` is higher by `number` than it is now."""
    wanted = count() + number
    await until(lambda: count() >= wanted, seconds)
