"""The worker processes: how they start, what they are told, how all of them end."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Final, Self

from regsvc import observe
from regsvc.observe.shared import Shared, Slab
from regsvc.settings import Settings, SettingsError

FIRST_WAIT: Final = 0.1  # seconds before a dead worker is replaced; doubled each time until one lives on
LONGEST_WAIT: Final = 10.0
COMMAND: Final = (sys.executable, "-P", "-m", "regsvc", "worker")  # -P: what lies in the current folder is not ours
PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
REPLACED: Final = signal.SIGUSR1  # tells a worker that another one has its place, as world.process understands it
DEAD: Final = float("inf")  # since when a worker is ready that never will be


@dataclass(eq=False, slots=True)
class Worker:
    """A worker process. `lifeline` is our end of the pipe that its settings go down and that ends with us."""

    process: subprocess.Popen[bytes]
    lifeline: int
    ready_pipe: int
    ends: ExitStack  # closes both
    slab: Slab
    briefed: bool = False
    ready_since: float | None = None
    asked: bool = False  # to end
    code: int | None = None  # what it ended with, once it is buried

    @property
    def ready(self) -> bool:
        """Whether it has said that all its roles stand."""
        return self.ready_since is not None and self.ready_since != DEAD

    def ask(self, number: signal.Signals) -> None:
        """Tell it to end, in one way or another."""
        self.asked = True
        self.process.send_signal(number)

    def brief(self, number: int, told: Mapping[str, str]) -> None:
        """Tell it what it waits for, once: its number and its settings."""
        if not self.briefed:
            self.briefed = True
            with suppress(BrokenPipeError):  # it is gone already; that is noticed elsewhere
                os.write(self.lifeline, in_words(number, told))  # a few kilobytes, which a pipe holds


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
    shared: Shared
    command: Sequence[str] = COMMAND
    places: list[Place] = field(default_factory=list)
    beside: list[Worker] = field(default_factory=list)  # the next one of a place, not ready yet; the last one, leaving
    spare: Place | None = None  # no place of the service's: who has it is the next to be given one, and waits
    told: Mapping[str, str] | None = None
    free: set[int] = field(default_factory=set)  # slabs that nobody writes

    def __enter__(self) -> Self:
        self.places = [Place(number) for number in range(1, self.size + 1)]
        self.spare = Place(0) if self.size > 1 else None  # one worker is for who wants it small
        self.free = {slab.number for slab in self.shared.slabs[1:]}
        return self

    def __exit__(self, *_error: object) -> None:
        self.ask(signal.SIGKILL)
        for worker in self.workers:
            worker.process.wait()
        for _ in self.buried():
            pass

    @property
    def seated(self) -> list[Worker]:
        """Those that have a place and were not buried yet."""
        return [place.worker for place in self.places if place.worker is not None]

    @property
    def workers(self) -> list[Worker]:
        """All that were not buried yet."""
        return [*self.seated, *self.beside, *self.waiting]

    @property
    def waiting(self) -> list[Worker]:
        """The one who waits for a place, if there is one."""
        return [self.spare.worker] if self.spare is not None and self.spare.worker is not None else []

    @property
    def whole(self) -> bool:
        """Whether everybody is ready."""
        return all(place.worker is not None and place.worker.ready for place in self.places)

    @property
    def spare_due(self) -> float:
        """When one who waits is to be started."""
        lacking = self.spare is not None and self.spare.worker is None and self.whole
        return self.spare.due if self.spare is not None and lacking else float("inf")

    def ask(self, number: signal.Signals) -> None:
        """Tell all workers to end."""
        for worker in self.workers:
            worker.ask(number)

    def buried(self) -> Iterator[tuple[Worker, Place | None]]:
        """Bury those that have ended, and yield each with the place that it had."""
        places = [*self.places, *([self.spare] if self.spare is not None else [])]
        of = {place.worker: place for place in places if place.worker is not None}
        for worker in self.workers:
            worker.code = worker.process.poll()
            if worker.code is None:
                continue
            worker.ends.close()
            worker.slab.leave()  # a worker that was killed could not
            self.free.add(worker.slab.number)
            if (place := of.get(worker)) is not None:
                place.worker = None
            else:
                self.beside.remove(worker)
            yield worker, place

    def start(self) -> None:
        """Start a worker wherever one is due."""
        for place in self.places:
            if place.worker is None and place.due <= time.monotonic():
                place.starts += 1
                if not self._promote(place):
                    self._fill(place)
        self._hand_out()

    def keep_spare(self) -> None:
        """Start one who waits, once all places are taken: most of a start is over before its place is free."""
        if self.spare is not None and self.spare_due <= time.monotonic():
            self._fill(self.spare)

    def dismiss_spare(self) -> None:
        """Send who waits away: it has imported what may be of yesterday."""
        for worker in self.waiting:
            worker.ask(signal.SIGKILL)

    def _promote(self, place: Place) -> bool:
        """Give a place to who waits; return whether there was somebody."""
        if self.spare is None or self.spare.worker is None or self.spare.worker.asked:
            return False
        place.worker, self.spare.worker, self.spare.failures = self.spare.worker, None, 0
        return True

    def _fill(self, place: Place) -> None:
        try:
            place.worker = self._spawn()
        except OSError as error:  # no memory, no descriptors, too many processes: that may pass
            observe.emit("worker_exited", reason=str(error), asked_for=False)
            place.put_off(settled=False)

    def start_beside(self, place: Place, settings: Settings) -> Worker:
        """Start the next worker of a place, beside the one that has it. Raises OSError."""
        worker = self._spawn()
        self.beside.append(worker)
        worker.brief(place.number, settings.variables())
        return worker

    def seat(self, place: Place, worker: Worker) -> Worker | None:
        """Give a place to a worker that stood beside; return the one that had it, which stands there now."""
        before, place.worker, place.failures = place.worker, worker, 0
        self.beside.remove(worker)
        if before is not None:
            self.beside.append(before)
        return before

    def brief(self, settings: Settings) -> None:
        """Tell all workers that start here, these and later ones, what they wait for."""
        self.told = settings.variables()
        self._hand_out()

    def _hand_out(self) -> None:
        for place in self.places:
            if self.told is not None and place.worker is not None:
                place.worker.brief(place.number, self.told)

    def _spawn(self) -> Worker:
        slab = self.shared.slabs[min(self.free)]
        worker = spawn(self.command, self.door, self.shared, slab)
        self.free.discard(slab.number)
        return worker


def in_words(number: int, settings: Mapping[str, str]) -> bytes:
    """Return what `read_orders` reads."""
    return json.dumps({"number": number, "settings": settings}).encode() + b"\n"


def spawn(command: Sequence[str], door: socket.socket | None, shared: Shared, slab: Slab) -> Worker:
    """Start a worker. A session of its own keeps the terminal's Ctrl-C away from it: we tell it when to end."""
    with ExitStack() as ours, ExitStack() as theirs:
        lifeline, lifeline_end = os.pipe()
        theirs.callback(os.close, lifeline)
        ours.callback(os.close, lifeline_end)
        ready, ready_end = os.pipe()
        ours.callback(os.close, ready)
        theirs.callback(os.close, ready_end)
        words = {"--parent": os.getpid(), "--lifeline": lifeline, "--ready": ready_end}
        words |= {"--shared": shared.fd, "--slab": slab.number}
        if door is not None:
            words["--socket"] = door.fileno()
        process = subprocess.Popen(  # noqa: S603 - our own words, no shell
            [*command, *(word for name, value in words.items() for word in (name, str(value)))],
            stdin=subprocess.DEVNULL,
            pass_fds=[lifeline, ready_end, shared.fd, *([door.fileno()] if door is not None else [])],
            start_new_session=True,
        )
        return Worker(process, lifeline_end, ready, ours.pop_all(), slab)


def end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; for a worker's main thread, first of all."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it died before the wish was made
        os._exit(os.EX_TEMPFAIL)


def read_orders(lifeline: int) -> tuple[int, Mapping[str, str]]:
    """Wait, in a worker, for its number and its settings. Raises SettingsError when the supervisor is gone."""
    said = b""
    while not said.endswith(b"\n"):
        if not (more := os.read(lifeline, 65536)):
            raise SettingsError("the supervisor ended before it told its settings")
        said += more
    told = json.loads(said)
    return told["number"], told["settings"]
