"""What the supervisor is told by signals, in the order it was told."""

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final, Self

STOPS: Final = (signal.SIGTERM, signal.SIGINT)


class Stop(BaseException):
    """A signal that came while something was waited for that knows nothing of signals."""


class Signals:
    """What this process was told, in order; `fileno` becomes readable with each signal, a child's end among them."""

    def __init__(self) -> None:
        self._told: list[int] = []
        self._interrupt = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        self._wake, self._woken = socket.socketpair()
        for end in (self._wake, self._woken):
            end.setblocking(False)  # noqa: FBT003 - the stdlib's signature
        self._wakeup_before = signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)
        for number in (*STOPS, signal.SIGHUP, signal.SIGCHLD):
            self._before[number] = signal.signal(number, self._heed)
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal itself returned
        signal.set_wakeup_fd(self._wakeup_before)
        self._wake.close()
        self._woken.close()

    def fileno(self) -> int:
        """Return what to select on."""
        return self._wake.fileno()

    def taken(self) -> list[int]:
        """Take what was told since the last look."""
        with suppress(BlockingIOError):
            self._wake.recv(4096)
        told, self._told = self._told, []
        return told

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Raise Stop inside the block as soon as the process is told to stop."""
        if any(number in STOPS for number in self._told):
            raise Stop
        self._interrupt = True
        try:
            yield
        finally:
            self._interrupt = False

    def _heed(self, number: int, _frame: FrameType | None) -> None:
        self._told.append(number)
        if self._interrupt and number in STOPS:
            self._interrupt = False  # once: what it interrupts has to tidy up
            raise Stop
