"""What stored hashes look like: what is called readable is read, and no reason repeats a hash."""

import base64
import string

import argon2.low_level
import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regsvc.adapters.crypto import Argon2id, Bcrypt, Forms, Keys, choose, passwords
from regsvc.adapters.crypto import forms as module
from regsvc.domain.values import Secret

OURS, BEFORE, THEIRS = (Keys.derive(Secret(letter * 40)) for letter in "abc")
FORMS = Forms(OURS, BEFORE)
WORD = Secret("an old password")
ALPHABET = "./" + string.ascii_letters + string.digits


def bare_argon2(memory: int = 8, passes: int = 1, lanes: int = 1, kind: argon2.Type = argon2.Type.ID) -> str:
    return argon2.low_level.hash_secret(b"an old password", b"salt" * 4, passes, memory, lanes, 32, kind).decode()


BCRYPT = bcrypt.hashpw(b"an old password", bcrypt.gensalt(4)).decode()
GOOD = {
    "2b": BCRYPT,
    "2a": BCRYPT.replace("$2b$", "$2a$"),
    "2y": BCRYPT.replace("$2b$", "$2y$"),
    "argon2id": bare_argon2(),
    "argon2id with lanes": bare_argon2(64, 2, 4),
    "ours": Bcrypt(OURS, rounds=4).hash(WORD),
    "before": Bcrypt(BEFORE, rounds=4).hash(WORD),
    "our argon2id": Argon2id(OURS, memory=8, passes=1).hash(WORD),
}


@pytest.mark.parametrize("stored", GOOD.values(), ids=GOOD)
def test_what_is_called_readable_is_read(stored: str) -> None:
    assert FORMS.flaw(stored) is None
    assert not FORMS.foreign(stored)
    assert choose("bcrypt", OURS, BEFORE, rounds=4).opens(WORD, stored) is True


@pytest.mark.parametrize("made", [Bcrypt(THEIRS, rounds=4), Argon2id(THEIRS, memory=8, passes=1)])
def test_a_hash_under_another_secret_is_well_formed_and_never_right(made: Bcrypt | Argon2id) -> None:
    stored = made.hash(WORD)
    assert FORMS.flaw(stored) is None
    assert FORMS.foreign(stored)
    assert choose("bcrypt", OURS, BEFORE, rounds=4).opens(WORD, stored) is None


def test_without_the_previous_secret_its_hashes_are_foreign() -> None:
    assert Forms(OURS).foreign(GOOD["before"])
    assert not FORMS.foreign("hunter2")


MD5 = "5f4dcc3b5aa765d61d8327deb882cf99"


@pytest.mark.parametrize(
    ("stored", "code", "word"),
    [
        (MD5, "unknown_hash", "MD5"),
        (MD5.upper(), "unknown_hash", "MD5"),
        (MD5 + "00000000", "unknown_hash", "SHA-1"),
        (MD5 * 2, "unknown_hash", "SHA-256"),
        (MD5 * 4, "unknown_hash", "SHA-512"),
        ("$1$salt$hash", "unknown_hash", "MD5 or SHA"),
        ("$6$salt$hash", "unknown_hash", "MD5 or SHA"),
        ("$y$j9T$salt$hash", "unknown_hash", "yescrypt"),
        ("$apr1$salt$hash", "unknown_hash", "Apache"),
        ("$P$Bhash", "unknown_hash", "phpass"),
        ("{SSHA}aGFzaA==", "unknown_hash", "LDAP"),
        ("scrypt:32768:8:1$salt$hash", "unknown_hash", "scrypt"),
        ("$scrypt$ln=16,r=8,p=1$salt$hash", "unknown_hash", "scrypt"),
        ("pbkdf2_sha256$600000$salt$hash", "unknown_hash", "PBKDF2"),
        ("pbkdf2:sha256:600000$salt$hash", "unknown_hash", "PBKDF2"),
        (bare_argon2(kind=argon2.Type.I), "unknown_hash", "argon2"),
        (bare_argon2().replace("v=19", "v=16"), "unknown_hash", "argon2"),
        (BCRYPT.replace("$2b$", "$2x$"), "unknown_hash", "bcrypt"),
        (BCRYPT[:-1], "unknown_hash", "bcrypt"),
        (BCRYPT + "\n", "unknown_hash", "bcrypt"),
        ("hunter2", "unknown_hash", "form"),
        ("", "unknown_hash", "form"),
        (BCRYPT.replace("$04$", "$03$"), "hash_cost", "rounds"),
        (BCRYPT.replace("$04$", "$17$"), "hash_cost", "rounds"),
        (BCRYPT[:28] + "f" + BCRYPT[29:], "damaged_hash", "bcrypt"),
        (BCRYPT[:-1] + "f", "damaged_hash", "bcrypt"),
        (bare_argon2().replace("m=8,", "m=999999999,"), "hash_cost", "memory"),
        (bare_argon2().replace("t=1,", "t=999999999,"), "hash_cost", "time"),
        (bare_argon2().replace("p=1$", "p=2$"), "hash_cost", "less"),
        (bare_argon2()[:-1], "damaged_hash", "argon2id"),
        (bare_argon2()[:-2], "damaged_hash", "argon2id"),
        (bare_argon2()[:-1] + "f", "damaged_hash", "argon2id"),
    ],
)
def test_what_is_not_taken_is_named_and_not_repeated(stored: str, code: str, word: str) -> None:
    flaw = FORMS.flaw(stored)
    assert flaw is not None
    assert flaw.code == code
    assert word in flaw.message
    assert not stored or stored not in flaw.message
    assert choose("bcrypt", OURS, rounds=4).opens(WORD, stored) is None or stored.endswith("f")


@given(
    st.text(ALPHABET, min_size=21, max_size=21), st.sampled_from(ALPHABET), st.text(ALPHABET, min_size=30, max_size=30)
)
def test_bcrypt_decodes_exactly_the_salts_that_are_called_readable(salt: str, last: str, rest: str) -> None:
    stored = f"$2b$04${salt}{last}{rest}."
    opened = Bcrypt(OURS, rounds=4).opens(WORD, stored)
    assert (FORMS.flaw(stored) is None) == (opened is not None)


@given(st.binary(min_size=8, max_size=20), st.integers(0, 3))
def test_argon2_decodes_exactly_the_base64_that_is_called_readable(salt: bytes, more: int) -> None:
    made = argon2.low_level.hash_secret(b"x", salt, 1, 8, 1, 32, argon2.Type.ID).decode()
    told = base64.b64encode(salt).rstrip(b"=").decode()
    stored = made.replace(f"${told}$", f"${told[:-1]}{chr(ord(told[-1]) + more)}$")
    if passwords._ARGON2.fullmatch(stored) is None:
        return
    opened = Argon2id(OURS).opens(WORD, stored)
    assert (FORMS.flaw(stored) is None) == (opened is not None)


def test_without_the_extra_argon2id_is_refused_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "argon2", None)
    flaw = FORMS.flaw(GOOD["argon2id"])
    assert flaw is not None
    assert flaw.code == "no_argon2"
    assert "regsvc[argon2]" in flaw.message
    assert FORMS.flaw(BCRYPT) is None


@given(st.text(min_size=24, max_size=200))
def test_no_text_is_repeated(stored: str) -> None:
    flaw = FORMS.flaw(stored)
    assert flaw is not None
    assert stored not in flaw.message
