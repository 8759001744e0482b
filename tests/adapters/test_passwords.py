"""Password hashes: made by one scheme, checked by all, at the same cost whatever is stored."""

import re
import unicodedata

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regsvc.adapters.crypto import Bcrypt, Keys, common_passwords
from regsvc.domain.values import PasswordRules, Secret

KEYS = Keys.derive(Secret("k" * 32))
OTHERS = Keys.derive(Secret("o" * 32))
passwords = st.text(st.characters(codec="utf-8"), max_size=40)

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
