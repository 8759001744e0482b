"""What is stored of requests with an Idempotency-Key: keyed digests, and answers under a key of each request's own.

The secret alone opens no answer, and says of no password in a body whether it is right: for both one needs the client's
key too, which is stored nowhere. So the table is worth nothing even to a thief of the secret, if keys are random.
"""

import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from regsvc.adapters.crypto.keys import Keys
from regsvc.ports import Slot

_NONCE: Final = 12  # octets; AES-GCM's


@dataclass(frozen=True, slots=True)
class Seals:
    """Implements `ports.Seals`; what `previous` (the keys of SECRET_PREVIOUS) sealed is opened too."""

    keys: Keys
    previous: Keys | None = None

    def slots(self, route: str, credentials: bytes, key: str, content: bytes) -> Sequence[Slot]:
        """Return the slot of a request under the secret, then under the previous one, where there is one."""
        place = (route.encode(), credentials, key.encode())
        return [
            Slot(
                _digest(keys, b"place", *place),
                _digest(keys, b"content", *place, content),
                _digest(keys, b"key", *place, content),
            )
            for keys in (self.keys, self.previous)
            if keys is not None
        ]

    def close(self, slot: Slot, answer: bytes) -> bytes:
        """Seal an answer: a nonce, then AES-256-GCM."""
        nonce = secrets.token_bytes(_NONCE)
        return nonce + AESGCM(slot.key).encrypt(nonce, answer, slot.place)

    def open(self, slots: Sequence[Slot], sealed: bytes) -> bytes:
        """Open an answer by one of the slots. Raises ValueError for what none of them sealed."""
        for slot in slots:
            try:
                return AESGCM(slot.key).decrypt(sealed[:_NONCE], sealed[_NONCE:], slot.place)
            except (InvalidTag, ValueError):  # ValueError: too short to be anything
                continue
        raise ValueError("an answer was not sealed for the request that asks for it")


def _digest(keys: Keys, use: bytes, *parts: bytes) -> bytes:
    """Every part says how long it is, so none runs over into the next."""
    whole = b"".join(len(part).to_bytes(4, "big") + part for part in (use, *parts))
    return hmac.digest(keys.receipts, whole, "sha256")
