"""Whether the database is there, told within a second."""

from datetime import timedelta

import pytest
import trio

from regsvc.domain.values import Secret
from regsvc.ports import Unavailable
from regsvc.store import open_store, probe
from regsvc.store.store import Store
from regsvc.trio_asyncpg import Connection
from tests.store.scenes import new_id, together


async def test_a_database_that_is_there_answers(store: Store) -> None:
    assert timedelta(0) < await store.probe.ping() < timedelta(seconds=20)
    assert await store.probe.migrated()


async def test_an_empty_database_is_not_migrated(database: str) -> None:
    async with open_store(Secret(database), new_id=new_id) as store:
        assert not await store.probe.migrated()


async def test_a_database_behind_is_not_migrated_and_one_ahead_is(store: Store, raw: Connection) -> None:
    await raw.execute("INSERT INTO migrations SELECT count(*) + 1, 'next', 'x', now() FROM migrations")
    assert await store.probe.migrated()  # the version before runs on the schema of the next
    await raw.execute("DELETE FROM migrations WHERE version >= (SELECT max(version) - 1 FROM migrations)")
    assert not await store.probe.migrated()
    await raw.execute("UPDATE migrations SET checksum = 'another'")
    assert not await store.probe.migrated()


@pytest.mark.parametrize("question", ["ping", "migrated"])
async def test_a_database_that_does_not_answer_is_unavailable_in_time(
    migrated: str, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    monkeypatch.setattr(probe, "PATIENCE", 0.1)
    async with open_store(Secret(migrated), new_id=new_id, pool_max=2) as store:
        gate = trio.Event()

        async def hog(_: int) -> None:
            async with store.begin():
                await gate.wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(together, 2, hog, name="hogs")
            while store.statistics().in_use < 2:  # noqa: ASYNC110 - no event tells
                await trio.sleep(0.005)
            with pytest.raises(Unavailable, match="no answer within"), trio.fail_after(10):
                await getattr(store.probe, question)()
            gate.set()
        monkeypatch.setattr(probe, "PATIENCE", 20.0)
        await store.probe.ping()


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    async with open_store(Secret("postgresql://nobody@127.0.0.1:1/nothing"), new_id=new_id) as store:
        with pytest.raises(Unavailable, match="database"), trio.fail_after(10):
            await store.probe.ping()
