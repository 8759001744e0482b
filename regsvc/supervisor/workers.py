"""The worker processes: how they start, what they are told, how all of them end."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Self

from regsvc.settings import Settings, SettingsError

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


@dataclass(slots=True)
class Worker:
    """A worker process. `lifeline` is our end of the pipe that its settings go down and that ends with us."""

    process: subprocess.Popen[bytes]
    lifeline: int
    ready_pipe: int
    briefed: bool = False
    ready_since: float | None = None

    def close(self) -> None:
        """Let go of our ends of its pipes."""
        os.close(self.lifeline)
        os.close(self.ready_pipe)


@dataclass(slots=True)
class Place:
    """A place among the workers, and who has it."""

    number: int
    worker: Worker | None = None
    failures: int = 0
    due: float = 0.0  # when the next one starts
    starts: int = 0


@dataclass(slots=True)
class Crew:
    """All workers; leaving it kills those who are left."""

    size: int
    door: socket.socket | None
    places: list[Place] = field(default_factory=list)
    told: bytes | None = None

    def __enter__(self) -> Self:
        self.places = [Place(number) for number in range(1, self.size + 1)]
        return self

    def __exit__(self, *_error: object) -> None:
        self.signal(signal.SIGKILL)
        for place in self.places:
            if (worker := place.worker) is not None:
                worker.process.wait()
                worker.close()
                place.worker = None

    @property
    def workers(self) -> list[Worker]:
        """Those that were not buried yet."""
        return [place.worker for place in self.places if place.worker is not None]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all workers."""
        for worker in self.workers:
            worker.process.send_signal(number)

    def start(self) -> None:
        """Start a worker wherever one is due."""
        for place in self.places:
            if place.worker is None and place.due <= time.monotonic():
                place.worker = spawn(place.number, self.door)
                place.starts += 1
        self._hand_out()

    def brief(self, settings: Settings) -> None:
        """Tell all workers, these and later ones, what they wait for."""
        self.told = json.dumps(settings.variables()).encode() + b"\n"
        self._hand_out()

    def _hand_out(self) -> None:
        for worker in self.workers:
            if self.told is not None and not worker.briefed:
                worker.briefed = True
                with suppress(BrokenPipeError):  # it is gone already; that is noticed elsewhere
                    os.write(worker.lifeline, self.told)  # a few kilobytes, which a pipe holds


def spawn(number: int, door: socket.socket | None) -> Worker:
    """Start a worker. A session of its own keeps the terminal's Ctrl-C away from it: we tell it when to end."""
    lifeline, ours = os.pipe()
    ready, theirs = os.pipe()
    passed = [lifeline, theirs, *([door.fileno()] if door is not None else [])]
    words = {"--number": number, "--parent": os.getpid(), "--lifeline": lifeline, "--ready": theirs}
    if door is not None:
        words["--socket"] = door.fileno()
    arguments = [word for name, value in words.items() for word in (name, str(value))]
    try:
        process = subprocess.Popen(  # noqa: S603 - our own words, no shell
            [sys.executable, "-P", "-m", "regsvc", "worker", *arguments],
            stdin=subprocess.DEVNULL,
            pass_fds=passed,
            start_new_session=True,
        )
    finally:
        os.close(lifeline)
        os.close(theirs)
    return Worker(process, ours, ready)


def end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; for a worker's main thread, first of all."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it died before the wish was made
        os._exit(os.EX_TEMPFAIL)


def read_settings(lifeline: int) -> Mapping[str, str]:
    """Read, in a worker, what `Crew.brief` wrote. Raises SettingsError when the supervisor is gone."""
    said = b""
    while not said.endswith(b"\n"):
        if not (more := os.read(lifeline, 65536)):
            raise SettingsError("the supervisor ended before it told its settings")
        said += more
    told: dict[str, str] = json.loads(said)
    return told
