"""Hashes of other makers: theirs are verified here, ours there.

The vectors were printed by libxcrypt 4.4 (`perl -e 'print crypt(…)'` on Debian 12) and by PHP 8.2's `password_hash`.
"""

import ctypes
import ctypes.util
import shutil
import subprocess

import bcrypt
import pytest

from regsvc.adapters.crypto import Keys, choose
from regsvc.bcrypt_lanes import Engine, check_many, hash_many, new_salt
from regsvc.domain.values import Secret

LIBXCRYPT = (
    ("correct horse", "$2b$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2"),
    ("correct horse", "$2y$06$CCCCCCCCCCCCCCCCCCCCC.TJHq3WtEa46FootPhEtJ1NB/18kL7Zu"),
    ("correct horse", "$2a$04$XXXXXXXXXXXXXXXXXXXXXOBOPOzALzHJkYBCljussDsZBRhtZ8NzC"),
    ("", "$2b$05$abcdefghijklmnopqrstuu0oImNDIy4flhldV9YqunRgBAePKmw7m"),
    ("", "$2a$04$XXXXXXXXXXXXXXXXXXXXXOiUfAHx8eFBKzmQgQOsKj5GhDKevhrOS"),
    ("U*U", "$2y$06$CCCCCCCCCCCCCCCCCCCCC.cOVmcgc3TDNHTMmL9ErZTR3FsK6ZCRK"),
    ("ümlaut", "$2b$05$abcdefghijklmnopqrstuuJf8EUkpWqWlmww9.U4cuSqxe/oA/LRO"),
    ("ümlaut", "$2a$04$XXXXXXXXXXXXXXXXXXXXXO7Gr3yQtF9oFFBsI1wLB11KhhBYqLV0e"),
)
PHP = (
    ("correct horse", "$2y$04$AvzxgLFxxyZAR4u26j98nO6Q1SZGP18v8iB2WJGGgonhI8Df5.kdy"),
    ("correct horse", "$2y$05$FGJeBH1cUL4kMYr6yyUHaO.05yh/ZiUh.Dxddw7eBCVhOq/2tv0PG"),
    ("correct horse", "$2y$10$jpOD/GSl3tEy12/EGpl8uOAOv3e49RuFFTx/J9CEAQD4tLYD0vzda"),
    ("", "$2y$04$w0//H.uu/vGk22AA/bnvqOnIMjsOB/ORVcrJ996uGENlqd.0829EG"),
    ("a", "$2y$05$2tmuRFmSVzrnsRLfRFAAWOt3Bn15NFhzl3tJYQul5tlNWZK49XkOa"),
)
WORDS = ("correct horse", "ümlaut", "x" * 72)


@pytest.mark.parametrize(("word", "made"), [*LIBXCRYPT, *PHP])
def test_theirs_are_verified_here(engine: Engine, word: str, made: str) -> None:
    right, wrong = word.encode(), word.encode() + b"!"
    assert check_many(engine, [right, wrong], [made.encode()] * 2) == [True, False]
    scheme = choose("bcrypt", Keys.derive(Secret("a secret of some length for tests")), rounds=4, engine=engine)
    assert scheme.check(Secret(word), made), "a log-in after an import"
    assert not scheme.check(Secret(word + "!"), made)


def ours(engine: Engine) -> list[tuple[str, str]]:
    made = hash_many(engine, [word.encode() for word in WORDS], [new_salt(4) for _ in WORDS])
    return [(word, one.decode("ascii")) for word, one in zip(WORDS, made, strict=True)]


def test_ours_are_verified_by_the_package(engine: Engine) -> None:
    for word, made in ours(engine):
        assert bcrypt.checkpw(word.encode(), made.encode())


def test_ours_are_verified_by_libxcrypt(engine: Engine) -> None:
    path = ctypes.util.find_library("crypt")
    library = ctypes.CDLL(path) if path is not None else None
    if library is None or not hasattr(library, "crypt_gensalt_ra"):
        pytest.skip("this machine's libcrypt is not libxcrypt")
    library.crypt.restype = ctypes.c_char_p
    for word, made in ours(engine):
        assert library.crypt(word.encode(), made.encode()) == made.encode()


@pytest.mark.skipif(shutil.which("php") is None, reason="there is no php on this machine")
def test_ours_are_verified_by_php(engine: Engine) -> None:
    script = "echo password_verify($argv[1], $argv[2]) ? 'right' : 'wrong';"
    for word, made in ours(engine):
        for said, shown in ((word, "right"), (word + "!", "wrong")):
            if len(said.encode()) <= 72:
                found = subprocess.run(["php", "-r", script, said, made], capture_output=True, text=True, check=True)
                assert found.stdout == shown
