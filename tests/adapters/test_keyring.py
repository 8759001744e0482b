"""The keyring: which key signs and which verify, as time passes, keys come, secrets change and the database goes."""

from dataclasses import replace
from datetime import timedelta

import pytest
import trio
from trio.testing import MockClock

from regsvc.adapters.crypto import Use
from regsvc.adapters.crypto.keyring import LATE
from regsvc.adapters.crypto.seal import Seal
from regsvc.observe import open_log
from regsvc.ports import SigningKey, Unavailable
from tests.adapters.shelf import ADA, DAY, KEYS, LIFETIME, OTHERS, SESSION, START, Shelf, ring_on, tokens_of
from tests.lines import Lines

LEAD = timedelta(seconds=10)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


async def test_the_first_load_makes_the_first_key_and_says_so(shelf: Shelf) -> None:
    lines = Lines()
    with open_log(lines, level="debug", fmt="json"):
        ring = ring_on(shelf)
        await ring.load()
        await ring.load()
    [row] = shelf.rows.values()
    assert ring.loaded
    assert (ring.signing().kid, row.algorithm) == (row.kid, "EdDSA")
    assert lines.events == ["signing_key_made", "signing_keys_loaded"], "and no word of what did not change"
    assert lines.of("signing_keys_loaded")[0]["signing"] == row.kid


async def test_of_two_that_start_at_once_both_have_the_one_first_key(shelf: Shelf) -> None:
    other = Shelf()
    await ring_on(other).load()
    [shelf.rival] = other.rows.values()
    ring = ring_on(shelf)
    await ring.load()
    assert ring.signing().kid == shelf.rival.kid
    assert len(shelf.rows) == 1


async def test_nothing_private_is_stored_in_clear_or_shown(shelf: Shelf) -> None:
    ring = ring_on(shelf)
    await ring.load()
    [row] = shelf.rows.values()
    key = ring.signing()
    assert not isinstance(key.material.signs, bytes)
    private = key.material.signs.private_bytes_raw()
    assert private not in row.sealed
    assert len(row.sealed) == 1 + 12 + 32 + 16
    assert private.hex() not in repr(key)
    assert repr(private) not in repr(key)
    assert set(row.public) == {"kty", "crv", "x"}


async def test_a_new_key_signs_when_its_time_comes_and_the_old_one_verifies_on(
    shelf: Shelf, autojump_clock: MockClock
) -> None:
    ring = ring_on(shelf)
    await ring.load()
    old = ring.signing().kid
    new, signs_from = await ring_on(shelf).rotate(LEAD)
    assert signs_from == START + LEAD
    await ring.load()
    assert ring.signing().kid == old
    assert ring.verifying(new) is not None, "everybody knows the coming one"
    assert ring.due_in() == LEAD
    await trio.sleep(10)
    assert ring.signing().kid == new, "without another load"
    assert ring.due_in() == LIFETIME + LATE, "the old one's end"
    await trio.sleep((LIFETIME + LATE).total_seconds() - 0.001)
    assert ring.verifying(old) is not None
    await trio.sleep(0.001)
    assert ring.verifying(old) is None
    assert ring.due_in() is None
    assert await ring.find(old) is None
    assert shelf.listed == 3, "a retired key is no unknown one: nobody asks for it"


async def test_the_uses_of_keys_and_their_end(shelf: Shelf, autojump_clock: MockClock) -> None:
    ring = ring_on(shelf)
    assert await ring.uses() == []
    assert not shelf.rows, "looking makes nothing"
    await ring.load()
    first = ring.signing().kid
    second, _ = await ring.rotate(LEAD)

    async def uses() -> dict[str, Use]:
        return {row.kid: use for row, use in await ring.uses()}

    assert await uses() == {second: Use.NEXT, first: Use.SIGNING}
    await trio.sleep(10)
    assert await uses() == {second: Use.SIGNING, first: Use.VERIFYING}
    await trio.sleep((LIFETIME + LATE).total_seconds())
    assert await uses() == {second: Use.SIGNING, first: Use.RETIRED}
    await trio.sleep(DAY.total_seconds())
    await ring.load()
    assert set(shelf.rows) == {second}, "what retired a day ago is gone"
    assert [use for _, use in await ring_on(shelf, OTHERS).uses()] == [Use.UNREADABLE]


async def test_before_any_key_is_due_the_coming_one_signs(shelf: Shelf, autojump_clock: MockClock) -> None:
    ring = ring_on(shelf)
    kid, _ = await ring.rotate(LEAD)
    later, _ = await ring.rotate(2 * LEAD)
    shelf.change(kid, retired_at=None)
    await ring.load()
    assert ring.signing().kid == kid
    await trio.sleep(20)
    assert ring.signing().kid == later


