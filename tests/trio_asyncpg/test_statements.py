"""Queries, prepared statements, cursors and COPY do what asyncpg documents."""

import io
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import trio

from regsvc import trio_asyncpg
from regsvc.store.embedded import Cluster
from regsvc.trio_asyncpg import Connection, Pool


async def test_each_way_to_ask(pool: Pool) -> None:
    assert await pool.execute("CREATE TABLE t (a int, b text)") == "CREATE TABLE"
    assert await pool.execute("INSERT INTO t VALUES ($1, $2)", 1, "x") == "INSERT 0 1"
    await pool.executemany("INSERT INTO t VALUES ($1, $2)", [(2, "y"), (3, "z")])
    assert [tuple(row) for row in await pool.fetch("SELECT * FROM t ORDER BY a")] == [(1, "x"), (2, "y"), (3, "z")]
    assert await pool.fetchrow("SELECT * FROM t WHERE a = 9") is None
    assert await pool.fetchval("SELECT a, b FROM t WHERE a = 3", column=1) == "z"
    assert await pool.execute("UPDATE t SET a = 0; DELETE FROM t") == "DELETE 3"


async def test_executemany_is_all_or_nothing_and_larger_than_any_buffer(pool: Pool) -> None:
    await pool.execute("CREATE TABLE t (a int PRIMARY KEY, b text)")
    await pool.executemany("INSERT INTO t VALUES ($1, $2)", ((n, "x" * 100) for n in range(50_000)))
    with pytest.raises(asyncpg.UniqueViolationError):
        await pool.executemany("INSERT INTO t VALUES ($1, $2)", ((n, "y") for n in range(99_999, 49_998, -1)))
    with pytest.raises(asyncpg.DataError):
        await pool.executemany("INSERT INTO t VALUES ($1, $2)", [(50_001, "y"), ("no number", "y")])
    assert tuple(*await pool.fetch("SELECT count(*), min(b) FROM t")) == (50_000, "x" * 100)


@pytest.mark.parametrize("what", ["cancelled", "timed out"])
async def test_executemany_that_is_cut_leaves_nothing_and_the_connection_whole(pool: Pool, what: str) -> None:
    await pool.execute("CREATE TABLE t (a int)")
    endless = ((n,) for n in range(10**9))
    async with pool.acquire() as connection:
        if what == "cancelled":
            with trio.move_on_after(0.1) as scope:
                await connection.executemany("INSERT INTO t VALUES ($1)", endless)
            assert scope.cancelled_caught
        else:
            with pytest.raises(TimeoutError):
                await connection.executemany("INSERT INTO t VALUES ($1)", endless, timeout=0.1)
        assert await connection.fetchval("SELECT count(*) FROM t") == 0
    assert pool.statistics().lost == 0


async def test_a_prepared_statement(connection: Connection) -> None:
    statement = await connection.prepare("SELECT $1::int + 1 AS next")
    assert [await statement.fetchval(n) for n in (1, 2)] == [2, 3]
    assert [a.name for a in statement.get_attributes()] == ["next"]
    assert [p.name for p in statement.get_parameters()] == ["int4"]
    assert [row[0] for row in await statement.fetchmany([(5,), (6,)])] == [6, 7]
    assert (await statement.explain(1))[0]["Plan"]["Node Type"] == "Result"


async def test_a_prepared_statement_does_not_outlive_its_lease(pool: Pool) -> None:
    async with pool.acquire() as connection:
        statement = await connection.prepare("SELECT 1")
    with pytest.raises(asyncpg.InterfaceError, match="released back to the pool"):
        await statement.fetch()


async def test_the_statement_cache_is_bounded_and_can_be_off(postgres: Cluster) -> None:
    count = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT % AS cached'"
    async with trio_asyncpg.open_connection(postgres.dsn, statement_cache_size=2) as connection:
        for n in range(5):
            assert await connection.fetchval(f"SELECT {n} AS cached") == n
        assert await connection.fetchval(count) <= 2
    async with trio_asyncpg.open_connection(postgres.dsn, statement_cache_size=0) as connection:
        assert [await connection.fetchval("SELECT $1::int AS cached", n) for n in (1, 2)] == [1, 2]
        assert await connection.fetchval(count) == 0


async def test_a_statement_outlives_a_change_of_its_table(pool: Pool) -> None:
    await pool.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
    async with pool.acquire() as first, pool.acquire() as second:
        assert tuple((await first.fetch("SELECT * FROM t"))[0]) == (1,)
        await second.execute("ALTER TABLE t ADD b text DEFAULT 'new'")
        assert tuple((await first.fetch("SELECT * FROM t"))[0]) == (1, "new")
        with pytest.raises(asyncpg.InvalidCachedStatementError):
            async with first.transaction():
                await second.execute("ALTER TABLE t ADD c int")
                await first.fetch("SELECT * FROM t")
        assert len((await first.fetch("SELECT * FROM t"))[0]) == 3


async def test_a_cursor_reads_piece_by_piece(connection: Connection) -> None:
    async with connection.transaction():
        found = [row[0] async for row in connection.cursor("SELECT generate_series(1, $1::int)", 120, prefetch=50)]
        assert found == list(range(1, 121))
        cursor = await connection.cursor("SELECT generate_series(1, 10)")
        assert [row[0] for row in await cursor.fetch(3)] == [1, 2, 3]
        assert await cursor.forward(2) == 2
        row = await cursor.fetchrow()
        assert row is not None
        assert row[0] == 6
    with pytest.raises(asyncpg.NoActiveSQLTransactionError):
        await connection.cursor("SELECT 1")


