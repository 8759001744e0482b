"""The parent of all, with workers that are a few lines of Python: what it starts, restarts, stops and says.

What needs the real service is in tests/e2e.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from regsvc.settings import SettingsError, load_settings
from regsvc.supervisor import read_orders, watch
from tests.supervisor.stage import QUICK, UNSHARE, WORKER, Scene, can_unshare, gone, tell, until


def test_all_workers_are_told_their_settings_and_stopped(scene: Scene) -> None:
    def actor() -> None:
        until(lambda: scene.lines.of("service_started"))
        tell(signal.SIGTERM)

    assert scene.run("ready(); wait()", actor, WORKERS="2", CODE_LENGTH="7") == os.EX_OK
    [one], [two] = scene.pids(1), scene.pids(2)
    assert gone(one)
    assert gone(two)
    told = json.loads((scene.folder / f"1.{one}").read_text())
    assert load_settings(told) == scene.settings(WORKERS="2", CODE_LENGTH="7").listening_on(int(told["REGSVC_PORT"]))
    [started] = scene.lines.of("service_started")
    assert started["url"] == told["REGSVC_PUBLIC_URL"] == f"http://127.0.0.1:{told['REGSVC_PORT']}"
    assert [line.split()[0] for line in scene.told] == ["service", "docs", "mailbox"]
    assert {line["pid"] for line in scene.lines.of("worker_stopped")} == {one, two}
    assert scene.lines.of("worker_exited") == []
    assert scene.lines.of("service_stopped")[0]["exit_status"] == 0


def test_settings_are_in_no_argument_and_in_no_environment(scene: Scene) -> None:
    seen: list[bytes] = []

    def actor() -> None:
        until(lambda: scene.lines.of("service_started"))
        [pid] = scene.pids()
        seen.extend(Path(f"/proc/{pid}/{what}").read_bytes() for what in ("cmdline", "environ"))
        tell(signal.SIGINT)

    assert scene.run("ready(); wait()", actor, SECRET="xyzzy" * 10) == os.EX_OK
    assert len(seen) == 2
    assert not any(b"xyzzy" in what for what in seen)


def test_a_worker_that_dies_is_replaced(scene: Scene) -> None:
    def actor() -> None:
        until(lambda: len(scene.pids()) == 1)
        os.kill(scene.pids()[0], signal.SIGKILL)
        until(lambda: len(scene.pids()) == 2)
        tell(signal.SIGTERM)

    assert scene.run("ready(); wait()", actor) == os.EX_OK
    [first] = scene.lines.of("worker_exited")
    assert (first["exit_status"], first["asked_for"]) == (-signal.SIGKILL, False)
    [last] = scene.lines.of("worker_stopped")
    assert last["exit_status"] == 0
    assert scene.lines.of("worker_restarted")[0]["restarts"] == 1


def test_workers_that_die_at_once_wait_longer_each_time(scene: Scene) -> None:
    def actor() -> None:
        until(lambda: len(scene.pids()) == 4)
        tell(signal.SIGTERM)

    assert scene.run("ready(); sys.exit(1) if times() < 4 else wait()", actor) == os.EX_OK
    assert [line["wait_s"] for line in scene.lines.of("worker_restarted")] == [0.1, 0.2, 0.4]


def test_a_worker_that_lived_on_is_replaced_at_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SETTLED", 0.0)

    def actor() -> None:
        until(lambda: len(scene.pids()) == 4)
        tell(signal.SIGTERM)

    assert scene.run("ready(); time.sleep(0.1); sys.exit(1) if times() < 4 else wait()", actor) == os.EX_OK
    assert [line["wait_s"] for line in scene.lines.of("worker_restarted")] == [0.1, 0.1, 0.1]


def test_a_misconfigured_worker_ends_all(scene: Scene) -> None:
    assert scene.run("ready(); sys.exit(78) if me.number == 2 else wait()", WORKERS="2") == os.EX_CONFIG
    assert all(gone(pid) for pid in scene.pids(1))
    assert scene.lines.of("service_stopped")[0]["exit_status"] == os.EX_CONFIG


def test_without_any_worker_for_long_it_gives_up(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "HOPELESS", 0.5)
    assert scene.run("sys.exit(75)") == os.EX_TEMPFAIL
    assert "no worker was ready" in scene.lines.of("service_stopped")[0]["reason"]


def test_a_worker_that_cannot_be_started_is_tried_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "HOPELESS", 0.5)
    monkeypatch.setattr(sys, "executable", str(scene.folder / "nothing"))
    assert scene.run("") == os.EX_TEMPFAIL
    assert len(scene.lines.of("worker_exited")) > 1


def test_a_worker_that_does_not_drain_is_killed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MARGIN", 0.2)

    def actor() -> None:
        until(lambda: scene.lines.of("service_started"))
        tell(signal.SIGTERM)

    assert scene.run("ready(signal.SIG_IGN); wait()", actor, DRAIN_SECONDS="0.1") == os.EX_OK
    assert scene.lines.of("worker_exited")[0]["exit_status"] == -signal.SIGKILL
    assert all(gone(pid) for pid in scene.pids())


def test_told_twice_it_does_not_wait(scene: Scene) -> None:
    def actor() -> None:
        until(lambda: scene.lines.of("service_started"))
        tell(signal.SIGTERM)
        until((scene.folder / "heard").exists)
        tell(signal.SIGTERM)

    began = time.monotonic()
    assert scene.run("ready(lambda *_: open(folder + '/heard', 'w').close()); wait()", actor) == os.EX_OK
    assert time.monotonic() - began < QUICK  # of the 30 s that a drain may take
    assert scene.lines.of("worker_exited")[0]["exit_status"] == -signal.SIGKILL


def test_while_it_is_a_lame_duck_the_door_stays_open(scene: Scene) -> None:
    """The workers say at once that they end, and have their own clock; the supervisor shuts the door in between."""
    held = (
        "leave = lambda *_: (open(folder + '/told', 'w').close(), time.sleep(2.5), sys.exit(0)); ready(leave); wait()"
    )
    seen: list[str] = []

    def actor() -> None:
        until(lambda: scene.lines.of("service_started"))
        address = ("127.0.0.1", int(scene.lines.of("service_started")[0]["url"].rpartition(":")[2]))
        tell(signal.SIGTERM)
        until((scene.folder / "told").exists)
        socket.create_connection(address, timeout=QUICK).close()
        seen.append("open")
        until(lambda: shut(address))
        seen.append("shut")

    def shut(address: tuple[str, int]) -> bool:
        try:
            socket.create_connection(address, timeout=0.1).close()
        except OSError:
            return True
        return False

    assert scene.run(held, actor, LAME_DUCK_SECONDS="2") == os.EX_OK
    assert seen == ["open", "shut"]


def waits(scene: Scene) -> int | None:
    """The worker that has no place yet, if there is one."""
    strangers = set(children(os.getpid())) - {pid for number in (1, 2) for pid in scene.pids(number)}
    for pid in strangers:
        with suppress(OSError):  # gone since it was listed
            if b"lifeline" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
    return None


def test_with_two_workers_a_third_waits_for_the_first_that_dies(scene: Scene) -> None:
    seen: list[int] = []

    def place_taken(number: int) -> bool:
        return seen[-1] in scene.pids(number)

    def actor() -> None:
        until(lambda: scene.lines.of("service_started"))
        for number in (1, 2):
            until(lambda: waits(scene))
            seen.append(waits(scene) or 0)
            [pid] = [pid for pid in scene.pids(number) if not gone(pid)]
            os.kill(pid, signal.SIGKILL)
            until(partial(place_taken, number))
        until(lambda: waits(scene))
        tell(signal.SIGTERM)

    assert scene.run("ready(); wait()", actor, WORKERS="2") == os.EX_OK
    assert len(set(seen)) == 2
    stopped = {line["pid"] for line in scene.lines.of("worker_stopped")}
    assert stopped == set(seen), "those that had a place at the end; who waited then never was a worker"
    assert all(gone(pid) for pid in seen)


def test_who_waits_and_dies_is_told_of_and_followed(scene: Scene) -> None:
    def actor() -> None:
        until(lambda: scene.lines.of("service_started"))
        until(lambda: waits(scene))
        pid = waits(scene) or 0
        os.kill(pid, signal.SIGKILL)
        until(lambda: waits(scene) not in {None, pid})
        tell(signal.SIGTERM)

    assert scene.run("ready(); wait()", actor, WORKERS="2") == os.EX_OK
    [line] = scene.lines.of("worker_exited")
    assert (line["exit_status"], line["asked_for"]) == (-signal.SIGKILL, False)
    assert scene.lines.of("worker_restarted") == []


def test_who_waited_before_a_reload_gets_no_place_after_it(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has imported may be of yesterday."""
    monkeypatch.setattr(os, "isatty", lambda _: False)
    waited: list[int] = []

    def actor() -> None:
        until(lambda: scene.lines.of("service_started"))
        until(lambda: waits(scene))
        waited.append(waits(scene) or 0)
        tell(signal.SIGHUP)
        until(lambda: scene.lines.of("reload_completed"))
        until(lambda: waits(scene))
        waited.append(waits(scene) or 0)
        tell(signal.SIGTERM)

    assert scene.run("ready(); wait()", actor, WORKERS="2") == os.EX_OK
    assert waited[0] != waited[1]
    assert not set(waited) & {pid for number in (1, 2) for pid in scene.pids(number)}
    assert scene.lines.of("worker_exited") == []