async def test_the_database_s_clock_decides(shelf: Shelf, autojump_clock: MockClock) -> None:
    ring = ring_on(shelf)
    await ring.load()
    old = ring.signing().kid
    new, _ = await ring.rotate(timedelta(hours=1))
    await ring.load()
    shelf.ahead = timedelta(hours=2)
    assert ring.signing().kid == old, "what is known of it is from the latest load"
    await ring.load()
    assert ring.signing().kid == new


async def test_an_outage_leaves_the_ring_as_it_is(shelf: Shelf) -> None:
    ring = ring_on(shelf)
    shelf.away = True
    for ask in (ring.signing, ring.public, ring.now):
        with pytest.raises(Unavailable, match="not loaded"):
            ask()
    with pytest.raises(Unavailable, match="database"):
        await ring.load()
    assert not ring.loaded
    assert ring.due_in() is None
    shelf.away = False
    await ring.load()
    before = ring.signing()
    shelf.away = True
    with pytest.raises(Unavailable):
        await ring.load()
    assert ring.signing() is before


# ------------------------------------------------------------------------------------------------- unknown keys


async def test_a_key_of_another_process_is_asked_for(shelf: Shelf) -> None:
    ring = ring_on(shelf)
    await ring.load()
    kid, _ = await ring_on(shelf).rotate(LEAD)
    key = await ring.find(kid)
    assert key is not None
    assert key.kid == kid


async def test_names_that_nobody_has_cost_one_load_a_second(shelf: Shelf, autojump_clock: MockClock) -> None:
    ring = ring_on(shelf)
    await ring.load()
    before = shelf.listed

    async def ask(n: int) -> None:
        assert await ring.find(f"nobody's {n}") is None

    async with trio.open_nursery() as nursery:
        for n in range(50):
            nursery.start_soon(ask, n)
    assert shelf.listed == before + 1
    await trio.sleep(0.999)
    await ask(50)
    assert shelf.listed == before + 1
    await trio.sleep(0.001)
    await ask(51)
    assert shelf.listed == before + 2


async def test_an_unknown_key_during_an_outage_is_no_no(shelf: Shelf, autojump_clock: MockClock) -> None:
    ring = ring_on(shelf)
    await ring.load()
    kid, _ = await ring_on(shelf).rotate(LEAD)
    shelf.away = True
    for _ in range(2):
        with pytest.raises(Unavailable, match="database"):
            await ring.find(kid)
    shelf.away = False
    with pytest.raises(Unavailable):
        await ring.find(kid)  # within the second it is not asked again
    await trio.sleep(1)
    assert await ring.find(kid) is not None
    assert await ring.find("nobody's") is None


async def test_a_load_ends_what_an_outage_had_left(shelf: Shelf) -> None:
    ring = ring_on(shelf)
    await ring.load()
    shelf.away = True
    with pytest.raises(Unavailable):
        await ring.find("nobody's")
    shelf.away = False
    await ring.load()
    assert await ring.find("nobody's") is None


async def test_who_waits_for_another_s_load_asks_no_more(shelf: Shelf) -> None:
    ring = ring_on(shelf)
    await ring.load()
    kid, _ = await ring_on(shelf).rotate(LEAD)
    before = shelf.listed
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ring.find, kid)
    assert shelf.listed == before + 1


# ------------------------------------------------------------------------------------------------- secrets


async def test_a_key_under_the_previous_secret_is_opened_and_sealed_anew(shelf: Shelf) -> None:
    before = ring_on(shelf)
    await before.load()
    token = tokens_of(before).issue(ADA, SESSION, START)
    kid = before.signing().kid
    after = ring_on(shelf, OTHERS, KEYS)
    await after.load()
    assert after.signing().kid == kid
    assert shelf.resealed == [kid]
    await after.load()
    assert shelf.resealed == [kid], "once"
    forgotten = ring_on(shelf, OTHERS)
    await forgotten.load()
    assert await tokens_of(forgotten).read(token.reveal()) is not None


async def test_in_the_days_between_two_secrets_both_kinds_of_process_read(shelf: Shelf) -> None:
    old, new = ring_on(shelf, KEYS, OTHERS), ring_on(shelf, OTHERS, KEYS)
    for ring in (old, new, old, new):
        await ring.load()
        assert await ring.find(old.signing().kid) is not None


async def test_a_key_under_a_secret_that_is_gone_is_told_once_and_passed_over(shelf: Shelf) -> None:
    await ring_on(shelf).load()
    [kid] = shelf.rows
    ring = ring_on(shelf, OTHERS)
    lines = Lines()
    with open_log(lines, level="debug", fmt="json"):
        await ring.load()
        await ring.load()
    assert lines.events == ["signing_key_unreadable", "signing_keys_loaded"]
    assert lines.of("signing_key_unreadable")[0]["kid"] == kid
    assert set(shelf.rows) == {kid}, "a wrong secret makes no keys: the others would lose theirs"
    assert await ring.find(kid) is None
    with pytest.raises(Unavailable, match="REGSVC_SECRET_PREVIOUS"):
        ring.signing()
    new, _ = await ring.rotate(timedelta(0))
    await ring.load()
    assert ring.signing().kid == new


