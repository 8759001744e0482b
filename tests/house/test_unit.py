"""The systemd unit fits the service, and systemd finds it right where it is installed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from regsvc.settings import load_settings
from regsvc.supervisor.watch import MARGIN

UNIT: Final = Path(__file__).parents[2] / "docs" / "regsvc.service"
EXPOSED_MOST: Final = 15  # tenths; 13 were seen, without any sandbox it is 92
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")


def said() -> dict[str, list[str]]:
    """Every line of the unit, by its name."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", UNIT.read_text("utf-8"), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def test_the_unit_fits_the_service() -> None:
    unit = said()
    [words] = unit["Environment"]
    settings = load_settings(dict(word.split("=", 1) for word in words.split()))
    [folder] = unit["StateDirectory"]
    assert settings.data_dir == Path("/var/lib", folder)
    takes = (settings.lame_duck_seconds + settings.drain_seconds).total_seconds() + MARGIN
    assert int(unit["TimeoutStopSec"][0]) > takes
    assert unit["RestartPreventExitStatus"] == [str(os.EX_CONFIG)]
    assert unit["Type"] == ["exec"], "it tells systemd nothing"
    assert unit["KillMode"] == ["mixed"], "workers are told by the supervisor"
    assert unit["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert int(unit["LimitNOFILE"][0]) > settings.connections_max


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit, with the command of whoever runs the tests."""
    path = tmp_path / UNIT.name
    command = str(Path(sys.executable).with_name("regsvc"))
    path.write_text(UNIT.read_text("utf-8").replace("/opt/regsvc/bin/regsvc", f'"{command}"'))  # it may have a space
    return path


@needs_systemd
def test_systemd_takes_the_unit(installed: Path) -> None:
    done = subprocess.run(["systemd-analyze", "verify", str(installed)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_systemd_finds_little_to_attack(installed: Path) -> None:
    words = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSED_MOST}", str(installed)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-1000:]
