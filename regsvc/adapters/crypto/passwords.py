"""Password hashes: two schemes, each stored with its name, its pepper and its cost; all of them are verified.

`bcrypt-hmac-sha384$<pepper id>$2b$<rounds>$…` and `argon2id-hmac-sha384$<pepper id>$argon2id$v=19$m=…,t=…,p=…$…`; a
bare `$2b$…` or `$argon2id$…` was imported from another system. What is hashed is base64(HMAC-SHA-384(pepper,
NFKC(password))): 64 octets, no NUL, all of the password in them (bcrypt looks at 72 octets, and the package refuses
more), and worth nothing to whoever steals the table without the secret. A bare one is checked as its system did,
without normalisation (bcrypt: over the first 72 octets), so that what worked there for years works here.
"""

import base64
import hmac
import re
import secrets
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Final, Literal

from regsvc.adapters.crypto.keys import Keys
from regsvc.adapters.crypto.work import Alone, Laned, Work, do
from regsvc.bcrypt_lanes import Engine, Package, Salt, new_salt
from regsvc.domain.values import Secret

argon2: ModuleType | None
try:
    import argon2 as installed
except ImportError:  # the extra is not
    argon2 = None
else:
    argon2 = installed

ROUNDS_MIN: Final = 4  # bcrypt's own least
ROUNDS_MAX: Final = 16  # four seconds a hash: a stored hash that asks for more is taken for damage, not for a task
PLAIN_MAX: Final = 72  # octets; what every bcrypt before ours looked at
MEMORY: Final = 19 * 1024  # KiB; with two passes and one lane OWASP's first choice, 26 ms
PASSES: Final = 2
LANES: Final = 1
MEMORY_MAX: Final = 256 * 1024  # KiB; what other systems took at most: what asks for more is damage, or an attack
WORK_MAX: Final = 1024 * 1024  # KiB times passes; about two seconds
LANES_MAX: Final = 16
_TAG: Final = r"(?:{}-hmac-sha384\$(?P<pepper>[0-9a-f]{{8}}))?"
_BCRYPT: Final = re.compile(
    _TAG.format("bcrypt") + r"(?P<made>\$2[aby]\$(?P<rounds>\d\d)\$[./A-Za-z0-9]{53})", re.ASCII
)
_ARGON2: Final = re.compile(
    _TAG.format("argon2id")
    + r"(?P<made>\$argon2id\$v=19\$m=(?P<m>[1-9]\d{0,9}),t=(?P<t>[1-9]\d{0,9}),p=(?P<p>[1-9]\d{0,9})"
    + r"\$[A-Za-z0-9+/]{11,88}\$[A-Za-z0-9+/]{22,88})",  # a salt of 8 octets or more, a hash of 16 or more
    re.ASCII,
)
_COMMON: Final = Path(__file__).with_name("common_passwords.txt")


class Scheme(ABC):
    """A way to hash passwords: plans are quick and made anywhere, `do` works on the thread that calls it.

    The GIL is let go meanwhile. The short ways (`hash`, `check`, `opens`, `waste`) plan and do one thing.
    """

    @property
    def engine(self) -> Engine:
        """What computes bcrypts."""
        return Package()

    @abstractmethod
    def to_hash(self, password: Secret) -> Work:
        """Plan a tagged hash to store: a str."""

    @abstractmethod
    def to_open(self, password: Secret, stored: str) -> Work | None:
        """Plan to check a password: a bool; None for a hash that this scheme cannot read."""

    @property
    @abstractmethod
    def nobody(self) -> str:
        """A hash that no password opens, and that costs what those do which `hash` makes."""

    @abstractmethod
    def outdated(self, stored: str) -> bool:
        """Tell whether `hash` would not make it as it is any more."""

    def to_check(self, password: Secret, stored: str) -> Work:
        """Plan to check a password: a bool; a hash that cannot be read, or under another pepper, costs the same."""
        work = self.to_open(password, stored)
        if isinstance(work, Alone):
            return Alone(partial(self._checked, work, password))
        return work or self.to_waste(password)

    def _checked(self, work: Alone, password: Secret) -> bool:
        right = work.run()
        if right is None:  # only now it turned out that it cannot be read
            self.waste(password)
        return right is True

    def to_waste(self, password: Secret) -> Work:
        """Plan the work of one check for nothing, step by step: an unknown user must cost what a known one does."""
        work = self.to_open(password, self.nobody)
        assert work is not None, "every scheme reads its own hashes"  # noqa: S101 - a bug of ours, not a value
        return work

    def do(self, works: Sequence[Work]) -> list[object]:
        """Do works that are equal in `together`, as many at once as there are lanes; or a single one."""
        return do(self.engine, works)

    def hash(self, password: Secret) -> str:
        """Return a tagged hash to store."""
        return str(self.do([self.to_hash(password)])[0])

    def opens(self, password: Secret, stored: str) -> bool | None:
        """Check a password; None for a hash that this scheme cannot read."""
        work = self.to_open(password, stored)
        right = None if work is None else self.do([work])[0]
        return right if isinstance(right, bool) else None

    def check(self, password: Secret, stored: str) -> bool:
        """Check a password; a hash that cannot be read is False, after the same work."""
        return self.do([self.to_check(password, stored)])[0] is True

    def waste(self, password: Secret) -> None:
        """Do the work of one check for nothing."""
        self.do([self.to_waste(password)])


