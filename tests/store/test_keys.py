"""The shelf of signing keys: the first one is made once, a rotation leaves the others alive for a while."""

from datetime import timedelta

import pytest

from regsvc.domain.values import Secret
from regsvc.ports import Notice, NoticeKind, SigningKey
from regsvc.store import Store, open_store
from regsvc.trio_asyncpg import Connection
from tests.store.scenes import new_id, together

PUBLIC = {"kty": "OKP", "crv": "Ed25519", "x": "…"}
SEALED = bytes(range(256))  # octets, whatever they are
LEAD = timedelta(seconds=60)
OVERLAP = timedelta(minutes=30)


async def keys(store: Store) -> dict[str, SigningKey]:
    found, _ = await store.keys.list()
    return {key.kid: key for key in found}


async def rotate(store: Store, kid: str) -> None:
    await store.keys.rotate(kid, "EdDSA", PUBLIC, SEALED, lead=LEAD, overlap=OVERLAP)


async def test_an_empty_shelf_tells_the_clock(store: Store, raw: Connection) -> None:
    found, now = await store.keys.list()
    assert found == []
    assert abs(now - await raw.fetchval("SELECT clock_timestamp()")) < timedelta(seconds=5)


async def test_the_first_key_comes_back_good_from_now(store: Store) -> None:
    assert await store.keys.first("a", "EdDSA", PUBLIC, SEALED)
    (key,), now = await store.keys.list()
    assert (key.kid, key.algorithm, key.public, key.sealed) == ("a", "EdDSA", PUBLIC, SEALED)
    assert key.created_at == key.not_before < now
    assert key.retired_at is None


async def test_of_several_first_keys_one_is_stored_for_an_algorithm(store: Store) -> None:
    made: list[bool] = []

    async def first(number: int) -> None:
        made.append(await store.keys.first(f"{number}", "EdDSA", PUBLIC, SEALED))

    await together(20, first)
    assert sorted(made) == [False] * 19 + [True]
    assert not await store.keys.first("late", "EdDSA", PUBLIC, SEALED)
    assert await store.keys.first("other", "HS256", {}, SEALED)
    assert len(await keys(store)) == 2


async def test_a_first_key_is_made_again_when_all_have_retired(store: Store, raw: Connection) -> None:
    await store.keys.first("a", "EdDSA", PUBLIC, SEALED)
    await raw.execute("UPDATE signing_keys SET retired_at = clock_timestamp() + interval '1 minute'")
    assert not await store.keys.first("b", "EdDSA", PUBLIC, SEALED)
    await raw.execute("UPDATE signing_keys SET retired_at = clock_timestamp()")
    assert await store.keys.first("b", "EdDSA", PUBLIC, SEALED)


async def test_a_rotation_lets_the_others_live_on_for_the_overlap(store: Store) -> None:
    await store.keys.first("a", "EdDSA", PUBLIC, SEALED)
    await store.keys.first("b", "HS256", {}, SEALED)
    _, before = await store.keys.list()
    signs_from = await store.keys.rotate("c", "EdDSA", PUBLIC, SEALED, lead=LEAD, overlap=OVERLAP)
    found, after = await store.keys.list()
    assert [key.kid for key in found] == ["c", "b", "a"]  # newest first
    assert before + LEAD < signs_from < after + LEAD
    assert found[0].not_before == signs_from
    assert found[0].created_at == signs_from - LEAD
    assert [key.retired_at for key in found] == [None, signs_from + OVERLAP, signs_from + OVERLAP]


async def test_a_second_rotation_lets_nothing_live_longer(store: Store) -> None:
    await store.keys.first("a", "EdDSA", PUBLIC, SEALED)
    await rotate(store, "b")
    first = (await keys(store))["a"].retired_at
    await rotate(store, "c")
    after = await keys(store)
    assert after["a"].retired_at == first
    assert after["b"].retired_at == after["c"].not_before + OVERLAP
    assert after["c"].retired_at is None


async def test_of_rotations_at_once_one_key_stays(store: Store) -> None:
    async def one(number: int) -> None:
        await rotate(store, f"{number}")

    await together(10, one)
    found = await keys(store)
    assert len(found) == 10
    assert sum(key.retired_at is None for key in found.values()) == 1


async def test_every_process_hears_of_a_rotation(store: Store, migrated: str) -> None:
    async with (
        open_store(Secret(migrated), new_id=new_id) as other,
        other.notices.listen() as theirs,
        store.notices.listen() as ours,
    ):
        await rotate(store, "a")
        assert await anext(theirs) == await anext(ours) == Notice(NoticeKind.KEYS, None)


async def test_nothing_is_heard_of_a_rotation_that_failed(store: Store, raw: Connection) -> None:
    await rotate(store, "a")
    async with store.notices.listen() as notices:
        with pytest.raises(Exception, match="signing_keys_pkey"):
            await rotate(store, "a")
        await raw.execute("SELECT pg_notify('regsvc_settled', $1)", str(subject := new_id()))
        assert await anext(notices) == Notice(NoticeKind.SETTLED, subject)
    assert (await keys(store))["a"].retired_at is None


async def test_a_resealed_key_is_the_same_otherwise(store: Store) -> None:
    await store.keys.first("a", "EdDSA", PUBLIC, SEALED)
    await rotate(store, "b")
    before = await keys(store)
    await store.keys.reseal("a", b"sealed anew")
    after = await keys(store)
    assert after["a"].sealed == b"sealed anew"
    assert after["a"].not_before == before["a"].not_before
    assert after["b"] == before["b"]


@pytest.mark.parametrize(("hours", "pruned"), [(23, 0), (25, 1)])
async def test_a_key_goes_a_day_after_it_retired(store: Store, raw: Connection, hours: int, pruned: int) -> None:
    await store.keys.first("a", "EdDSA", PUBLIC, SEALED)
    await store.keys.first("b", "HS256", {}, SEALED)
    age = f"retired_at = clock_timestamp() - interval '{hours} hours'"
    await raw.execute(f"UPDATE signing_keys SET {age} WHERE kid = 'a'")  # noqa: S608 - our own words
    assert await store.keys.prune() == pruned
    assert set(await keys(store)) == ({"b"} if pruned else {"a", "b"})
