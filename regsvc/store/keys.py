"""Where the signing keys lie, their private parts sealed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from regsvc.ports import NoticeKind, SigningKey
from regsvc.store.database import Database, Row
from regsvc.store.sql import Statements

LOCK: Final = 0x7265_6773_6B65_7973  # "regskeys": an advisory lock's key is any number that others do not use


@dataclass(frozen=True, slots=True)
class KeyShelf:
    """Stores signing keys; implements ports.KeyShelf. Whoever makes one holds the advisory lock, for the table may be
    empty, and then has no row to hold."""

    sql: Statements
    database: Database

    async def list(self) -> tuple[Sequence[SigningKey], datetime]:
        """Return all keys, the newest first (by `not_before`), and the clock."""
        rows = await self.sql.rows("list_keys", self.database.pool)
        return [_key(row) for row in rows if row["kid"] is not None], rows[0]["observed_at"]

    async def first(self, kid: str, algorithm: str, public: Mapping[str, str], sealed: bytes) -> bool:
        """Store a key, good from now, unless there is one of that algorithm that is not retired; tell whether it was.

        Of several processes that do this at once, one stores its key.
        """
        async with self.database.transaction() as session:
            await self.sql.none("lock_keys", session, key=LOCK)
            stored = await self.sql.value(
                "first_key", session, kid=kid, algorithm=algorithm, public=json.dumps(dict(public)), sealed=sealed
            )
        return stored is not None

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

        Tells all processes (NoticeKind.KEYS) at the commit, this one too: it has to read them anew as well.
        """
        async with self.database.transaction() as session:
            await self.sql.none("lock_keys", session, key=LOCK)
            signs_from: datetime = await self.sql.value(
                "rotate_key",
                session,
                kid=kid,
                algorithm=algorithm,
                public=json.dumps(dict(public)),
                sealed=sealed,
                lead=lead,
                overlap=overlap,
                channel=NoticeKind.KEYS.value,
            )
        return signs_from

    async def reseal(self, kid: str, sealed: bytes) -> None:
        """Replace the sealed part of a key."""
        await self.sql.none("reseal_key", self.database.pool, kid=kid, sealed=sealed)

    async def prune(self) -> int:
        """Delete keys that retired more than a day ago; return how many."""
        return int(await self.sql.value("prune_keys", self.database.pool))


def _key(row: Row) -> SigningKey:
    return SigningKey(
        kid=row["kid"],
        algorithm=row["algorithm"],
        public=json.loads(row["public"]),
        sealed=row["sealed_private"],
        created_at=row["created_at"],
        not_before=row["not_before"],
        retired_at=row["retired_at"],
    )
