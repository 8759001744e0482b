"""Workers that are replaced one by one: when they are, when they are not, and with which settings."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from regsvc.supervisor import rolling, watch
from tests.supervisor.stage import QUICK, Scene, gone, tell, until

LEAVES = "ready(); wait()"


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda _: False)


def settings_of(scene: Scene, pid: int) -> dict[str, str]:
    [path] = scene.folder.glob(f"*.{pid}")
    told: dict[str, str] = json.loads(path.read_text())
    return told


def alive(scene: Scene, number: int) -> int:
    """The one process that is worker `number` now."""
    [pid] = [pid for pid in scene.pids(number) if not gone(pid)]
    return pid


def started(scene: Scene) -> None:
    until(lambda: scene.lines.of("service_started"))


def test_each_worker_is_replaced_by_one_with_the_new_settings(scene: Scene) -> None:
    def actor() -> None:
        started(scene)
        scene.changed = {"REGSVC_CODE_LENGTH": "8"}
        tell(signal.SIGHUP)
        until(lambda: scene.lines.of("reload_completed"))
        assert [settings_of(scene, alive(scene, number))["REGSVC_CODE_LENGTH"] for number in (1, 2)] == ["8", "8"]
        os.kill(alive(scene, 1), signal.SIGKILL)
        until(lambda: len(scene.pids(1)) == 3)
        tell(signal.SIGTERM)

    assert scene.run(LEAVES, actor, WORKERS="2", CODE_LENGTH="7") == os.EX_OK
    [begun], [done] = scene.lines.of("reload_started"), scene.lines.of("reload_completed")
    assert (begun["workers"], done["replaced"]) == (2, 2)
    assert done["took_s"] < QUICK
    lengths = [settings_of(scene, pid)["REGSVC_CODE_LENGTH"] for number in (1, 2) for pid in scene.pids(number)]
    assert sorted(lengths) == ["7", "7", "8", "8", "8"], "whoever dies later is replaced with the new ones too"
    assert len(scene.lines.of("worker_restarted")) == 1, "a replacement is no restart"
    ports = {settings_of(scene, pid)["REGSVC_PORT"] for number in (1, 2) for pid in scene.pids(number)}
    assert len(ports) == 1
    assert "0" not in ports


def test_there_is_never_one_less_and_never_two_more(scene: Scene) -> None:
    """Each of the workers notes how many there are when it is ready, and how many when it was told to leave."""
    note = """
def others():
    return sum(not is_gone(int(name.split(".")[1])) for name in os.listdir(folder) if name[0].isdigit())
def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
def leave(*_):
    open(f"{folder}/leaving.{others()}.{os.getpid()}", "w").close()
    sys.exit(0)
count = others() + 1  # before the supervisor hears of it, and ends the one whose place this is
ready(leave)
open(f"{folder}/ready.{count}.{os.getpid()}", "w").close()
wait()
"""

    def actor() -> None:
        started(scene)
        tell(signal.SIGHUP)
        until(lambda: scene.lines.of("reload_completed"))
        tell(signal.SIGTERM)

    assert scene.run(note, actor, WORKERS="2") == os.EX_OK
    counts = [path.name.split(".")[1] for path in scene.folder.glob("ready.*")]
    assert max(counts) == "3"
    leaving = [path.name.split(".")[1] for path in scene.folder.glob("leaving.*")]
    assert leaving.count("3") == 2


def test_told_while_it_rolls_it_rolls_once_more(scene: Scene) -> None:
    def actor() -> None:
        started(scene)
        for _ in range(3):
            tell(signal.SIGHUP)
            until(lambda: scene.lines.of("reload_started"))
        (scene.folder / "go on").touch()
        until(lambda: len(scene.lines.of("reload_completed")) == 2)
        tell(signal.SIGTERM)

    late = """
if times():
    while not os.path.exists(folder + "/go on"):
        time.sleep(0.01)
