"""NOTIFY as an async iterator."""

import asyncpg
import pytest
import trio

from regsvc.trio_asyncpg import Connection, ConnectionLost, Notification, Pool
from tests.trio_asyncpg.conftest import until


async def test_what_is_sent_arrives_in_order_with_its_sender(pool: Pool) -> None:
    async with pool.acquire() as connection, connection.listen("bell", 'odd "Name') as notifications:
        async with pool.acquire() as sender, sender.transaction():
            await sender.execute("NOTIFY bell, 'one'; NOTIFY \"odd \"\"Name\"; NOTIFY nobody; NOTIFY bell, 'two'")
            pid = sender.get_server_pid()
        found = [await anext(notifications) for _ in range(3)]
    assert found == [
        Notification("bell", "one", pid),
        Notification('odd "Name', "", pid),
        Notification("bell", "two", pid),
    ]


async def test_a_bell_rung_while_listening_begins_is_heard_by_each_who_listens(pool: Pool) -> None:
    async with pool.acquire() as connection:
        async with connection.listen("bell") as outer:
            async with connection.listen("bell") as inner:
                await connection.execute("NOTIFY bell, '1'")
                assert (await anext(inner)).payload == "1"
            await connection.execute("NOTIFY bell, '2'")
            assert [(await anext(outer)).payload for _ in range(2)] == ["1", "2"]
        assert await connection.fetchval("SELECT count(*) FROM pg_listening_channels()") == 0


async def test_the_end_of_the_connection_ends_the_iterator_after_what_came(pool: Pool) -> None:
    with pytest.raises(ConnectionLost):
        async with pool.acquire() as connection, connection.listen("bell") as notifications:
            await connection.execute("NOTIFY bell")
            await pool.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())
            await until(connection.is_closed)
            assert (await anext(notifications)).channel == "bell"
            async for _ in notifications:
                raise AssertionError


async def test_one_who_is_too_slow_loses_the_oldest_and_can_tell(pool: Pool) -> None:
    async with pool.acquire() as connection, connection.listen("bell", capacity=2) as notifications:
        for n in range(5):
            await connection.execute(f"NOTIFY bell, '{n}'")
        assert notifications.dropped == 3
        assert [(await anext(notifications)).payload for _ in range(2)] == ["3", "4"]


async def test_a_cancelled_listener_leaves_the_connection_whole(pool: Pool) -> None:
    async with pool.acquire() as connection:
        with trio.move_on_after(0.02) as scope:
            async with connection.listen("bell") as notifications:
                async for _ in notifications:
                    raise AssertionError
        assert scope.cancelled_caught
        assert await connection.fetchval("SELECT count(*) FROM pg_listening_channels()") == 0


async def test_listening_to_nothing_or_in_a_broken_transaction_is_refused(connection: Connection) -> None:
    with pytest.raises(ValueError, match="which channels"):
        async with connection.listen():
            pass
    with pytest.raises(asyncpg.InFailedSQLTransactionError):
        async with connection.transaction():
            with pytest.raises(asyncpg.DivisionByZeroError):
                await connection.execute("SELECT 1 / 0")
            async with connection.listen("bell"):
                pass


async def test_listeners_of_asyncpgs_own_kind_still_work(connection: Connection) -> None:
    heard: list[str] = []
    await connection.add_listener("bell", lambda *said: heard.append(said[-1]))
    await connection.execute("NOTIFY bell, 'ding'")
    assert heard == ["ding"]
