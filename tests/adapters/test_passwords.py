"""Password hashes: made by one scheme, checked by all, at the same cost whatever is stored."""

import re
import subprocess
import sys
import threading
import time
import unicodedata
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from argon2 import low_level
from argon2.exceptions import VerifyMismatchError
from hypothesis import given
from hypothesis import strategies as st

from regsvc.adapters.crypto import Argon2id, Bcrypt, Hashes, Keys, Scheme, choose, common_passwords
from regsvc.adapters.crypto import passwords as passwords_module
from regsvc.domain.account import NO_PASSWORD
from regsvc.domain.values import PasswordRules, Secret
from regsvc.settings import SettingsError, load_settings

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
    Bcrypt(KEYS, rounds=5).waste(Secret("x"))
    assert not Bcrypt(KEYS, rounds=5).check(Secret("x"), "no hash")
    assert work.rounds == [5, 5]


@pytest.mark.parametrize("rounds", [3, 17])
def test_rounds_that_nobody_means_are_refused(rounds: int) -> None:
    with pytest.raises(ValueError, match="4 to 16"):
        Bcrypt(KEYS, rounds=rounds)


# ------------------------------------------------------------------------------------------------- argon2id

ARGON = Argon2id(KEYS, memory=64)
GOOD_ARGON = ARGON.hash(Secret("correct horse"))
BARE_ARGON = GOOD_ARGON[GOOD_ARGON.index("$argon2id$") :]


@given(passwords, passwords)
def test_argon2id_opens_its_own_and_no_other(one: str, two: str) -> None:
    stored = ARGON.hash(Secret(one))
    assert ARGON.check(Secret(one), stored)
    assert ARGON.check(Secret(unicodedata.normalize("NFD", one)), stored)
    same = unicodedata.normalize("NFKC", one) == unicodedata.normalize("NFKC", two)
    assert ARGON.check(Secret(two), stored) is same


def test_argon2id_is_stored_with_its_cost_which_is_owasp_s() -> None:
    stored = Argon2id(KEYS).hash(Secret("correct horse"))
    assert re.fullmatch(
        rf"argon2id-hmac-sha384\${KEYS.pepper_id}\$argon2id\$v=19\$m=19456,t=2,p=1\$[A-Za-z0-9+/]{{22}}\$[A-Za-z0-9+/]{{43}}",
        stored,
    )
    assert stored != Argon2id(KEYS).hash(Secret("correct horse"))


def test_argon2id_of_other_systems_is_checked_as_they_did() -> None:
    """The vectors of the reference implementation's test.c: version 0x13, argon2id."""
    for password, stored in (
        ("password", "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"),
        ("password", "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc"),
        ("password", "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"),
        ("differentpassword", "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$C4TWUs9rDEvq7w3+J4umqA32aWKB1+DSiRuBfYxFj94"),
        ("password", "$argon2id$v=19$m=65536,t=2,p=1$ZGlmZnNhbHQ$vfMrBczELrFdWP0ZsfhWsRPaHppYdP3MVEMIVlqoFBw"),
    ):
        assert ARGON.check(Secret(password), stored)
        assert not ARGON.check(Secret("another"), stored)