async def test_what_retired_unreadable_is_not_told_of(shelf: Shelf) -> None:
    await ring_on(shelf).load()
    [kid] = shelf.rows
    shelf.change(kid, retired_at=START)
    lines = Lines()
    with open_log(lines, level="debug", fmt="json"):
        await ring_on(shelf, OTHERS).load()
    assert lines.events == ["signing_key_made", "signing_keys_loaded"]


@pytest.mark.parametrize("algorithm", ["EdDSA", "HS256"])
async def test_no_damage_opens_and_none_raises(shelf: Shelf, algorithm: str) -> None:
    ring = ring_on(shelf, algorithm="HS256" if algorithm == "HS256" else "EdDSA")
    await ring.load()
    [row] = shelf.rows.values()
    seal = Seal(KEYS, OTHERS)
    assert seal.opened(row) is not None
    other = "EdDSA" if algorithm == "HS256" else "HS256"
    damaged: list[SigningKey] = [
        replace(row, kid="another"),
        replace(row, algorithm=other),
        replace(row, algorithm="RS256"),
        *(replace(row, sealed=row.sealed[:n]) for n in range(len(row.sealed))),
        *(replace(row, sealed=_flipped(row.sealed, n)) for n in range(len(row.sealed))),
        replace(row, sealed=row.sealed + b"\0"),
    ]
    for one in damaged:
        assert seal.opened(one) is None
        assert seal.renewed(one) is None


@pytest.mark.parametrize(("algorithm", "octets"), [("EdDSA", 31), ("EdDSA", 64), ("HS256", 32), ("HS256", 0)])
def test_what_is_sealed_well_and_is_no_key_is_none(algorithm: str, octets: int) -> None:
    seal = Seal(KEYS, None)
    sealed = seal._close("a", algorithm, bytes(octets))
    assert seal.opened(SigningKey("a", algorithm, {}, sealed, START, START, None)) is None


def _flipped(octets: bytes, n: int) -> bytes:
    return octets[:n] + bytes([octets[n] ^ 1]) + octets[n + 1 :]


async def test_a_public_part_in_the_table_is_not_believed(shelf: Shelf) -> None:
    """Somebody who can write to the table, and has no secret, puts his own public key there."""
    ring, thief = ring_on(shelf), ring_on(Shelf())
    await ring.load()
    await thief.load()
    kid, mine = ring.signing().kid, thief.signing()
    shelf.change(kid, public=mine.material.public)
    await ring.load()
    assert ring.public()["keys"] != [{**mine.material.public, "kid": kid, "use": "sig", "alg": "EdDSA"}]
    thief_s_token = tokens_of(thief).issue(ADA, SESSION, START).reveal()
    assert await tokens_of(ring).read(thief_s_token) is None


# ------------------------------------------------------------------------------------------------- algorithms


async def test_another_algorithm_gets_a_key_of_its_own_and_the_old_tokens_stay_good(shelf: Shelf) -> None:
    ring = ring_on(shelf)
    await ring.load()
    token = tokens_of(ring).issue(ADA, SESSION, START).reveal()
    after = ring_on(shelf, algorithm="HS256")
    await after.load()
    assert {row.algorithm for row in shelf.rows.values()} == {"EdDSA", "HS256"}
    assert after.signing().material.algorithm == "HS256"
    assert await tokens_of(after).read(token) is not None
    await ring.load()
    assert ring.signing().material.algorithm == "EdDSA"


async def test_a_shared_key_is_published_nowhere(shelf: Shelf) -> None:
    ring = ring_on(shelf, algorithm="HS256")
    await ring.load()
    [row] = shelf.rows.values()
    assert (row.public, len(row.sealed)) == ({}, 1 + 12 + 64 + 16)
    assert ring.public() == {"keys": []}


async def test_the_jwk_set_has_what_verifies_the_coming_one_too(shelf: Shelf, autojump_clock: MockClock) -> None:
    ring = ring_on(shelf)
    await ring.load()
    first = ring.signing().kid
    second, _ = await ring.rotate(LEAD)
    await ring.load()
    keys = ring.public()["keys"]
    assert isinstance(keys, list)
    assert [key["kid"] for key in keys] == [second, first]
    for key in keys:
        assert (key["kty"], key["crv"], key["use"], key["alg"]) == ("OKP", "Ed25519", "sig", "EdDSA")
        assert key.keys() == {"kty", "crv", "x", "use", "alg", "kid"}
    await trio.sleep(10 + (LIFETIME + LATE).total_seconds())
    assert [key["kid"] for key in ring.public()["keys"]] == [second]  # type: ignore[attr-defined]
