"""Migrations: once each, whoever comes first, and never on top of what does not fit."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
import trio

from regsvc.domain.values import Secret
from regsvc.ports import Unavailable
from regsvc.store import migrations, sql
from regsvc.store.migrations import LOCK, MigrationError, migrate, pending, read_migrations
from regsvc.trio_asyncpg import Connection, open_connection
from tests.store.scenes import rows
from tests.waiting import until

APPLIED = "SELECT version, name FROM migrations ORDER BY version"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder of SQL like the one that is shipped, with migrations of its own."""
    shutil.copytree(sql.folder() / "queries", tmp_path / "queries")
    write(tmp_path, "0001_one.sql", "CREATE TABLE one (n int); INSERT INTO one VALUES (1);")
    write(tmp_path, "0002_two.sql", "CREATE TABLE two (n int); INSERT INTO one VALUES (2);")
    return tmp_path


@pytest.fixture
def dsn(database: str) -> Secret:
    return Secret(database)


def write(place: Path, name: str, text: str) -> None:
    (place / "migrations").mkdir(exist_ok=True)
    (place / "migrations" / name).write_text(text, "utf-8")


async def test_what_is_shipped_is_applied_once(dsn: Secret, database: str) -> None:
    shipped = read_migrations(sql.folder() / "migrations")
    told: list[str] = []
    assert await pending(dsn) == list(shipped)
    assert await migrate(dsn, report=told.append) == list(shipped)
    assert told == [f"applying migration {migration}" for migration in shipped]
    assert await migrate(dsn, report=told.append) == await pending(dsn) == []
    assert len(told) == len(shipped)
    async with open_connection(database) as connection:
        assert await rows(connection, APPLIED) == [(migration.version, migration.name) for migration in shipped]


async def test_eight_at_once_apply_each_step_once(dsn: Secret, database: str, place: Path, rounds: int | None) -> None:
    applied: list[int] = []

    async def process() -> None:
        applied.extend(migration.version for migration in await migrate(dsn, place=place))

    shipped = 2
    for _ in range(rounds or 2):
        for _ in range(2):
            shipped += 1
            write(place, f"{shipped:04}_more.sql", f"INSERT INTO one VALUES ({shipped}); SELECT pg_sleep(0.01);")  # noqa: S608 - a number
        async with trio.open_nursery() as nursery:
            for n in range(8):
                nursery.start_soon(process, name=f"process {n}")
    assert sorted(applied) == list(range(1, shipped + 1))
    async with open_connection(database) as connection:
        assert await rows(connection, "SELECT n FROM one ORDER BY n") == [(n,) for n in range(1, shipped + 1)]


async def test_the_others_wait_for_who_has_the_lock(dsn: Secret, database: str, place: Path) -> None:
    told: list[str] = []
    async with open_connection(database) as other, trio.open_nursery() as nursery, other.transaction():
        await other.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        nursery.start_soon(lambda: migrate(dsn, place=place, report=told.append), name="second")
        await until(lambda: told)
        # Polled, not waited for: nobody in the server waits, and no transaction is kept open meanwhile.
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        assert await other.fetchval(waits) == 0
    assert told == ["waiting for another process that migrates", *(f"applying migration {m}" for m in both(place))]


def both(place: Path) -> list[str]:
    return [str(migration) for migration in read_migrations(place / "migrations")]


async def test_waiting_has_an_end(dsn: Secret, database: str, place: Path) -> None:
    async with open_connection(database) as other, other.transaction():
        await other.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        with pytest.raises(Unavailable, match="migrations took longer"):
            await migrate(dsn, place=place, patience=timedelta(seconds=0.2))