class Passes:
    """Counts what argon2 is asked to do: memory by passes, which is what it costs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cost: list[int] = []
        verify, made = low_level.verify_secret, low_level.hash_secret

        def verify_secret(stored: bytes, *rest: Any) -> bool:
            found = re.search(rb"m=(\d+),t=(\d+)", stored)
            assert found
            try:
                answer = verify(stored, *rest)
            except VerifyMismatchError:
                self.cost.append(int(found[1]) * int(found[2]))
                raise
            self.cost.append(int(found[1]) * int(found[2]))
            return answer

        def hash_secret(secret: bytes, salt: bytes, passes: int, memory: int, *rest: Any) -> bytes:
            self.cost.append(memory * passes)
            return made(secret, salt, passes, memory, *rest)

        monkeypatch.setattr(low_level, "verify_secret", verify_secret)
        monkeypatch.setattr(low_level, "hash_secret", hash_secret)


@pytest.mark.parametrize(
    "damaged",
    [
        NO_PASSWORD,
        "",
        GOOD_ARGON[:-30],
        GOOD_ARGON + "=",
        GOOD_ARGON + "\n",
        GOOD_ARGON.replace(KEYS.pepper_id, "00000000"),
        GOOD_ARGON.replace("argon2id-hmac", "bcrypt-hmac"),
        GOOD_ARGON.replace("v=19", "v=16"),
        GOOD_ARGON.replace("$argon2id$", "$argon2i$"),
        GOOD_ARGON.replace("m=64", "m=7"),  # less than eight blocks a lane
        GOOD_ARGON.replace("m=64", "m=262145"),
        GOOD_ARGON.replace("m=64", "m=9999999999"),
        GOOD_ARGON.replace("t=2", "t=9999999999"),
        GOOD_ARGON.replace("t=2", "t=0"),
        GOOD_ARGON.replace("t=2", "t=02"),
        GOOD_ARGON.replace("m=64,t=2", "m=262144,t=5"),
        GOOD_ARGON.replace("m=64,t=2,p=1", "m=1024,t=2,p=17"),
        GOOD_ARGON.replace("m=64", "m=٦٤"),
        BARE_ARGON.replace("m=64", "m=4194304"),
        BARE_ARGON[:-1] + "/",  # bits that no hash has
        PLAIN.replace("$2b$", "$argon2id$"),
        GOOD,  # bcrypt is not its business
    ],
)
def test_what_argon2id_cannot_read_is_false_after_the_same_work(damaged: str, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = Passes(monkeypatch)
    assert ARGON.check(Secret("correct horse"), damaged) is False
    assert passes.cost == [128]


@given(st.text())
def test_no_stored_text_raises_in_argon2id(stored: str) -> None:
    assert ARGON.check(Secret("correct horse"), stored) is False


def test_what_other_systems_take_at_most_is_read() -> None:
    for cost in ("m=65536,t=3,p=4", "m=102400,t=2,p=8", "m=262144,t=3,p=1", "m=47104,t=1,p=1", "m=65536,t=4,p=1"):
        found = passwords_module._ARGON2.fullmatch(BARE_ARGON.replace("m=64,t=2,p=1", cost))
        assert found, cost
        assert passwords_module._bearable(int(found["m"]), int(found["t"]), int(found["p"])), cost


@pytest.mark.parametrize("scheme", [Bcrypt(KEYS, rounds=12), Argon2id(KEYS, memory=65536, passes=3)])
def test_the_gil_is_let_go_while_a_hash_is_made(scheme: Scheme) -> None:
    """This thread goes on working while another hashes: it sees the clock tick all the time."""
    looks = (watched(scheme) for _ in range(5))  # in one of which at least nobody else takes its core away
    assert any(took > 0.03 and longest < took * 0.8 for took, longest in looks)


def watched(scheme: Scheme) -> tuple[float, float]:
    """Return how long a hash took on another thread, and how long this one stood still meanwhile, at most."""
    hashing = threading.Thread(target=scheme.waste, args=(Secret("x"),))
    began = last = time.perf_counter()
    longest = 0.0
    hashing.start()
    while hashing.is_alive():
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    return last - began, longest


# ------------------------------------------------------------------------------------------------- all of them


BY_BCRYPT = choose("bcrypt", KEYS, OTHERS, rounds=4)
BY_ARGON = choose("argon2id", KEYS, OTHERS, rounds=4)


@pytest.mark.parametrize("hashes", [BY_BCRYPT, BY_ARGON])
@pytest.mark.parametrize(
    "stored",
    [GOOD, GOOD_ARGON, PLAIN, Bcrypt(OTHERS, rounds=5).hash(Secret("correct horse"))],
    ids=["bcrypt", "argon2id", "bare bcrypt", "bcrypt, previous pepper"],
)
def test_every_scheme_is_checked_whatever_makes_new_ones(hashes: Hashes, stored: str) -> None:
    assert hashes.check(Secret("correct horse"), stored)
    assert not hashes.check(Secret("wrong horse"), stored)


def test_argon2id_under_the_previous_pepper_is_checked() -> None:
    stored = Argon2id(OTHERS, memory=64).hash(Secret("correct horse"))
    assert BY_BCRYPT.check(Secret("correct horse"), stored)
    assert not choose("bcrypt", KEYS, rounds=4).check(Secret("correct horse"), stored)


def test_new_hashes_are_of_the_chosen_scheme_under_the_current_pepper() -> None:
    assert BY_BCRYPT.hash(Secret("x")).startswith(f"bcrypt-hmac-sha384${KEYS.pepper_id}$2b$04$")
    assert BY_ARGON.hash(Secret("x")).startswith(f"argon2id-hmac-sha384${KEYS.pepper_id}$argon2id$v=19$m=19456,")


def test_a_hash_is_outdated_unless_it_would_be_made_so_again() -> None:
    secret = Secret("correct horse")
    fresh, argon = BY_BCRYPT.hash(secret), BY_ARGON.hash(secret)
    assert not BY_BCRYPT.outdated(fresh)
    assert not BY_ARGON.outdated(argon)
    for stored in (
        argon,
        PLAIN,
        Bcrypt(KEYS, rounds=5).hash(secret),
        Bcrypt(OTHERS, rounds=4).hash(secret),
        fresh.replace("$2b$", "$2a$"),
    ):
        assert BY_BCRYPT.outdated(stored)
    for stored in (fresh, GOOD_ARGON, BARE_ARGON, argon.replace("p=1", "p=2"), Argon2id(OTHERS).hash(secret)):
        assert BY_ARGON.outdated(stored)


@pytest.mark.parametrize("stored", [NO_PASSWORD, "", "no hash", GOOD.replace("$04$", "$31$")])
@pytest.mark.parametrize("password", ["!", "", "correct horse"])
def test_no_password_is_never_right_and_costs_what_a_right_one_does(
    stored: str, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, passes = Work(monkeypatch), Passes(monkeypatch)
    assert not BY_BCRYPT.check(Secret(password), stored)
    assert (work.rounds, passes.cost) == ([4], [])
    assert not BY_ARGON.check(Secret(password), stored)
    BY_ARGON.waste(Secret(password))
    assert (work.rounds, passes.cost) == ([4], [38912, 38912])


def test_without_the_extra_argon2id_is_unreadable_and_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords_module, "argon2", None)
    work = Work(monkeypatch)
    assert not BY_BCRYPT.check(Secret("correct horse"), GOOD_ARGON)
    assert work.rounds == [4]
    with pytest.raises(RuntimeError, match=r"regsvc\[argon2\]"):
        BY_ARGON.hash(Secret("correct horse"))


def test_without_the_extra_the_package_imports_all_the_same() -> None:
    script = (
        "import sys; sys.modules['argon2'] = None\n"
        "from regsvc.adapters.crypto import passwords\nassert passwords.argon2 is None"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_settings_that_need_the_extra_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = {"REGSVC_PASSWORD_HASH": "argon2id"}
    assert load_settings(told, tmp_path / ".env").password_hash == "argon2id"
    monkeypatch.setattr("regsvc.settings.agreement.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"REGSVC_PASSWORD_HASH=argon2id needs .*regsvc\[argon2\]"):
        load_settings(told, tmp_path / ".env")
    assert load_settings({}, tmp_path / ".env").password_hash == "bcrypt"


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
