"""Access tokens: JWTs (RFC 7519) of the kind that RFC 9068 calls `at+jwt`, under the rules of RFC 8725.

The signatures are PyJWT's: its `PyJWS` is asked for no more than that, and the claims are read here, strictly and
without a clock. joserfc is as fast (60 µs to sign and 160 µs to verify, where PyJWT takes 50 and 165, nearly all of it
Ed25519 itself), but warns at each call that the name EdDSA is deprecated (RFC 9864); clients still know that name best.

Rule 1. The key decides the algorithm. The header has to name the key, that algorithm, our type, and nothing else.
Rule 2. What is not written exactly as we write it is not ours: no claim is converted, no padding forgiven.
Rule 3. Whether a token is over decides the database's clock, so `exp` is compared with nothing here.
"""

import hashlib
import json
import re
from base64 import urlsafe_b64decode
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn
from uuid import UUID

from jwt import InvalidTokenError, PyJWS

from regsvc.adapters.crypto.keyring import Keyring
from regsvc.adapters.crypto.seal import Key, Material
from regsvc.domain.session import User
from regsvc.domain.values import Secret
from regsvc.ports import Access

TOKEN_MAX: Final = 4096  # octets; ours have about 600
REMEMBERED: Final = 4096  # tokens whose signature was right, about 2 MB; saves 0.2 ms of each further request
TYPE: Final = "at+jwt"
_LATEST: Final = 253_402_300_799  # the last second of the year 9999, and of datetime
# A signature's last character holds four (Ed25519) or two (HMAC-SHA-256) bits that mean nothing: they have to be zero,
# or one token would have several texts.
_TOKEN: Final = re.compile(
    r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.(?:[A-Za-z0-9_-]{85}[AQgw]|[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048])"
)
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_HEADER: Final = {"alg", "kid", "typ"}


class Tokens:
    """Implements `ports.Tokens` over a keyring."""

    def __init__(
        self, ring: Keyring, *, new_id: Callable[[], UUID], issuer: str, audience: str, lifetime: timedelta
    ) -> None:
        self._ring = ring
        self._new_id = new_id
        self._issuer = issuer
        self._audience = audience
        self._lifetime = lifetime
        self._jws = PyJWS(algorithms=["EdDSA", "HS256"])
        # By the SHA-256 of the whole text, so that no token lies about; each with the material that verified it.
        self._seen: OrderedDict[bytes, tuple[str, Material, Access]] = OrderedDict()

    @property
    def lifetime(self) -> timedelta:
        """How long one is good."""
        return self._lifetime

    def issue(self, user: User, session: UUID, now: datetime) -> Secret:
        """Return an access token; its times are whole seconds. Raises Unavailable where no key can be read."""
        key = self._ring.signing()
        issued = int(now.timestamp())
        claims = {
            "sub": str(user.id),
            "user_id": str(user.id),
            "sid": str(session),
            "email": user.email,
            "iss": self._issuer,
            "aud": self._audience,
            "iat": issued,
            "exp": issued + int(self._lifetime.total_seconds()),
            "jti": str(self._new_id()),
        }
        payload = json.dumps(claims, separators=(",", ":")).encode("ascii")
        header = {"kid": key.kid, "typ": TYPE}
        return Secret(self._jws.encode(payload, key.material.signs, key.material.algorithm, header))

    async def read(self, token: str) -> Access | None:
        """Read one; None for whatever we did not sign as an access token. Raises Unavailable, see `Keyring.find`."""
        if len(token) > TOKEN_MAX or (parts := _TOKEN.fullmatch(token)) is None:
            return None
        mark = hashlib.sha256(token.encode("ascii")).digest()
        if (access := self._recall(mark)) is not None:
            return access
        header = _object(parts[1])
        kid = header.get("kid") if header is not None else None
        if header is None or header.keys() != _HEADER or header["typ"] != TYPE or not isinstance(kid, str):
            return None
        key = await self._ring.find(kid)
        if key is None or header["alg"] != key.material.algorithm or not self._signed(token, key):
            return None
        access = self._access(_object(parts[2]))
        if access is not None:
            self._seen[mark] = kid, key.material, access
            if len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)
        return access

    def public(self) -> Mapping[str, object]:
        """Return the public keys as a JWK set (RFC 7517)."""
        return self._ring.public()

    def _recall(self, mark: bytes) -> Access | None:
        """Return what a token said whose signature was right, as long as the same key would verify it."""
        seen = self._seen.get(mark)
        if seen is None:
            return None
        kid, material, access = seen
        key = self._ring.verifying(kid)
        if key is None or key.material is not material:
            del self._seen[mark]
            return None
        self._seen.move_to_end(mark)
        return access

    def _signed(self, token: str, key: Key) -> bool:
        try:
            self._jws.decode_complete(token, key.material.verifies, algorithms=[key.material.algorithm])
        except InvalidTokenError:
            return False
        return True

    def _access(self, claims: Mapping[str, Any] | None) -> Access | None:
        """Read the claims, each exactly as we write it."""
        if claims is None or (claims.get("iss"), claims.get("aud")) != (self._issuer, self._audience):
            return None
        user, session = _uuid(claims.get("sub")), _uuid(claims.get("sid"))
        issued, expires = _moment(claims.get("iat")), _moment(claims.get("exp"))
        if user is None or session is None or issued is None or expires is None or issued > expires:
            return None
        return Access(user, session, expires) if claims.get("user_id") == claims["sub"] else None


def _object(part: str) -> dict[str, Any] | None:
    """Read a part as a JSON object in UTF-8 with each member once; None for anything else."""
    try:
        text = urlsafe_b64decode(part + "=" * (-len(part) % 4)).decode("utf-8")
        found = json.loads(text, object_pairs_hook=_once, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a member stands twice")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _uuid(value: object) -> UUID | None:
    return UUID(value) if isinstance(value, str) and _UUID.fullmatch(value) else None


def _moment(value: object) -> datetime | None:
    """Read a NumericDate of whole seconds; True is an int to Python, and not to us."""
    if type(value) is not int or not 0 <= value <= _LATEST:
        return None
    return datetime.fromtimestamp(value, UTC)
