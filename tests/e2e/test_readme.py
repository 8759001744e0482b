"""The README's tour works as printed."""

import shutil
import tempfile
from pathlib import Path

import pytest

from tests import tour
from tests.service import running_first


@pytest.mark.skipif(shutil.which("curl") is None, reason="the tour is taken with curl, which is not installed here")
def test_the_tour_answers_as_printed() -> None:
    commands, shown = tour.shown()
    assert len(commands) == 5
    with (
        tempfile.TemporaryDirectory() as folder,
        running_first(Path(folder), ENABLE_RATE_LIMITING="true") as service,
    ):
        answers = tour.take(commands, service.port)
    for command, printed, answer in zip(commands, shown, answers, strict=True):
        assert tour.same(printed, answer), f"{command}\nprinted:  {printed}\nanswered: {answer}"
