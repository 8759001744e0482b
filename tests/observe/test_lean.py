"""What a worker does not load."""

import importlib
import subprocess
import sys

import pytest

from regsvc.observe.lean import without

LOADED = "import sys; import regsvc.world; print(' '.join(sys.modules))"


def test_a_worker_has_no_terminal_to_draw_on() -> None:
    said = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, check=True, text=True, timeout=50)
    loaded = set(said.stdout.split())
    assert "structlog" in loaded
    assert not {name for name in loaded if name.partition(".")[0] in {"rich", "pygments"}}


def test_rich_is_there_for_who_wants_it_afterwards() -> None:
    code = "import regsvc.observe, rich.console; print(rich.console.Console)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=50)


@pytest.mark.parametrize("name", ["colorsys", "no_such_module"])
def test_what_was_loaded_is_as_it_was_afterwards(name: str) -> None:
    importlib.import_module("colorsys")
    before = sys.modules.get(name)
    with without(name), pytest.raises(ImportError):
        importlib.import_module(name)
    assert sys.modules.get(name) is before
