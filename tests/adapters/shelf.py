"""A KeyShelf in memory, on Trio's clock, and what the tests of keys and tokens make with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import trio

from regsvc.adapters.crypto import Algorithm, Keyring, Keys, Tokens
from regsvc.domain.session import User
from regsvc.domain.values import EmailKey, Secret
from regsvc.ports import SigningKey, Unavailable

START = datetime(2026, 11, 20, 11, tzinfo=UTC)
DAY = timedelta(days=1)
LIFETIME = timedelta(minutes=30)
KEYS = Keys.derive(Secret("k" * 32))
OTHERS = Keys.derive(Secret("o" * 32))
ISSUER = "https://accounts.test"
ADA = User(
    id=UUID("0192f6c8-4b7e-7c3a-9a53-1d0f2c9e8b11"),
    email="ada@example.org",
    email_key=EmailKey("ada@example.org"),
    password_hash="!",
    created_at=START,
    activated_at=START,
    updated_at=START,
)
SESSION = UUID("0192f6c8-4b7e-7c3a-9a53-1d0f2c9e8b12")


@dataclass
class Shelf:
    """Where the keys lie; `away` makes each call fail, `rival` stores his key just before ours."""

    rows: dict[str, SigningKey] = field(default_factory=dict)
    away: bool = False
    listed: int = 0
    resealed: list[str] = field(default_factory=list)
    rival: SigningKey | None = None
    ahead: timedelta = timedelta(0)  # how much the database's clock has jumped

    def now(self) -> datetime:
        return START + timedelta(seconds=trio.current_time()) + self.ahead

    async def list(self) -> tuple[Sequence[SigningKey], datetime]:
        self.listed += 1
        await self._call()
        return sorted(self.rows.values(), key=lambda row: row.not_before, reverse=True), self.now()

    async def first(self, kid: str, algorithm: str, public: Mapping[str, str], sealed: bytes) -> bool:
        await self._call()
        if self.rival is not None:
            self.rows[self.rival.kid] = self.rival
        if any(row.algorithm == algorithm and row.retired_at is None for row in self.rows.values()):
            return False
        self.rows[kid] = SigningKey(kid, algorithm, public, sealed, self.now(), self.now(), None)
        return True

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
        await self._call()
        signs_from = self.now() + lead
        for row in self.rows.values():
            self.change(row.kid, retired_at=row.retired_at or signs_from + overlap)
        self.rows[kid] = SigningKey(kid, algorithm, public, sealed, self.now(), signs_from, None)
        return signs_from

    async def reseal(self, kid: str, sealed: bytes) -> None:
        await self._call()
        self.resealed.append(kid)
        self.change(kid, sealed=sealed)

    async def prune(self) -> int:
        await self._call()
        gone = [row.kid for row in self.rows.values() if row.retired_at and row.retired_at + DAY <= self.now()]
        for kid in gone:
            del self.rows[kid]
        return len(gone)

    def change(self, kid: str, **changed: object) -> None:
        self.rows[kid] = replace(self.rows[kid], **changed)  # type: ignore[arg-type]  # as the test says

    async def _call(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise Unavailable("database", "it is not there")


def ring_on(
    shelf: Shelf, keys: Keys = KEYS, previous: Keys | None = None, *, algorithm: Algorithm = "EdDSA"
) -> Keyring:
    """Return a process's ring, not loaded yet."""
    return Keyring(shelf, keys, previous, algorithm=algorithm, lifetime=LIFETIME)


def tokens_of(ring: Keyring, *, issuer: str = ISSUER, audience: str = "regsvc") -> Tokens:
    """Return the tokens of a ring."""
    return Tokens(ring, new_id=lambda: UUID(int=7), issuer=issuer, audience=audience, lifetime=LIFETIME)
