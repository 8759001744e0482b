"""Keys, identifiers, and the digests of short secrets."""

import hmac
import re
from base64 import urlsafe_b64decode
from collections import Counter
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regsvc.adapters.crypto import Crypto, Keys
from regsvc.adapters.crypto.keys import hkdf
from regsvc.domain.values import Email, Secret

KEYS = Keys.derive(Secret("k" * 32))
OTHERS = Keys.derive(Secret("o" * 32))
CRYPTO = Crypto(KEYS, pii=False)
ONE, TWO = UUID(int=1), UUID(int=2)


@pytest.mark.parametrize(
    ("secret", "salt", "info", "size", "derived"),
    [  # RFC 5869 appendix A, cases 1 to 3
        (
            b"\x0b" * 22,
            bytes(range(13)),
            bytes(range(0xF0, 0xFA)),
            42,
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            bytes(range(0x50)),
            bytes(range(0x60, 0xB0)),
            bytes(range(0xB0, 0x100)),
            82,
            (
                "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
                "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87"
            ),
        ),
        (
            b"\x0b" * 22,
            b"",
            b"",
            42,
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ],
)
def test_keys_are_derived_as_rfc_5869_says(secret: bytes, salt: bytes, info: bytes, size: int, derived: str) -> None:
    assert hkdf(secret, info, salt=salt, size=size).hex() == derived


def test_hkdf_has_an_end() -> None:
    assert len(hkdf(b"x", b"", size=255 * 32)) == 255 * 32
    with pytest.raises(ValueError, match="8160"):
        hkdf(b"x", b"", size=255 * 32 + 1)


def test_each_use_has_a_key_of_its_own_and_none_is_printed() -> None:
    keys = {key for one in (KEYS, OTHERS) for key in (one.pepper, one.codes, one.addresses, one.refreshes, one.seal)}
    assert len(keys) == 10
    assert KEYS.pepper_id != OTHERS.pepper_id
    assert not KEYS.pepper.hex().startswith(KEYS.pepper_id)
    assert Keys.derive(Secret("k" * 32)) == KEYS
    assert all(repr(key) not in repr(KEYS) for key in keys)


def test_a_short_secret_is_refused_by_its_octets() -> None:
    assert Keys.derive(Secret("ü" * 16)) != KEYS
    with pytest.raises(ValueError, match="31 octets"):
        Keys.derive(Secret("k" * 31))


def test_identifiers_are_uuids_of_version_7_that_sort_by_time() -> None:
    ids = [CRYPTO.new_id() for _ in range(100)]
    assert {type(id_) for id_ in ids} == {UUID}
    assert {id_.version for id_ in ids} == {7}
    assert sorted(ids) == ids
    assert len(set(ids)) == 100


def test_codes_are_uniform_with_their_zeros() -> None:
    codes = Counter(CRYPTO.new_code(2).reveal() for _ in range(20_000))
    assert set(codes) == {f"{n:02}" for n in range(100)}
    expected = 200
    chi_squared = sum((count - expected) ** 2 / expected for count in codes.values())
    assert chi_squared < 200  # 99 degrees of freedom: chance gives more once in 10^8
    assert {len(CRYPTO.new_code(digits).reveal()) for digits in (4, 10)} == {4, 10}


@given(st.tuples(st.uuids(), st.text(max_size=9), st.text(max_size=9)), st.tuples(st.uuids(), st.text(), st.text()))
def test_no_two_proofs_have_one_mac(one: tuple[UUID, str, str], two: tuple[UUID, str, str]) -> None:
    macs = [CRYPTO.mac(subject, purpose, Secret(code)) for subject, purpose, code in (one, two)]
    assert (macs[0] == macs[1]) == (one == two)
    subject, purpose, code = one
    shifted = CRYPTO.mac(subject, purpose + code[:1], Secret(code[1:]))
    assert (shifted == macs[0]) == (code == "")


def test_a_mac_is_256_bits_under_the_key_of_codes() -> None:
    mac = CRYPTO.mac(ONE, "activate", Secret("0042"))
    assert len(mac) == 32
    assert mac != Crypto(OTHERS, pii=False).mac(ONE, "activate", Secret("0042"))


def test_a_pseudonym_is_stable_keyed_and_not_the_address_unless_allowed() -> None:
    email = Email.parse("Kim@Example.org")
    assert isinstance(email, Email)
    name = CRYPTO.pseudonym(email.key)
    assert name == CRYPTO.pseudonym(email.key)
    assert re.fullmatch("[0-9a-f]{16}", name)
    assert name != Crypto(OTHERS, pii=False).pseudonym(email.key)
    assert Crypto(KEYS, pii=True).pseudonym(email.key) == "kim@example.org"


# ------------------------------------------------------------------------------------------------- two secrets

AFTER = Crypto(OTHERS, KEYS, pii=False)  # the secret was exchanged


def test_macs_are_the_one_that_is_stored_now_and_the_one_that_was() -> None:
    proof = ONE, "activate", Secret("0042")
    assert CRYPTO.macs(*proof) == [CRYPTO.mac(*proof)]
    assert AFTER.macs(*proof) == [AFTER.mac(*proof), CRYPTO.mac(*proof)]


def test_the_successor_of_a_refresh_token_is_ever_the_same_and_random_to_others() -> None:
    token = CRYPTO.new_refresh()
    [successor] = CRYPTO.successors(token)
    assert CRYPTO.successors(token) == [successor]
    assert AFTER.successors(token)[1] == successor
    assert AFTER.successors(token)[0] not in (successor, token)
    [next_one] = CRYPTO.successors(successor)
    texts = {one.reveal() for one in (token, successor, next_one)}
    assert len(texts) == 3
    assert all(re.fullmatch("[A-Za-z0-9_-]{43}", text) for text in texts)
    keyed = hmac.digest(KEYS.refreshes, token.reveal().encode(), "sha256")
    assert urlsafe_b64decode(successor.reveal() + "=") == keyed


@given(st.text())
def test_any_text_has_a_successor_and_a_digest(shown: str) -> None:
    assert len(CRYPTO.successors(Secret(shown))[0].reveal()) == 43
    assert len(CRYPTO.digest(Secret(shown))) == 32


def test_a_digest_needs_no_secret_for_the_token_is_random_itself() -> None:
    assert CRYPTO.digest(Secret("abc")) == AFTER.digest(Secret("abc"))
    assert CRYPTO.digest(Secret("abc")).hex().startswith("ba7816bf8f01cfea")  # FIPS 180-2, appendix B.1


def test_tokens_are_as_long_as_they_have_to_be_and_new_each_time() -> None:
    resets = {CRYPTO.new_token().reveal() for _ in range(100)}
    refreshes = {CRYPTO.new_refresh().reveal() for _ in range(100)}
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in resets)
    assert all(len(urlsafe_b64decode(one + "=")) == 32 for one in refreshes)
    assert (len(resets), len(refreshes)) == (100, 100)
