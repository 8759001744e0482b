"""A real PostgreSQL for tests: one cluster a session, one database a test."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from regsvc.store.embedded import Cluster, open_embedded

SPACE = 1 << 30  # octets that a session's databases and their log may take
MEMORY = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a private folder there


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
def temporary_cluster() -> Iterator[Cluster]:
    """A cluster in a temporary folder, stopped and gone at the end of the block."""
    with temporary_folder() as folder, open_embedded(folder) as cluster:
        yield cluster


def psql(cluster: Cluster, statement: str, *, database: str | None = None) -> str:
    """What psql answers to `statement`, unaligned; raises CalledProcessError with what it said."""
    answer = subprocess.run(
        [cluster.binaries / "psql", "-XqAtv", "ON_ERROR_STOP=1", "-d", dsn_of(cluster, database), "-c", statement],
        capture_output=True,
        check=True,
        text=True,
        timeout=20,
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
