"""The stage that every test here asks for."""

from pathlib import Path

import pytest

from tests.supervisor.stage import Scene


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("FOLDER", str(tmp_path))
    return Scene(tmp_path)