@dataclass(frozen=True, slots=True)
class Bcrypt(Scheme):
    """bcrypt at `rounds` rounds; hashes under the `previous` pepper, and of up to ROUNDS_MAX rounds, are checked."""

    keys: Keys
    previous: Keys | None = None
    rounds: int = field(kw_only=True)
    computing: Engine = field(default_factory=Package, kw_only=True)

    def __post_init__(self) -> None:
        if not ROUNDS_MIN <= self.rounds <= ROUNDS_MAX:
            raise ValueError(f"bcrypt takes {ROUNDS_MIN} to {ROUNDS_MAX} rounds here, not {self.rounds}")

    @property
    def engine(self) -> Engine:
        """What computes bcrypts."""
        return self.computing

    def to_hash(self, password: Secret) -> Work:
        """Plan a tagged hash to store."""
        tag = f"bcrypt-hmac-sha384${self.keys.pepper_id}"
        return Laned(_peppered(self.keys, password), new_salt(self.rounds), lambda made: tag + made.decode("ascii"))

    def to_open(self, password: Secret, stored: str) -> Work | None:
        """Plan to check a password; None for what bcrypt cannot read."""
        found = _BCRYPT.fullmatch(stored)
        if found is None or int(found["rounds"]) > ROUNDS_MAX:
            return None
        octets = _given(password, found, self.keys, self.previous)
        if octets is None:
            return None
        made = found["made"].encode("ascii")
        try:
            salt = Salt.parse(made)
        except ValueError:  # looks like a hash, but its salt is none
            return None
        return Laned(octets[:PLAIN_MAX], salt, partial(hmac.compare_digest, made))

    @property
    def nobody(self) -> str:
        """A hash that no password opens."""
        return f"bcrypt-hmac-sha384${self.keys.pepper_id}$2b${self.rounds:02}${'.' * 53}"

    def outdated(self, stored: str) -> bool:
        """Tell whether it is of another scheme, under another pepper, of other rounds, or bare."""
        return not stored.startswith(f"bcrypt-hmac-sha384${self.keys.pepper_id}$2b${self.rounds:02}$")


