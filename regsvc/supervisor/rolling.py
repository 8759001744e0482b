"""A new worker for each place, one at a time, and nobody notices.

Rule 1. The next worker of a place is ready before the last one is told: there are never fewer than the settings ask
        for, and never more than one more.
Rule 2. New settings are good once a worker was ready with them. Until then whoever dies is replaced by one with the
        settings as they were; and where none ever is, nothing has changed.
"""

import signal
import time
from dataclasses import dataclass, field
from typing import Final

from regsvc.settings import Settings
from regsvc.supervisor.workers import REPLACED, Crew, Place, Worker

PATIENCE: Final = 30.0  # seconds that a new worker has to become ready


class RollingFailed(Exception):  # noqa: N818 - it is what happened
    """A new worker did not become ready; the message says why."""


@dataclass(slots=True)
class Rolling:
    """One round over the places; `step` is called whenever something may have happened."""

    crew: Crew
    settings: Settings
    leaves_within: float  # seconds that a worker which is replaced has
    left: list[Place] = field(init=False)
    began: float = field(default_factory=time.monotonic)
    replaced: int = 0
    accepted: bool = False  # a worker was ready with the settings
    due: float = float("inf")  # by when it must go on
    _next: tuple[Place, Worker] | None = None
    _last: Worker | None = None

    def __post_init__(self) -> None:
        self.left = [*self.crew.places]

    def step(self) -> bool:
        """Go as far as it goes now; return whether all is done. Raises RollingFailed, and is of no more use then."""
        while True:
            if self._next is not None:
                if not self._took_place(*self._next):
                    return False
            elif self._last is not None:
                if not self._has_left(self._last):
                    return False
            elif not self.left:
                return True
            else:
                self._begin(self.left.pop(0))

    def _begin(self, place: Place) -> None:
        self.due = time.monotonic() + PATIENCE
        try:
            self._next = place, self.crew.start_beside(place, self.settings)
        except OSError as error:  # no memory, no descriptors, too many processes
            raise RollingFailed(f"a new worker could not be started: {error}") from error

    def _took_place(self, place: Place, worker: Worker) -> bool:
        """Whether the next one is ready and has the place; the last one was told then."""
        if worker.code is not None:
            raise RollingFailed(f"a new worker ended with {worker.code} before it was ready")
        if not worker.ready:
            if time.monotonic() < self.due:
                return False
            worker.ask(signal.SIGKILL)
            raise RollingFailed(f"a new worker was not ready within {PATIENCE:g} s")
        self._last = self.crew.seat(place, worker)
        self.crew.brief(self.settings)
        self.accepted = True
        self._next, self.due = None, time.monotonic() + self.leaves_within
        if self._last is None:  # whoever had the place had died
            self.replaced += 1
        else:
            self._last.ask(REPLACED)
        return True

    def _has_left(self, worker: Worker) -> bool:
        if worker.code is None:
            if time.monotonic() >= self.due:
                worker.ask(signal.SIGKILL)
                self.due = float("inf")
            return False
        self._last = None
        self.replaced += 1
        return True
