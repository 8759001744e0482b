"""What is derived from the one secret, a key for each use."""

from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from regsvc.domain.values import Secret

SECRET_MIN: Final = 32  # octets of the one secret; fewer can be guessed, whatever is derived from them


def hkdf(secret: bytes, info: bytes, *, salt: bytes = b"", size: int = 32) -> bytes:
    """Return `size` octets derived from `secret` for the use that `info` names: HKDF-SHA-256, RFC 5869."""
    return HKDF(algorithm=SHA256(), length=size, salt=salt, info=info).derive(secret)


@dataclass(frozen=True, slots=True)
class Keys:
    """What is derived from one secret; `pepper_id` names the pepper in stored hashes."""

    pepper: bytes = field(repr=False)
    pepper_id: str
    codes: bytes = field(repr=False)
    addresses: bytes = field(repr=False)
    refreshes: bytes = field(repr=False)
    seal: bytes = field(repr=False)
    receipts: bytes = field(repr=False)

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
            refreshes=hkdf(text, b"regsvc refresh successor"),
            seal=hkdf(text, b"regsvc signing key seal"),
            receipts=hkdf(text, b"regsvc receipt"),
        )