@dataclass(frozen=True, slots=True)
class Argon2id(Scheme):
    """argon2id; needs the extra `argon2`. Without it nothing is readable."""

    keys: Keys
    previous: Keys | None = None
    memory: int = field(default=MEMORY, kw_only=True)  # KiB
    passes: int = field(default=PASSES, kw_only=True)
    lanes: int = field(default=LANES, kw_only=True)

    def to_hash(self, password: Secret) -> Work:
        """Plan a tagged hash to store."""
        tag = f"argon2id-hmac-sha384${self.keys.pepper_id}"
        return Alone(lambda: tag + self._made(_peppered(self.keys, password)).decode("ascii"))

    def to_open(self, password: Secret, stored: str) -> Work | None:
        """Plan to check a password; None for what argon2 cannot read, or would take too much for."""
        found = _ARGON2.fullmatch(stored)
        if found is None or argon2 is None or not _bearable(int(found["m"]), int(found["t"]), int(found["p"])):
            return None
        octets = _given(password, found, self.keys, self.previous)
        return None if octets is None else Alone(partial(self._verified, found["made"].encode("ascii"), octets))

    @property
    def nobody(self) -> str:
        """A hash that no password opens."""
        cost = f"$argon2id$v=19$m={self.memory},t={self.passes},p={self.lanes}"
        return f"argon2id-hmac-sha384${self.keys.pepper_id}{cost}${'A' * 22}${'A' * 43}"

    def outdated(self, stored: str) -> bool:
        """Tell whether it is of another scheme, under another pepper, of another cost, or bare."""
        cost = f"$argon2id$v=19$m={self.memory},t={self.passes},p={self.lanes}$"
        return not stored.startswith(f"argon2id-hmac-sha384${self.keys.pepper_id}{cost}")

    def _made(self, octets: bytes) -> bytes:
        if argon2 is None:
            raise RuntimeError("argon2id needs the extra: pip install 'regsvc[argon2]'")
        how = (self.passes, self.memory, self.lanes, 32, argon2.Type.ID)
        return bytes(argon2.low_level.hash_secret(octets, secrets.token_bytes(16), *how))

    def _verified(self, made: bytes, octets: bytes) -> bool | None:
        assert argon2 is not None, "or nothing was planned"  # noqa: S101 - a bug of ours, not a value
        try:
            return bool(argon2.low_level.verify_secret(made, octets, argon2.Type.ID))
        except argon2.exceptions.VerifyMismatchError:
            return False
        except argon2.exceptions.VerificationError:  # looks like a hash, but argon2 cannot decode it
            return None


@dataclass(frozen=True, slots=True)
class Hashes(Scheme):
    """Makes hashes of the `chosen` scheme, and checks those of the others too."""

    chosen: Scheme
    others: tuple[Scheme, ...]
    computing: Engine = field(default_factory=Package, kw_only=True)

    @property
    def engine(self) -> Engine:
        """What computes bcrypts."""
        return self.computing

    def to_hash(self, password: Secret) -> Work:
        """Plan a tagged hash to store."""
        return self.chosen.to_hash(password)

    def to_open(self, password: Secret, stored: str) -> Work | None:
        """Plan to check a password by whichever scheme can read the hash."""
        plans = (scheme.to_open(password, stored) for scheme in (self.chosen, *self.others))
        return next((plan for plan in plans if plan is not None), None)

    @property
    def nobody(self) -> str:
        """A hash that no password opens, of the chosen scheme."""
        return self.chosen.nobody

    def outdated(self, stored: str) -> bool:
        """Tell whether the chosen scheme would not make it as it is."""
        return self.chosen.outdated(stored)


def choose(
    name: Literal["bcrypt", "argon2id"],
    keys: Keys,
    previous: Keys | None = None,
    *,
    rounds: int,
    engine: Engine | None = None,
) -> Hashes:
    """Return the scheme that makes hashes of that name and checks all; `rounds` are bcrypt's, `engine` computes it."""
    computing = engine or Package()
    bcrypt = Bcrypt(keys, previous, rounds=rounds, computing=computing)
    schemes: dict[str, Scheme] = {"bcrypt": bcrypt, "argon2id": Argon2id(keys, previous)}
    chosen = schemes.pop(name)
    return Hashes(chosen, tuple(schemes.values()), computing=computing)


def _given(password: Secret, found: re.Match[str], keys: Keys, previous: Keys | None) -> bytes | None:
    """Return what is to be checked: the password as it is, or under the hash's pepper; None for a pepper not ours."""
    if found["pepper"] is None:
        return password.reveal().encode("utf-8", "surrogatepass")
    for ours in (keys, previous):
        if ours is not None and ours.pepper_id == found["pepper"]:
            return _peppered(ours, password)
    return None


def _peppered(keys: Keys, password: Secret) -> bytes:
    text = unicodedata.normalize("NFKC", password.reveal()).encode("utf-8", "surrogatepass")
    return base64.b64encode(hmac.digest(keys.pepper, text, "sha384"))


def _bearable(memory: int, passes: int, lanes: int) -> bool:
    """Tell whether an argon2 hash is a task: what takes gigabytes or minutes is damage, or an attack by import."""
    return memory <= MEMORY_MAX and memory * passes <= WORK_MAX and lanes <= LANES_MAX


@cache
def common_passwords() -> frozenset[str]:
    """Return the passwords that everybody tries first, NFKC and casefolded, all of 8 characters or more.

    Read from a file at the first call (source, licence and how it is made are in its first lines); a few milliseconds.
    """
    _about, _, words = _COMMON.read_text("utf-8").partition("\n\n")
    return frozenset(words.splitlines())
