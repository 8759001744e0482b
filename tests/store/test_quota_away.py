"""Buckets in PostgreSQL whatever befalls it: a call fails in time or is right, and a crash of the server frees all."""

import pytest
import trio

from regsvc.domain.quota import HOUR, Limit, Policy, Take
from regsvc.domain.values import Secret
from regsvc.ports import Unavailable
from regsvc.store import Store, open_store, quota
from regsvc.store.embedded import Cluster
from regsvc.trio_asyncpg import Connection
from tests.store.cuts import cut, points, whole
from tests.store.scenes import blocked, new_id, together
from tests.waiting import until_asked

MOMENT = quota.PATIENCE
POLICY = Policy(Limit.LOGIN, 3, HOUR)
ADA, BOB = Take(POLICY, "ada"), Take(POLICY, "bob")


async def answers(store: Store) -> bool:
    try:
        await store.quotas.take([Take(POLICY, f"{new_id()}")])
    except Unavailable:
        return False
    return True


async def test_a_database_that_is_not_there_is_told_in_time() -> None:
    async with open_store(Secret("postgresql://nobody@127.0.0.1:1/nothing"), new_id=new_id) as store:
        for call in (store.quotas.take, store.quotas.give_back):
            with trio.fail_after(5), pytest.raises(Unavailable, match=r"^limits: ") as away:
                await call([ADA])
            assert away.value.what == "limits"


@pytest.mark.parametrize("call", ["take", "give_back"])
async def test_a_database_that_is_slow_is_waited_for_a_moment_only(
    store: Store, raw: Connection, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    await store.quotas.take([ADA])
    monkeypatch.setattr(quota, "PATIENCE", MOMENT)
    async with raw.transaction():
        await raw.execute("SELECT FROM rate_limits FOR UPDATE")
        began = trio.current_time()
        with pytest.raises(Unavailable, match=r"^limits: no answer within 0\.25 s"):
            await getattr(store.quotas, call)([ADA])
        assert MOMENT <= trio.current_time() - began < 5
        monkeypatch.setattr(quota, "PATIENCE", 10.0)
        assert await answers(store)  # of another bucket
    await until_asked(lambda: answers(store))
    await whole(store)


async def test_a_crash_of_the_server_empties_the_buckets_and_breaks_nothing(postgres: Cluster, store: Store) -> None:
    await store.quotas.take([ADA])
    await store.quotas.take([ADA])
    postgres.restart("immediate")  # it blocks; the supervisor does this where no loop runs
    await until_asked(lambda: answers(store))
    (level,) = await store.quotas.take([ADA])
    assert (level.allowed, level.remaining) == (True, 2)


async def test_the_buckets_are_not_written_ahead(raw: Connection) -> None:
    assert await raw.fetchval("SELECT relpersistence FROM pg_class WHERE relname = 'rate_limits'") == b"u"


async def test_the_clock_is_read_for_each_bucket_when_its_lock_is_held(store: Store, raw: Connection) -> None:
    """Else a take that waited would find the bucket owing what was paid off meanwhile."""
    await store.quotas.take([ADA, BOB])
    before = await raw.fetchval("SELECT min(asked_at) FROM rate_limits")

    async def late() -> None:
        await store.quotas.take([BOB, ADA])

    async with trio.open_nursery() as nursery, raw.transaction():
        await raw.execute("SELECT FROM rate_limits WHERE bucket = $1 FOR UPDATE", BOB.bucket)
        nursery.start_soon(late, name="late")
        await until_asked(lambda: blocked(raw, 1))
        held = await raw.fetchval("SELECT (extract(EPOCH FROM clock_timestamp()) * 1000000)::bigint")
    rows = await raw.fetch("SELECT bucket, asked_at, whole_at FROM rate_limits ORDER BY bucket")
    (ada, ada_asked, ada_whole), (bob, bob_asked, bob_whole) = map(tuple, rows)
    assert (ada, bob) == (ADA.bucket, BOB.bucket)
    assert before < ada_asked < held < bob_asked
    assert ada_whole == bob_whole == 2 * POLICY.interval + before  # both were paid off from the first moment on


@pytest.mark.parametrize("call", ["take", "give_back"])
async def test_buckets_are_locked_in_one_order(store: Store, raw: Connection, call: str) -> None:
    """However they are asked for, and wherever they lie: so no two calls wait for each other."""
    takes = [Take(POLICY, key) for key in "eadcb"]
    for take in takes:
        await store.quotas.take([take])
    async with trio.open_nursery() as nursery, raw.transaction():
        await raw.execute("SELECT FROM rate_limits WHERE bucket = 'login:c' FOR UPDATE")
        nursery.start_soon(getattr(store.quotas, call), takes, name="late")
        await until_asked(lambda: blocked(raw, 1))
        free = await raw.fetch("SELECT bucket FROM rate_limits ORDER BY bucket FOR UPDATE SKIP LOCKED")
        assert [row["bucket"] for row in free] == ["login:c", "login:d", "login:e"]


async def test_a_bucket_being_swept_is_made_anew_by_who_waits_for_it(store: Store, raw: Connection) -> None:
    await store.quotas.take([ADA])
    remaining: list[int] = []

    async def late() -> None:
        (level,) = await store.quotas.take([ADA])
        remaining.append(level.remaining)

    async with trio.open_nursery() as nursery, raw.transaction():
        await raw.execute("DELETE FROM rate_limits")  # the sweeper, just before its commit
        nursery.start_soon(late, name="first")
        nursery.start_soon(late, name="second")
        await until_asked(lambda: blocked(raw, 2))
    assert sorted(remaining) == [1, 2]


async def test_callers_that_hang_up_anywhere_leave_the_pool_whole(store: Store) -> None:
    async def work() -> None:
        await store.quotas.take([ADA, BOB])
        await store.quotas.give_back([BOB, ADA])

    for n in range(1, await points(work) + 1):
        await cut(work, n)
    await whole(store)
    await together(8, lambda n: store.quotas.give_back([Take(POLICY, f"{n}")]))
    assert await answers(store)
