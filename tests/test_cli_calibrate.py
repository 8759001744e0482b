"""`regsvc calibrate`: what it measures, and how it is told."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from regsvc.bcrypt_lanes import Package, open_engine
from regsvc.bcrypt_lanes.race import Heat, race, rounds_within, run_heat
from regsvc.cli import main
from regsvc.settings import cores

QUICK = ("calibrate", "--seconds", "0.05")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REGSVC_PASSWORD_ROUNDS", "10")
    return CliRunner()


def test_a_table_for_people_and_a_picture(run: CliRunner, tmp_path: Path) -> None:
    found = run.invoke(main, [*QUICK, "--svg", "lanes.svg", "--target", "0.1"])
    assert found.exit_code == 0, found.output
    assert "bcrypt at 10 rounds" in found.stdout
    assert "rounds in 0.1" in found.stdout
    assert f"up to {open_engine()[0].lanes}" in found.stdout or "at once: " in found.stdout
    assert "█" in found.stdout
    picture = (tmp_path / "lanes.svg").read_text("utf-8")
    assert picture.startswith("<svg")
    assert "regsvc calibrate" in picture.replace("&#160;", " ")


def test_json_for_programs(run: CliRunner) -> None:
    found = run.invoke(main, [*QUICK, "--json"])
    told = json.loads(found.stdout)
    assert told["rounds"] == 10
    assert 1 <= told["lanes"] <= open_engine()[0].lanes
    assert {heat["engine"] for heat in told["heats"]} == {"package", open_engine()[0].name}
    assert {heat["threads"] for heat in told["heats"]} == {1, cores()}
    assert all(heat["per_second"] > 0 for heat in told["heats"])


def test_where_nothing_is_compiled_the_package_runs_alone(run: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regsvc.bcrypt_lanes.open_engine", lambda: (Package(), "the lanes are not compiled: no"))
    told = json.loads(run.invoke(main, [*QUICK, "--json"]).stdout)
    assert {(heat["engine"], heat["lanes"]) for heat in told["heats"]} == {("package", 1)}
    assert told["reason"] == "the lanes are not compiled: no"


def test_a_person_sees_how_far_it_is(run: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regsvc.cli.calibrate.at_terminal", lambda: True)
    found = run.invoke(main, [*QUICK])
    assert "package, 1 at once, 1 threads …" in found.stderr


def test_wrong_words_are_refused(run: CliRunner) -> None:
    assert run.invoke(main, ["calibrate", "--seconds", "0"]).exit_code == 2
    assert run.invoke(main, ["calibrate", "--target", "no"]).exit_code == 2


def test_what_a_heat_comes_to() -> None:
    heat = Heat("lanes", threads=2, lanes=4, batches=20, seconds=1.0, cost=8)
    assert heat.per_second(8) == 80
    assert heat.per_second(12) == 5
    assert heat.each(8) == pytest.approx(0.1)
    assert heat.each(10) == pytest.approx(0.4)
    assert rounds_within(heat, 0.4) == 10
    assert rounds_within(heat, 0.39) == 9
    assert rounds_within(heat, 0.0001) == 4


def test_a_heat_is_run_by_as_many_threads_as_are_named() -> None:
    heat = run_heat(Package(), 2, 1, seconds=0.05, cost=4)
    assert (heat.engine, heat.threads, heat.lanes) == ("package", 2, 1)
    assert heat.batches >= 2
    told: list[str] = []
    assert len(list(race((Package(),), 1, seconds=0.01, report=told.append))) == 1
    assert told == ["package, 1 at once, 1 threads"]
