"""Keys, codes, identifiers and password hashes: the home of everything cryptographic.

HKDF is by hand, though `cryptography` has it: it is three calls of the stdlib's HMAC, held to the vectors of RFC 5869,
and a compiled dependency of 4 MB is out of proportion to that.
"""

import base64
import hmac
import re
import secrets
import unicodedata
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final
from uuid import UUID

import bcrypt
from uuid_utils.compat import uuid7

from regsvc.domain.values import EmailKey, Secret

SHA256_SIZE: Final = 32  # octets
SECRET_MIN: Final = 32  # octets of the one secret; fewer can be guessed, whatever is derived from them
ROUNDS_MIN: Final = 4  # bcrypt's own least
ROUNDS_MAX: Final = 16  # four seconds a hash: a stored hash that asks for more is taken for damage, not for a task
PLAIN_MAX: Final = 72  # octets; what every bcrypt before ours looked at
SCHEME: Final = "bcrypt-hmac-sha384"
_BCRYPT: Final = r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}"
_PLAIN: Final = re.compile(_BCRYPT, re.ASCII)
_TAGGED: Final = re.compile(rf"{SCHEME}\$([0-9a-f]{{8}})({_BCRYPT})", re.ASCII)
_COMMON: Final = Path(__file__).with_name("common_passwords.txt")


def hkdf(secret: bytes, info: bytes, *, salt: bytes = b"", size: int = SHA256_SIZE) -> bytes:
    """Return `size` octets derived from `secret` for the use that `info` names: HKDF-SHA-256, RFC 5869."""
    if size > 255 * SHA256_SIZE:
        raise ValueError("HKDF-SHA-256 yields at most 8160 octets")
    extracted = hmac.digest(salt or bytes(SHA256_SIZE), secret, "sha256")
    block, derived = b"", b""
    for number in range(1, -(-size // SHA256_SIZE) + 1):
        block = hmac.digest(extracted, block + info + bytes([number]), "sha256")
        derived += block
    return derived[:size]


@dataclass(frozen=True, slots=True)
class Keys:
    """What is derived from the one secret, a key for each use; `pepper_id` names the pepper in stored hashes."""

    pepper: bytes = field(repr=False)
    pepper_id: str
    codes: bytes = field(repr=False)
    addresses: bytes = field(repr=False)

    @classmethod
    def derive(cls, secret: Secret) -> "Keys":
        """Derive all keys. Raises ValueError for a secret under 32 octets."""
        text = secret.reveal().encode("utf-8", "surrogatepass")
        if len(text) < SECRET_MIN:
            raise ValueError(f"the secret has {len(text)} octets, and must have at least {SECRET_MIN}")
        return cls(
            pepper=hkdf(text, b"regsvc password pepper"),
            pepper_id=hkdf(text, b"regsvc password pepper id", size=4).hex(),
            codes=hkdf(text, b"regsvc code mac"),
            addresses=hkdf(text, b"regsvc address pseudonym"),
        )


@dataclass(frozen=True, slots=True)
class Crypto:
    """Implements `ports.Crypto`; with `pii` the operator allowed addresses in logs."""

    keys: Keys
    pii: bool = field(kw_only=True)

    def new_id(self) -> UUID:
        """Return a new UUID, version 7."""
        return uuid7()

    def new_code(self, digits: int) -> Secret:
        """Return a random code, every one as likely, leading zeros kept."""
        return Secret(f"{secrets.randbelow(10**digits):0{digits}}")

    def mac(self, subject: UUID, purpose: str, code: Secret) -> bytes:
        """Return HMAC-SHA-256 over subject, purpose and code; every part says how long it is, so none runs over."""
        parts = (subject.bytes, purpose.encode(), code.reveal().encode("utf-8", "surrogatepass"))
        return hmac.digest(self.keys.codes, b"".join(len(part).to_bytes(4, "big") + part for part in parts), "sha256")

    def pseudonym(self, key: EmailKey) -> str:
        """Return the name of an address in logs: 64 bits of a keyed hash, or the address itself where allowed."""
        if self.pii:
            return key
        return hmac.digest(self.keys.addresses, key.encode("utf-8", "surrogatepass"), "sha256")[:8].hex()


@dataclass(frozen=True, slots=True)
class Bcrypt:
    """Password hashes, stored as `bcrypt-hmac-sha384$<pepper id>$2b$<rounds>$…`.

    bcrypt looks at 72 octets and the package refuses more, so it is given base64(HMAC-SHA-384(pepper, NFKC(password))):
    64 octets, no NUL, all of the password in them, and worth nothing to whoever steals the table without the secret.
    Every call works for `rounds` rounds on the thread that makes it, and lets go of the GIL meanwhile.
    """

    keys: Keys
    rounds: int = field(kw_only=True)

    def __post_init__(self) -> None:
        if not ROUNDS_MIN <= self.rounds <= ROUNDS_MAX:
            raise ValueError(f"bcrypt takes {ROUNDS_MIN} to {ROUNDS_MAX} rounds here, not {self.rounds}")

    def hash(self, password: Secret) -> str:
        """Return a tagged hash to store."""
        made = bcrypt.hashpw(self._peppered(password), bcrypt.gensalt(self.rounds))
        return f"{SCHEME}${self.keys.pepper_id}{made.decode('ascii')}"

    def check(self, password: Secret, stored: str) -> bool:
        """Check a password; a hash that cannot be read, or is under another pepper, costs the same and is False.

        A bare bcrypt hash is one that was imported: it is checked as its system did, without normalisation and over
        the first 72 octets, so that a password that worked there for years works here.
        """
        if tagged := _TAGGED.fullmatch(stored):
            pepper_id, made, rounds = tagged.groups()
            readable = pepper_id == self.keys.pepper_id and int(rounds) <= ROUNDS_MAX
            known = made if readable else None
            octets = self._peppered(password)
        else:
            plain = _PLAIN.fullmatch(stored)
            known = stored if plain and int(plain[1]) <= ROUNDS_MAX else None
            octets = password.reveal().encode("utf-8", "surrogatepass")[:PLAIN_MAX]
        if known is not None:
            try:
                return bcrypt.checkpw(octets, known.encode("ascii"))
            except ValueError:  # looks like a hash, but bcrypt cannot decode its salt; it says so before it works
                pass
        self.waste()
        return False

    def waste(self) -> None:
        """Do the work of one check for nothing: an unknown user must cost what a known one does."""
        bcrypt.hashpw(bytes(64), bcrypt.gensalt(self.rounds))

    def _peppered(self, password: Secret) -> bytes:
        text = unicodedata.normalize("NFKC", password.reveal()).encode("utf-8", "surrogatepass")
        return base64.b64encode(hmac.digest(self.keys.pepper, text, "sha384"))


@cache
def common_passwords() -> frozenset[str]:
    """Return the passwords that everybody tries first, NFKC and casefolded, all of 8 characters or more.

    Read from a file at the first call (source, licence and how it is made are in its first lines); a few milliseconds.
    """
    _about, _, words = _COMMON.read_text("utf-8").partition("\n\n")
    return frozenset(words.splitlines())
