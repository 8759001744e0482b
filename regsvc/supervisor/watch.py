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
from regsvc.domain.values import Secret
from regsvc.settings import Settings, SettingsError
from regsvc.supervisor.door import addresses, port_of, shut
from regsvc.supervisor.reread import Read, reread
from regsvc.supervisor.rolling import Rolling, RollingFailed
from regsvc.supervisor.signals import STOPS, Signals, Stop
from regsvc.supervisor.workers import DEAD, REPLACED, Crew, Place, Worker

SETTLED: Final = 2.0  # seconds a worker has to be ready for its failures to be forgotten
HOPELESS: Final = 60.0  # seconds without any worker that is ready, after which whoever started us should know
MARGIN: Final = 2.0  # seconds on top of the drain: the workers' own deadline comes first
LOOK: Final = 5.0  # seconds between two looks at what is announced anyway
AS_ASKED: Final = frozenset({os.EX_OK, -signal.SIGTERM, -REPLACED})  # by signal: while it had begun nothing yet


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

    settings: Settings  # as they were read
    crew: Crew
    database: Database | None
    signals: Signals
    door: socket.socket | None
    tell: Callable[[str], None]
    began: float
    read: Read
    on_terminal: bool = field(default_factory=lambda: os.isatty(0))  # whose window may be closed
    status: int | None = None  # what to exit with, once it is known that we do
    reason: str = ""
    shut_at: float = float("inf")
    kill_at: float = float("inf")
    rolling: Rolling | None = None
    once_more: bool = False  # told to roll while it does
    hope: float = field(default_factory=time.monotonic)  # when a worker was last ready
    announced: bool = False
    port: int = field(init=False)
    reloaded: Settings = field(init=False)  # what the workers get that replace others

    def __post_init__(self) -> None:
        self.port = port_of(self.door)
        self.reloaded = self.settings

    def run(self) -> int:
        """Watch until no worker is left that should be."""
        if self.database is not None:
            self._tell_of_database(self.began)
        self.crew.brief(self.fitted(self.settings))
        while self.status is None or self.crew.workers:
            self._count_workers()
            self._wait()
            for number in self.signals.taken():
                self._heed(number)
            self._bury()
            if self.status is None:
                self._keep_database()
                self.crew.start()
                self._roll()
                if self.rolling is None:
                    self.crew.keep_spare()
                self._announce_once()
                self._despair()
            else:
                self._see_to_the_end()
        observe.emit("service_stopped", exit_status=self.status, reason=self.reason)
        return self.status

    def end(self, status: int, reason: str) -> None:
        """Let the workers finish, then end with `status`."""
        if self.status is not None:
            return
        self.status, self.reason = status, reason
        told = [self.settings, *([self.rolling.settings] if self.rolling is not None else [])]  # workers have either
        lame_duck = max(each.lame_duck_seconds.total_seconds() for each in told)
        self.shut_at = time.monotonic() + lame_duck
        self.kill_at = self.shut_at + max(each.drain_seconds.total_seconds() for each in told) + MARGIN
        self._break_off("the service ends")
        if not lame_duck:
            self._shut()
        self.crew.ask(signal.SIGTERM)

    def fitted(self, settings: Settings) -> Settings:
        """Return settings with what they do not know: where our own database is, and the port that the kernel chose."""
        if self.database is not None:
            settings = settings.telling(database_url=Secret(self.database.dsn))
        return settings.listening_on(self.port)

    def _shut(self) -> None:
        """Close the door; the workers' handles of it are for those who are on their way."""
        if self.door is not None:
            shut(self.door)
            self.door = self.crew.door = None

    def _see_to_the_end(self) -> None:
        now = time.monotonic()
        if now >= self.shut_at:
            self._shut()
        if now >= self.kill_at:
            self.crew.ask(signal.SIGKILL)

    def _wait(self) -> None:
        now = time.monotonic()
        dues = [self.shut_at] if self.door is not None else []
        if self.status is None:
            dues += [place.due for place in self.crew.places if place.worker is None]
            dues.append(self.rolling.due if self.rolling is not None else self.crew.spare_due)
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

    def _heed(self, number: int) -> None:
        if number == signal.SIGCHLD:
            return
        if number not in STOPS and not self.on_terminal:
            self._reload()
        elif self.status is None:
            self.end(os.EX_OK, signal.Signals(number).name)
        else:
            self.kill_at = 0.0  # told twice: at once

    def _reload(self) -> None:
        """Read the settings, and have new workers use them."""
        if self.status is not None:
            return
        if self.rolling is not None:
            self.once_more = True
            return
        try:
            settings, kept = reread(self.read, self.settings)
        except SettingsError as wrong:
            observe.emit("reload_failed", reason=str(wrong), replaced=0, took_s=0.0)
            return
        for name in kept:
            observe.emit("settings_warning", setting=name, reason="it changes with a restart only, and stays as it was")
        observe.emit("reload_started", workers=self.settings.workers)
        self.crew.dismiss_spare()
        drain = max(each.drain_seconds.total_seconds() for each in (self.settings, settings))
        self.rolling = Rolling(self.crew, self.fitted(settings), drain + MARGIN)
        self.reloaded = settings

    def _roll(self) -> None:
        """Go on with the replacing of workers, as far as that goes."""
        while (rolling := self.rolling) is not None:
            try:
                done = rolling.step()
            except RollingFailed as why:
                self._break_off(str(why))
            else:
                if not done:
                    return
                self.rolling, self.settings = None, self.reloaded
                took = round(time.monotonic() - rolling.began, 3)
                observe.emit("reload_completed", replaced=rolling.replaced, took_s=took)
            if self.once_more:
                self.once_more = False
                self._reload()

    def _break_off(self, why: str) -> None:
        """End the replacing of workers where it is."""
        if (rolling := self.rolling) is not None:
            self.rolling = None
            if rolling.accepted:
                self.settings = self.reloaded
            took = round(time.monotonic() - rolling.began, 3)
            observe.emit("reload_failed", reason=why, replaced=rolling.replaced, took_s=took)

    def _bury(self) -> None:
        for worker, place in self.crew.buried():
            pid, code = worker.process.pid, worker.code
            if place is not None and place is self.crew.spare:
                self._mourn_spare(worker, place)
                continue
            if worker.asked and code in AS_ASKED:
                observe.emit("worker_stopped", pid=pid, exit_status=code)
            else:
                observe.emit("worker_exited", pid=pid, exit_status=code, asked_for=worker.asked)
            if place is not None:
                self._mourn(worker, place)
        if os.getpid() == 1:
            self._bury_strangers()

    def _mourn(self, worker: Worker, place: Place) -> None:
        """See to it that a place is taken again."""
        if worker.code == os.EX_CONFIG:
            self.end(os.EX_CONFIG, "a worker cannot work with these settings")
        settled = worker.ready and time.monotonic() - (worker.ready_since or 0.0) >= SETTLED
        wait = place.put_off(settled=settled)
        if self.status is None:
            observe.emit("worker_restarted", pid=worker.process.pid, restarts=place.starts, wait_s=wait)

    def _mourn_spare(self, worker: Worker, spare: Place) -> None:
        """Who never had a place is worth a word only where nobody asked it to go."""
        if not worker.asked:
            observe.emit("worker_exited", pid=worker.process.pid, exit_status=worker.code, asked_for=False)
            spare.put_off(settled=False)

    def _count_workers(self) -> None:
        observe.gauge("workers_asked", self.settings.workers)
        observe.gauge("workers_alive", sum(worker.ready for worker in self.crew.seated))

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
        if any(worker.ready for worker in self.crew.seated):
            self.hope = now
        elif now - self.hope > HOPELESS:
            self.end(os.EX_TEMPFAIL, f"no worker was ready for {HOPELESS:g} s")

    def _tell_of_database(self, began: float) -> None:
        if self.database is not None:
            took = round(time.monotonic() - began, 3)
            data_dir = str(self.settings.data_dir.absolute())
            observe.emit("embedded_database_started", data_dir=data_dir, pid=self.database.pid, took_s=took)

    def _announce_once(self) -> None:
        if self.announced or not self.crew.whole:
            return
        self.announced = True
        took = time.monotonic() - self.began
        urls = addresses(self.settings, self.port) if self.door is not None else {}
        observe.emit(
            "service_started",
            urls=list(urls.values()),
            url=self.fitted(self.settings).public_url,
            workers=self.settings.workers,
            roles=sorted(self.settings.roles),
            took_s=round(took, 3),
            pid=os.getpid(),
        )
        for what, url in urls.items():
            self.tell(f"{what:<8} {url}")
