"""Waking on time: Linux's epoll counts whole milliseconds, which is longer than a light request takes.

So each arrival would be up to a millisecond late, and late in the figures. A timer that is a file descriptor wakes
within some 0.05 ms; elsewhere (kqueue) the event loop itself does.
"""

import ctypes
import os
import struct
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import trio

CLOCK_MONOTONIC: Final = 1
TFD_FLAGS: Final = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)  # as TFD_NONBLOCK and TFD_CLOEXEC are defined
SOONEST: Final = 1e-6  # seconds; a timer set to none is off
Wait = Callable[[float], Awaitable[None]]


@contextmanager
def open_alarm() -> Iterator[Wait]:
    """Yield what waits until a time of Trio's clock, for one task; it returns at once if that is over."""
    if not sys.platform.startswith("linux"):
        yield trio.sleep_until
        return
    libc = ctypes.CDLL(None, use_errno=True)
    timer = libc.timerfd_create(CLOCK_MONOTONIC, TFD_FLAGS)
    if timer < 0:
        yield trio.sleep_until
        return

    async def wait(until: float) -> None:
        left = until - trio.current_time()
        if left <= 0:
            await trio.lowlevel.checkpoint()
            return
        seconds = int(left := max(left, SOONEST))
        when = struct.pack("llll", 0, 0, seconds, int((left - seconds) * 1e9) or 1)  # struct itimerspec: once
        libc.timerfd_settime(timer, 0, when, None)
        await trio.lowlevel.wait_readable(timer)
        os.read(timer, 8)

    try:
        yield wait
    finally:
        os.close(timer)
