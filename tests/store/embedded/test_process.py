"""Whose a data folder is, and whose a process."""

import ctypes
import os
import pwd
import re
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from regsvc.store.embedded import AlreadyOwned, EmbeddedError, open_embedded, process
from tests.postgres import psql
from tests.store.embedded.owners import NOBODY, as_root, cluster_of, owner, said, select, wait, workers_in


def test_a_second_owner_is_refused_at_once_and_told_by_whom(data: Path, programs: Path) -> None:
    with owner(data, programs) as running:
        _, dsn = cluster_of(running)
        began = time.monotonic()
        with pytest.raises(AlreadyOwned, match=f"kill {running.pid}") as refused, open_embedded(data):
            pass
        assert (refused.value.pid, time.monotonic() - began < 5) == (running.pid, True)
        assert select(programs, dsn) == "1"


def test_an_owner_that_did_not_say_who_it_is(data: Path) -> None:
    with open_embedded(data):
        (data / "postgres.owner").write_text("", "ascii")
        with pytest.raises(AlreadyOwned, match="another process") as refused, open_embedded(data):
            pass
    assert refused.value.pid is None


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


def test_postgresql_is_given_no_secret_of_the_service(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGSVC_SECRET", "hush")
    with open_embedded(data) as cluster:
        environment = Path(f"/proc/{cluster.pid}/environ").read_bytes()
    assert b"TZ=UTC" in environment
    assert b"hush" not in environment


def test_a_normal_user_runs_it_as_himself_on_what_is_his(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid or 12345)
    assert process.account_for(tmp_path / "none") is None
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(EmbeddedError, match="run it as that user or as root"):
        process.account_for(tmp_path)


@as_root
def test_a_normal_user_is_told_whose_the_cluster_is(data: Path, programs: Path) -> None:
    os.chown(data / "postgres", 12345, 12345)
    for path in (data, *data.glob("postgres.*")):
        os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)
    with owner(data, programs, NOBODY) as running:
        assert "belongs to user 12345" in said(running)


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
def test_root_without_an_account_to_drop_to_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> pwd.struct_passwd:
        raise KeyError(name)

    monkeypatch.setattr(pwd, "getpwnam", unknown)
    with pytest.raises(EmbeddedError, match="create one"), open_embedded(folder):
        pass
