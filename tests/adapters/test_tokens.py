"""Access tokens: what is signed and read back, and that nothing else ever is."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from jwt import PyJWS

from regsvc.adapters.crypto import Algorithm, Keyring, Tokens, tokens
from regsvc.adapters.crypto.keyring import LATE
from regsvc.adapters.crypto.seal import Material
from regsvc.ports import Access, Unavailable
from tests.adapters.shelf import ADA, ISSUER, LIFETIME, SESSION, START, Shelf, ring_on, tokens_of
from tests.forgeries import ALPHABET, compact, forgeries, missigned, misspelt, unb64

GOOD = Access(ADA.id, SESSION, START + LIFETIME)
BOTH: list[Algorithm] = ["EdDSA", "HS256"]


async def made(algorithm: Algorithm = "EdDSA") -> tuple[Shelf, Keyring, Tokens, str]:
    """Return a shelf, a loaded ring, its tokens, and a good one."""
    shelf = Shelf()
    ring = ring_on(shelf, algorithm=algorithm)
    await ring.load()
    ours = tokens_of(ring)
    return shelf, ring, ours, ours.issue(ADA, SESSION, START).reveal()


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, claims, _ = token.split(".")
    return json.loads(unb64(header)), json.loads(unb64(claims))


def signed(ring: Keyring, header: Mapping[str, Any], claims: Mapping[str, Any] | bytes) -> str:
    """Return a token that the ring's key signed, whatever it says."""
    return compact(header, claims, lambda text: _signature(ring, text))


def _signature(ring: Keyring, text: bytes) -> bytes:
    material = ring.signing().material
    return PyJWS().get_algorithm_by_name(material.algorithm).sign(text, material.signs)


@pytest.mark.parametrize("algorithm", BOTH)
async def test_a_token_is_read_back_and_says_what_it_should(algorithm: Algorithm) -> None:
    _, ring, ours, good = await made(algorithm)
    assert await ours.read(good) == GOOD
    header, claims = parts(good)
    assert header == {"alg": algorithm, "kid": ring.signing().kid, "typ": "at+jwt"}
    assert claims == {
        "sub": str(ADA.id),
        "user_id": str(ADA.id),
        "sid": str(SESSION),
        "email": "ada@example.org",
        "iss": ISSUER,
        "aud": "regsvc",
        "iat": int(START.timestamp()),
        "exp": int((START + LIFETIME).timestamp()),
        "jti": str(UUID(int=7)),
    }
    assert ours.lifetime == LIFETIME
    assert ours.public() == ring.public()
    assert len(good) < 700


async def test_times_are_whole_seconds_and_never_longer_than_said() -> None:
    _, _, ours, _ = await made()
    late = START + timedelta(microseconds=999_999)
    assert await ours.read(ours.issue(ADA, SESSION, late).reveal()) == GOOD


async def test_a_token_that_is_over_is_read_for_the_database_decides() -> None:
    _, _, ours, _ = await made()
    old = datetime(1970, 1, 1, tzinfo=UTC)
    access = await ours.read(ours.issue(ADA, SESSION, old).reveal())
    assert access is not None
    assert access.expires_at == old + LIFETIME


def test_without_a_key_nothing_is_signed() -> None:
    with pytest.raises(Unavailable):
        tokens_of(ring_on(Shelf())).issue(ADA, SESSION, START)


