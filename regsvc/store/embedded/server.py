"""The server of a cluster: makes the cluster, starts on it, stops, and leaves no process behind."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from regsvc.store.embedded.binaries import Binaries
from regsvc.store.embedded.process import FAST_SECONDS, IMMEDIATE_SECONDS, EmbeddedError, Kin, wait_until

NAME = "regsvc"  # of the database and of its owner
PORT = 5432  # only a part of the socket's name
SOCKET = f".s.PGSQL.{PORT}"
MAKE_SECONDS = 60.0  # for each step of making a cluster; half a second where nothing is wrong
TELL_SECONDS = 2.0  # a start that takes longer is reported
START_SECONDS = 120.0  # a start takes 0.1 s, but recovery replays all that the last checkpoint did not cover
LOG_MAX = 1 << 20  # octets of postgres.log above which a start puts it aside as postgres.log.1
TAIL_LINES = 5  # of a program's output, in an error

Mode = Literal["fast", "immediate"]
STOP: dict[Mode, signal.Signals] = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}  # as the postmaster reads them

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_directories": ".",  # the cluster's folder: short for bind() however long its path is
    "unix_socket_permissions": "0700",
    "port": str(PORT),
    "max_connections": "100",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "log",  # starts, stops, crashes; an ERROR goes to the client, and its values into no file
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
    "logging_collector": "off",
    "cluster_name": NAME,
}


@dataclass(slots=True)
class Server:
    """The postmaster of the cluster in `folder`, running or not."""

    folder: Path
    log: Path
    binaries: Binaries
    kin: Kin
    report: Callable[[str], None]
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The last postmaster's; 0 before the first start."""
        return self.process.pid if self.process else 0

    @property
    def pid_file(self) -> Path:
        """Where a postmaster says who it is and how far it got."""
        return self.folder / "postmaster.pid"

    def poll(self) -> int | None:
        """The exit code of a postmaster that is gone, None while it runs."""
        return self.process.poll() if self.process else None

    def make(self) -> None:
        """Make the cluster and its database under another name; it gets its own when it is whole and on the disk."""
        aside = self.folder.with_name("postgres.new")
        self.kin.clear()
        if aside.exists():  # by an owner that was killed
            shutil.rmtree(aside)
        aside.mkdir(mode=0o700)
        if self.kin.account:
            os.chown(aside, self.kin.account.uid, self.kin.account.gid)
        access = ["--username", NAME, "--auth-local=trust", "--auth-host=reject"]
        self._run(aside, "initdb", [*access, "--encoding=UTF8", *self._locale(), "--data-checksums"])
        # In single-user mode: no server has to run, and so nobody ever meets a cluster without its database.
        alone = ["--single", "-c", "exit_on_error=on", "postgres"]
        self._run(aside, "postgres", alone, say=f"CREATE DATABASE {NAME}")
        aside.rename(self.folder)
        _sync(self.folder.parent)

    def start(self) -> None:
        """Start PostgreSQL and return when it takes connections; a crash is recovered from on the way."""
        written = _first_number(self.pid_file)
        self.kin.clear(written)
        self._refuse_stranger(written)
        for stale in (self.pid_file, self.folder / f"{SOCKET}.lock"):
            stale.unlink(missing_ok=True)  # PostgreSQL gives way to any process that has the number written there
        _put_aside(self.log)
        words = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self.process = self.kin.spawn(
                [self.binaries.folder / "postgres", *words],
                on=self.folder,
                last_wish=STOP["fast"],
                stdin=subprocess.DEVNULL,
                output=log,
            )
        self._wait_ready(self.process)

    def stop(self, mode: Mode = "fast") -> None:
        """End PostgreSQL: as asked, then at once, then by force; no process of it is left when this returns."""
        try:
            if self.process:
                _end(self.process, STOP[mode])
        finally:
            self.kin.clear(_first_number(self.pid_file))

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        def settled() -> bool:
            return process.poll() is not None or _is_ready(self.pid_file, process.pid)

        if not wait_until(settled, TELL_SECONDS):
            self.report("PostgreSQL takes its time to start: it may have a crash to recover from")
            wait_until(settled, START_SECONDS)
        if process.poll() is None and _is_ready(self.pid_file, process.pid):
            return
        self.stop("immediate")
        said = _tail(self.log.read_bytes())
        raise EmbeddedError(f"PostgreSQL did not start on {self.folder}; the end of {self.log}: {said}")

    def _run(self, folder: Path, program: str, words: Sequence[str], *, say: str = "") -> None:
        """Run one of PostgreSQL's programs to its end on the cluster in `folder`, with `say` on its standard input."""
        try:
            with self.kin.spawn(
                [self.binaries.folder / program, *words],
                on=folder,
                last_wish=signal.SIGTERM,  # what it began is thrown away, but its shared memory is to be given back
                stdin=subprocess.PIPE,
                output=subprocess.PIPE,
            ) as process:
                try:
                    said, _ = process.communicate(say.encode(), MAKE_SECONDS)
                finally:
                    _end(process, signal.SIGTERM)
        except subprocess.TimeoutExpired as error:
            raise EmbeddedError(
                f"{program} did not end in {MAKE_SECONDS:.0f} s: is the disk of {folder} stuck?"
            ) from error
        finally:
            self.kin.clear()  # what the program itself had started
        if process.returncode != 0:
            raise EmbeddedError(f"{program} failed on {folder}; the end of what it said: {_tail(said)}")

    def _locale(self) -> list[str]:
        """C.UTF-8: PostgreSQL's own where it has one, so that it sorts alike on every machine; else the system's."""
        if self.binaries.major >= 17:
            return ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        return ["--locale=C.UTF-8"]

    def _refuse_stranger(self, pid: int) -> None:
        """Raise if `pid` is a PostgreSQL that works on this folder though none of ours is left: started by hand."""
        try:
            here = Path(f"/proc/{pid}/cwd").samefile(self.folder)
            name = Path(f"/proc/{pid}/exe").readlink().name
        except OSError:  # nobody, or another account's: PostgreSQL runs as the owner of its folder
            return
        if here and name == "postgres":
            raise EmbeddedError(
                f"a PostgreSQL that this service did not start works on {self.folder}: stop it (kill -INT {pid})"
            )


def _end(process: subprocess.Popen[bytes], wish: signal.Signals) -> None:
    """Ask `process` by `wish`, then urgently, then end it; a Ctrl-C meanwhile goes on to the last."""
    try:
        for asked, patience in ((wish, FAST_SECONDS), (STOP["immediate"], IMMEDIATE_SECONDS)):
            process.send_signal(asked)
            if wait_until(lambda: process.poll() is not None, patience):
                return
    finally:
        process.kill()
        process.wait()


def _is_ready(pid_file: Path, pid: int) -> bool:
    """Whether postmaster `pid` has written that it takes connections (the file's first and eighth lines)."""
    try:
        lines = pid_file.read_text("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return False
    return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _first_number(pid_file: Path) -> int:
    """The process that wrote `pid_file`; 0 if there is no such file, or its writer died over it."""
    try:
        first = pid_file.read_text("utf-8", "replace").partition("\n")[0]
    except FileNotFoundError:
        return 0
    return int(first) if re.fullmatch(r"[0-9]{1,9}", first) else 0


def _put_aside(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_MAX:
        log.replace(log.with_name(log.name + ".1"))


def _tail(said: bytes) -> str:
    return " / ".join(said.decode("utf-8", "replace").strip().splitlines()[-TAIL_LINES:]) or "nothing"


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
