"""What an owner sees of the embedded PostgreSQL: a cluster that runs while a block does."""

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from regsvc.store.embedded.binaries import find
from regsvc.store.embedded.process import EmbeddedError, Kin, account_for, owned
from regsvc.store.embedded.server import NAME, PORT, SOCKET, Mode, Server

CACHE = Path("/var/cache/regsvc")  # FHS 3.0, 5.5: what can be made again
SOCKET_MAX = 107  # octets of a socket's path without the NUL; Linux unix(7), sun_path


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
    _server: Server = field(repr=False)

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

    def restart(self, mode: Mode = "fast") -> None:
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
    `binaries` is the folder of PostgreSQL's programs, instead of all places where they are looked for; `cache` takes a
    copy of the wheel's where root runs a wheel that PostgreSQL's account cannot reach. `report` is told, in a line
    each, what takes its time. PostgreSQL's own log is `data_dir`/postgres.log.
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
    found = find(binaries, major=_major(folder), account=account, cache=cache, report=report)
    way = stack.enter_context(_way_to_socket(folder))
    server = Server(folder, data_dir / "postgres.log", found, Kin(data_dir / "postgres.alive", account), report)
    stack.callback(server.stop)
    if not folder.exists():
        report(f"making a database in {folder}")
        server.make()
    server.start()
    return Cluster(_dsn(way), found.version, found.folder, folder, server.log, server)


def running_dsn(data_dir: Path) -> str:
    """Return the `dsn` of the cluster that a process of the same user owns in `data_dir`."""
    folder = data_dir.absolute() / "postgres"
    return _dsn(_link_to(folder) or folder)


def _dsn(way: Path) -> str:
    return f"postgresql://{NAME}@/{NAME}?host={quote(str(way), safe='/')}&port={PORT}"


def _major(folder: Path) -> int | None:
    if not folder.exists():
        return None
    try:
        return int((folder / "PG_VERSION").read_text("ascii"))
    except (FileNotFoundError, ValueError) as error:
        raise EmbeddedError(
            f"{folder} holds no PostgreSQL data (no readable PG_VERSION): move it away to start with an empty database"
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


@contextmanager
def _way_to_socket(folder: Path) -> Iterator[Path]:
    """The folder to name in a DSN: `folder`, or a short link to it where clients could not say its name.

    A socket's path has a length limit, and clients read a comma as the end of a host.
    """
    link = _link_to(folder)
    if link is None:
        yield folder
        return
    private = link.parent
    private.mkdir(mode=0o700, exist_ok=True)
    found = private.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise EmbeddedError(f"{folder} is too long for a socket's path, and {private} is not ours: use a shorter one")
    link.unlink(missing_ok=True)  # of an owner that was killed
    link.symlink_to(folder)
    try:
        yield link
    finally:
        link.unlink(missing_ok=True)
        private.rmdir()


def _link_to(folder: Path) -> Path | None:
    """The short link's place; None where `folder` needs none."""
    if len(os.fsencode(folder / SOCKET)) <= SOCKET_MAX and "," not in str(folder):
        return None
    known = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    return Path(tempfile.gettempdir(), f"regsvc-{os.geteuid()}-{known}", "pg")
