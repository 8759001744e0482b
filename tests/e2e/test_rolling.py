"""Deploys that fail no request: workers replaced at a hang-up, instances restarted behind a proxy, workers that die.

Small here; `--rounds N` is the large form. Each prints its counts.
"""

import json
import os
import re
import signal
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from regsvc.store.embedded import Cluster
from tests.balancer import Crowd, balancing, crowd
from tests.e2e.people import client, on_database, somebody
from tests.e2e.test_serve import gone, processes
from tests.lines import OURS
from tests.postgres import psql, temporary_cluster
from tests.service import Service
from tests.waiting import until

pytestmark = pytest.mark.timeout(240)
NEW_SECRET = "another secret that comes after the first one"
REPLACED = 15.0  # seconds; 2 are promised where nobody else uses the machine


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="regsvc ") as name:
        yield Path(name)


class Heard:
    """What a service says, read as it grows: a log of minutes is too long to be read again and again."""

    def __init__(self, service: Service) -> None:
        self._service, self._offset = service, 0
        self._lines: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._asked: dict[int, str] = {}  # when a worker last answered a request, by its number

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of an event, up to now."""
        with self._service.log.open("rb") as file:
            file.seek(self._offset)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        for text in whole.splitlines():
            if text.startswith(OURS):
                line = json.loads(text)
                if line["event"] == "http_request":
                    self._asked[line["worker"]] = line["ts"]
                else:
                    self._lines[line["event"]].append(line)
        return self._lines[event]

    def pids(self) -> list[int]:
        """The workers that are there, by what is told of those that came and went."""
        ended = {line["pid"] for event in ("worker_stopped", "worker_exited") for line in self.lines(event)}
        return [line["pid"] for line in self.lines("worker_started") if line["pid"] not in ended]

    def ended(self, pid: int) -> bool:
        """Whether a killed worker is gone: it has its connections, and is silent on them, until its last thread is."""
        return any(line["pid"] == pid for line in self.lines("worker_exited"))

    def serves(self, nth: int) -> bool:
        """Whether the worker that was the nth to begin has answered a request."""
        return any(
            self._asked.get(line["worker"], "") > line["ts"] for line in self.lines("worker_started")[nth : nth + 1]
        )

    async def reload(self, event: str = "reload_completed", seconds: float = 60) -> dict[str, Any]:
        """Send a hang-up, wait for how it ends, and return that line."""
        assert self._service.process is not None
        before = len(self.lines(event))
        self._service.process.send_signal(signal.SIGHUP)
        await until(lambda: len(self.lines(event)) > before, seconds)
        return self.lines(event)[-1]

    def nothing_lost(self) -> int:
        """Fail if a worker lost something at its end; return how many have ended."""
        drained = self.lines("drain_completed")
        assert {(line["lost"], line["cut"]) for line in drained} == {(0, 0)}, drained
        return len(drained)


def spent_by_spare(supervisor: int, workers: int) -> int:
    """Return the CPU time of the next worker to be, in ticks; -1: there is none."""
    pids = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    if len(pids) <= workers:
        return -1
    try:
        return sum(map(int, Path(f"/proc/{pids[-1]}/stat").read_text().split()[13:15]))
    except OSError:  # it is gone since
        return -1


async def a_spare_waits(supervisor: int, workers: int) -> None:
    """Wait until the next worker to be has imported all it needs: it computes no more."""
    before, now = -1, spent_by_spare(supervisor, workers)
    while now < 0 or now != before:
        await trio.sleep(0.2)
        before, now = now, spent_by_spare(supervisor, workers)


def report(what: str, rounds: int, people: Crowd, **figures: object) -> None:
    """Print what a run counted."""
    counts = ", ".join(f"{count} {method}" for method, count in sorted(people.done.items()))
    more = "".join(f", {name.replace('_', ' ')} {value}" for name, value in figures.items())
    print(f"\n{what}, {rounds} rounds: {counts}, {len(people.failed)} failed{more}")  # noqa: T201 - it is the report


async def test_a_hang_up_replaces_the_workers_and_no_request_fails(
    folder: Path, database: str, rounds: int | None
) -> None:
    with on_database(folder / "hang up", database, WORKERS="2") as [service]:
        heard = Heard(service)
        first = set(heard.pids())
        async with client(service) as http:
            ann = await somebody(http)
        async with balancing(service.port) as proxy:
            async with crowd(proxy, ann.access) as people:
                await until(lambda: people.done["POST"] > 10)
                took = [(await heard.reload())["took_s"] for _ in range(rounds or 1)]
            [server] = proxy.servers
            assert server.went_down == 0, "nobody saw it unready"
        assert people.failed == []
        await until(lambda: len(heard.pids()) == 2)
        assert not first & set(heard.pids())
        assert service.terminate() == os.EX_OK
        assert heard.nothing_lost() == 2 * (rounds or 1) + 2
        assert heard.lines("worker_exited") == []
        report("SIGHUP on one service of two workers", rounds or 1, people, took_s=took)


async def test_one_instance_of_two_is_restarted_and_no_request_fails(
    folder: Path, database: str, rounds: int | None
) -> None:
    with on_database(folder / "restart", database, 2, WORKERS="2", LAME_DUCK_SECONDS="1") as services:
        async with client(services[0]) as http:
            ann = await somebody(http)
        async with (
            balancing(*(service.port for service in services)) as proxy,
            crowd(proxy, ann.access) as people,
        ):
            await until(lambda: people.done["POST"] > 10)
            for turn in range(rounds or 1):
                service, server = services[turn % 2], proxy.servers[turn % 2]
                assert await trio.to_thread.run_sync(service.terminate) == os.EX_OK
                assert not server.up, "it was seen to leave"
                await trio.to_thread.run_sync(service.start)
                await until(lambda server=server: server.up)  # type: ignore[misc]  # a lambda's default is unknown
        assert people.failed == []
        for service in services:
            assert service.terminate() == os.EX_OK
            heard = Heard(service)
            assert heard.nothing_lost() > 0
            assert heard.lines("worker_exited") == []
        report("SIGTERM to one of two instances", rounds or 1, people)


@pytest.mark.parametrize("workers", [2, 4])
async def test_a_worker_that_is_killed_is_replaced_and_no_later_request_fails(
    folder: Path, database: str, rounds: int | None, workers: int
) -> None:
    took: list[float] = []
    with on_database(folder / f"killed of {workers}", database, WORKERS=str(workers)) as [service]:
        assert service.process is not None
        heard = Heard(service)
        async with balancing(service.port) as proxy, crowd(proxy) as people:
            for nth in range(workers):
                await until(partial(heard.serves, nth))
            for turn in range(rounds or 1):
                await a_spare_waits(service.process.pid, workers)  # who is killed without one takes a whole start
                known, nth = len(people.failed), len(heard.lines("worker_started"))
                victim, killed_at = heard.pids()[turn % workers], trio.current_time()
                os.kill(victim, signal.SIGKILL)
                await until(partial(heard.ended, victim))
                dead_at = trio.current_time()
                await until(partial(heard.serves, nth), REPLACED)
                took.append(round(trio.current_time() - killed_at, 2))
                assert [failure for failure in people.failed[known:] if failure.began > dead_at] == []
        assert service.process.poll() is None
        assert len(heard.lines("worker_restarted")) == (rounds or 1)
        assert service.terminate() == os.EX_OK
        report(f"kill -9 of one of {workers} workers", rounds or 1, people, replaced_within_s=took)


@pytest.mark.parametrize("workers", [2, 4])
async def test_a_parent_that_is_killed_leaves_nothing_and_the_next_start_is_clean(folder: Path, workers: int) -> None:
    environ = {"PASSWORD_ROUNDS": "4", "WORKERS": str(workers), "HASH_QUEUE": "1000", "RESEND_COOLDOWN": "0"}
    service = Service(folder / f"parent of {workers}", {f"REGSVC_{name}": value for name, value in environ.items()})
    try:
        service.start()
        async with balancing(service.port) as proxy, crowd(proxy) as people:
            await until(lambda: people.done["POST"] > 30)
            await until(lambda: len(processes(service)) == 2 + workers)
            before = processes(service)
            service.kill()
            await until(lambda: all(gone(pid) for pid in before))
        restarted = len(service.lines())
        await trio.to_thread.run_sync(service.start)
        async with balancing(service.port) as proxy, crowd(proxy) as again:
            await until(lambda: again.done["POST"] > 10)
        assert again.failed == []
        bad = {"worker_exited", "database_unavailable", "actor_crashed", "http_bug"}
        assert [line for line in service.lines()[restarted:] if line["event"] in bad] == []
        assert service.terminate() == os.EX_OK
    finally:
        service.end()


def write_env(service: Service, **told: str) -> None:
    """Write `.env`, in one step."""
    draft = service.folder / ".env.draft"
    draft.write_text("".join(f"REGSVC_{name}={value}\n" for name, value in told.items()))
    draft.replace(service.folder / ".env")


@pytest.fixture
def by_file(folder: Path) -> Iterator[Callable[..., Service]]:
    """Make a service whose settings are in `.env`; it is not started, and ended whatever happens."""
    made: list[Service] = []

    def make(**told: str) -> Service:
        service = Service(folder / f"by file {len(made)} {id(made)}", {})
        made.append(service)
        service.folder.mkdir()
        write_env(service, **told)
        return service

    try:
        yield make
    finally:
        for service in made:
            service.end()


def usual(dsn: str, **more: str) -> dict[str, str]:
    return {
        "DATABASE_URL": dsn,
        "PROFILE": "dev",
        "PASSWORD_ROUNDS": "4",
        "RESEND_COOLDOWN": "0",
        "HASH_QUEUE": "1000",
        "MAIL_CHANNEL": "mailbox",
        **more,
    }


async def test_a_secret_is_exchanged_without_a_failed_request(
    database: str, by_file: Callable[..., Service], rounds: int | None
) -> None:
    """First the new one is taken too, then it is used and the old one taken, then the old one is forgotten."""
    if rounds is None:
        pytest.skip("in the large form: the small one is tests/e2e/test_rotation.py")
    old = "one secret of all the services of a test"
    service = by_file(**usual(database, SECRET=old))
    await trio.to_thread.run_sync(service.start)
    heard = Heard(service)
    steps = ({"SECRET": old, "SECRET_PREVIOUS": NEW_SECRET}, {"SECRET": NEW_SECRET, "SECRET_PREVIOUS": old})
    async with client(service) as http:
        ann = await somebody(http)
        asleep = await somebody(http)
        async with balancing(service.port) as proxy, crowd(proxy, ann.access) as people:
            for step in steps:
                write_env(service, **usual(database, **step))
                assert (await heard.reload())["replaced"] == 1
                assert (await ann.me()).status_code == 200
            ann.keep((await ann.again()).json())
            await ann.log_in()
            write_env(service, **usual(database, SECRET=NEW_SECRET))
            await heard.reload()
            assert (await ann.log_in()).access, "his hash was made anew at his login"
        assert people.failed == []
        assert (await asleep.try_login()).status_code == 401, "this one was made with the old secret"
    assert service.terminate() == os.EX_OK
    assert heard.nothing_lost() == 4
    report("SECRET exchanged by SIGHUP", 3, people)


def with_a_role(cluster: Cluster) -> None:
    """Have a role that must show a password, and a database of its own."""
    hba = Path(f"/proc/{cluster.pid}/cwd/pg_hba.conf")  # PostgreSQL works in its data folder, where it reads this
    hba.write_text(f"local all rotating scram-sha-256\n{hba.read_text()}")
    psql(cluster, "SELECT pg_reload_conf()")
    psql(cluster, "CREATE ROLE rotating LOGIN PASSWORD 'the first one'")
    psql(cluster, "CREATE DATABASE rotating OWNER rotating")


async def test_the_password_of_the_database_is_exchanged_without_a_failed_request(
    by_file: Callable[..., Service],
) -> None:
    with temporary_cluster() as cluster:
        with_a_role(cluster)
        place = re.sub(r"//[^/]*/regsvc\?", "//{}@/rotating?", cluster.dsn)
        old, new = place.format("rotating:the%20first%20one"), place.format("rotating:the%20next%20one")
        service = by_file(**usual(old, SECRET=NEW_SECRET))
        await trio.to_thread.run_sync(service.start)
        heard = Heard(service)
        async with balancing(service.port) as proxy, crowd(proxy) as people:
            await until(lambda: people.done["POST"] > 10)
            write_env(service, **usual(new, SECRET=NEW_SECRET))
            failed = await heard.reload("reload_failed")
            assert (failed["replaced"], failed["level"]) == (0, "error"), "it is not the password yet: all stays"
            psql(cluster, "ALTER ROLE rotating PASSWORD 'the next one'")
            assert (await heard.reload())["replaced"] == 1
            done = people.done["POST"]
            await until(lambda: people.done["POST"] > done + 10)
        assert people.failed == []
        assert service.terminate() == os.EX_OK
        assert heard.nothing_lost() == 2
        report("password of the database exchanged by SIGHUP", 1, people)
