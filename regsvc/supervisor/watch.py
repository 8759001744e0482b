"""The supervisor's loop: one `select`, then a look at everything."""

import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

from regsvc import observe
from regsvc.settings import Settings
from regsvc.supervisor.door import addresses, port_of
from regsvc.supervisor.signals import Signals, Stop
from regsvc.supervisor.workers import Crew, Worker

SETTLED: Final = 10.0  # seconds a worker has to be ready for its failures to be forgotten
HOPELESS: Final = 60.0  # seconds without any worker that is ready, after which whoever started us should know
MARGIN: Final = 2.0  # seconds on top of the drain: the workers' own deadline comes first
LOOK: Final = 5.0  # seconds between two looks at what is announced anyway
DEAD: Final = float("inf")  # since when a worker is ready that never will be


class Database(Protocol):
    """A PostgreSQL of our own."""

    @property
    def dsn(self) -> str:
        """How to reach it."""
        ...

    @property
    def pid(self) -> int:
        """Its process."""
        ...

    def poll(self) -> int | None:
        """Return the exit code if it is gone."""
        ...

    def ensure_running(self) -> bool:
        """Start it again if it is gone."""
        ...


@dataclass(slots=True)
class Watch:
    """The loop: one `select`, then a look at everything."""

    settings: Settings
    crew: Crew
    database: Database | None
    signals: Signals
    door: socket.socket | None
    tell: Callable[[str], None]
    began: float
    on_terminal: bool = field(default_factory=lambda: os.isatty(0))  # whose window may be closed
    status: int | None = None  # what to exit with, once it is known that we do
    reason: str = ""
    kill_at: float = float("inf")
    hope: float = field(default_factory=time.monotonic)  # when a worker was last ready
    announced: bool = False

    def run(self) -> int:
        """Watch until no worker is left that should be."""
        if self.database is not None:
            self._tell_of_database(self.began)
        while self.status is None or self.crew.workers:
            self._wait()
            for number in self.signals.taken():
                self._heed(number)
            self._bury()
            if self.status is None:
                self._keep_database()
                self.crew.start()
                self._despair()
            elif time.monotonic() >= self.kill_at:
                self.crew.signal(signal.SIGKILL)
        observe.emit("service_stopped", exit_status=self.status, reason=self.reason)
        return self.status

    def end(self, status: int, reason: str) -> None:
        """Let the workers finish, then end with `status`."""
        if self.status is None:
            self.status = status
            self.kill_at = time.monotonic() + self.settings.drain_seconds.total_seconds() + MARGIN
            self.reason = reason
            self.crew.signal(signal.SIGTERM)

    def _wait(self) -> None:
        now = time.monotonic()
        dues = [place.due for place in self.crew.places if place.worker is None and self.status is None]
        until = min([now + LOOK, self.kill_at, *dues])
        with selectors.DefaultSelector() as selector:
            selector.register(self.signals, selectors.EVENT_READ)
            waiting = [worker for worker in self.crew.workers if worker.ready_since is None]
            for worker in waiting:
                selector.register(worker.ready_pipe, selectors.EVENT_READ, worker)
            for key, _ in selector.select(max(0.0, until - now)):
                if isinstance(worker := key.data, Worker):
                    self._greet(worker)

    def _greet(self, worker: Worker) -> None:
        if not os.read(worker.ready_pipe, 1):
            worker.ready_since = DEAD  # it closed the pipe without a word: it is about to end
            return
        worker.ready_since = time.monotonic()
        if not self.announced and all(worker.ready_since not in (None, DEAD) for worker in self.crew.workers):
            self.announced = True
            self._announce()

    def _heed(self, number: int) -> None:
        if number == signal.SIGHUP and not self.on_terminal:
            observe.emit("settings_warning", setting="SIGHUP", reason="settings are read at start only: restart")
        elif number != signal.SIGCHLD and self.status is None:
            self.end(os.EX_OK, signal.Signals(number).name)
        elif number != signal.SIGCHLD:
            self.kill_at = 0.0  # told twice: at once

    def _bury(self) -> None:
        for place in self.crew.places:
            worker = place.worker
            if worker is None or (code := worker.process.poll()) is None:
                continue
            place.worker = None
            worker.ends.close()
            observe.emit("worker_exited", pid=worker.process.pid, exit_status=code, asked_for=self.status is not None)
            if code == os.EX_CONFIG:
                self.end(os.EX_CONFIG, "a worker cannot work with these settings")
            settled = worker.ready_since is not None and time.monotonic() - worker.ready_since >= SETTLED
            wait = place.put_off(settled=settled)
            if self.status is None:
                observe.emit("worker_restarted", pid=worker.process.pid, restarts=place.starts, wait_s=wait)
        if os.getpid() == 1:
            self._bury_strangers()

    def _bury_strangers(self) -> None:
        """Take away the orphans that the kernel gives to process 1: of a PostgreSQL that was killed, say."""
        ours = {worker.process.pid for worker in self.crew.workers}
        ours |= {self.database.pid} if self.database is not None else set()
        with suppress(ChildProcessError):
            while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and found.si_pid not in ours:
                os.waitpid(found.si_pid, 0)

    def _keep_database(self) -> None:
        if self.database is None or self.database.poll() is None:
            return
        began = time.monotonic()
        try:
            with self.signals.interrupting():
                self.database.ensure_running()
        except Stop:
            return  # the signal itself is read next
        self._tell_of_database(began)

    def _despair(self) -> None:
        now = time.monotonic()
        if any(worker.ready_since is not None and worker.ready_since <= now for worker in self.crew.workers):
            self.hope = now
        elif now - self.hope > HOPELESS:
            self.end(os.EX_TEMPFAIL, f"no worker was ready for {HOPELESS:g} s")

    def _tell_of_database(self, began: float) -> None:
        if self.database is not None:
            took = round(time.monotonic() - began, 3)
            data_dir = str(self.settings.data_dir.absolute())
            observe.emit("embedded_database_started", data_dir=data_dir, pid=self.database.pid, took_s=took)

    def _announce(self) -> None:
        took = time.monotonic() - self.began
        urls = addresses(self.settings, port_of(self.door)) if self.door is not None else {}
        observe.emit(
            "service_started",
            addresses=list(urls.values()),
            url=self.settings.public_url,
            workers=self.settings.workers,
            roles=sorted(self.settings.roles),
            took_s=round(took, 3),
            pid=os.getpid(),
        )
        for what, url in urls.items():
            self.tell(f"{what:<8} {url}")
