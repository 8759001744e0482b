"""Processes of the embedded PostgreSQL: whose they are, how they start, how all of them end."""

import ctypes
import fcntl
import os
import pwd
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PACE = 0.005  # seconds between two looks at a condition that nothing announces
FAST_SECONDS = 10.0  # what a fast shutdown may take: it writes a checkpoint
IMMEDIATE_SECONDS = 3.0  # what processes that need not write anything may take to go
ORPHAN_SECONDS = 1.0  # what processes without a postmaster may take to notice
OWNER_SECONDS = 0.5  # how long a dying owner's lock is waited for


class EmbeddedError(Exception):
    """The embedded PostgreSQL cannot run; the message is for the operator and says what to do."""


class AlreadyOwned(EmbeddedError):  # noqa: N818 - the name says what is the matter
    """Another process owns the data folder; `pid` is that process, or None if it did not say."""

    def __init__(self, folder: Path, pid: int | None) -> None:
        self.pid = pid
        who, stop = (f"process {pid}", f"stop it (kill {pid})") if pid else ("another process", "stop it")
        super().__init__(f"{folder} is in use by {who}: {stop}, or give each service a data folder of its own")


@dataclass(frozen=True, slots=True)
class Account:
    """The system account that PostgreSQL runs as; None in its place means: as we do."""

    uid: int
    gid: int


def account_for(cluster: Path) -> Account | None:
    """Whom PostgreSQL runs as: us, or, since it refuses root, the owner of `cluster`, `postgres` or `nobody`."""
    owner = cluster.stat() if cluster.exists() else None
    if os.geteuid() != 0:
        if owner is not None and owner.st_uid != os.geteuid():
            raise EmbeddedError(
                f"{cluster} belongs to user {owner.st_uid}, this process runs as {os.geteuid()}: run it as that user "
                "or as root, or move the folder away to start with an empty database"
            )
        return None
    if owner is not None and owner.st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            found = pwd.getpwnam(name)
            return Account(found.pw_uid, found.pw_gid)
    raise EmbeddedError(
        "PostgreSQL does not run as root, and there is no user `postgres` or `nobody` to run it as: create one, or run "
        "this service as a normal user"
    )


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Be the one owner of the data folder inside the block.

    Raises AlreadyOwned after half a second; a process that was just killed may take that long to let go.
    The lock goes with the last copy of its descriptor, so a child made by a bare fork keeps it; exec does not.
    """
    with _descriptor(folder / "postgres.owner", os.O_RDWR | os.O_CREAT) as lock:
        if not wait_until(lambda: _lock(lock), OWNER_SECONDS):
            said = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
            raise AlreadyOwned(folder, int(said) if said.isdigit() else None)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield


@contextmanager
def _descriptor(path: Path, flags: int) -> Iterator[int]:
    opened = os.open(path, flags | os.O_NOFOLLOW, 0o600)
    try:
        yield opened
    finally:
        os.close(opened)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Look at `condition` until it holds, for at most `seconds`; says whether it did."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(PACE)  # no loop to block: the supervisor is synchronous
    return True


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Kin:
    """All processes of PostgreSQL that any owner of this data folder started: those that hold `lock` open."""

    lock: Path
    account: Account | None

    def spawn(
        self,
        command: Sequence[str | Path],
        *,
        on: Path,
        last_wish: signal.Signals,
        stdin: int,
        output: IO[bytes] | int,
    ) -> subprocess.Popen[bytes]:
        """Start `command` on the cluster in folder `on`; the kernel sends it `last_wish` when this process dies.

        For the main thread only: to the kernel the parent is the thread, and it dies with that.
        A session of its own keeps the terminal's Ctrl-C away from it: its owner decides when it ends.
        Raises EmbeddedError if there is kin left.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(
                "the embedded PostgreSQL is started from the main thread: it ends with its parent thread"
            )
        account = self.account
        with ExitStack() as ours:  # these descriptors: from here on only kin hold them
            lock = ours.enter_context(_descriptor(self.lock, os.O_RDWR | os.O_CREAT))
            if not _lock(lock):
                raise EmbeddedError(f"PostgreSQL still runs on {self.lock.parent}")
            cluster = ours.enter_context(_descriptor(on, os.O_RDONLY | os.O_DIRECTORY))
            return subprocess.Popen(  # noqa: S603 - our own words, no shell
                command,
                cwd="/",  # PostgreSQL before 16 leaves its working folder and must be able to come back
                env={**environment(), "PGDATA": self._name_for(cluster, on)},
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                umask=0o077,
                start_new_session=True,
                pass_fds=(lock, cluster),
                preexec_fn=_vow(last_wish),  # noqa: PLW1509 - a few system calls; there is no other way to ask for it
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
            )

    def _name_for(self, descriptor: int, folder: Path) -> str:
        """What to call `folder` there: by its own name another account may not reach it, below /root for one."""
        return f"/proc/self/fd/{descriptor}" if self.account and sys.platform == "linux" else str(folder)

    def clear(self, postmaster: int = 0) -> None:
        """Wait until no kin is left, and end those that stay: asked first, killed at last.

        `postmaster` is what postmaster.pid says, perhaps long ago: it is signalled only if it is kin.
        Raises EmbeddedError if some cannot be ended.
        """
        if self._gone():
            return
        asked = postmaster != 0 and self._signal(signal.SIGINT, [postmaster])
        if wait_until(self._gone, FAST_SECONDS if asked else ORPHAN_SECONDS):
            return
        for wish in (signal.SIGQUIT, signal.SIGKILL):
            self._signal(wish, _pids())
            if wait_until(self._gone, IMMEDIATE_SECONDS):
                return
        raise EmbeddedError(
            f"PostgreSQL of an earlier run still works on {self.lock.parent} (postmaster {postmaster or 'unknown'}) "
            "and cannot be ended from here: stop it, then start again"
        )

    def _gone(self) -> bool:
        with _descriptor(self.lock, os.O_RDWR | os.O_CREAT) as lock:
            return _lock(lock)

    def _signal(self, wish: signal.Signals, pids: Iterable[int]) -> bool:
        """Send `wish` to those of `pids` that are kin, never to one that took a number over; says if there were any."""
        found = False
        for pid in pids:
            with suppress(OSError):  # gone meanwhile, or not ours to look at: then not kin either
                handle = os.pidfd_open(pid)
                try:
                    if self._holds(pid):
                        signal.pidfd_send_signal(handle, wish)
                        found = True
                finally:
                    os.close(handle)
        return found

    def _holds(self, pid: int) -> bool:
        ours = self.lock.stat()
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # closed since it was listed
                if os.path.samestat(ours, descriptor.stat()):
                    return pid != os.getpid()
        return False


def _vow(last_wish: signal.Signals) -> Callable[[], None]:
    """What a child does between fork and exec, after its change of account, which would take the wish back."""
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
    owner = os.getpid()

    def vow() -> None:
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, int(last_wish), 0, 0, 0)
        if os.getppid() != owner:  # it died before the wish was made
            os._exit(1)

    return vow


def _pids() -> list[int]:
    return (
        [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        if sys.platform == "linux"
        else []
    )


def environment() -> dict[str, str]:
    """Only what a program needs: settings and secrets of this service are nothing to PostgreSQL's account."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}
