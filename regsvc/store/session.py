"""Sessions with their refresh tokens, and accounts as they are seen without a lock.

A session's row is the lock of its whole chain; `sql/queries/session.sql` says in which order rows are locked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from regsvc.domain.session import Ending, Family, Link, Opened, Rotated, Session, User
from regsvc.domain.values import EmailKey
from regsvc.ports import Unavailable, Visit
from regsvc.store import database
from regsvc.store.profile import user_of
from regsvc.store.sql import Statements


@dataclass(frozen=True, slots=True)
class Sessions:
    """Sessions within a transaction; implements ports.Sessions."""

    sql: Statements
    session: database.Session

    async def devices(self, user: UUID, now: datetime) -> Mapping[str, int]:
        """Return the devices of all sessions of the user that are still known, to how many of them are alive."""
        rows = await self.sql.rows("devices", self.session, user=user, now=now)
        return {row["device"]: row["alive"] for row in rows}

    async def open(self, opened: Opened) -> None:
        """Store a session and its first link."""
        session, link = opened.session, opened.link
        await self.sql.none(
            "open_session",
            self.session,
            id=session.id,
            user=session.user_id,
            device=session.device,
            ip=session.ip,
            created_at=session.created_at,
            last_used_at=session.last_used_at,
            expires_at=session.expires_at,
            hash=link.digest,
            link_expires_at=link.expires_at,
        )

    async def load(self, digest: bytes) -> tuple[Family, datetime] | None:
        """Lock the session of a refresh token, then read all of it, then the clock; None for an unknown token."""
        await self.sql.none("lock_session", self.session, hash=digest)
        found = await self.sql.row("load_family", self.session, hash=digest)
        if found is None:
            return None
        link = Link(found["hash"], found["link_expires_at"], found["used_at"])
        successor = None
        if found["successor_hash"] is not None:
            successor = Link(found["successor_hash"], found["successor_expires_at"], found["successor_used_at"])
        return Family(user_of(found), session_of(found), link, successor), found["observed_at"]

    async def rotate(self, rotated: Rotated) -> None:
        """Write that a link was used, its successor, and the session's last use.

        Raises Unavailable where the link was used around the session's lock: nothing is written then.
        """
        session = await self.sql.value(
            "rotate",
            self.session,
            used=rotated.used.digest,
            used_at=rotated.used.used_at,
            hash=rotated.link.digest,
            expires_at=rotated.link.expires_at,
            last_used_at=rotated.session.last_used_at,
        )
        if session is None:
            raise Unavailable("transaction", "a refresh token changed around its session's lock")

    async def end(
        self, user: UUID, reason: Ending, now: datetime, *, only: UUID | None = None, but: UUID | None = None
    ) -> Sequence[UUID]:
        """End the user's sessions that are alive (or just `only`, or all `but` one); return which."""
        rows = await self.sql.rows(
            "end_sessions", self.session, user=user, reason=reason.value, now=now, only=only, but=but
        )
        return await self._without_links(rows)

    async def end_oldest(self, user: UUID, number: int, reason: Ending, now: datetime) -> Sequence[UUID]:
        """End so many of the user's sessions that are alive, those first that were opened first; return which."""
        rows = await self.sql.rows(
            "end_oldest_sessions", self.session, user=user, reason=reason.value, now=now, number=number
        )
        return await self._without_links(rows)

    async def _without_links(self, rows: Sequence[database.Row]) -> Sequence[UUID]:
        ended = [row["id"] for row in rows]
        if ended:
            await self.sql.none("drop_links", self.session, sessions=ended)
        return ended


@dataclass(frozen=True, slots=True)
class Members:
    """The accounts, read outside a transaction; implements ports.Members."""

    sql: Statements
    database: database.Database

    async def by_email(self, key: EmailKey) -> User | None:
        """Find an account by its address."""
        found = await self.sql.row("user_by_email", self.database.pool, email_key=key)
        return user_of(found) if found is not None else None

    async def by_username(self, key: str) -> User | None:
        """Find an account by its name."""
        found = await self.sql.row("user_by_username", self.database.pool, username_key=key)
        return user_of(found) if found is not None else None

    async def by_id(self, user: UUID) -> User | None:
        """Find an account."""
        found = await self.sql.row("user_by_id", self.database.pool, id=user)
        return user_of(found) if found is not None else None

    async def visit(self, session: UUID) -> Visit | None:
        """Read a session and its account in one statement; ended ones too."""
        found = await self.sql.row("visit", self.database.pool, session=session)
        return Visit(user_of(found), session_of(found), found["observed_at"]) if found is not None else None

    async def sessions(self, user: UUID) -> Sequence[Session]:
        """Return the sessions that are alive, the newest first."""
        return [session_of(row) for row in await self.sql.rows("sessions_alive", self.database.pool, user=user)]

    async def code_alive(self, subject: UUID, purpose: str, macs: Sequence[bytes]) -> bool:
        """Tell whether one of `macs` is the code of the subject, unused and alive."""
        alive = await self.sql.value(
            "code_alive", self.database.pool, subject=subject, purpose=purpose, macs=list(macs)
        )
        return bool(alive)


def session_of(row: database.Row) -> Session:
    """Read a session from a row that has its columns, with `session_` before those that an account has too."""
    return Session(
        id=row["session_id"],
        user_id=row["user_id"],
        device=row["device"],
        ip=row["ip"],
        created_at=row["session_created_at"],
        last_used_at=row["last_used_at"],
        expires_at=row["expires_at"],
        ended_at=row["ended_at"],
        end_reason=Ending(row["end_reason"]) if row["end_reason"] is not None else None,
    )
