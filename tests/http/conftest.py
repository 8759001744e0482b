"""What the tests of the front share."""

from collections.abc import Iterator

import pytest

from regsvc.observe import open_log
from tests.http.doorstep import Doorstep
from tests.lines import Lines


@pytest.fixture
def log() -> Iterator[Lines]:
    """What is said during the test."""
    lines = Lines()
    with open_log(lines, level="debug", fmt="json"):
        yield lines


@pytest.fixture
def door() -> Doorstep:
    """The app over flows with their ports in memory, all well."""
    return Doorstep()
