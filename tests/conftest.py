"""What every floor's tests may ask for."""

import os
from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import settings

from regsvc.store.embedded import Cluster
from tests import canaries
from tests.postgres import temporary_cluster, temporary_database
from tests.redis import any_redis

# Each test has its 20 s; how long a single example takes says something of the machine only.
settings.register_profile("house", deadline=None)
settings.load_profile("house")
_numbers = count()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rounds", type=int, default=None, metavar="N", help="how often loops go round; default: a few")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give the large form of a test the time that its rounds take."""
    if rounds := config.getoption("--rounds"):
        for item in items:
            if "rounds" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.timeout(20 + 5 * rounds), append=False)


@pytest.fixture(scope="session", autouse=True)
def listening() -> Iterator[None]:
    """Note every secret that a client of the tests says or hears: the services' logs are searched for them."""
    with canaries.listening():
        yield


@pytest.fixture(scope="session")
def rounds(request: pytest.FixtureRequest) -> int | None:
    """How many rounds were asked for; None: each test takes its own small number (`rounds or 15`)."""
    asked: int | None = request.config.getoption("--rounds")
    return asked


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """The session's PostgreSQL."""
    with temporary_cluster() as cluster:
        yield cluster


@pytest.fixture
def database(postgres: Cluster) -> Iterator[str]:
    """The DSN of an empty database of the test's own."""
    with temporary_database(postgres, f"test_{os.getpid()}_{next(_numbers)}") as dsn:
        yield dsn


@pytest.fixture(scope="session")
def redis() -> Iterator[str]:
    """The address of the session's Redis, which others may use too; skips where there is none."""
    with any_redis() as url:
        yield url
