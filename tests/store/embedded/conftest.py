"""Data folders for the embedded PostgreSQL, empty and with a cluster."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from regsvc.store.embedded import binaries, open_embedded, process
from tests.postgres import psql, temporary_folder
from tests.store.embedded.owners import NOBODY, ROOT


@pytest.fixture
def folder() -> Iterator[Path]:
    """A data folder with a space and more in its name, which every account could reach; pytest's own is root's."""
    with temporary_folder("regsvc tëst ") as above:
        above.chmod(0o755)
        yield above / "data"


@pytest.fixture(scope="module")
def programs() -> Iterator[Path]:
    """Programs that a normal user can run, wherever this virtual environment lies."""
    with temporary_folder() as above:
        above.chmod(0o755)
        account = process.Account(NOBODY.pw_uid, NOBODY.pw_gid) if ROOT else None
        yield binaries.find(None, major=None, account=account, cache=above / "cache").folder


@pytest.fixture(scope="module")
def made(programs: Path) -> Iterator[Path]:
    """A data folder with a whole cluster, to copy: quicker than making one for each test."""
    with temporary_folder() as above:
        with open_embedded(above / "data", binaries=programs) as cluster:
            psql(cluster, "CREATE TABLE kept (n int)")
        yield above / "data"


@pytest.fixture
def data(made: Path, folder: Path) -> Path:
    """A folder with a cluster, stopped."""
    subprocess.run(["cp", "-a", made, folder], check=True)
    return folder
