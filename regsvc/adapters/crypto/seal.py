"""Signing keys, and the seal under which their private parts are stored.

Rule 1. What a key verifies with is derived from its sealed private part, never taken from the public part beside it:
        who can write to the table, but lacks the secret, has no way to slip in a key of his own.
Rule 2. A key is bound to its name and its algorithm by the seal, and signs and verifies by that algorithm only.
"""

import hashlib
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from regsvc.adapters.crypto.keys import Keys
from regsvc.ports import SigningKey

Algorithm = Literal["EdDSA", "HS256"]

_SEALED: Final = b"\x01"  # the form of what follows: 12 octets of nonce, then AES-256-GCM
_NONCE: Final = 12
_SIZES: Final[Mapping[Algorithm, int]] = {"EdDSA": 32, "HS256": 64}  # octets of a private part
_ALGORITHMS: Final[Mapping[str, Algorithm]] = {name: name for name in _SIZES}


@dataclass(frozen=True, slots=True)
class Material:
    """What signs and what verifies; for HS256 both are the same octets, and nothing is public."""

    algorithm: Algorithm
    mark: bytes = field(repr=False)  # tells private parts apart without being one
    signs: Ed25519PrivateKey | bytes = field(repr=False, compare=False)
    verifies: Ed25519PublicKey | bytes = field(repr=False, compare=False)
    public: Mapping[str, str] = field(compare=False)

    @classmethod
    def read(cls, algorithm: Algorithm, private: bytes) -> "Material":
        """Read a private part."""
        mark = hashlib.sha256(private).digest()
        if algorithm == "HS256":
            return cls(algorithm, mark, private, private, {})
        signs = Ed25519PrivateKey.from_private_bytes(private)
        verifies = signs.public_key()
        x = urlsafe_b64encode(verifies.public_bytes_raw()).rstrip(b"=").decode("ascii")
        return cls(algorithm, mark, signs, verifies, {"kty": "OKP", "crv": "Ed25519", "x": x})  # RFC 8037


@dataclass(frozen=True, slots=True)
class Key:
    """A key that was opened."""

    kid: str
    material: Material
    not_before: datetime
    retired_at: datetime | None


@dataclass(frozen=True, slots=True)
class Seal:
    """Closes private parts under the secret, and opens what was closed under it or under the previous one."""

    keys: Keys
    previous: Keys | None

    def new(self, algorithm: Algorithm) -> tuple[str, Mapping[str, str], bytes]:
        """Make a key; return its name, its public part, and its private part sealed."""
        kid, private = secrets.token_hex(8), secrets.token_bytes(_SIZES[algorithm])
        return kid, Material.read(algorithm, private).public, self._close(kid, algorithm, private)

    def opened(self, row: SigningKey) -> Key | None:
        """Open a key; None for one that is sealed under neither secret, or is no key."""
        private = _unsealed(self.keys, row)
        if private is None and self.previous is not None:
            private = _unsealed(self.previous, row)
        algorithm = _ALGORITHMS.get(row.algorithm)
        if private is None or algorithm is None or len(private) != _SIZES[algorithm]:
            return None
        return Key(row.kid, Material.read(algorithm, private), row.not_before, row.retired_at)

    def renewed(self, row: SigningKey) -> bytes | None:
        """Return a private part that was sealed under the previous secret, sealed under this one; else None."""
        if self.previous is None or _unsealed(self.keys, row) is not None:
            return None
        private = _unsealed(self.previous, row)
        return None if private is None else self._close(row.kid, row.algorithm, private)

    def _close(self, kid: str, algorithm: str, private: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE)
        return _SEALED + nonce + AESGCM(self.keys.seal).encrypt(nonce, private, _bound(kid, algorithm))


def _unsealed(keys: Keys, row: SigningKey) -> bytes | None:
    if not row.sealed.startswith(_SEALED):
        return None
    nonce, closed = row.sealed[1 : 1 + _NONCE], row.sealed[1 + _NONCE :]
    try:
        return AESGCM(keys.seal).decrypt(nonce, closed, _bound(row.kid, row.algorithm))
    except (InvalidTag, ValueError):  # ValueError: too short to be anything
        return None


def _bound(kid: str, algorithm: str) -> bytes:
    return f"{algorithm} {kid}".encode()


def retired(key: Key | SigningKey, now: datetime) -> bool:
    """Tell whether what it signed is worth nothing any more."""
    return key.retired_at is not None and key.retired_at <= now
