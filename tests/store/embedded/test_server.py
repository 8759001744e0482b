"""Deaths of owners and servers, and starts that fail."""

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from regsvc.store.embedded import EmbeddedError, open_embedded, process, server
from tests.postgres import psql
from tests.store.embedded.owners import ROOT, cluster_of, owner, select, wait, workers_in


def test_kill_9_of_the_owner_takes_postgresql_with_it(data: Path, programs: Path) -> None:
    with owner(data, programs) as running:
        _, dsn = cluster_of(running)
        select(programs, dsn, "INSERT INTO kept VALUES (1)")
        running.kill()
        wait(lambda: not workers_in(data))
    with open_embedded(data, binaries=programs) as cluster:
        assert psql(cluster, "SELECT n FROM kept") == "1"


def test_kill_9_of_the_owner_at_any_moment_of_a_first_start(folder: Path, programs: Path, rounds: int | None) -> None:
    dice = random.Random(7)
    for _ in range(rounds or 6):
        with owner(folder, programs) as running:
            time.sleep(dice.uniform(0, 0.9))  # the moment is the point: no condition to wait for
            running.kill()
            running.wait()
        wait(lambda: not workers_in(folder))
        assert not (folder / "postgres").exists() or (folder / "postgres" / "PG_VERSION").exists()
        if (folder / "postgres").exists():
            with open_embedded(folder, binaries=programs) as cluster:
                assert psql(cluster, "SELECT 1") == "1"
            shutil.rmtree(folder / "postgres")
    with open_embedded(folder, binaries=programs) as cluster:
        assert psql(cluster, "SELECT 1") == "1"
    assert not (folder / "postgres.new").exists()


def test_kill_9_of_the_postmaster_is_recovered_from(data: Path) -> None:
    with open_embedded(data) as cluster:
        dsn, first = cluster.dsn, cluster.pid
        assert not cluster.ensure_running()
        psql(cluster, "INSERT INTO kept VALUES (1)")
        os.kill(first, signal.SIGKILL)
        wait(lambda: cluster.poll() == -signal.SIGKILL)
        assert cluster.ensure_running()
        assert (psql(cluster, "SELECT n FROM kept"), cluster.dsn) == ("1", dsn)
        assert cluster.pid != first
    assert workers_in(data) == []


def test_restarts_as_if_it_had_crashed(data: Path) -> None:
    with open_embedded(data) as cluster:
        modes: tuple[server.Mode, ...] = ("fast", "immediate")
        for mode in modes:
            first = cluster.pid
            psql(cluster, "INSERT INTO kept VALUES (1)")
            cluster.restart(mode)
            assert cluster.pid != first
        assert psql(cluster, "SELECT count(*) FROM kept") == "2"
        assert "was interrupted" in cluster.log.read_text("utf-8")


