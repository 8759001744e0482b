"""A life without trouble, and folders that are none."""

import os
import re
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from regsvc.store.embedded import Cluster, EmbeddedError, open_embedded
from tests.postgres import psql
from tests.store.embedded.owners import NOBODY, ROOT, as_root, owner, said, workers_in


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


def test_a_folder_that_is_no_cluster_is_not_touched(folder: Path) -> None:
    (folder / "postgres").mkdir(parents=True)
    (folder / "postgres" / "mine.txt").write_text("keep", "ascii")
    if ROOT:
        os.chown(folder / "postgres", NOBODY.pw_uid, NOBODY.pw_gid)
    with pytest.raises(EmbeddedError, match="holds no PostgreSQL data"), open_embedded(folder):
        pass
    assert (folder / "postgres" / "mine.txt").read_text("ascii") == "keep"


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(EmbeddedError, match=r"File exists.*REGSVC_DATA_DIR"), open_embedded(tmp_path / "data"):
        pass


@as_root
def test_a_folder_that_cannot_be_written_is_named(folder: Path, programs: Path) -> None:
    with owner(folder, programs, NOBODY) as running:
        line = said(running)
    assert "Permission denied" in line
    assert str(folder) in line
    assert "REGSVC_DATA_DIR" in line


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
