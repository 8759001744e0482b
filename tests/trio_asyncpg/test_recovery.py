"""The server goes away, hangs, comes back; the program is cancelled. The pool is whole again by itself."""

import struct
import time
from typing import Any

import asyncpg
import pytest
import trio

from regsvc import trio_asyncpg
from regsvc.store.embedded import Cluster
from regsvc.trio_asyncpg import Pool
from tests.postgres import psql
from tests.trio_asyncpg.conftest import frozen, until
from tests.trio_asyncpg.test_connect import closed_port, over, silent_port


async def test_a_pool_survives_a_crash_of_the_server(server: Cluster) -> None:
    async with trio_asyncpg.open_pool(server.dsn, min_size=3, max_size=3) as pool:
        for _ in range(5):
            await until(lambda: pool.statistics().idle == 3)
            async with pool.acquire() as held:
                server.restart("immediate")
                with pytest.raises(trio_asyncpg.ConnectionLost):
                    await held.fetchval("SELECT 1")
            # At once and without an error: idle connections are looked at before they are lent.
            assert await pool.fetchval("SELECT 1") == 1
        await until(lambda: pool.statistics().idle == 3)
        assert pool.statistics().lost == 15


async def test_a_crash_while_connections_are_being_opened_is_nobodys_error(server: Cluster) -> None:
    async with trio_asyncpg.open_pool(server.dsn, min_size=3, max_size=3) as pool:
        for n in range(10):
            for _ in range(n):
                await trio.lowlevel.checkpoint()
            server.restart("immediate")
            assert await pool.fetchval("SELECT 1") == 1


