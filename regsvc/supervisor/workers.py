"""The worker processes: how they start, what they are told, how all of them end."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Final, Self

from regsvc import observe
from regsvc.settings import Settings, SettingsError

FIRST_WAIT: Final = 0.1  # seconds before a dead worker is replaced; doubled each time until one lives on
LONGEST_WAIT: Final = 10.0
COMMAND: Final = (sys.executable, "-P", "-m", "regsvc", "worker")  # -P: what lies in the current folder is not ours
PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


@dataclass(slots=True)
class Worker:
    """A worker process. `lifeline` is our end of the pipe that its settings go down and that ends with us."""

    process: subprocess.Popen[bytes]
    lifeline: int
    ready_pipe: int
    ends: ExitStack  # closes both
    briefed: bool = False
    ready_since: float | None = None


@dataclass(slots=True)
class Place:
    """A place among the workers, and who has it."""

    number: int
    worker: Worker | None = None
    failures: int = 0
    due: float = 0.0  # when the next one starts
    starts: int = 0

    def put_off(self, *, settled: bool) -> float:
        """Have the next worker wait, the longer the more have failed in a row; return how long."""
        self.failures = 1 if settled else self.failures + 1
        wait: float = min(FIRST_WAIT * 2.0 ** (self.failures - 1), LONGEST_WAIT)
        self.due = time.monotonic() + wait
        return wait


@dataclass(slots=True)
class Crew:
    """All workers; leaving it kills those who are left."""

    size: int
    door: socket.socket | None
    command: Sequence[str] = COMMAND
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
                worker.ends.close()
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
                place.starts += 1
                try:
                    place.worker = spawn(self.command, place.number, self.door)
                except OSError as error:  # no memory, no descriptors, too many processes: that may pass
                    observe.emit("worker_exited", reason=str(error), asked_for=False)
                    place.put_off(settled=False)
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


def spawn(command: Sequence[str], number: int, door: socket.socket | None) -> Worker:
    """Start a worker. A session of its own keeps the terminal's Ctrl-C away from it: we tell it when to end."""
    with ExitStack() as ours, ExitStack() as theirs:
        lifeline, lifeline_end = os.pipe()
        theirs.callback(os.close, lifeline)
        ours.callback(os.close, lifeline_end)
        ready, ready_end = os.pipe()
        ours.callback(os.close, ready)
        theirs.callback(os.close, ready_end)
        words = {"--number": number, "--parent": os.getpid(), "--lifeline": lifeline, "--ready": ready_end}
        if door is not None:
            words["--socket"] = door.fileno()
        process = subprocess.Popen(  # noqa: S603 - our own words, no shell
            [*command, *(word for name, value in words.items() for word in (name, str(value)))],
            stdin=subprocess.DEVNULL,
            pass_fds=[lifeline, ready_end, *([door.fileno()] if door is not None else [])],
            start_new_session=True,
        )
        return Worker(process, lifeline_end, ready, ours.pop_all())


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
