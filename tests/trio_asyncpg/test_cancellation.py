"""Cancellation at any point: no connection stuck, no half transaction, rows of exactly what was committed."""

import logging
import random
from collections import Counter

import pytest
import trio

from regsvc import trio_asyncpg
from regsvc.trio_asyncpg import Pool
from tests.trio_asyncpg.conftest import until

LOG = logging.getLogger(__name__)
CONNECTIONS = 8
CLIENTS = 16
PARTS = 3  # rows that one transaction writes: all of them, or none


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_random_deadlines(database: str, rounds: int | None) -> None:
    """Each transaction has a random deadline. 1,000 of them; `--rounds 10000` for the large form."""
    total = rounds or 1_000
    seen: Counter[str] = Counter()
    certain: set[int] = set()
    uncertain: set[int] = set()  # the answer to COMMIT was cut
    numbers = iter(range(total))
    pace = 0.02  # seconds; follows the machine, so that about half of the transactions are cut

    async def transact(pool: Pool, number: int) -> None:
        async with pool.acquire() as connection, connection.transaction():
            for part in range(PARTS):
                await connection.execute("INSERT INTO parts VALUES ($1, $2)", number, part)
                if random.random() < 0.1:
                    await connection.fetchval("SELECT pg_sleep(0.02)")

    async def client(pool: Pool) -> None:
        nonlocal pace
        for number in numbers:
            with trio.move_on_after(random.uniform(0, 2 * pace)) as scope:
                try:
                    await transact(pool, number)
                    certain.add(number)
                except OSError:
                    uncertain.add(number)
            seen["cut" if scope.cancelled_caught else "done"] += 1
            pace *= 1.02 if scope.cancelled_caught else 0.98

    async with trio_asyncpg.open_pool(database, min_size=CONNECTIONS, max_size=CONNECTIONS, acquire_timeout=30) as pool:
        await pool.execute("CREATE TABLE parts (number int, part int, PRIMARY KEY (number, part))")
        async with trio.open_nursery() as nursery:
            for n in range(CLIENTS):
                nursery.start_soon(client, pool, name=f"client {n}")
        await until(lambda: pool.statistics().idle == pool.statistics().size == CONNECTIONS)
        rows = await pool.fetch("SELECT number, count(*) AS parts FROM parts GROUP BY number")
        assert {row["parts"] for row in rows} <= {PARTS}
        written = {row["number"] for row in rows}
        assert certain <= written <= certain | uncertain
        open_there = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL"
            " AND backend_type = 'client backend'"
        )
        assert await pool.fetchval(open_there + " AND pid <> pg_backend_pid()") == 0
        now = pool.statistics()
    LOG.info("%s of %s transactions were cut; %s", seen["cut"], total, now)  # shown by --log-cli-level=INFO
    assert min(seen["cut"], seen["done"]) > total / 10
    assert now.opened - now.dropped - now.lost - now.expired == CONNECTIONS
    assert not uncertain  # a local server answers every COMMIT within its deadline


class HangUp(trio.abc.Instrument):
    """Cancels `scope` at its n-th scheduling point: a client that hangs up exactly there."""

    def __init__(self, scope: trio.CancelScope, n: int) -> None:
        self.scope, self.left = scope, n

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel(reason="hang up")


async def test_hang_up_everywhere(pool: Pool) -> None:
    """Everything a connection is used for, cancelled at its n-th scheduling point, for every n."""
    await pool.execute("CREATE TABLE parts (number int, part int)")

    async def everything(number: int) -> None:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("INSERT INTO parts VALUES ($1, 0)", number)
            async with connection.transaction():
                await connection.executemany("INSERT INTO parts VALUES ($1, $2)", [(number, 1), (number, 2)])
            await connection.copy_records_to_table("parts", records=[(number, 3)])
            statement = await connection.prepare("SELECT count(*) FROM parts WHERE number = $1")
            assert await statement.fetchval(number) == 4
            assert len([row async for row in connection.cursor("SELECT generate_series(1, 20)", prefetch=10)]) == 20

    n, finished = 0, False
    while not finished:
        n += 1
        with trio.CancelScope() as scope:
            instrument = HangUp(scope, n)
            trio.lowlevel.add_instrument(instrument)
            try:
                await everything(n)
                finished = not scope.cancel_called
            finally:
                trio.lowlevel.remove_instrument(instrument)
        done = not scope.cancelled_caught
        await until(lambda: pool.statistics().in_use == pool.statistics().recovering == 0)
        assert await pool.fetchval("SELECT count(*) FROM parts WHERE number = $1", n) == (4 if done else 0)
    assert n > 20
    assert pool.statistics().lost == 0


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
async def test_a_long_statement_is_gone_from_the_server_soon_after_its_deadline(pool: Pool, how: str) -> None:
    async def sleep() -> None:
        async with pool.acquire() as connection:  # open before its time runs
            if how == "timed out":
                with pytest.raises(TimeoutError):
                    await connection.execute("SELECT pg_sleep(30)", timeout=0.3)
            else:
                with trio.move_on_after(0.3):
                    await connection.execute("SELECT pg_sleep(30)")

    async with trio.open_nursery() as nursery:
        for n in range(3):
            nursery.start_soon(sleep, name=f"sleeper {n}")
    with trio.fail_after(10):
        while await pool.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"):
            pass
    await until(lambda: pool.statistics().recovered == 3)


async def test_a_cancelled_acquire_leaves_its_turn_to_the_next(database: str) -> None:
    async with trio_asyncpg.open_pool(database, min_size=0, max_size=1) as pool:
        for n in range(1, 12):
            with trio.CancelScope() as scope:
                instrument = HangUp(scope, n)
                trio.lowlevel.add_instrument(instrument)
                try:
                    async with pool.acquire():
                        pass
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            assert pool.statistics().waiting == 0
            with trio.fail_after(10):
                assert await pool.fetchval("SELECT 1") == 1
        assert pool.statistics().opened == 1