@pytest.mark.parametrize("how", ["fetchval", "executemany"])
async def test_a_connection_that_ends_between_preparing_and_executing_is_lost(
    server: Cluster, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    theirs: Any = asyncpg.Connection  # of whose inside the stubs say nothing
    prepared = theirs._get_statement

    async def cut(self: Any, *args: object, **knobs: object) -> object:
        statement = await prepared(self, *args, **knobs)
        self._abort()
        return statement

    async with trio_asyncpg.open_pool(server.dsn, min_size=1, max_size=1) as pool:
        async with pool.acquire() as held:
            with monkeypatch.context() as patch:
                patch.setattr(theirs, "_get_statement", cut)
                with pytest.raises(trio_asyncpg.ConnectionLost):
                    if how == "fetchval":
                        await held.fetchval("SELECT $1::int", 1)
                    else:
                        await held.executemany("SELECT $1::int", [(1,)])
        assert await pool.fetchval("SELECT 1") == 1


async def test_statements_under_way_learn_of_a_crash_and_later_ones_work(server: Cluster) -> None:
    outcomes: list[object] = []

    async def work(pool: Pool) -> None:
        try:
            outcomes.append(await pool.fetchval("SELECT pg_sleep(30)"))
        except OSError as exc:
            outcomes.append(type(exc))

    async with trio_asyncpg.open_pool(server.dsn, min_size=0, max_size=4) as pool, trio.open_nursery() as nursery:
        for n in range(8):
            nursery.start_soon(work, pool, name=f"sleeper {n}")
        await until(lambda: pool.statistics().in_use == 4)
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        await until(lambda: psql(server, sleeping) == "4")
        server.restart("immediate")
        await until(lambda: len(outcomes) == 4)
        assert outcomes == [trio_asyncpg.ConnectionLost] * 4
        nursery.cancel_scope.cancel(reason="the others sleep well")
    async with trio_asyncpg.open_pool(server.dsn) as pool:
        assert await pool.fetchval("SELECT 1") == 1


async def test_a_server_that_is_down_is_told_at_once_to_each(server: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    refused = 0

    async def ask(pool: Pool) -> None:
        nonlocal refused
        with pytest.raises(ConnectionRefusedError):
            await pool.fetchval("SELECT 1")
        refused += 1

    async with closed_port() as port, trio_asyncpg.open_pool(over(server, port), min_size=2, max_size=4) as pool:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                for n in range(50):
                    nursery.start_soon(ask, pool, name=f"asks {n}")
        await until(lambda: pool.statistics().opening == 0)
        assert refused == 50
        assert pool.statistics().size == pool.statistics().waiting == 0
    assert caplog.text.count("no connection to PostgreSQL") == 1  # once per outage


async def test_a_pool_opens_before_its_server_does(server: Cluster) -> None:
    server._server.stop()
    try:
        async with trio_asyncpg.open_pool(server.dsn, min_size=1) as pool:
            with pytest.raises(OSError, match=r"No such file|refused"):
                await pool.fetchval("SELECT 1")
            assert server.ensure_running()
            await until(lambda: pool.statistics().idle == 1)  # by itself
            assert await pool.fetchval("SELECT 1") == 1
    finally:
        server.ensure_running()


async def test_a_server_that_says_nothing_costs_no_more_than_the_deadline(server: Cluster) -> None:
    async with silent_port() as port:
        dsn = over(server, port)
        async with trio_asyncpg.open_pool(dsn, min_size=0, connect_timeout=0.1) as pool:
            with pytest.raises(TimeoutError, match=r"did not answer within 0.1 s"):
                await pool.fetchval("SELECT 1")
        async with trio_asyncpg.open_pool(dsn, min_size=0, acquire_timeout=0.1, connect_timeout=60) as pool:
            with pytest.raises(TimeoutError, match=r"no connection within 0.1 s"):
                await pool.fetchval("SELECT 1")


async def test_a_frozen_server_holds_nobody_beyond_the_deadlines(server: Cluster) -> None:
    knobs = {"min_size": 2, "max_size": 2, "command_timeout": 0.1, "acquire_timeout": 0.2, "connect_timeout": 0.2}
    async with trio_asyncpg.open_pool(server.dsn, **knobs) as pool:  # type: ignore[arg-type]  # of several types
        await until(lambda: pool.statistics().idle == 2)
        with frozen(server):
            started = trio.current_time()
            for _ in range(2):
                with pytest.raises(TimeoutError):
                    await pool.fetchval("SELECT 1")
            with pytest.raises(TimeoutError):
                await pool.fetchval("SELECT 1")
            assert trio.current_time() - started < 10
            with trio.move_on_after(0.05) as scope:
                await pool.fetchval("SELECT 1")
            assert scope.cancelled_caught
            await until(lambda: pool.statistics().dropped + pool.statistics().lost == 2)
        await until(lambda: pool.statistics().idle >= 1)
        assert await pool.fetchval("SELECT 1", timeout=5) == 1


async def test_a_frozen_server_does_not_hold_a_transaction_or_the_end_of_the_pool(server: Cluster) -> None:
    started = time.monotonic()
    async with trio_asyncpg.open_pool(server.dsn, command_timeout=0.1) as pool, pool.acquire() as connection:
        with pytest.raises(TimeoutError):
            async with connection.transaction():
                with frozen(server):
                    await connection.fetchval("SELECT 1")
                    raise AssertionError
        with frozen(server):
            with pytest.raises(OSError):  # noqa: PT011  # TimeoutError or ConnectionLost: dropped before or after
                async with connection.transaction():
                    await connection.fetchval("SELECT 1")
            assert connection.is_closed()
            scope_started = trio.current_time()
        assert trio.current_time() - scope_started < 10
    assert time.monotonic() - started < 20


async def test_a_cancelled_program_closes_everything_and_its_statements_end(server: Cluster) -> None:
    with trio.CancelScope() as program:
        async with trio_asyncpg.open_pool(server.dsn) as pool, trio.open_nursery() as nursery:
            for n in range(2):
                nursery.start_soon(pool.execute, "SELECT pg_sleep(30)", name=f"sleeper {n}")
            sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
            await until(lambda: psql(server, sleeping) == "2")
            program.cancel(reason="the program ends")
    assert program.cancelled_caught
    assert psql(server, sleeping) == "0"
    with pytest.raises(asyncpg.InterfaceError):
        await pool.fetchval("SELECT 1")


async def test_a_commit_under_way_ends_well_though_the_program_is_cancelled(server: Cluster) -> None:
    psql(server, "CREATE TABLE kept (a int)")
    with trio.CancelScope() as program:
        async with (
            trio_asyncpg.open_pool(server.dsn) as pool,
            pool.acquire() as connection,
            connection.transaction(),
        ):
            await connection.execute("INSERT INTO kept VALUES (1)")
            program.cancel(reason="the program ends")
    assert psql(server, "DELETE FROM kept RETURNING a") == "1"
    psql(server, "DROP TABLE kept")


async def test_a_single_connection_that_is_cancelled_cancels_on_the_server(server: Cluster) -> None:
    with trio.CancelScope() as scope:
        async with trio_asyncpg.open_connection(server.dsn) as connection:
            scope.deadline = trio.current_time() + 0.1
            await connection.fetchval("SELECT pg_sleep(30)")
    assert psql(server, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == "0"
    assert connection.is_closed()


def end_session(server: Cluster, connection: trio_asyncpg.Connection) -> None:
    """Have the server end it, and give Trio no time to notice."""
    psql(server, f"SELECT pg_terminate_backend({connection.get_server_pid()}, 20000)")


async def test_a_session_ended_under_a_transaction_ends_that_with_the_bodys_own_error(server: Cluster) -> None:
    async with trio_asyncpg.open_pool(server.dsn) as pool:
        with pytest.raises(KeyError):
            async with pool.acquire() as connection, connection.transaction():
                end_session(server, connection)
                raise KeyError
        with pytest.raises(KeyError):
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("ROLLBACK")  # by hand: nothing is left to undo
                raise KeyError
        assert not connection.is_closed()
        with pytest.raises(KeyError):
            async with pool.acquire() as connection, connection.listen("bell"):
                end_session(server, connection)
                raise KeyError
        assert await pool.fetchval("SELECT 1") == 1


async def test_a_session_that_the_server_ended_is_lost_to_who_asks_next(server: Cluster) -> None:
    async with trio_asyncpg.open_pool(server.dsn, min_size=1, max_size=1) as pool:
        for n in range(20):
            async with pool.acquire() as connection:
                end_session(server, connection)
                for _ in range(n % 5):  # the server's last word is read, or the end of the connection too
                    await trio.lowlevel.checkpoint()
                with pytest.raises(trio_asyncpg.ConnectionLost):
                    await connection.fetchval("SELECT 1")
                with pytest.raises(trio_asyncpg.ConnectionLost):
                    await connection.execute("SELECT 1")
            assert await pool.fetchval("SELECT 1") == 1


async def test_an_attempt_from_before_they_came_is_not_told_to_who_waits(server: Cluster) -> None:
    begun, go, attempts = trio.Event(), trio.Event(), 0

    async def init(_: trio_asyncpg.Connection) -> None:
        nonlocal attempts
        attempts += 1
        begun.set()
        await go.wait()
        if attempts == 1:
            raise ConnectionRefusedError

    async with trio_asyncpg.open_pool(server.dsn, min_size=1, max_size=1, init=init) as pool:
        await begun.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.fetchval, "SELECT 1", name="waits")
            await until(lambda: pool.statistics().waiting == 1)
            go.set()
        assert attempts == 2
        assert pool.statistics().refused == 1


async def test_a_last_word_before_the_end_is_enough_to_be_lost(server: Cluster) -> None:
    async with trio_asyncpg.open_connection(server.dsn) as connection:
        said = b"SFATAL\0C57P01\0Mgoing down\0\0"
        connection._protocol.data_received(b"E" + struct.pack("!i", len(said) + 4) + said)
        with pytest.raises(trio_asyncpg.ConnectionLost, match="cannot switch"):
            await connection.fetchval("SELECT 1")
        assert connection.is_closed()


async def test_a_connection_that_does_not_recover_is_dropped(server: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regsvc.trio_asyncpg.pool.RECOVER_TIMEOUT", 0.1)
    async with trio_asyncpg.open_pool(server.dsn, max_size=1, min_size=1) as pool:
        async with pool.acquire() as connection:
            await connection.execute("BEGIN")
            end_session(server, connection)
        # Lost or dropped: the server's last word is read before, or while, it is asked for ROLLBACK.
        await until(lambda: pool.statistics().lost + pool.statistics().dropped == 1)
        before = pool.statistics().dropped
        lease = pool.acquire()
        await (await lease.__aenter__()).execute("BEGIN")
        with frozen(server):
            await lease.__aexit__()
            await until(lambda: pool.statistics().dropped == before + 1)
        assert await pool.fetchval("SELECT 1") == 1


async def test_a_cancel_request_that_fails_costs_the_connection(server: Cluster) -> None:
    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise ConnectionRefusedError

    async with trio_asyncpg.open_pool(server.dsn, min_size=0, max_size=1) as pool:
        async with pool.acquire() as connection:
            connection.cancel_request = fail
            with trio.move_on_after(0.05):
                await connection.fetchval("SELECT pg_sleep(30)")
        await until(lambda: pool.statistics().lost == 1)
        assert await pool.fetchval("SELECT 1") == 1


async def test_a_statement_behind_a_cancelled_one_waits_no_longer_than_its_own_timeout(server: Cluster) -> None:
    async with trio_asyncpg.open_pool(server.dsn, min_size=0, max_size=1) as pool:
        async with pool.acquire() as connection:
            with frozen(server):
                with trio.move_on_after(0.05):
                    await connection.fetchval("SELECT 1")
                with pytest.raises(TimeoutError, match="cancelled before"):
                    await connection.fetchval("SELECT 1", timeout=0.05)
            assert connection.is_closed()
            assert not connection.is_in_transaction()
            with pytest.raises(trio_asyncpg.ConnectionLost):
                await connection.recover()
        assert pool.statistics().lost == 1
        assert await pool.fetchval("SELECT 1") == 1


async def test_a_new_connection_that_the_server_ends_is_not_lent(server: Cluster) -> None:
    ended = 0

    async def init(connection: trio_asyncpg.Connection) -> None:
        nonlocal ended
        await trio.lowlevel.checkpoint()
        ended += 1
        if ended < 2:
            end_session(server, connection)

    async with trio_asyncpg.open_pool(server.dsn, min_size=0, init=init) as pool:
        with pytest.raises(trio_asyncpg.ConnectionLost, match="new connection"):
            await pool.fetchval("SELECT 1")
        assert await pool.fetchval("SELECT 1") == 1