ready()
wait()
"""
    assert scene.run(late, actor) == os.EX_OK
    assert [line["replaced"] for line in scene.lines.of("reload_completed")] == [1, 1]
    assert len(scene.lines.of("reload_started")) == 2
    assert len(scene.pids()) == 3


@pytest.mark.parametrize("status", [1, os.EX_CONFIG, os.EX_TEMPFAIL])
def test_a_new_worker_that_ends_leaves_all_as_it_was(scene: Scene, status: int) -> None:
    worker = f"sys.exit({status}) if times() else None; ready(); wait()"

    def actor() -> None:
        started(scene)
        before = scene.pids()
        scene.changed = {"REGSVC_CODE_LENGTH": "8"}
        tell(signal.SIGHUP)
        until(lambda: scene.lines.of("reload_failed"))
        assert not gone(before[0])
        tell(signal.SIGTERM)

    assert scene.run(worker, actor) == os.EX_OK
    [failed] = scene.lines.of("reload_failed")
    assert (failed["level"], failed["replaced"]) == ("error", 0)
    assert failed["reason"] == f"a new worker ended with {status} before it was ready"
    assert len(scene.pids()) == 1
    assert scene.lines.of("worker_restarted") == []


def test_where_the_settings_were_good_for_one_they_are_for_all(scene: Scene) -> None:
    """The second new worker fails: who dies later is replaced with what the first one works with."""
    worker = (
        "sys.exit(1) if me.number == 2 and times() and not os.path.exists(folder + '/well') else None; ready(); wait()"
    )

    def actor() -> None:
        started(scene)
        scene.changed = {"REGSVC_CODE_LENGTH": "8"}
        tell(signal.SIGHUP)
        until(lambda: scene.lines.of("reload_failed"))
        (scene.folder / "well").touch()
        os.kill(alive(scene, 2), signal.SIGKILL)
        until(lambda: len(scene.pids(2)) == 2)
        tell(signal.SIGTERM)

    assert scene.run(worker, actor, WORKERS="2") == os.EX_OK
    assert scene.lines.of("reload_failed")[0]["replaced"] == 1
    lengths = [settings_of(scene, pid)["REGSVC_CODE_LENGTH"] for number in (1, 2) for pid in scene.pids(number)]
    assert sorted(lengths) == ["4", "4", "8", "8"]


def test_a_new_worker_that_takes_too_long_is_killed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolling, "PATIENCE", 0.3)

    def actor() -> None:
        started(scene)
        tell(signal.SIGHUP)
        until(lambda: scene.lines.of("reload_failed") and scene.lines.of("worker_exited"))
        tell(signal.SIGTERM)

    assert scene.run("wait() if times() else None; ready(); wait()", actor) == os.EX_OK
    assert scene.lines.of("reload_failed")[0]["reason"] == "a new worker was not ready within 0.3 s"
    [killed] = scene.lines.of("worker_exited")
    assert (killed["exit_status"], killed["asked_for"]) == (-signal.SIGKILL, True)


def test_a_new_worker_that_cannot_be_started_breaks_it_off(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def actor() -> None:
        started(scene)
        monkeypatch.setattr("regsvc.supervisor.workers.spawn", no_memory)
        tell(signal.SIGHUP)
        until(lambda: scene.lines.of("reload_failed"))
        tell(signal.SIGTERM)

    def no_memory(*_: Any) -> None:
        raise OSError(12, "Cannot allocate memory")

    assert scene.run(LEAVES, actor) == os.EX_OK
    assert "could not be started: [Errno 12]" in scene.lines.of("reload_failed")[0]["reason"]
    assert len(scene.pids()) == 1


def test_wrong_settings_change_nothing(scene: Scene) -> None:
    def actor() -> None:
        started(scene)
        scene.changed = {"REGSVC_CODE_LENGTH": "many"}
        tell(signal.SIGHUP)
        until(lambda: scene.lines.of("reload_failed"))
        tell(signal.SIGTERM)

    assert scene.run(LEAVES, actor) == os.EX_OK
    [failed] = scene.lines.of("reload_failed")
    assert failed["reason"] == "REGSVC_CODE_LENGTH: got 'many', takes a whole number, 4 to 10"
    assert scene.lines.of("reload_started") == []
    assert len(scene.pids()) == 1


def test_what_only_a_restart_changes_is_told_and_stays(scene: Scene, tmp_path: Path) -> None:
    def actor() -> None:
        started(scene)
        scene.changed = {
            "REGSVC_HOST": "127.0.0.2",
            "REGSVC_PORT": "1",
            "REGSVC_WORKERS": "2",
            "REGSVC_DATA_DIR": str(tmp_path / "elsewhere"),
            "REGSVC_ROLES": "mailer",
            "REGSVC_DATABASE_URL": "",
            "REGSVC_CODE_LENGTH": "9",
        }
        tell(signal.SIGHUP)
        until(lambda: scene.lines.of("reload_completed"))
        tell(signal.SIGTERM)

    assert scene.run(LEAVES, actor) == os.EX_OK
    warned = {line["setting"].removeprefix("REGSVC_") for line in scene.lines.of("settings_warning")}
    assert warned == {"HOST", "PORT", "WORKERS", "DATA_DIR", "ROLES", "DATABASE_URL"}
    before, after = sorted(
        (settings_of(scene, pid) for pid in scene.pids()), key=lambda told: told["REGSVC_CODE_LENGTH"]
    )
    assert {name for name in before if after[name] != before[name]} == {"REGSVC_CODE_LENGTH"}
    assert not (tmp_path / "elsewhere").exists()


def test_an_embedded_database_stays_what_it_is(scene: Scene, tmp_path: Path) -> None:
    """One is named now: in `.env`, say. With it, other defaults would be other ones."""

    @contextmanager
    def embedded() -> Iterator[Any]:
        yield SimpleNamespace(dsn="postgresql://embedded/x", pid=0, poll=lambda: None)

    def actor() -> None:
        started(scene)
        scene.changed = {"REGSVC_DATABASE_URL": "postgresql://db/x", "REGSVC_CODE_LENGTH": "9"}
        tell(signal.SIGHUP)
        until(lambda: scene.lines.of("reload_failed"))  # it would be a production's settings, and those lack much
        scene.changed["REGSVC_PROFILE"] = "dev"
        tell(signal.SIGHUP)
        until(lambda: scene.lines.of("reload_completed"))
        tell(signal.SIGTERM)

    own = {"DATABASE_URL": "", "PROFILE": "", "DATA_DIR": str(tmp_path / "data")}
    assert scene.run(LEAVES, actor, database=embedded, **own) == os.EX_OK
    assert [line["setting"] for line in scene.lines.of("settings_warning")] == ["REGSVC_DATABASE_URL"]
    [before] = [told for told in map(partial(settings_of, scene), scene.pids()) if told["REGSVC_CODE_LENGTH"] == "4"]
    [after] = [told for told in map(partial(settings_of, scene), scene.pids()) if told["REGSVC_CODE_LENGTH"] == "9"]
    assert before | {"REGSVC_CODE_LENGTH": "9"} | {"REGSVC_SECRET": ""} == after | {"REGSVC_SECRET": ""}
    assert after["REGSVC_DATABASE_URL"] == "postgresql://embedded/x"


def test_roles_without_the_door_may_change(scene: Scene) -> None:
    def actor() -> None:
        started(scene)
        scene.changed = {"REGSVC_ROLES": "http,mailer"}
        tell(signal.SIGHUP)
        until(lambda: scene.lines.of("reload_completed"))
        assert settings_of(scene, alive(scene, 1))["REGSVC_ROLES"] == "http,mailer"
        tell(signal.SIGTERM)

    assert scene.run(LEAVES, actor) == os.EX_OK
    assert scene.lines.of("settings_warning") == []


def test_a_worker_that_dies_meanwhile_is_replaced_all_the_same(scene: Scene) -> None:
    def actor() -> None:
        started(scene)
        [first] = scene.pids()
        tell(signal.SIGHUP)
        until((scene.folder / "begun").exists)
        os.kill(first, signal.SIGKILL)
        until(lambda: scene.lines.of("worker_restarted"))
        (scene.folder / "go on").touch()
        until(lambda: scene.lines.of("reload_completed"))
        assert not gone(alive(scene, 1))
        tell(signal.SIGTERM)

    worker = """
