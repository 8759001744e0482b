"""A migrated database for each test, copied from one that was migrated once."""

import os
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from itertools import count

import pytest
import trio

from regsvc.domain.values import Secret
from regsvc.store import Store, open_store, probe, quota
from regsvc.store.embedded import Cluster
from regsvc.store.migrations import migrate
from regsvc.trio_asyncpg import Connection, open_connection
from tests.postgres import temporary_database
from tests.store.scenes import new_id

PATIENCE = timedelta(seconds=20)  # for whatever is asked of the database: a busy machine is not what this is about
_numbers = count()


@pytest.fixture(scope="session")
def template(postgres: Cluster) -> Iterator[str]:
    """The name of a database that has every migration and no rows."""
    name = f"template_{os.getpid()}"
    with temporary_database(postgres, name) as dsn:
        trio.run(lambda: migrate(Secret(dsn)))
        yield name


@pytest.fixture
def migrated(postgres: Cluster, template: str) -> Iterator[str]:
    """The DSN of a migrated database of the test's own."""
    with temporary_database(postgres, f"store_{os.getpid()}_{next(_numbers)}", template=template) as dsn:
        yield dsn


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buckets and probes are given more than their moment, too."""
    for module in (probe, quota):
        monkeypatch.setattr(module, "PATIENCE", PATIENCE.total_seconds())


@pytest.fixture
async def store(migrated: str) -> AsyncIterator[Store]:
    """The store on a database of the test's own."""
    async with open_store(Secret(migrated), new_id=new_id, pool_min=1, pool_max=8, timeout=PATIENCE) as store:
        yield store


@pytest.fixture
async def raw(migrated: str) -> AsyncIterator[Connection]:
    """A connection to look at the same database past the store."""
    async with open_connection(migrated) as connection:
        yield connection
