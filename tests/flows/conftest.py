"""What the flows' tests share."""

from collections.abc import Iterator

import pytest

from regsvc.observe import open_log
from tests.flows.house import House
from tests.lines import Lines


@pytest.fixture
def log() -> Iterator[Lines]:
    """What is said during the test."""
    lines = Lines()
    with open_log(lines, level="debug", fmt="json"):
        yield lines


@pytest.fixture
def house() -> House:
    return House()