def test_a_frozen_postmaster_is_ended_by_force(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FAST_SECONDS", 0.1)
    monkeypatch.setattr(server, "IMMEDIATE_SECONDS", 0.1)
    with open_embedded(data) as cluster:
        os.kill(cluster.pid, signal.SIGSTOP)
    assert cluster.poll() == -signal.SIGKILL
    assert workers_in(data) == []
    with open_embedded(data) as cluster:
        assert psql(cluster, "SELECT 1") == "1"


def test_a_postgresql_that_outlived_its_owner_is_ended_by_the_next(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the kernel offers no last wish: the first owner lets go of the lock, its PostgreSQL stays."""
    monkeypatch.setattr(process, "ORPHAN_SECONDS", 0.1)
    with open_embedded(data) as left:
        (data / "postgres.owner").unlink()  # the lock of the first owner guards nothing any more
        with open_embedded(data) as cluster:
            assert left.poll() == 0
            assert psql(cluster, "SELECT 1") == "1"


def test_a_process_that_only_has_the_number_of_a_postmaster_is_not_signalled(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "ORPHAN_SECONDS", 0.1)
    with open_embedded(data) as cluster, subprocess.Popen(["sleep", "60"], cwd=data / "postgres") as other:
        try:
            cluster._server.kin.clear(other.pid)
            assert (cluster.poll() is None, other.poll()) == (False, None)
        finally:
            other.kill()


def test_backends_that_outlived_their_postmaster_are_ended_by_the_next(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "ORPHAN_SECONDS", 0.1)
    monkeypatch.setattr(process, "IMMEDIATE_SECONDS", 0.5)
    with open_embedded(data) as cluster:
        stuck = next(pid for pid in workers_in(data) if b"checkpointer" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(stuck, signal.SIGSTOP)
        os.kill(cluster.pid, signal.SIGKILL)
        wait(lambda: cluster.poll() is not None)
        assert cluster.ensure_running()
        assert stuck not in workers_in(data)


def test_ctrl_c_while_the_cluster_is_made_leaves_nothing(folder: Path) -> None:
    def interrupt() -> None:
        wait((folder / "postgres.new" / "global").exists)
        os.kill(os.getpid(), signal.SIGINT)

    with (
        pytest.raises(KeyboardInterrupt),
        open_embedded(folder, report=lambda _: threading.Thread(target=interrupt).start()),
    ):
        pass
    assert workers_in(folder) == []
    assert not (folder / "postgres").exists()


def test_marks_of_a_dead_server_do_not_stop_a_start_though_their_number_lives(data: Path) -> None:
    account = (data / "postgres").stat().st_uid if ROOT else None  # PostgreSQL gives way to its own account's only
    with subprocess.Popen(["sleep", "60"], user=account) as other:
        try:
            for name in ("postmaster.pid", f"{server.SOCKET}.lock"):
                (data / "postgres" / name).write_text(f"{other.pid}\n", "ascii")
            with open_embedded(data) as cluster:
                assert psql(cluster, "SELECT 1") == "1"
            assert other.poll() is None
        finally:
            other.kill()


@pytest.mark.parametrize("content", ["", "no number\n", "999999999999\n", "4194305\n"])
def test_a_broken_postmaster_pid_does_not_stop_a_start(data: Path, content: str) -> None:
    (data / "postgres" / "postmaster.pid").write_text(content, "ascii")
    with open_embedded(data) as cluster:
        assert psql(cluster, "SELECT 1") == "1"


def test_a_server_that_somebody_started_by_hand_is_left_alone(data: Path, programs: Path) -> None:
    cluster = data / "postgres"
    account = cluster.stat()
    with subprocess.Popen(
        [programs / "postgres", "-D", "/proc/self/cwd", "-c", "listen_addresses=", "-c", "unix_socket_directories=."],
        cwd=cluster,
        stderr=subprocess.DEVNULL,
        user=account.st_uid if ROOT else None,
        group=account.st_gid if ROOT else None,
    ) as by_hand:
        try:
            wait(lambda: server._is_ready(cluster / "postmaster.pid", by_hand.pid))
            with pytest.raises(EmbeddedError, match=f"kill -INT {by_hand.pid}"), open_embedded(data):
                pass
            assert by_hand.poll() is None
            assert (cluster / "postmaster.pid").exists()
        finally:
            by_hand.terminate()


def test_a_start_that_fails_shows_the_end_of_the_log(data: Path) -> None:
    (data / "postgres.log").write_text("x" * (server.LOG_MAX + 1), "ascii")
    with (data / "postgres" / "postgresql.conf").open("a", encoding="ascii") as configuration:
        configuration.write("no_such_setting = 1\n")
    with pytest.raises(EmbeddedError, match=r"did not start .*no_such_setting"), open_embedded(data):
        pass
    assert (data / "postgres.log.1").stat().st_size > server.LOG_MAX
    assert (data / "postgres.log").stat().st_size < 10_000


def test_a_start_that_takes_long_is_reported_and_has_an_end(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "TELL_SECONDS", 0.0)
    told: list[str] = []
    looks, is_ready = iter([False]), server._is_ready
    monkeypatch.setattr(server, "_is_ready", lambda *about: next(looks, True) and is_ready(*about))
    with open_embedded(data, report=told.append) as cluster:
        assert psql(cluster, "SELECT 1") == "1"
    assert told == ["PostgreSQL takes its time to start: it may have a crash to recover from"]
    monkeypatch.setattr(server, "START_SECONDS", 0.0)
    monkeypatch.setattr(server, "_is_ready", lambda *_: False)
    with pytest.raises(EmbeddedError, match="did not start"), open_embedded(data):
        pass
    assert workers_in(data) == []


def test_a_step_that_never_ends_is_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAKE_SECONDS", 0.05)
    with pytest.raises(EmbeddedError, match="initdb did not end"), open_embedded(folder):
        pass
    assert workers_in(folder) == []