def test_one_worker_alone_has_nobody_who_waits(scene: Scene) -> None:
    seen: list[int | None] = []

    def actor() -> None:
        until(lambda: scene.lines.of("service_started"))
        tell(signal.SIGHUP)  # whatever would be started has been by the end of it
        until(lambda: scene.lines.of("reload_completed"))
        seen.append(waits(scene))
        tell(signal.SIGTERM)

    assert scene.run("ready(); wait()", actor) == os.EX_OK
    assert seen == [None]


def test_a_window_that_is_closed_ends_what_runs_in_it(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda _: True)

    def actor() -> None:
        until(lambda: scene.lines.of("service_started"))
        tell(signal.SIGHUP)

    assert scene.run("ready(); wait()", actor) == os.EX_OK
    assert scene.lines.of("service_stopped")[0]["reason"] == "SIGHUP"


def test_signals_are_as_before_afterwards(scene: Scene) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)]
    assert scene.run("sys.exit(78)") == os.EX_CONFIG
    after = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)]
    assert after == before


ORPHANING = """
import os, signal, sys
from regsvc.observe.shared import Shared
from regsvc.supervisor import supervise
from regsvc.settings import load_settings
settings = load_settings({"DATABASE_URL": "postgresql://db/x", "REGSVC_PROFILE": "dev", "REGSVC_PORT": "0"})
sys.exit(supervise(settings, None, shared=Shared.create(3), command=(sys.executable, "-c", os.environ["STUB"])))
"""


