"""Keys, codes and password hashes."""

import re
import unicodedata
from collections import Counter
from uuid import UUID

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regsvc.adapters.crypto import Bcrypt, Crypto, Keys, common_passwords, hkdf
from regsvc.domain.values import Email, PasswordRules, Secret

KEYS = Keys.derive(Secret("k" * 32))
OTHERS = Keys.derive(Secret("o" * 32))
CRYPTO = Crypto(KEYS, pii=False)
ONE, TWO = UUID(int=1), UUID(int=2)
passwords = st.text(st.characters(codec="utf-8"), max_size=40)


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
    keys = {KEYS.pepper, KEYS.codes, KEYS.addresses, OTHERS.pepper, OTHERS.codes, OTHERS.addresses}
    assert len(keys) == 6
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


# ------------------------------------------------------------------------------------------------- passwords

HASHES = Bcrypt(KEYS, rounds=4)


@given(passwords, passwords)
def test_a_password_opens_its_own_hash_and_no_other(one: str, two: str) -> None:
    stored = HASHES.hash(Secret(one))
    assert HASHES.check(Secret(one), stored)
    assert HASHES.check(Secret(unicodedata.normalize("NFD", one)), stored)
    same = unicodedata.normalize("NFKC", one) == unicodedata.normalize("NFKC", two)
    assert HASHES.check(Secret(two), stored) is same


@pytest.mark.parametrize("odd", ["a\0b", "", "\ud800", "x" * 5000])
def test_every_character_counts_in_a_hash_of_ours(odd: str) -> None:
    stored = HASHES.hash(Secret(odd))
    assert HASHES.check(Secret(odd), stored)
    assert not HASHES.check(Secret(odd + "y"), stored)


def test_a_stored_hash_says_scheme_pepper_and_rounds_and_is_salted() -> None:
    stored = HASHES.hash(Secret("correct horse"))
    assert re.fullmatch(r"bcrypt-hmac-sha384\$[0-9a-f]{8}\$2b\$04\$[./A-Za-z0-9]{53}", stored)
    assert f"${KEYS.pepper_id}$" in stored
    assert stored != HASHES.hash(Secret("correct horse"))


def test_a_stolen_hash_is_worth_nothing_without_the_secret() -> None:
    stored = HASHES.hash(Secret("correct horse"))
    assert not Bcrypt(OTHERS, rounds=4).check(Secret("correct horse"), stored)
    forged = stored.replace(KEYS.pepper_id, OTHERS.pepper_id)
    assert not Bcrypt(OTHERS, rounds=4).check(Secret("correct horse"), forged)


@pytest.mark.parametrize("prefix", ["2a", "2b", "2y"])
def test_hashes_of_other_systems_are_checked_as_they_did(prefix: str) -> None:
    imported = bcrypt.hashpw("schön".encode(), bcrypt.gensalt(5)).decode().replace("2b", prefix, 1)
    assert HASHES.check(Secret("schön"), imported)
    assert not HASHES.check(Secret(unicodedata.normalize("NFD", "schön")), imported)  # they did not normalise
    long = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode().replace("2b", prefix, 1)
    assert HASHES.check(Secret("x" * 72 + "whatever followed"), long)  # nor look further
    assert not HASHES.check(Secret("x" * 71), long)


GOOD = HASHES.hash(Secret("correct horse"))
PLAIN = bcrypt.hashpw(b"correct horse", bcrypt.gensalt(4)).decode()


class Work:
    """Counts what bcrypt is asked to do; `checkpw` and `hashpw` at the same rounds cost the same."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rounds: list[int] = []
        check, made = bcrypt.checkpw, bcrypt.hashpw

        def checkpw(password: bytes, hashed: bytes) -> bool:
            answer = check(password, hashed)
            self.rounds.append(int(hashed[4:6]))
            return answer

        def hashpw(password: bytes, salt: bytes) -> bytes:
            self.rounds.append(int(salt[4:6]))
            return made(password, salt)

        monkeypatch.setattr(bcrypt, "checkpw", checkpw)
        monkeypatch.setattr(bcrypt, "hashpw", hashpw)


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "no hash",
        GOOD[:-1],
        GOOD + "x",
        GOOD + "\n",
        GOOD.upper(),
        GOOD.replace("$2b$", "$2x$"),
        GOOD.replace("$2b$04", "$2b$03"),
        GOOD.replace("$2b$04", "$2b$31"),
        GOOD.replace("$2b$04", "$2b$99"),
        GOOD.replace(KEYS.pepper_id, "00000000"),
        GOOD.replace("bcrypt-hmac-sha384", "argon2id"),
        PLAIN[:-1],
        PLAIN.replace("$04$", "$17$"),
        PLAIN[:28] + "z" + PLAIN[29:],  # the right characters, but bits that no salt has
        PLAIN.replace("$04$", "$٠٤$"),
        "$2b$04$" + "é" * 53,
        "\0" * 60,
    ],
)
def test_what_cannot_be_read_is_false_after_the_same_work(damaged: str, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(monkeypatch)
    assert HASHES.check(Secret("correct horse"), damaged) is False
    assert work.rounds == [4]


@given(st.text())
def test_no_stored_text_raises(stored: str) -> None:
    assert HASHES.check(Secret("correct horse"), stored) is False


def test_waste_is_the_work_of_a_check(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(monkeypatch)
    Bcrypt(KEYS, rounds=5).waste()
    assert not Bcrypt(KEYS, rounds=5).check(Secret("x"), "no hash")
    assert work.rounds == [5, 5]


@pytest.mark.parametrize("rounds", [3, 17])
def test_rounds_that_nobody_means_are_refused(rounds: int) -> None:
    with pytest.raises(ValueError, match="4 to 16"):
        Bcrypt(KEYS, rounds=rounds)


# ------------------------------------------------------------------------------------------------- common ones


def test_common_passwords_are_many_and_in_the_form_they_are_compared_in() -> None:
    words = common_passwords()
    assert len(words) >= 10_000
    assert all(len(word) >= 8 and word == unicodedata.normalize("NFKC", word).casefold() for word in words)
    assert not any(word.startswith("# ") for word in words)


@pytest.mark.parametrize("password", ["password", "PassWord1", "1qaz2wsx", "qwertyuiop", "trustno1"])
def test_what_everybody_tries_is_refused_by_the_rules(password: str) -> None:
    flaw = PasswordRules(common=common_passwords()).flaw(Secret(password))
    assert flaw is not None
    assert flaw.code == "common"
    assert PasswordRules(common=common_passwords()).flaw(Secret("correct horse battery")) is None
