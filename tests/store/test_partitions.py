"""The audit trail by months: made ahead of time, filled from what fell beside, dropped when all of it is old."""

import json
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import trio

from regsvc.domain.values import Secret
from regsvc.ports import Heap, Partitioned, Swept
from regsvc.store import Store, housekeeping, open_store, sql
from regsvc.store.embedded import Cluster
from regsvc.store.migrations import migrate
from regsvc.trio_asyncpg import Connection, open_connection
from tests.postgres import psql, temporary_database
from tests.store.scenes import blocked, form, new_id, register, rows, together
from tests.waiting import until_asked

BOUNDS = "SELECT begins_at, ends_at FROM events_partitions ORDER BY begins_at"
MONTH = "date_trunc('month', clock_timestamp(), 'UTC')"
INSERT = """
    INSERT INTO events (id, at, name)
    SELECT gen_random_uuid(), $1::timestamptz + n * $2::interval, 'e' || n FROM generate_series(0, $3::int - 1) AS n
"""
HOUR = timedelta(hours=1)


@pytest.fixture
async def now(raw: Connection) -> datetime:
    found: datetime = await raw.fetchval("SELECT clock_timestamp()")
    return found


def month(now: datetime, ahead: int) -> datetime:
    """The beginning of the month that is so many after that of `now`."""
    number = now.year * 12 + now.month - 1 + ahead
    return now.replace(year=number // 12, month=number % 12 + 1, day=1, hour=0, minute=0, second=0, microsecond=0)


def said(now: datetime, *ahead: int) -> tuple[str, ...]:
    return tuple(f"{month(now, n):%Y-%m}" for n in ahead)


async def clear(raw: Connection) -> None:
    """Take away what the migration made."""
    for (name,) in await rows(raw, "SELECT partition FROM events_partitions"):
        await raw.execute(f"DROP TABLE {name}")


async def in_default(raw: Connection) -> int:
    return int(await raw.fetchval("SELECT count(*) FROM events_default"))


async def test_a_migrated_database_has_this_month_and_the_next_two(
    store: Store, raw: Connection, now: datetime
) -> None:
    await store.housekeeping.partition()  # the month may have turned since it was migrated
    assert (await rows(raw, BOUNDS))[-3:] == [(month(now, n), month(now, n + 1)) for n in range(3)]


async def test_what_is_there_is_not_made_again(store: Store) -> None:
    await store.housekeeping.partition()  # as above
    assert await store.housekeeping.partition() == Partitioned()


async def test_months_are_made_ahead_and_what_is_written_goes_there(
    store: Store, raw: Connection, now: datetime
) -> None:
    await clear(raw)
    assert await store.housekeeping.partition() == Partitioned(said(now, 0, 1, 2))
    assert await rows(raw, BOUNDS) == [(month(now, n), month(now, n + 1)) for n in range(3)]
    await register(store, form())
    assert await raw.fetchval("SELECT count(*) FROM events") == 1
    assert await in_default(raw) == 0


async def test_months_are_those_of_utc_wherever_the_session_is(migrated: str, raw: Connection, now: datetime) -> None:
    await clear(raw)
    name = await raw.fetchval("SELECT current_database()")
    await raw.execute(f"ALTER DATABASE {name} SET timezone = 'America/St_Johns'")
    async with open_store(Secret(migrated), new_id=new_id) as elsewhere:
        assert (await elsewhere.housekeeping.partition()).made == said(now, 0, 1, 2)
        assert await elsewhere.housekeeping.partition() == Partitioned()
    assert await rows(raw, BOUNDS) == [(month(now, n), month(now, n + 1)) for n in range(3)]


async def test_what_fell_into_the_default_partition_is_moved(store: Store, raw: Connection, now: datetime) -> None:
    await clear(raw)
    for ahead in (-2, 0, 7):
        await raw.execute(INSERT, month(now, ahead), HOUR, 10)
    assert await in_default(raw) == 30
    assert await store.housekeeping.partition() == Partitioned(said(now, -2, 0, 1, 2, 7), moved=30)
    assert await in_default(raw) == 0
    assert await raw.fetchval("SELECT count(*) FROM events") == 30
    assert await store.housekeeping.partition() == Partitioned()


async def test_more_than_can_be_moved_in_a_blink_stays_readable(
    store: Store, raw: Connection, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    await clear(raw)
    monkeypatch.setattr(housekeeping, "FALLEN_MAX", 9)
    await raw.execute(INSERT, month(now, -1), HOUR, 10)
    await raw.execute(INSERT, month(now, 0), HOUR, 9)
    assert await store.housekeeping.partition() == Partitioned(said(now, 0, 1, 2), moved=9)
    assert await in_default(raw) == 10
    assert len(await store.roster.events(subject=None, name=None, before=None, limit=50)) == 19


async def test_a_month_goes_when_all_of_it_is_older_than_what_is_kept(
    migrated: str, raw: Connection, now: datetime
) -> None:
    for ahead in range(-4, 0):
        await raw.execute(INSERT, month(now, ahead), HOUR, 3)
    async with open_store(Secret(migrated), new_id=new_id) as store:
        assert (await store.housekeeping.partition()).made == said(now, -4, -3, -2, -1)
    kept = now - month(now, -2) + HOUR  # so the last hour of the month before that is not yet too old
    async with open_store(Secret(migrated), new_id=new_id, events_kept=kept) as store:
        done = await store.housekeeping.partition()
        assert done == Partitioned(dropped=(f"events_{month(now, -4):%Y_%m}",))
        assert await store.housekeeping.partition() == Partitioned()
    async with open_store(Secret(migrated), new_id=new_id, events_kept=kept - 2 * HOUR) as store:
        assert (await store.housekeeping.partition()).dropped == (f"events_{month(now, -3):%Y_%m}",)
    assert await raw.fetchval("SELECT count(*) FROM events") == 6
    assert len(await rows(raw, BOUNDS)) == 5


async def test_what_has_no_month_of_its_own_goes_row_by_row(migrated: str, raw: Connection, now: datetime) -> None:
    kept = now - month(now, -2)
    await raw.execute(INSERT, month(now, -3), HOUR, 5)
    await raw.execute(INSERT, month(now, -2), HOUR, 2)
    events = frozenset({Heap.EVENTS})
    async with open_store(Secret(migrated), new_id=new_id, events_kept=kept) as store:
        async with raw.transaction():
            await raw.execute("SELECT FROM events_default ORDER BY at LIMIT 1 FOR UPDATE")
            assert await store.housekeeping.sweep(3, events) == Swept(events=3, more=events)
        assert await store.housekeeping.sweep(3, events) == Swept(events=2)
        # Only then is there anything to move: nobody makes a month to drop it.
        assert await store.housekeeping.partition() == Partitioned(said(now, -2), moved=2)


async def test_sweepers_together_make_and_drop_each_month_once(migrated: str, raw: Connection, now: datetime) -> None:
    await raw.execute(INSERT, month(now, -30), timedelta(days=30), 34)
    total = await raw.fetchval("SELECT count(*) FROM events")
    async with open_store(Secret(migrated), new_id=new_id, pool_max=8, events_kept=timedelta(days=3650)) as store:
        done: list[Partitioned] = []

        async def sweeper(_: int) -> None:
            done.append(await store.housekeeping.partition())

        await together(8, sweeper)
        await sweeper(0)
    made = [name for one in done for name in one.made]
    assert len(made) == len(set(made)) >= 29
    assert await in_default(raw) == 0
    assert await raw.fetchval("SELECT count(*) FROM events") == total
    done.clear()
    async with open_store(Secret(migrated), new_id=new_id, pool_max=8, events_kept=timedelta(days=62)) as store:
        await together(8, sweeper)
        await sweeper(0)
    dropped = [name for one in done for name in one.dropped]
    assert len(dropped) == len(set(dropped)) >= 26


async def test_who_writes_waits_for_no_month_that_is_dropped(migrated: str, raw: Connection, now: datetime) -> None:
    await raw.execute(INSERT, month(now, -3), HOUR, 5)
    async with (
        open_store(Secret(migrated), new_id=new_id) as long,
        open_store(Secret(migrated), new_id=new_id, events_kept=timedelta(days=31)) as store,
        open_connection(migrated) as other,
    ):
        await long.housekeeping.partition()
        done: list[Partitioned] = []

        async def drop() -> None:
            done.append(await store.housekeeping.partition())

        async with other.transaction():
            await other.execute(INSERT, now, HOUR, 1)  # somebody's transaction that takes its time
            async with trio.open_nursery() as nursery:
                nursery.start_soon(drop, name="dropping")
                await until_asked(lambda: blocked(raw))
                with trio.fail_after(3):  # behind the one that waits for the whole trail
                    await raw.execute(INSERT, now, HOUR, 1)
        assert done == [Partitioned()]
        assert (await store.housekeeping.partition()).dropped == (f"events_{month(now, -3):%Y_%m}",)


async def test_who_reads_is_not_waited_for(store: Store, raw: Connection, now: datetime) -> None:
    await raw.execute(INSERT, month(now, -3), HOUR, 5)
    async with raw.transaction():
        await raw.execute("SELECT FROM events")
        with trio.fail_after(3):
            assert await store.housekeeping.partition() == Partitioned()
    assert await store.housekeeping.partition() == Partitioned(said(now, -3), moved=5)


async def test_a_table_of_that_name_is_left_alone(store: Store, raw: Connection, now: datetime) -> None:
    name = f"events_{month(now, -3):%Y_%m}"
    await raw.execute(f"CREATE TABLE {name} (n int)")
    await raw.execute(INSERT, month(now, -3), HOUR, 5)
    assert await store.housekeeping.partition() == Partitioned()
    assert await in_default(raw) == 5


@pytest.fixture
def guest(postgres: Cluster, migrated: str) -> Iterator[str]:
    """The way to the database for somebody who may use its tables, and owns none of them."""
    name, role = migrated.partition("@/")[2].partition("?")[0], f"guest_{os.getpid()}"
    psql(postgres, f"CREATE ROLE {role} LOGIN")
    psql(postgres, f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}", database=name)
    yield migrated.replace("//regsvc@", f"//{role}@")
    psql(postgres, f"DROP OWNED BY {role}", database=name)
    psql(postgres, f"DROP ROLE {role}")


async def test_who_does_not_own_the_trail_leaves_it_as_it_is(guest: str, raw: Connection) -> None:
    await clear(raw)
    async with open_store(Secret(guest), new_id=new_id, events_kept=timedelta(days=31)) as store:
        assert await store.housekeeping.partition() == Partitioned()
        await register(store, form())
    assert await in_default(raw) == 1


# ------------------------------------------------------------------------------------- what was there before there were


@pytest.fixture
async def before(database: str, tmp_path: Path) -> AsyncIterator[Connection]:
    """A database of the version before; `migrate(Secret(database))` brings it here."""
    shutil.copytree(sql.folder(), tmp_path / "sql")
    for path in (tmp_path / "sql" / "migrations").iterdir():
        if path.name >= "0005":
            path.unlink()
    await migrate(Secret(database), place=tmp_path / "sql")
    async with open_connection(database) as connection:
        yield connection


async def test_a_trail_from_before_becomes_one_partition_and_the_version_before_goes_on(
    database: str, before: Connection
) -> None:
    at: datetime = await before.fetchval("SELECT clock_timestamp()")
    add = await before.prepare("INSERT INTO events (id, at, name) VALUES (gen_random_uuid(), $1, 'x')")
    count = await before.prepare("SELECT count(*) FROM events")
    await before.execute(INSERT, at, -timedelta(days=20), 100)
    await migrate(Secret(database))
    assert await in_default(before) == 0
    assert await count.fetchval() == 100
    bounds = await rows(before, "SELECT ends_at FROM events_partitions ORDER BY begins_at")
    assert bounds == [(month(at, n),) for n in (1, 2, 3)]
    for ahead in (0, 1, 30):
        await add.fetchval(month(at, ahead))
    assert await count.fetchval() == 103
    assert await in_default(before) == 1
    names = [str(name) for (name,) in await rows(before, "SELECT relname FROM pg_class WHERE relname LIKE 'events%'")]
    assert sorted(name for name in names if name.startswith("events_until")) == [
        f"events_until_{month(at, 1):%Y_%m}{end}" for end in ("", "_name_at_idx", "_pkey", "_subject_id_at_idx")
    ]
    async with open_store(Secret(database), new_id=new_id, events_kept=timedelta(days=31)) as store:
        assert await store.housekeeping.partition() == Partitioned(said(at, 30), moved=1)


async def test_a_trail_with_an_event_of_the_future_is_left_to_the_sweeper(database: str, before: Connection) -> None:
    at: datetime = await before.fetchval("SELECT clock_timestamp()")
    await before.execute(INSERT, month(at, 0), HOUR, 3)
    await before.execute(INSERT, month(at, 40), HOUR, 2)
    await migrate(Secret(database))
    assert await rows(before, BOUNDS) == [(month(at, n), month(at, n + 1)) for n in range(3)]
    assert await in_default(before) == 2
    async with open_store(Secret(database), new_id=new_id) as store:
        assert await store.housekeeping.partition() == Partitioned(said(at, 40), moved=2)
    assert await before.fetchval("SELECT count(*) FROM events") == 5


# ------------------------------------------------------------------------------------------------------------- reading

FILL = """
    SET timezone = 'UTC';
    INSERT INTO events (id, at, name, subject_id)
    SELECT gen_random_uuid(),
        date_trunc('second', now() + interval '70 days' - n * interval '2 years' / (1000 * {thousands})), 'e' || n % 10,
        gen_random_uuid()
    FROM generate_series(1, 1000 * {thousands}) AS n;
    SELECT make_events_partition(date_trunc('month', now()) - n * interval '1 month', 1000000000)
    FROM generate_series(1, 24) AS n;
    ANALYZE;
"""


@pytest.fixture(scope="module")
def aged(postgres: Cluster, template: str, rounds: int | None) -> Iterator[str]:
    """A trail of two years, by months."""
    name = f"aged_{os.getpid()}"
    with temporary_database(postgres, name, template=template) as dsn:
        psql(postgres, FILL.replace("{thousands}", str(rounds or 30)), database=name)
        yield dsn


def read(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The scans of a plan."""
    if "Relation Name" in node:
        yield node
    for below in node.get("Plans", ()):
        yield from read(below)


async def test_pages_go_across_the_months_and_none_is_missed(aged: str) -> None:
    async with open_store(Secret(aged), new_id=new_id) as store, open_connection(aged) as raw:
        seen: list[tuple[datetime, UUID]] = []
        before: tuple[datetime, UUID] | None = None
        while found := await store.roster.events(subject=None, name="e7", before=before, limit=400):
            seen += [(event.at, event.id) for event in found]
            before = seen[-1]
        assert seen == sorted(seen, reverse=True)
        assert len(set(seen)) == len(seen) == await raw.fetchval("SELECT count(*) FROM events WHERE name = 'e7'")


# A year back there is a year's rest: where there is little left, it may well be read whole and sorted.
@pytest.mark.parametrize("back", [0, 1, 12])
@pytest.mark.parametrize("name", [None, "e7"])
async def test_a_page_looks_at_no_month_after_its_beginning(aged: str, back: int, name: str | None) -> None:
    queries = await trio.to_thread.run_sync(sql.read_queries, sql.folder() / "queries")
    (statement,) = (statement for statement in queries["staff"] if statement.name == "list_events")
    async with open_connection(aged) as raw:
        at = month(await raw.fetchval("SELECT clock_timestamp()"), -back) + HOUR
        explain = f"EXPLAIN (FORMAT JSON, ANALYZE) {statement.text}"
        plan = json.loads(await raw.fetchval(explain, None, name, at, UUID(int=1 << 127), 51))
    scans = list(read(plan[0]["Plan"]))
    months = {scan["Relation Name"] for scan in scans}
    assert f"events_{at:%Y_%m}" in months
    assert not {one for one in months if one != "events_default" and one > f"events_{at:%Y_%m}"}
    shown = json.dumps(plan, indent=1)
    assert {scan["Node Type"] for scan in scans if scan["Relation Name"] != "events_default"} == {"Index Scan"}, shown
    # Of older months only the newest row is looked at, or what is left of a page.
    assert sum(scan["Actual Rows"] for scan in scans) <= 51 + len(months), shown
