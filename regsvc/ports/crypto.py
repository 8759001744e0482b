"""What everybody asks of cryptography."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from regsvc.domain.session import User
from regsvc.domain.values import EmailKey, Secret


class Passwords(Protocol):
    """Slow hashing, done elsewhere. Raises Unavailable("hasher") at once when it could not be done in time.

    `client` is who asks: each client gets its turn, however many others' jobs wait. None is a client too.
    """

    def announced(self, client: str | None = None) -> AbstractContextManager[None]:
        """Announce a call for the end of the block; refuse it now if it would be refused then.

        For what has to be looked up first: under load a no costs nothing but itself, and many who ask at the same
        moment are told before all have been looked up. The call itself comes after the block, and may yet be refused.
        """
        ...

    async def hash(self, password: Secret, client: str | None = None) -> str:
        """Return a tagged hash to store."""
        ...

    async def check(self, password: Secret, stored: Sequence[str], client: str | None = None) -> Sequence[bool]:
        """Check against each stored hash; with none, or with an unreadable one, the same work is done for nothing."""
        ...

    def outdated(self, stored: str) -> bool:
        """Tell whether a stored hash that was right should be made anew: another scheme, cost or pepper. Quick."""
        ...


class Crypto(Protocol):
    """Randomness, identifiers, and the keyed digests of short secrets."""

    def new_id(self) -> UUID:
        """Return a new UUID, version 7."""
        ...

    def new_code(self, digits: int) -> Secret:
        """Return a random code, every one as likely, leading zeros kept."""
        ...

    def new_token(self) -> Secret:
        """Return 128 random bits as 32 hexadecimal digits: what a reset token proves with."""
        ...

    def mac(self, subject: UUID, purpose: str, code: Secret) -> bytes:
        """Return HMAC-SHA-256(pepper, subject | purpose | code), to be stored."""
        ...

    def macs(self, subject: UUID, purpose: str, code: Secret) -> Sequence[bytes]:
        """Return what `mac` returns now and what it returned under the previous secret, to compare with."""
        ...

    def new_refresh(self) -> Secret:
        """Return a random refresh token of 256 bits, the first of a session: 43 characters of base64url."""
        ...

    def successors(self, token: Secret) -> Sequence[Secret]:
        """Return the refresh token that follows `token`: under the secret, then under the previous one.

        A keyed digest of it, so that whoever shows `token` again within the grace gets the very same one, while only
        digests are stored.
        """
        ...

    def digest(self, token: Secret) -> bytes:
        """Return the SHA-256 of a token that is random itself: what is stored of it."""
        ...

    def pseudonym(self, key: EmailKey) -> str:
        """Return the name of an address in logs: a keyed hash, or the address itself where the operator allowed it."""
        ...


@dataclass(frozen=True, slots=True)
class Access:
    """What an access token says, its signature being right; whether it is still good decides the database."""

    user_id: UUID
    session_id: UUID
    expires_at: datetime


class Tokens(Protocol):
    """Access tokens."""

    @property
    def lifetime(self) -> timedelta:
        """How long one is good."""
        ...

    def issue(self, user: User, session: UUID, now: datetime) -> Secret:
        """Return an access token, good from `now` (the database's clock) for `lifetime`."""
        ...

    async def read(self, token: str) -> Access | None:
        """Read one; None for everything that no key of ours signed as an access token of ours. Never raises for it.

        A key that is not known yet is asked for once, so that another process's newest key is good here at once.
        Raises Unavailable only where that is impossible.
        """
        ...

    def public(self) -> Mapping[str, object]:
        """Return the public keys as a JWK set (RFC 7517)."""
        ...


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A signing key as it is stored; `public` is its JWK, `sealed` its private part."""

    kid: str
    algorithm: str
    public: Mapping[str, str]
    sealed: bytes
    created_at: datetime
    not_before: datetime
    retired_at: datetime | None


class KeyShelf(Protocol):
    """Where the signing keys lie. Times are the database's."""

    async def list(self) -> tuple[Sequence[SigningKey], datetime]:
        """Return all keys, the newest first (by `not_before`), and the clock."""
        ...

    async def first(self, kid: str, algorithm: str, public: Mapping[str, str], sealed: bytes) -> bool:
        """Store a key, good from now, unless there is one of that algorithm that is not retired; tell whether it was.

        Of several processes that do this at once, one stores its key.
        """
        ...

    async def rotate(
        self,
        kid: str,
        algorithm: str,
        public: Mapping[str, str],
        sealed: bytes,
        *,
        lead: timedelta,
        overlap: timedelta,
    ) -> datetime:
        """Store a key that signs from now + `lead` on; return when that is. Every other one retires `overlap` later.

        Tells the other processes (NoticeKind.KEYS) at the commit.
        """
        ...

    async def reseal(self, kid: str, sealed: bytes) -> None:
        """Replace the sealed part of a key."""
        ...

    async def prune(self) -> int:
        """Delete keys that retired more than a day ago; return how many."""
        ...
