"""The parent of all, with workers that are a few lines of Python: what it starts, restarts, stops and says.

What needs the real service is in tests/e2e.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from regsvc import observe
from regsvc.settings import Settings, SettingsError, load_settings
from regsvc.supervisor import CannotListen, listening, read_settings, supervise, watch
from regsvc.supervisor.door import addresses
from regsvc.supervisor.workers import Crew
from tests.lines import Lines

WORKER = """
import argparse, json, os, signal, sys, time
options = argparse.ArgumentParser()
for name in ("number", "parent", "lifeline", "ready", "socket"):
    options.add_argument("--" + name, type=int)
me = options.parse_args()
folder = os.environ["FOLDER"]
def ready(on_term=lambda *_: sys.exit(0)):
    settings = json.loads(os.read(me.lifeline, 65536))
    signal.signal(signal.SIGTERM, on_term)
    with open(f"{folder}/{me.number}.{os.getpid()}", "w") as file:
        json.dump(settings, file)
    os.write(me.ready, b"!")
def times():
    return len([name for name in os.listdir(folder) if name.startswith(f"{me.number}.")])
def wait():
    while True:
        time.sleep(60)
"""
QUICK = 5.0  # seconds, for what takes milliseconds


@dataclass
class Scene:
    """A supervisor on the main thread, and somebody on another who watches and acts."""

    folder: Path
    lines: Lines = field(default_factory=Lines)
    told: list[str] = field(default_factory=list)

    def settings(self, **changed: str) -> Settings:
        given = {"REGSVC_DATABASE_URL": "postgresql://db/x", "REGSVC_PROFILE": "dev", "REGSVC_PORT": "0"}
        return load_settings({**given, **{f"REGSVC_{name}": value for name, value in changed.items()}})

    def run(
        self,
        worker: str,
        actor: Callable[[], None] = lambda: None,
        *,
        database: Any = None,  # a callable, as supervise takes it
        **changed: str,
    ) -> int:
        """Supervise until it ends; `actor` acts on a thread of its own."""
        acting = threading.Thread(target=actor, name="actor")
        acting.start()
        command = (sys.executable, "-S", "-c", WORKER + worker)
        try:
            with observe.open_log(self.lines):
                return supervise(self.settings(**changed), database, tell=self.told.append, command=command)
        finally:
            acting.join()

    def pids(self, number: int = 1) -> list[int]:
        """The processes that were ready as worker `number`, in no order."""
        return [int(path.name.partition(".")[2]) for path in self.folder.glob(f"{number}.*")]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("FOLDER", str(tmp_path))
    return Scene(tmp_path)


UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def can_unshare() -> bool:
    try:
        return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def until(condition: Callable[[], object], seconds: float = QUICK) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


def tell(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


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
    assert [line["asked_for"] for line in scene.lines.of("worker_exited")] == [True, True]
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
        until(lambda: len(scene.pids()) == 2, 2.0)
        tell(signal.SIGTERM)

    assert scene.run("ready(); wait()", actor) == os.EX_OK
    first, last = scene.lines.of("worker_exited")
    assert (first["exit_status"], first["asked_for"]) == (-signal.SIGKILL, False)
    assert (last["exit_status"], last["asked_for"]) == (0, True)
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


def test_a_window_that_is_closed_ends_what_runs_in_it(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda _: True)

    def actor() -> None:
        until(lambda: scene.lines.of("service_started"))
        tell(signal.SIGHUP)

    assert scene.run("ready(); wait()", actor) == os.EX_OK
    assert scene.lines.of("service_stopped")[0]["reason"] == "SIGHUP"


def test_elsewhere_a_hang_up_changes_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda _: False)

    def actor() -> None:
        until(lambda: scene.lines.of("service_started"))
        tell(signal.SIGHUP)
        until(lambda: scene.lines.of("settings_warning"))
        tell(signal.SIGTERM)

    assert scene.run("ready(); wait()", actor) == os.EX_OK
    assert len(scene.pids()) == 1


@dataclass
class Sleeper:
    """A database that is a process which sleeps."""

    process: subprocess.Popen[bytes]
    starts: int = 1
    dsn: str = "postgresql://embedded/x"

    @property
    def pid(self) -> int:
        return self.process.pid

    def poll(self) -> int | None:
        return self.process.poll()

    def ensure_running(self) -> bool:
        self.process = sleep()
        self.starts += 1
        return True


def sleep() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "600"])


@contextmanager
def sleeping(opened: list[Sleeper]) -> Iterator[Sleeper]:
    opened.append(Sleeper(sleep()))
    try:
        yield opened[0]
    finally:
        opened[0].process.kill()
        opened[0].process.wait()


def test_a_database_that_dies_is_started_again(scene: Scene) -> None:
    opened: list[Sleeper] = []

    def actor() -> None:
        until(lambda: scene.lines.of("service_started"))
        opened[0].process.kill()
        until(lambda: len(scene.lines.of("embedded_database_started")) == 2)
        tell(signal.SIGTERM)

    assert scene.run("ready(); wait()", actor, database=lambda: sleeping(opened)) == os.EX_OK
    assert opened[0].starts == 2
    assert opened[0].process.returncode is not None
    told = json.loads(next(scene.folder.glob("1.*")).read_text())
    assert told["REGSVC_DATABASE_URL"] == "postgresql://embedded/x"


def test_it_can_be_stopped_while_the_database_starts(scene: Scene) -> None:
    left: list[bool] = []

    @contextmanager
    def slow() -> Iterator[Sleeper]:
        try:
            time.sleep(600)
            yield Sleeper(sleep())
        finally:
            left.append(True)

    def actor() -> None:
        time.sleep(0.2)  # whenever it comes, it must be heard
        tell(signal.SIGTERM)

    assert scene.run("ready(); wait()", actor, database=slow) == os.EX_OK
    assert left == [True]
    assert scene.pids() == []


def test_told_to_stop_before_it_began_it_opens_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    start = Crew.start

    def told_meanwhile(crew: Crew) -> None:
        start(crew)
        tell(signal.SIGTERM)

    monkeypatch.setattr(Crew, "start", told_meanwhile)
    opened: list[Sleeper] = []
    assert scene.run("ready(); wait()", database=lambda: sleeping(opened)) == os.EX_OK
    assert opened == []


def test_it_can_be_stopped_while_the_database_recovers(scene: Scene) -> None:
    class Slow(Sleeper):
        def ensure_running(self) -> bool:
            tell(signal.SIGTERM)
            time.sleep(600)
            return True

    @contextmanager
    def slow() -> Iterator[Sleeper]:
        database = Slow(sleep())
        database.process.kill()
        yield database
        database.process.wait()

    assert scene.run("ready(); wait()", database=slow) == os.EX_OK


def test_a_database_that_cannot_be_opened_leaves_no_worker(scene: Scene) -> None:
    class BrokenError(Exception):
        pass

    def broken() -> Any:
        raise BrokenError

    with pytest.raises(BrokenError):
        scene.run("open(f'{folder}/1.{os.getpid()}', 'w').close(); wait()", database=broken)
    assert all(gone(pid) for pid in scene.pids())


def test_signals_are_as_before_afterwards(scene: Scene) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)]
    assert scene.run("sys.exit(78)") == os.EX_CONFIG
    after = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)]
    assert after == before


ORPHANING = """
import os, signal, sys
from regsvc.supervisor import supervise
from regsvc.settings import load_settings
settings = load_settings({"DATABASE_URL": "postgresql://db/x", "REGSVC_PROFILE": "dev", "REGSVC_PORT": "0"})
sys.exit(supervise(settings, None, command=(sys.executable, "-c", os.environ["STUB"])))
"""


def test_workers_end_with_a_parent_that_is_killed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = "from regsvc.supervisor import end_with; end_with(me.parent); ready(); wait()"
    monkeypatch.setenv("STUB", WORKER + stub)
    with subprocess.Popen([sys.executable, "-c", ORPHANING], stdout=subprocess.DEVNULL) as parent:
        try:
            until(scene.pids, 15)
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
        os.mkdir(folder + "/orphan")
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
        read_settings(reading)
    os.close(reading)


def test_a_port_that_is_taken_is_said_with_what_to_do(scene: Scene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen, match=rf"127.0.0.1:{port}: another program .* REGSVC_PORT") as refused:
            scene.run("ready(); wait()", PORT=str(port))
    assert refused.value.again
    assert scene.pids() == []


@pytest.mark.parametrize(
    ("host", "said"), [("192.0.2.1", "this machine has no such address"), ("not a name", "REGSVC_HOST: cannot listen")]
)
def test_an_address_that_is_not_ours_is_refused_for_good(scene: Scene, host: str, said: str) -> None:
    with pytest.raises(CannotListen, match=said) as refused, listening(scene.settings(HOST=host)):
        pass
    assert not refused.value.again


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_the_socket_takes_connections_at_once(scene: Scene, host: str) -> None:
    with listening(scene.settings(HOST=host)) as door:
        assert door is not None
        assert door.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        with socket.create_connection(door.getsockname()[:2], timeout=QUICK):
            pass


def test_who_serves_no_http_does_not_listen(scene: Scene) -> None:
    with listening(scene.settings(ROLES="mailer")) as door:
        assert door is None

    def actor() -> None:
        until(lambda: scene.lines.of("service_started"))
        tell(signal.SIGTERM)

    assert scene.run("ready(); wait()", actor, ROLES="mailer,sweeper") == os.EX_OK
    assert scene.told == []
    assert scene.lines.of("service_started")[0]["roles"] == ["mailer", "sweeper"]


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("0.0.0.0", "http://127.0.0.1:7"),  # noqa: S104 - nothing is bound
        ("::", "http://[::1]:7"),
        ("10.1.2.3", "http://10.1.2.3:7"),
    ],
)
def test_addresses_are_ones_that_a_person_can_open(scene: Scene, host: str, shown: str) -> None:
    found = addresses(scene.settings(HOST=host, PROFILE="dev"), 7)
    assert found == {"service": shown, "docs": f"{shown}/docs", "mailbox": f"{shown}/dev/mail"}
