"""The pool: turns, deadlines, ages, and what its statistics say."""

from dataclasses import FrozenInstanceError

import asyncpg
import pytest
import trio

from regsvc import trio_asyncpg
from regsvc.store.embedded import Cluster
from regsvc.trio_asyncpg import Connection, Pool
from tests.trio_asyncpg.conftest import until


async def test_turns_are_in_order_of_arrival(postgres: Cluster) -> None:
    order: list[int] = []

    async def use(pool: Pool, n: int) -> None:
        async with pool.acquire() as connection:
            order.append(n)
            await connection.execute("SELECT")

    async with trio_asyncpg.open_pool(postgres.dsn, min_size=1, max_size=1) as pool, trio.open_nursery() as nursery:
        lease = pool.acquire()
        await lease.__aenter__()
        for n in range(50):
            nursery.start_soon(use, pool, n, name=f"waiter {n}")
            await trio.testing.wait_all_tasks_blocked()
        assert pool.statistics().waiting == 50
        with trio.move_on_after(0.01):
            await pool.fetchval("SELECT 1")
        await lease.__aexit__()
    assert order == list(range(50))


async def test_who_comes_while_others_wait_does_not_overtake(postgres: Cluster) -> None:
    order: list[str] = []
    async with trio_asyncpg.open_pool(postgres.dsn, min_size=1, max_size=1) as pool, trio.open_nursery() as nursery:

        async def waiter() -> None:
            async with pool.acquire():
                order.append("waited")

        async with pool.acquire():
            nursery.start_soon(waiter, name="waiter")
            await until(lambda: pool.statistics().waiting == 1)
        async with pool.acquire():  # at once after giving back, before the waiter has run
            order.append("came later")
    assert order == ["waited", "came later"]


async def test_the_deadline_of_a_turn_is_the_pools_or_ones_own(postgres: Cluster) -> None:
    async with trio_asyncpg.open_pool(postgres.dsn, min_size=0, max_size=1, acquire_timeout=0.05) as pool:
        async with pool.acquire(timeout=20):  # it has to be opened first
            with pytest.raises(TimeoutError, match=r"no connection within 0.05 s: 1 open, 1 in use"):
                await pool.fetchval("SELECT 1")
            with pytest.raises(TimeoutError, match=r"within 0.01 s"):
                async with pool.acquire(timeout=0.01):
                    pass
            with trio.move_on_after(0.01) as scope:
                await pool.fetchval("SELECT 1")
            assert scope.cancelled_caught  # the caller's own deadline is no TimeoutError
        assert pool.statistics().timed_out == 2
        assert pool.statistics().waiting == 0
        assert await pool.fetchval("SELECT 1", timeout=20) == 1


async def test_a_command_timeout_is_no_cancellation_and_frees_the_server(postgres: Cluster) -> None:
    async with trio_asyncpg.open_pool(postgres.dsn, max_size=2, command_timeout=0.05) as pool:
        with trio.CancelScope() as scope, pytest.raises(TimeoutError):
            await pool.fetchval("SELECT pg_sleep(30)")
        assert not scope.cancelled_caught
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(30)%' AND pid <> pg_backend_pid()"
        with trio.fail_after(10):
            while await pool.fetchval(sleeping + " AND state = 'active'", timeout=10):
                pass
        assert await pool.fetchval("SELECT 1 FROM pg_sleep(0.1)", timeout=5) == 1
        with pytest.raises(TimeoutError):
            await pool.fetchval("SELECT 1", timeout=0)


async def test_statistics_are_frozen_and_tell_what_happens(postgres: Cluster) -> None:
    async with trio_asyncpg.open_pool(postgres.dsn, min_size=2, max_size=3) as pool:
        await until(lambda: pool.statistics().idle == 2)
        async with pool.acquire():
            now = pool.statistics()
            assert (now.size, now.idle, now.in_use, now.opened) == (2, 1, 1, 2)
        with pytest.raises(FrozenInstanceError):
            now.size = 0  # type: ignore[misc]  # the point
        with trio.move_on_after(0.05):
            await pool.execute("SELECT pg_sleep(30)")
        assert pool.statistics().recovering == 1
        await until(lambda: pool.statistics().recovered == 1)
        assert pool.statistics().idle == 2


