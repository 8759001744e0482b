"""The step of the build that compiles the lanes: what it adds to a wheel, and that it never fails."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from regsvc.bcrypt_lanes.hatch_build import LanesBuildHook

ROOT = Path(__file__).parents[2]


class App:
    def __init__(self) -> None:
        self.warned: list[str] = []

    def display_warning(self, message: str) -> None:
        self.warned.append(message)


def hook(app: App, folder: Path) -> LanesBuildHook:
    nothing: Any = None
    shown: Any = app
    return LanesBuildHook(str(ROOT), {}, nothing, nothing, str(folder), "wheel", shown)


def test_without_a_compiler_the_wheel_is_what_it_was(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CC", raising=False)
    app, data = App(), dict[str, Any](force_include={})
    step = hook(app, folder)
    step.initialize("standard", data)
    step.finalize("standard", data, "")
    assert data == {"force_include": {}}
    [warned] = app.warned
    assert "there is no C compiler" in warned


def test_with_one_it_has_the_lanes_and_says_for_whom(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    real = runpy.run_path

    def compiled(target: Path) -> Path:
        made = target / "_lanes.abi3.so"
        made.touch()
        return made

    def quick(path: str) -> dict[str, Any]:
        return {**real(path), "compile_lanes": compiled}  # compiling for real has tests of its own

    monkeypatch.setattr(runpy, "run_path", quick)
    data = dict[str, Any](force_include={})
    step = hook(App(), folder)
    step.initialize("standard", data)
    [(made, there)] = data["force_include"].items()
    assert Path(made).exists()
    assert there == "regsvc/bcrypt_lanes/_lanes.abi3.so"
    assert data["tag"].startswith("cp311-abi3-")
    assert data["pure_python"] is False
    step.finalize("standard", data, "")
    assert not Path(made).exists()


def test_an_editable_install_has_it_in_place_and_compiles_once(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    real, asked = runpy.run_path, list[Path]()

    def counting(path: str) -> dict[str, Any]:
        return {**real(path), "fresh": lambda _: bool(asked), "compile_lanes": asked.append}

    monkeypatch.setattr(runpy, "run_path", counting)
    data = dict[str, Any](force_include={})
    for _ in range(2):
        step = hook(App(), folder)
        step.initialize("editable", data)
        step.finalize("editable", data, "")
    assert asked == [ROOT / "regsvc" / "bcrypt_lanes"]
    assert data == {"force_include": {}}
