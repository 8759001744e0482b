"""A real PostgreSQL for tests: one cluster a session, one database a test.

Tests that need a cluster of their own get a copy of one that is made once a process: half a second of a core each.
"""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Final

from regsvc.store.embedded import Cluster, open_embedded

SPACE = 1 << 30  # octets that a session's databases and their log may take
MEMORY = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a private folder there
MAKE_SECONDS: Final = 60.0  # far beyond what it takes on a busy machine
# In a process of its own: PostgreSQL is started from main threads only, and tests start services from others too.
MAKING: Final = """
import sys
from pathlib import Path
from regsvc.store.embedded import open_embedded
with open_embedded(Path(sys.argv[1])):
    pass
"""
_making = threading.Lock()


@contextmanager
def temporary_folder(name: str = "regsvc-tests-") -> Iterator[Path]:
    """A private folder in memory where there is room, so that fsync costs nothing; gone at the end of the block."""
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > SPACE
    folder = Path(tempfile.mkdtemp(prefix=name, dir=MEMORY if roomy else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def temporary_cluster(*, first: bool = False) -> Iterator[Cluster]:
    """A cluster in a temporary folder, stopped and gone at the end of the block; `first`: made there, not copied."""
    with temporary_folder() as folder:
        if not first:
            copy_cluster(folder)
        with open_embedded(folder) as cluster:
            yield cluster


def copy_cluster(data: Path) -> None:
    """Put a cluster into a data folder that has none, as the first start of a service would make it there."""
    with _making:
        made = _made()
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", made / "postgres", data / "postgres"], check=True)  # it keeps modes and owners


@cache
def _made() -> Path:
    """A data folder in which the service's own code has made a cluster; gone at the end of this process."""
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder("regsvc-made-"))
        environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS")}
        words = [sys.executable, "-c", MAKING, str(folder)]
        subprocess.run(words, check=True, env=environ, stdin=subprocess.DEVNULL, timeout=MAKE_SECONDS)
        atexit.register(stack.pop_all().close)
    return folder


def psql(cluster: Cluster, statement: str, *, database: str | None = None) -> str:
    """What psql answers to `statement`, unaligned; raises CalledProcessError with what it said."""
    answer = subprocess.run(
        [cluster.binaries / "psql", "-XqAtv", "ON_ERROR_STOP=1", "-d", dsn_of(cluster, database), "-c", statement],
        capture_output=True,
        check=True,
        text=True,
        timeout=50,
    )
    return answer.stdout.strip()


def dsn_of(cluster: Cluster, database: str | None = None) -> str:
    """How to reach another database of the cluster."""
    return cluster.dsn.replace("@/regsvc?", f"@/{database or 'regsvc'}?")


@contextmanager
def temporary_database(cluster: Cluster, name: str, *, template: str = "template0") -> Iterator[str]:
    """The DSN of a new database, copied from `template`; dropped at the end, with whoever is still connected."""
    psql(cluster, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    try:
        yield dsn_of(cluster, name)
    finally:
        psql(cluster, f"DROP DATABASE {name} WITH (FORCE)")
