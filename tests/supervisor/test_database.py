"""The supervisor and the database that it keeps."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from regsvc.supervisor.workers import Crew
from tests.supervisor.stage import Scene, gone, tell, until


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
    begun: list[bool] = []
    left: list[bool] = []

    @contextmanager
    def slow() -> Iterator[Sleeper]:
        try:
            begun.append(True)
            time.sleep(600)
            yield Sleeper(sleep())
        finally:
            left.append(True)

    def actor() -> None:
        until(lambda: begun)
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