def test_workers_end_with_a_parent_that_is_killed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = "from regsvc.supervisor import end_with; end_with(me.parent); ready(); wait()"
    monkeypatch.setenv("STUB", WORKER + stub)
    with subprocess.Popen([sys.executable, "-c", ORPHANING], stdout=subprocess.DEVNULL) as parent:
        try:
            until(scene.pids, 45)
        finally:
            parent.kill()
    until(lambda: all(gone(pid) for pid in scene.pids()))


def test_a_worker_whose_parent_is_gone_already_ends_itself() -> None:
    script = "from regsvc.supervisor import end_with; end_with(1 << 22); print('still here')"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (found.returncode, found.stdout) == (os.EX_TEMPFAIL, b"")


ORPHAN = """
if os.fork() == 0:
    if os.fork() == 0:
        time.sleep(0.1)
        os.makedirs(folder + "/orphan", exist_ok=True)
    os._exit(0)
os.wait()
"""


@pytest.mark.skipif(not can_unshare(), reason="a PID namespace of our own takes root, or user namespaces")
def test_as_process_1_it_takes_orphans_away(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """An init that buries nobody fills its container with the dead: here, a worker's grandchild."""
    monkeypatch.setenv("STUB", WORKER + ORPHAN + "ready(); wait()")
    inside = [*UNSHARE, sys.executable, "-c", ORPHANING]
    with subprocess.Popen(inside, stdout=subprocess.PIPE, text=True) as outer:
        try:
            assert outer.stdout is not None
            started = next(line for line in outer.stdout if "service_started" in line)
            assert json.loads(started)["pid"] == 1
            [init] = children(outer.pid)
            until((scene.folder / "orphan").exists)
            until(lambda: len(children(init)) == 1)  # the worker
            os.kill(init, signal.SIGHUP)
            done = next(json.loads(line) for line in outer.stdout if "reload_completed" in line)
            assert done["replaced"] == 1
            until(lambda: len(children(init)) == 1)  # the next one; the orphan that it made, too, was taken away
            os.kill(init, signal.SIGTERM)
            assert outer.wait(QUICK) == os.EX_OK
        finally:
            outer.kill()


def children(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def test_a_lifeline_that_ends_before_the_settings_is_refused() -> None:
    reading, writing = os.pipe()
    os.write(writing, b'{"half": ')
    os.close(writing)
    with pytest.raises(SettingsError, match="ended before it told"):
        read_orders(reading)
    os.close(reading)
