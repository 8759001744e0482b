"""Randomness, identifiers, and the keyed digests of short secrets."""

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from uuid_utils.compat import uuid7

from regsvc.adapters.crypto.keys import Keys
from regsvc.domain.values import EmailKey, Secret


@dataclass(frozen=True, slots=True)
class Crypto:
    """Implements `ports.Crypto`; with `pii` the operator allowed addresses in logs.

    What `previous` (the keys of SECRET_PREVIOUS) made is recognised, and nothing is made with it.
    """

    keys: Keys
    previous: Keys | None = None
    pii: bool = field(kw_only=True)

    def new_id(self) -> UUID:
        """Return a new UUID, version 7."""
        return uuid7()

    def new_code(self, digits: int) -> Secret:
        """Return a random code, every one as likely, leading zeros kept."""
        return Secret(f"{secrets.randbelow(10**digits):0{digits}}")

    def new_token(self) -> Secret:
        """Return 128 random bits as 32 hexadecimal digits."""
        return Secret(secrets.token_hex(16))

    def mac(self, subject: UUID, purpose: str, code: Secret) -> bytes:
        """Return HMAC-SHA-256 over subject, purpose and code, to be stored."""
        return _mac(self.keys, subject, purpose, code)

    def macs(self, subject: UUID, purpose: str, code: Secret) -> Sequence[bytes]:
        """Return the MACs that may be stored: under the secret, then under the previous one."""
        return [_mac(keys, subject, purpose, code) for keys in self._both()]

    def new_refresh(self) -> Secret:
        """Return a random refresh token of 256 bits: 43 characters of base64url."""
        return Secret(secrets.token_urlsafe(32))

    def successors(self, token: Secret) -> Sequence[Secret]:
        """Return the refresh token that follows `token`: HMAC-SHA-256 of it, as random to whoever lacks the key."""
        octets = _octets(token.reveal())
        made = [hmac.digest(keys.refreshes, octets, "sha256") for keys in self._both()]
        return [Secret(urlsafe_b64encode(one).rstrip(b"=").decode("ascii")) for one in made]

    def digest(self, token: Secret) -> bytes:
        """Return the SHA-256 of a token that is random itself: nobody can try all 2^256."""
        return hashlib.sha256(_octets(token.reveal())).digest()

    def pseudonym(self, key: EmailKey) -> str:
        """Return the name of an address in logs: 64 bits of a keyed hash, or the address itself where allowed."""
        if self.pii:
            return key
        return hmac.digest(self.keys.addresses, _octets(key), "sha256")[:8].hex()

    def hidden(self, text: str) -> str:
        """Return 128 bits of a keyed hash, whatever the log may say: what a bucket of an address is called."""
        return hmac.digest(self.keys.addresses, b"bucket\0" + _octets(text), "sha256")[:16].hex()

    def _both(self) -> Sequence[Keys]:
        return (self.keys,) if self.previous is None else (self.keys, self.previous)


def _mac(keys: Keys, subject: UUID, purpose: str, code: Secret) -> bytes:
    """Every part says how long it is, so none runs over into the next."""
    parts = (subject.bytes, purpose.encode(), _octets(code.reveal()))
    return hmac.digest(keys.codes, b"".join(len(part).to_bytes(4, "big") + part for part in parts), "sha256")


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