async def test_copy_in_and_out_by_every_kind_of_source_and_sink(pool: Pool, tmp_path: Path) -> None:
    await pool.execute("CREATE TABLE t (a int, b text)")
    rows = [(n, f"row {n}") for n in range(3)]
    text = "".join(f"{a}\t{b}\n" for a, b in rows).encode()
    got = bytearray()

    async def pieces() -> AsyncIterator[bytes]:
        for n in range(0, len(text), 5):
            await trio.lowlevel.checkpoint()
            yield text[n : n + 5]

    async def records() -> AsyncIterator[tuple[int, str]]:
        for row in rows:
            await trio.lowlevel.checkpoint()
            yield row

    async def sink(data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        got.extend(data)

    file = tmp_path / "rows"
    file.write_bytes(text)
    async with pool.acquire() as connection:
        sources: list[Any] = [bytearray(text), io.BytesIO(text), file, pieces()]  # the stubs know no bytearray
        for source in sources:
            assert await connection.copy_to_table("t", source=source) == "COPY 3"
        assert await connection.copy_records_to_table("t", records=rows) == "COPY 3"
        assert await connection.copy_records_to_table("t", records=records()) == "COPY 3"
        assert await connection.fetchval("SELECT count(*) FROM t") == 18
        await connection.execute("DELETE FROM t WHERE ctid NOT IN (SELECT min(ctid) FROM t GROUP BY a)")
        for output in (sink, file, into := io.BytesIO()):
            assert await connection.copy_from_table("t", output=output) == "COPY 3"
        assert bytes(got) == file.read_bytes() == into.getvalue() == text
        assert await connection.copy_from_query("SELECT $1::int", 7, output=(into := io.BytesIO())) == "COPY 1"
        assert into.getvalue() == b"7\n"


async def test_copy_of_more_than_any_buffer_waits_for_the_slower_side(pool: Pool) -> None:
    await pool.execute("CREATE TABLE t (a int, b text)")
    size = 0

    async def slow(data: bytes) -> None:
        nonlocal size
        size += len(data)
        await trio.lowlevel.checkpoint()

    async with pool.acquire() as connection:
        await connection.copy_records_to_table("t", records=((n, "x" * 100) for n in range(100_000)))
        await connection.copy_from_table("t", output=slow)
    assert size == sum(len(f"{n}") + 102 for n in range(100_000))


class Broken(Exception):  # noqa: N818  # the name says what is the matter
    """What a source or a sink of a test fails with."""


@pytest.mark.parametrize("how", ["error", "cancelled", "timed out"])
@pytest.mark.parametrize("way", ["in", "records", "out"])
async def test_copy_that_is_cut_leaves_nothing_and_the_connection_whole(pool: Pool, way: str, how: str) -> None:
    await pool.execute("CREATE TABLE t (a int); INSERT INTO t SELECT generate_series(1, 100000)")

    async def fail() -> None:
        if how == "error":
            raise Broken
        await trio.sleep_forever()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"1\n"
        await fail()

    async def records() -> AsyncIterator[tuple[int]]:
        yield (1,)
        await fail()

    async def sink(_: bytes) -> None:
        await fail()

    async def copy(connection: Connection, timeout: float | None) -> None:  # noqa: ASYNC109  # as asyncpg's
        if way == "in":
            await connection.copy_to_table("t", source=pieces(), timeout=timeout)
        elif way == "records":
            await connection.copy_records_to_table("t", records=records(), timeout=timeout)
        else:
            await connection.copy_from_table("t", output=sink, timeout=timeout)

    async with pool.acquire() as connection:
        pid = connection.get_server_pid()
        with trio.move_on_after(0.05 if how == "cancelled" else 5) as scope, suppress(Broken, TimeoutError):
            await copy(connection, 0.05 if how == "timed out" else None)
            raise AssertionError
        assert scope.cancelled_caught == (how == "cancelled")
        assert await connection.fetchval("SELECT count(*) FROM t") == 100_000
        assert connection.get_server_pid() == pid
    assert pool.statistics().lost == 0


async def test_a_large_answer_and_a_large_question(connection: Connection) -> None:
    large = "x" * 5_000_000
    assert await connection.fetchval("SELECT $1::text", large) == large
    assert len(await connection.fetch("SELECT generate_series(1, 50000)")) == 50_000


async def test_listeners_of_asyncpgs_own_kind(connection: Connection, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []
    told = trio.Event()

    async def later(_: object, message: asyncpg.PostgresLogMessage) -> None:
        await trio.lowlevel.checkpoint()
        heard.append(f"later {message.message}")
        told.set()

    def at_once(_: object, message: asyncpg.PostgresLogMessage) -> None:
        heard.append(f"at once {message.message}")
        raise Broken

    connection.add_log_listener(at_once)
    connection.add_log_listener(later)
    await connection.execute("DO $$ BEGIN RAISE NOTICE 'hear'; END $$")
    with trio.fail_after(10):
        await told.wait()
    assert sorted(heard) == ["at once hear", "later hear"]
    assert "a listener failed" in caplog.text
    logged: list[str] = []
    with connection.query_logger(lambda record: logged.append(record.query)):
        await connection.fetchval("SELECT 1")
        await connection.fetchval("SELECT 1")
    assert logged == ["SELECT 1"] * 2