async def test_a_step_that_fails_leaves_nothing_and_those_before_it_stay(
    dsn: Secret, database: str, place: Path
) -> None:
    write(place, "0003_bad.sql", "CREATE TABLE three (n int); INSERT INTO one VALUES ('secret');")
    with pytest.raises(MigrationError, match="0003 bad failed, and left nothing behind: ") as caught:
        await migrate(dsn, place=place)
    assert "DETAIL" not in str(caught.value)
    async with open_connection(database) as connection:
        assert await rows(connection, APPLIED) == [(1, "one"), (2, "two")]
        assert await connection.fetchval("SELECT to_regclass('three')") is None
    write(place, "0003_bad.sql", "CREATE TABLE three (n int);")
    assert [str(migration) for migration in await migrate(dsn, place=place)] == ["0003 bad"]


async def test_a_table_that_stays_locked_is_an_outage(
    dsn: Secret, database: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate(dsn, place=place)
    write(place, "0003_three.sql", "ALTER TABLE one ADD m int;")
    monkeypatch.setattr(migrations, "LOCK_WAIT", timedelta(seconds=0.1))
    async with open_connection(database) as other, other.transaction():
        await other.execute("LOCK TABLE one")
        with pytest.raises(Unavailable, match="lock timeout"):
            await migrate(dsn, place=place)
    assert len(await migrate(dsn, place=place)) == 1


async def test_a_changed_migration_stops_all(dsn: Secret, place: Path) -> None:
    await migrate(dsn, place=place)
    write(place, "0001_one.sql", "CREATE TABLE one (n bigint);")
    for verb in (migrate, pending):
        with pytest.raises(MigrationError, match="0001 one is not what was applied as 0001 one"):
            await verb(dsn, place=place)


async def test_a_renamed_migration_stops_all(dsn: Secret, place: Path) -> None:
    await migrate(dsn, place=place)
    (place / "migrations" / "0002_two.sql").rename(place / "migrations" / "0002_zwei.sql")
    with pytest.raises(MigrationError, match="0002 zwei is not what was applied as 0002 two"):
        await migrate(dsn, place=place)


async def test_a_newer_database_is_not_migrated_but_nothing_is_missing(dsn: Secret, place: Path) -> None:
    await migrate(dsn, place=place)
    (place / "migrations" / "0002_two.sql").unlink()
    assert await pending(dsn, place=place) == []
    with pytest.raises(MigrationError, match="the database is at migration 0002, this version knows 0001"):
        await migrate(dsn, place=place)


async def test_a_gap_in_what_was_applied_stops_all(dsn: Secret, database: str, place: Path) -> None:
    await migrate(dsn, place=place)
    async with open_connection(database) as connection:
        await connection.execute("DELETE FROM migrations WHERE version = 1")
    with pytest.raises(MigrationError, match="the database has migration 0002, but not 0001"):
        await migrate(dsn, place=place)


@pytest.mark.parametrize(
    ("name", "why"),
    [("0004_gap.sql", "a gap or a double"), ("0002_double.sql", "a gap or a double"), ("3_x.sql", "is not named")],
)
def test_what_is_shipped_has_no_gap(place: Path, name: str, why: str) -> None:
    write(place, name, "SELECT 1")
    with pytest.raises(MigrationError, match=why):
        read_migrations(place / "migrations")


async def test_a_server_that_is_not_there_is_an_outage() -> None:
    with pytest.raises(Unavailable, match="database"):
        await migrate(Secret("postgresql://nobody@127.0.0.1:1/nothing"))


async def test_a_cancelled_migration_undoes_its_step(dsn: Secret, database: str, place: Path) -> None:
    write(place, "0003_slow.sql", "INSERT INTO one VALUES (3); SELECT pg_sleep(30);")
    told: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: migrate(dsn, place=place, report=told.append), name="migrating")
        await until(lambda: len(told) == 3)
        nursery.cancel_scope.cancel(reason="somebody pressed ^C")
    async with open_connection(database) as connection:
        assert await rows(connection, APPLIED) == [(1, "one"), (2, "two")]
        await _unlocked(connection)


async def _unlocked(connection: Connection) -> None:
    assert await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
    assert await connection.fetchval("SELECT count(*) FROM one WHERE n = 3") == 0