@pytest.mark.parametrize(
    "change",
    [
        "SET search_path = nowhere",
        "SET ROLE pg_monitor",
        "CREATE TEMP TABLE passing (a int)",
        "SELECT set_config('search_path', 'nowhere', false)",
        "SELECT pg_advisory_lock(7)",
        "LISTEN somewhere",
        "BEGIN",
        "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT",
    ],
)
async def test_a_session_that_was_changed_is_like_new_for_the_next(postgres: Cluster, change: str) -> None:
    async with trio_asyncpg.open_pool(postgres.dsn, min_size=1, max_size=1) as pool:
        async with pool.acquire() as connection:
            pid = connection.get_server_pid()
            await connection.execute(change)
        async with pool.acquire() as connection:
            assert connection.get_server_pid() == pid
            assert not connection.is_in_transaction()
            assert await connection.fetchval("SHOW search_path") == '"$user", public'
            assert await connection.fetchval("SELECT current_user = session_user")
            assert await connection.fetchval("SELECT to_regclass('passing')") is None
            assert await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
            assert await connection.fetchval("SELECT count(*) FROM pg_listening_channels()") == 0
            assert await connection.fetchval("SELECT count(*) FROM pg_cursors WHERE is_holdable") == 0


async def test_a_clean_session_costs_no_reset_unless_asked_for(postgres: Cluster) -> None:
    for reset, recovered in (("when_needed", 0), ("always", 3)):
        async with trio_asyncpg.open_pool(postgres.dsn, min_size=0, max_size=1, reset=reset) as pool:  # type: ignore[arg-type]  # a plain tuple
            for _ in range(3):
                async with pool.acquire() as connection, connection.transaction():
                    await connection.fetchval("SELECT 1")
            await until(lambda: pool.statistics().idle == 1)
            assert pool.statistics().recovered == recovered


async def test_connections_end_at_their_age_and_when_they_lie_idle(postgres: Cluster) -> None:
    async with trio_asyncpg.open_pool(postgres.dsn, min_size=1, max_size=2, max_lifetime=0.2) as pool:
        first = await pool.fetchval("SELECT pg_backend_pid()")
        await until(lambda: pool.statistics().expired >= 1)
        assert await pool.fetchval("SELECT pg_backend_pid()") != first
        async with pool.acquire() as connection:  # one that is too old when it comes back is not kept
            await until(lambda: trio.current_time() > connection.expires_at)
        assert connection.is_closed()
    async with trio_asyncpg.open_pool(postgres.dsn, min_size=1, max_size=3, max_idle=0.1) as pool:
        async with pool.acquire(), pool.acquire(), pool.acquire():
            assert pool.statistics().size == 3
        await until(lambda: pool.statistics().size == 1)
        assert pool.statistics().expired == 2


async def test_an_idle_connection_past_its_age_is_not_lent(pool: Pool) -> None:
    async with pool.acquire() as connection:
        pass
    connection.expires_at = trio.current_time()
    async with pool.acquire() as another:
        assert another is not connection
    assert connection.is_closed()


async def test_an_idle_connection_is_asked_whether_it_lives(postgres: Cluster) -> None:
    async with trio_asyncpg.open_pool(postgres.dsn, min_size=1, max_size=1, health_check=0.05) as pool:
        async with pool.acquire() as connection:
            pass
        checked = connection.checked_at
        await until(lambda: connection.checked_at > checked)
        await until(lambda: pool.statistics().idle == 1)
        assert pool.statistics().recovered == 0


