"""What every floor's tests may ask for."""

import os
import signal
from collections.abc import Generator, Iterator
from itertools import count

import pytest
from hypothesis import settings

from regsvc.store.embedded import Cluster
from tests import browser, canaries, lines
from tests.chaos import recording
from tests.postgres import temporary_cluster, temporary_database
from tests.redis import any_redis

# Each test has three minutes; how long a single example takes says something of the machine only.
settings.register_profile("house", deadline=None)
settings.load_profile("house")
_numbers = count()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rounds", type=int, default=None, metavar="N", help="how often loops go round; default: a few")
    parser.addoption("--report", default=None, metavar="FOLDER", help="where tests with rounds write what they counted")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give the large form of a test the time that its rounds take."""
    if rounds := config.getoption("--rounds"):
        for item in items:
            if "rounds" in getattr(item, "fixturenames", ()):
                own = item.get_closest_marker("timeout")
                small = max(180, *own.args) if own is not None else 180
                item.add_marker(pytest.mark.timeout(small + 10 * rounds), append=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write down what a test with rounds counted, where that is asked for."""
    report = yield
    recording.note(item, report)
    return report


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Hear Ctrl-C: a shell that starts the tests in its background has them ignore it, and all that they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def listening() -> Iterator[None]:
    """Note every secret that a client of the tests says or hears: the services' logs are searched for them."""
    with canaries.listening():
        yield


@pytest.fixture(scope="session", autouse=True)
def overhearing() -> Iterator[None]:
    """Hold every line that this process logs to the schema of its event."""
    with lines.overhearing():
        yield


@pytest.fixture(autouse=True)
def every_line_is_as_promised(overhearing: None) -> Iterator[None]:
    """Fail a test in which a line was said that breaks its event's schema."""
    lines.UNHEARD.clear()
    yield
    assert lines.UNHEARD == []


@pytest.fixture(scope="session")
def rounds(request: pytest.FixtureRequest) -> int | None:
    """How many rounds were asked for; None: each test takes its own small number (`rounds or 15`)."""
    asked: int | None = request.config.getoption("--rounds")
    return asked


@pytest.fixture
def counted(request: pytest.FixtureRequest) -> recording.Counted:
    """Say what a run counted: rounds, operations at risk, figures by name. It is printed, and kept by `--report`."""
    return recording.counting(request.node)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """The session's PostgreSQL."""
    with temporary_cluster(first=True) as cluster:
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


@pytest.fixture(scope="session")
def chromium() -> Iterator[browser.Program]:
    """The session's browser; skips where there is none."""
    with browser.running() as program:
        yield program
