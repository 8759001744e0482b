"""What computes the digests: the compiled lanes, or the `bcrypt` package, one after another."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, Protocol

import bcrypt

PASSWORD_MAX: Final = 72  # octets
SALT_SIZE: Final = 16  # octets
COSTS: Final = range(4, 32)

_STANDARD: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_BCRYPT: Final = b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_TO: Final = bytes.maketrans(_STANDARD, _BCRYPT)
_FROM: Final = bytes.maketrans(_BCRYPT, _STANDARD)


def encoded(octets: bytes) -> bytes:
    """Return bcrypt's base 64 of some octets, without padding."""
    return base64.b64encode(octets).rstrip(b"=").translate(_TO)


def decoded(text: bytes) -> bytes:
    """Return the octets of bcrypt's base 64."""
    return base64.b64decode(text.translate(_FROM) + b"=" * (-len(text) % 4))


class Engine(Protocol):
    """Computes digests, as many at once as it has lanes; from any thread."""

    @property
    def name(self) -> str:
        """What it is, in a word."""
        ...

    @property
    def lanes(self) -> int:
        """How many it computes at once, at most."""
        ...

    def digest(self, cost: int, passwords: Sequence[bytes], salts: Sequence[bytes]) -> Sequence[bytes]:
        """Return 23 octets for each password and its salt of 16; up to `lanes` of them. Raises ValueError."""
        ...


@dataclass(frozen=True, slots=True)
class Lanes:
    """The compiled part, as `module` has it; `lanes` may be fewer than it could do."""

    module: Any
    lanes: int
    name: str = "lanes"

    def digest(self, cost: int, passwords: Sequence[bytes], salts: Sequence[bytes]) -> Sequence[bytes]:
        """Compute all at once; the GIL is released."""
        found: tuple[bytes, ...] = self.module.digest_many(cost, tuple(passwords), tuple(salts))
        return found


@dataclass(frozen=True, slots=True)
class Package:
    """The `bcrypt` package, one after another."""

    lanes: int = 1
    name: str = "package"

    def digest(self, cost: int, passwords: Sequence[bytes], salts: Sequence[bytes]) -> Sequence[bytes]:
        """Compute one after another; the GIL is released for each."""
        if cost not in COSTS or any(len(salt) != SALT_SIZE for salt in salts) or len(passwords) != len(salts):
            raise ValueError("a cost of 4 to 31, and a salt of 16 octets for each password")
        return [
            decoded(bcrypt.hashpw(password, b"$2b$%02d$%s" % (cost, encoded(salt)))[29:])
            for password, salt in zip(passwords, salts, strict=True)
        ]


# Of Openwall's crypt_blowfish 1.3 (wrapper.c), in the public domain: password, cost, salt, and the rest of the hash.
VECTORS: Final = (
    (b"U*U", 5, b"CCCCCCCCCCCCCCCCCCCCC.", b"E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
    (b"U*U*", 5, b"CCCCCCCCCCCCCCCCCCCCC.", b"VGOzA784oUp/Z0DY336zx7pLYAy0lwK"),
    (b"U*U*U", 5, b"XXXXXXXXXXXXXXXXXXXXXO", b"AcXxm9kjPGEMsLznoKqmqw7tc8WCx4a"),
    (b"", 5, b"CCCCCCCCCCCCCCCCCCCCC.", b"7uG0VCzI2bS7j6ymqJi9CdcdxiRTWNy"),
)


def open_engine(lanes: int | None = None) -> tuple[Engine, str]:
    """Return the best engine that works here, and a sentence on why it is that one.

    `lanes`: as many as that, at most; 0: the package. The compiled part is used only if it passes its self-test.
    """
    if lanes == 0:
        return Package(), "it was asked for"
    try:
        module = import_module("regsvc.bcrypt_lanes._lanes")
    except ImportError as error:
        return Package(), f"the lanes are not compiled: {error}"
    most = int(module.LANES_MAX)
    engine = Lanes(module, min(lanes or most, most))
    if wrong := self_test(engine):
        return Package(), f"the lanes compute something else than bcrypt: {wrong}"
    return engine, "the lanes pass their self-test"


def self_test(engine: Engine) -> str:
    """Compute the published vectors with every number of lanes; return what is wrong, or nothing."""
    for lanes in range(1, engine.lanes + 1):
        chosen = [VECTORS[lane % len(VECTORS)] for lane in range(lanes)]
        found = engine.digest(5, [one[0] for one in chosen], [decoded(one[2]) for one in chosen])
        if [encoded(digest) for digest in found] != [one[3] for one in chosen]:
            return f"with {lanes} lanes"
    return ""