async def test_use_after_giving_back_is_refused(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await connection.fetchval("SELECT 1")
    with pytest.raises(asyncpg.InterfaceError, match="given back to its pool"):
        await connection.fetchval("SELECT 1")
    with pytest.raises(asyncpg.InterfaceError, match="given back to its pool"):
        connection.transaction()


async def test_two_tasks_on_one_connection_are_refused_and_a_forgotten_one_is_cut_off(pool: Pool) -> None:
    async def forgotten(connection: Connection) -> None:
        with pytest.raises(trio_asyncpg.ConnectionLost):
            await connection.fetchval("SELECT pg_sleep(30)")

    async with trio.open_nursery() as nursery, pool.acquire() as connection:
        nursery.start_soon(forgotten, connection, name="forgotten")  # noqa: ASYNC111  # the bug that is tested for
        await until(connection.is_abandoned)
        with pytest.raises(asyncpg.InterfaceError, match="another operation is in progress"):
            await connection.fetchval("SELECT 1")
    assert pool.statistics().dropped == 1
    assert await pool.fetchval("SELECT 1") == 1


async def test_a_pool_of_impossible_size_is_refused() -> None:
    for knobs in ({"min_size": 3, "max_size": 2}, {"max_size": 0, "min_size": 0}, {"max_lifetime": 0.0}):
        with pytest.raises(ValueError, match=r"min_size|above zero"):
            async with trio_asyncpg.open_pool("postgresql://localhost/x", **knobs):
                pass


async def test_a_closed_pool_and_what_its_body_raised(postgres: Cluster) -> None:
    with pytest.raises(KeyError):
        async with trio_asyncpg.open_pool(postgres.dsn) as pool:
            raise KeyError
    with pytest.raises(asyncpg.InterfaceError, match="closed"):
        await pool.fetchval("SELECT 1")
    with pytest.raises(KeyError):
        async with trio_asyncpg.open_connection(postgres.dsn) as connection:
            raise KeyError
    assert connection.is_closed()


async def test_who_waits_when_the_pool_is_closed_is_told(postgres: Cluster) -> None:
    async def wait(pool: Pool) -> None:
        with pytest.raises(asyncpg.InterfaceError, match="closed"):
            await pool.fetchval("SELECT 1")

    async with trio.open_nursery() as nursery:
        async with trio_asyncpg.open_pool(postgres.dsn, min_size=0, max_size=1) as pool:
            lease = pool.acquire()
            await lease.__aenter__()
            nursery.start_soon(wait, pool, name="waits")  # noqa: ASYNC111  # the bug that is tested for
            await until(lambda: pool.statistics().waiting == 1)
        await lease.__aexit__()


async def test_what_init_raises_is_told_to_who_waits(postgres: Cluster) -> None:
    async def fail(connection: Connection) -> None:
        await connection.fetchval("SELECT 1 / 0")

    async def stall(_: Connection) -> None:
        await trio.sleep_forever()

    async with trio_asyncpg.open_pool(postgres.dsn, min_size=0, init=fail) as pool:
        with pytest.raises(asyncpg.DivisionByZeroError):
            await pool.fetchval("SELECT 1")
        assert pool.statistics().size == 0
    async with trio_asyncpg.open_pool(postgres.dsn, min_size=0, init=stall, connect_timeout=1.0) as pool:
        with pytest.raises(TimeoutError, match="init took longer"):
            await pool.fetchval("SELECT 1")


async def test_types_and_statements_are_forgotten_in_the_whole_pool(pool: Pool) -> None:
    await pool.execute("CREATE TYPE pair AS (a int, b int); CREATE TABLE t (p pair); INSERT INTO t VALUES ((1, 2))")
    async with pool.acquire() as one, pool.acquire() as two:
        for connection in (one, two):
            assert tuple(await connection.fetchval("SELECT p FROM t")) == (1, 2)
        await one.execute("ALTER TYPE pair ADD ATTRIBUTE c int")
        with pytest.raises(asyncpg.OutdatedSchemaCacheError):
            await one.fetchval("SELECT p FROM t")
        assert tuple(await two.fetchval("SELECT p FROM t")) == (1, 2, None)


async def test_every_task_of_a_pool_has_a_name_and_none_outlives_it(postgres: Cluster) -> None:
    async with trio.open_nursery() as nursery:
        async with trio_asyncpg.open_pool(postgres.dsn) as pool:
            await until(lambda: pool.statistics().idle == 2)
            names = {
                task.name
                for inner in trio.lowlevel.current_task().child_nurseries
                for task in inner.child_tasks
                if task.name.startswith("trio_asyncpg")
            }
            assert {name.rpartition(" /")[0] or name for name in names} >= {
                "trio_asyncpg timers",
                "trio_asyncpg pool keeper",
            }
            assert any(name.startswith("trio_asyncpg reader") for name in names)
        assert not nursery.child_tasks