if times():
    open(folder + "/begun", "w").close()
    while not os.path.exists(folder + "/go on"):
        time.sleep(0.01)
ready(); wait()
"""
    assert scene.run(worker, actor) == os.EX_OK
    assert scene.lines.of("reload_completed")[0]["replaced"] == 1


def test_who_does_not_leave_in_time_is_killed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MARGIN", 0.2)

    def actor() -> None:
        started(scene)
        tell(signal.SIGHUP)
        until(lambda: scene.lines.of("reload_completed"))
        tell(signal.SIGTERM)
        tell(signal.SIGTERM)

    assert scene.run("ready(signal.SIG_IGN); wait()", actor, DRAIN_SECONDS="0.1") == os.EX_OK
    assert {line["exit_status"] for line in scene.lines.of("worker_exited")} == {-signal.SIGKILL}


def test_told_to_stop_it_breaks_off_and_ends_everybody(scene: Scene) -> None:
    def actor() -> None:
        started(scene)
        tell(signal.SIGHUP)
        until((scene.folder / "begun").exists)
        tell(signal.SIGTERM)

    worker = "open(folder + '/begun', 'w').close() or wait() if times() else None; ready(); wait()"
    assert scene.run(worker, actor) == os.EX_OK
    assert scene.lines.of("reload_failed")[0]["reason"] == "the service ends"
    assert len(scene.lines.of("worker_stopped")) == 2
    assert scene.lines.all[-1]["event"] == "service_stopped"


def test_told_to_roll_when_it_ends_it_ends(scene: Scene) -> None:
    def actor() -> None:
        started(scene)
        tell(signal.SIGTERM)
        until((scene.folder / "heard").exists)
        tell(signal.SIGHUP)
        (scene.folder / "go on").touch()

    leave = """
def leave(*_):
    open(folder + "/heard", "w").close()
    while not os.path.exists(folder + "/go on"):
        time.sleep(0.01)
    sys.exit(0)
ready(leave); wait()
"""
    assert scene.run(leave, actor) == os.EX_OK
    assert scene.lines.of("reload_started") == []
    assert [line["exit_status"] for line in scene.lines.of("worker_stopped")] == [0]


def test_settings_that_never_worked_are_exchanged_for_ones_that_do(scene: Scene) -> None:
    """As with a wrong password of the database: workers come and go until somebody corrects it."""
    worker = """
if me.orders["settings"]["REGSVC_CODE_LENGTH"] == "4":
    sys.exit(75)
ready(); wait()
"""

    def actor() -> None:
        until(lambda: len(scene.lines.of("worker_exited")) > 1)
        scene.changed = {"REGSVC_CODE_LENGTH": "8"}
        tell(signal.SIGHUP)
        until(lambda: scene.lines.of("reload_completed"))
        started(scene)
        tell(signal.SIGTERM)

    assert scene.run(worker, actor) == os.EX_OK