def test_ed25519_signs_as_rfc_8037_says() -> None:
    """Appendix A.1 to A.5, through the library that we lean on and the key that we make of the octets."""
    material = Material.read("EdDSA", unb64("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"))
    assert material.public == {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    token = (
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4"
        "ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    )
    jws = PyJWS()
    assert jws.encode(b"Example of Ed25519 signing", material.signs, "EdDSA", {"typ": ""}) == token
    decoded = jws.decode_complete(token, material.verifies, algorithms=["EdDSA"])
    assert decoded["payload"] == b"Example of Ed25519 signing"


# ------------------------------------------------------------------------------------------------- forgeries


def public(ring: Keyring) -> list[dict[str, str]]:
    keys = ring.public()["keys"]
    assert isinstance(keys, list)
    return keys


@pytest.mark.parametrize("algorithm", BOTH)
async def test_no_forged_token_is_taken(algorithm: Algorithm) -> None:
    _, ring, ours, good = await made(algorithm)
    forged = forgeries(good, public(ring))
    assert len({name for name, _ in forged}) == len(forged)
    assert len({text for _, text in forged}) >= 60
    taken = [name for name, text in forged if await ours.read(text) is not None]
    assert taken == []
    assert await ours.read(good) == GOOD


async def test_forged_tokens_can_be_sent_in_a_header() -> None:
    _, ring, _, good = await made()
    for name, text in forgeries(good, public(ring)):
        assert text.isascii(), name
        assert text.isprintable(), name
        assert text.strip() == text != "", name


@pytest.mark.parametrize("algorithm", BOTH)
async def test_a_right_signature_saves_no_wrong_token(algorithm: Algorithm) -> None:
    _, ring, ours, good = await made(algorithm)
    header, claims = parts(good)
    assert await ours.read(signed(ring, header, {**claims, "iat": claims["iat"] + 1})) == GOOD, "the method works"
    wrong = missigned(header, claims, lambda text: _signature(ring, text))
    assert [name for name, text in wrong if await ours.read(text) is not None] == []


async def test_what_is_longer_than_any_of_ours_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    _, ring, ours, good = await made()
    header, claims = parts(good)
    fits = signed(ring, header, {**claims, "x": "x" * 2600})
    assert 4000 < len(fits) <= 4096
    assert await ours.read(fits) == GOOD
    count = Count(monkeypatch)
    assert await ours.read(signed(ring, header, {**claims, "x": "x" * 2700})) is None
    assert count.verified == 0


async def test_a_token_has_one_spelling() -> None:
    _, _, ours, good = await made()
    for remembered in (False, True):
        assert [name for name, text in misspelt(good) if await ours.read(text) is not None] == [], remembered
        assert await ours.read(good) == GOOD


async def test_tokens_of_another_service_with_our_secret_are_not_ours() -> None:
    shelf, _, ours, _ = await made()
    ring = ring_on(shelf)
    await ring.load()
    for other in (tokens_of(ring, issuer="https://other.test"), tokens_of(ring, audience="other")):
        assert await ours.read(other.issue(ADA, SESSION, START).reveal()) is None


async def test_a_signature_of_one_algorithm_under_a_key_of_the_other() -> None:
    """The key of either sort names itself, and is not asked to do the other's work."""
    shelf, ring, ours, good = await made()
    shared = ring_on(shelf, algorithm="HS256")
    await shared.load()
    await ring.load()
    header, claims = parts(good)
    for kid, alg in ((ring.signing().kid, "HS256"), (shared.signing().kid, "EdDSA")):
        for by in (ring, shared):
            assert await ours.read(signed(by, {**header, "kid": kid, "alg": alg}, claims)) is None
    assert await ours.read(tokens_of(shared).issue(ADA, SESSION, START).reveal()) == GOOD


@cache
def workshop() -> list[tuple[Keyring, Tokens, str]]:
    """Return tokens that live longer than one example, each with a good one."""

    async def build() -> list[tuple[Keyring, Tokens, str]]:
        return [(ring, ours, good) for _, ring, ours, good in [await made(algorithm) for algorithm in BOTH]]

    return trio.run(build)


@given(st.data())
def test_no_mutation_of_a_good_token_is_taken(data: st.DataObject) -> None:
    for _, ours, good in workshop():
        at = data.draw(st.integers(0, len(good) - 1))
        cut = data.draw(st.integers(0, 3))
        put = data.draw(st.text(ALPHABET + ".", max_size=3) | st.text(max_size=3))
        text = good[:at] + put + good[at + cut :]
        answer = trio.run(ours.read, text)
        assert answer == (GOOD if text == good else None)


@given(st.text() | st.text(ALPHABET + ".="))
def test_nothing_raises(text: str) -> None:
    for _, ours, _ in workshop():
        assert trio.run(ours.read, text) is None


@given(
    header=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit"]), inner),
    ),
    claims=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([ISSUER, str(ADA.id)]),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["sub", "user_id", "sid", "iss", "aud", "exp", "iat"]), inner)
        ),
    ),
)
def test_no_json_raises(header: object, claims: object) -> None:
    for ring, ours, good in workshop():
        known, _ = parts(good)
        for first in (json.dumps(known).encode(), json.dumps(header).encode()):
            assert trio.run(_read_signed, ring, ours, first, json.dumps(claims).encode()) is None


async def _read_signed(ring: Keyring, ours: Tokens, header: bytes, claims: bytes) -> Access | None:
    return await ours.read(compact(header, claims, lambda text: _signature(ring, text)))


# ------------------------------------------------------------------------------------------------- what is remembered


class Count:
    """Counts signatures that were verified."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.verified = 0
        verify = PyJWS.decode_complete

        def counted(*given: Any, **how: Any) -> Any:
            self.verified += 1
            return verify(*given, **how)

        monkeypatch.setattr(PyJWS, "decode_complete", counted)


async def test_a_signature_is_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _, ring, ours, good = await made()
    count = Count(monkeypatch)
    for _ in range(3):
        assert await ours.read(good) == GOOD
        await ring.load()  # the same keys as before
    assert count.verified == 1
    forged = [text for _, text in forgeries(good, public(ring))]
    for _ in range(2):
        for text in forged:
            assert await ours.read(text) is None


async def test_what_is_remembered_goes_with_its_key(autojump_clock: trio.testing.MockClock) -> None:
    _, ring, ours, good = await made()
    assert await ours.read(good) == GOOD
    await ring.rotate(timedelta(seconds=10))
    await ring.load()
    await trio.sleep((timedelta(seconds=10) + LIFETIME + LATE).total_seconds() - 0.001)
    assert await ours.read(good) == GOOD
    await trio.sleep(0.001)
    assert await ours.read(good) is None
    assert await ours.read(good) is None


async def test_what_is_remembered_goes_with_its_material(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of a key stands for another key all of a sudden: nobody does that, and it would help nobody."""
    shelf, ring, ours, good = await made()
    assert await ours.read(good) == GOOD
    [row] = shelf.rows
    monkeypatch.setattr("secrets.token_hex", lambda _: row)
    kid, public_part, sealed = ring._seal.new("EdDSA")
    shelf.change(kid, public=public_part, sealed=sealed)
    await ring.load()
    assert await ours.read(good) is None


async def test_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "REMEMBERED", 3)
    _, _, ours, first = await made()
    others = [ours.issue(ADA, UUID(int=n), START).reveal() for n in range(3)]
    count = Count(monkeypatch)
    for token in (first, *others[:2], first, others[2]):
        assert await ours.read(token) is not None
    assert count.verified == 4
    assert await ours.read(first) == GOOD, "it was used lately"
    assert count.verified == 4
    assert await ours.read(others[0]) is not None
    assert count.verified == 5
