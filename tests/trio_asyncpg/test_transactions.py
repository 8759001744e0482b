"""A block is all committed or nothing of it, at each level of isolation, whatever ends it."""

import asyncpg
import pytest
import trio

from regsvc import trio_asyncpg
from regsvc.store.embedded import Cluster
from regsvc.trio_asyncpg import Connection, Isolation, Pool
from tests.postgres import psql
from tests.trio_asyncpg.conftest import until


class Broken(Exception):  # noqa: N818  # the name says what is the matter
    """What a body fails with."""


async def numbers(pool: Pool) -> list[int]:
    return [row[0] for row in await pool.fetch("SELECT a FROM t ORDER BY a")]


@pytest.fixture
async def table(pool: Pool) -> Pool:
    await pool.execute("CREATE TABLE t (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    return pool


async def test_commit_rollback_and_savepoints(table: Pool) -> None:
    async with table.acquire() as connection:
        async with connection.transaction():
            await connection.execute("INSERT INTO t VALUES (1)")
            with pytest.raises(Broken):
                async with connection.transaction():
                    await connection.execute("INSERT INTO t VALUES (2)")
                    raise Broken
            with pytest.raises(asyncpg.DivisionByZeroError):
                async with connection.transaction():
                    await connection.execute("SELECT 1 / 0")
            async with connection.transaction(), connection.transaction():
                await connection.execute("INSERT INTO t VALUES (3)")
            assert connection.is_in_transaction()
        assert await numbers(table) == [1, 3]
        with pytest.raises(Broken):
            async with connection.transaction():
                await connection.execute("INSERT INTO t VALUES (4)")
                raise Broken
        assert not connection.is_in_transaction()
    assert await numbers(table) == [1, 3]
    assert table.statistics().recovering == 0


@pytest.mark.parametrize(
    ("isolation", "shown"),
    [
        ("serializable", "serializable"),
        ("repeatable_read", "repeatable read"),
        ("read_committed", "read committed"),
        ("read_uncommitted", "read uncommitted"),
        (None, "read committed"),
    ],
)
@pytest.mark.parametrize("readonly", [True, False])
async def test_the_server_is_told_the_mode(
    connection: Connection,
    isolation: Isolation | None,
    shown: str,
    readonly: bool,  # noqa: FBT001  # pytest's way
) -> None:
    async with connection.transaction(isolation=isolation, readonly=readonly, deferrable=True):
        assert await connection.fetchval("SHOW transaction_isolation") == shown
        assert await connection.fetchval("SHOW transaction_read_only") == ("on" if readonly else "off")
        assert await connection.fetchval("SHOW transaction_deferrable") == "on"


async def test_a_mode_that_cannot_be_is_refused(connection: Connection) -> None:
    with pytest.raises(ValueError, match="isolation is one of"):
        connection.transaction(isolation="snapshot")  # type: ignore[arg-type]  # the point
    async with connection.transaction():
        with pytest.raises(asyncpg.InterfaceError, match="savepoint"):
            async with connection.transaction(isolation="serializable"):
                pass
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        async with connection.transaction(readonly=True):
            await connection.execute("CREATE TABLE never (a int)")


async def test_what_each_isolation_sees(table: Pool) -> None:
    async with table.acquire() as reader:
        levels: list[tuple[Isolation, int]] = [("read_committed", 1), ("repeatable_read", 0)]
        for isolation, seen in levels:
            await table.execute("DELETE FROM t")
            async with reader.transaction(isolation=isolation):
                assert await reader.fetchval("SELECT count(*) FROM t") == 0
                await table.execute("INSERT INTO t VALUES (1)")
                assert await reader.fetchval("SELECT count(*) FROM t") == seen


async def test_write_skew_fails_one_of_two_serializable_transactions(table: Pool) -> None:
    async with table.acquire() as one, table.acquire() as two:
        with pytest.raises(asyncpg.SerializationError):
            async with one.transaction(isolation="serializable"):
                await one.fetchval("SELECT sum(a) FROM t")
                async with two.transaction(isolation="serializable"):
                    await two.fetchval("SELECT sum(a) FROM t")
                    await two.execute("INSERT INTO t VALUES (2)")
                await one.execute("INSERT INTO t VALUES (1)")
        assert not one.is_in_transaction()
    assert await numbers(table) == [2]


async def test_a_commit_that_the_server_refuses(table: Pool) -> None:
    await table.execute("INSERT INTO t VALUES (1)")
    async with table.acquire() as connection:
        with pytest.raises(asyncpg.UniqueViolationError):
            async with connection.transaction():
                await connection.execute("INSERT INTO t VALUES (1)")
        assert await connection.fetchval("SELECT count(*) FROM t") == 1


async def test_an_error_that_the_body_hid_is_not_reported_as_committed(table: Pool) -> None:
    async with table.acquire() as connection:
        with pytest.raises(asyncpg.InFailedSQLTransactionError, match="nothing was committed"):
            async with connection.transaction():
                await connection.execute("INSERT INTO t VALUES (1)")
                with pytest.raises(asyncpg.DivisionByZeroError):
                    await connection.execute("SELECT 1 / 0")
    assert await numbers(table) == []


async def test_a_body_that_ended_is_committed_though_its_task_is_cancelled(table: Pool) -> None:
    with trio.CancelScope() as scope:
        async with table.acquire() as connection, connection.transaction():
            await connection.execute("INSERT INTO t VALUES (1)")
            scope.cancel(reason="between the last statement and COMMIT")
    assert await numbers(table) == [1]


async def test_a_body_that_is_cancelled_is_rolled_back_before_the_block_is_left(table: Pool) -> None:
    async with table.acquire() as connection:
        with trio.move_on_after(0.05) as scope:
            async with connection.transaction():
                await connection.execute("INSERT INTO t VALUES (1)")
                await connection.execute("SELECT pg_sleep(30)")
        assert scope.cancelled_caught
        assert not connection.is_in_transaction()
        async with connection.transaction():
            await connection.execute("INSERT INTO t VALUES (2)")
            with trio.move_on_after(0.05):
                async with connection.transaction():
                    await connection.execute("INSERT INTO t VALUES (3)")
                    await trio.sleep_forever()
    assert await numbers(table) == [2]
    assert table.statistics().lost == 0


async def test_a_statement_that_timed_out_ends_the_transaction_cleanly(table: Pool) -> None:
    async with table.acquire() as connection:
        with pytest.raises(TimeoutError):
            async with connection.transaction():
                await connection.execute("INSERT INTO t VALUES (1)")
                await connection.fetchval("SELECT pg_sleep(30)", timeout=0.05)
        assert await connection.fetchval("SELECT count(*) FROM t") == 0


async def test_a_transaction_of_a_session_that_the_server_ends(table: Pool) -> None:
    with pytest.raises(trio_asyncpg.ConnectionLost, match="terminating connection"):
        async with table.acquire() as connection, connection.transaction():
            await connection.execute("INSERT INTO t VALUES (1)")
            await connection.fetchval("SELECT pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(trio_asyncpg.ConnectionLost):
        async with table.acquire() as connection, connection.transaction():
            await connection.execute("INSERT INTO t VALUES (1)")
            await table.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())
            await until(connection.is_closed)
    assert await numbers(table) == []


async def test_a_commit_without_an_answer_is_told_and_the_connection_dropped(
    server: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regsvc.trio_asyncpg.transaction.COMMIT_TIMEOUT", 0.1)
    async with trio_asyncpg.open_pool(server.dsn) as pool:
        await pool.execute("CREATE TABLE of_unknown_fate (a int)")
        psql(server, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        psql(server, "SELECT pg_reload_conf()")
        try:
            with pytest.raises(TimeoutError), trio.fail_after(5):
                while True:  # until the server has taken the setting
                    async with pool.acquire() as connection, connection.transaction():
                        await connection.execute("INSERT INTO of_unknown_fate VALUES (1)")
            assert connection.is_closed()
        finally:
            psql(server, "ALTER SYSTEM RESET synchronous_standby_names")
            psql(server, "SELECT pg_reload_conf()")
        assert pool.statistics().dropped + pool.statistics().lost == 1
        await pool.execute("DROP TABLE of_unknown_fate")
