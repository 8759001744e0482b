"""Hashes and salts as bcrypt writes them, `$2b$12$` and 22 or 53 characters; from and to what an engine takes."""

import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from regsvc.bcrypt_lanes.engine import COSTS, SALT_SIZE, Engine, decoded, encoded

# The last character of a salt has four bits that mean nothing, and are zero; the package takes no others either.
_SALT: Final = re.compile(rb"\$(2[aby])\$([0-9]{2})\$([./A-Za-z0-9]{21}[.Oeu])([./A-Za-z0-9]{31})?")


@dataclass(frozen=True, slots=True)
class Salt:
    """A salt with its cost and the prefix it came with: 2a, 2b and 2y are one algorithm."""

    prefix: bytes
    cost: int
    octets: bytes

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Read a salt, or the salt of a hash. Raises ValueError."""
        found = _SALT.fullmatch(text)
        if found is None or int(found[2]) not in COSTS:
            raise ValueError("not a salt of bcrypt")
        return cls(found[1], int(found[2]), decoded(found[3]))

    def __bytes__(self) -> bytes:
        return b"$%s$%02d$%s" % (self.prefix, self.cost, encoded(self.octets))


def new_salt(cost: int) -> Salt:
    """Make one at random."""
    return Salt(b"2b", cost, secrets.token_bytes(SALT_SIZE))


def hash_many(engine: Engine, passwords: Sequence[bytes], salts: Sequence[Salt]) -> list[bytes]:
    """Return the hash of each password with its salt, all of one cost; as many at once as the engine has lanes.

    Raises ValueError: a password over 72 octets, salts of several costs, another number of salts than of passwords.
    """
    if len(passwords) != len(salts) or len({salt.cost for salt in salts}) > 1:
        raise ValueError("one salt for each password, and all of one cost")
    found: list[bytes] = []
    for at in range(0, len(passwords), engine.lanes):
        share = salts[at : at + engine.lanes]
        digests = engine.digest(share[0].cost, passwords[at : at + engine.lanes], [salt.octets for salt in share])
        found += [bytes(salt) + encoded(digest) for salt, digest in zip(share, digests, strict=True)]
    return found


def check_many(engine: Engine, passwords: Sequence[bytes], hashes: Sequence[bytes]) -> list[bool]:
    """Tell of each password whether its hash is this one, in a time that does not depend on how much of it agrees.

    Raises ValueError, as `hash_many`, and where a hash is none.
    """
    found = hash_many(engine, passwords, [Salt.parse(one) for one in hashes])
    return [hmac.compare_digest(ours, theirs) for ours, theirs in zip(found, hashes, strict=True)]
