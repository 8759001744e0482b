"""The accounts and the audit trail as administrators see them, and the accounts that they make."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from regsvc.domain.refusals import Refusal
from regsvc.domain.session import Role, User
from regsvc.domain.staff import Entry, Sought
from regsvc.ports import Occurrence
from regsvc.store.database import Database, Row, Session
from regsvc.store.sql import Statements


@dataclass(frozen=True, slots=True)
class Roster:
    """Reads outside a transaction; implements ports.Roster."""

    sql: Statements
    database: Database

    async def list(
        self, *, pattern: str | None, sought: Sought | None, before: UUID | None, limit: int
    ) -> Sequence[Entry]:
        """List accounts, newest first, from before the one `before`; `pattern` (of LIKE) is of a key of theirs."""
        pool = self.database.pool
        if sought is Sought.PENDING:
            found = await self.sql.rows("list_registrations", pool, pattern=pattern, before=before, most=limit)
        else:
            found = await self.sql.rows(
                "list_users",
                pool,
                pattern=pattern,
                disabled={Sought.ACTIVE: False, Sought.DISABLED: True}.get(sought) if sought is not None else None,
                admins=sought is Sought.ADMIN,
                before=before,
                most=limit,
            )
        return [_entry(row) for row in found]

    async def show(self, who: UUID) -> Entry | None:
        """Return an account, or a registration that waits for its code."""
        found = await self.sql.row("show", self.database.pool, id=who)
        return _entry(found) if found is not None else None

    async def events(
        self, *, subject: UUID | None, name: str | None, before: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[Occurrence]:
        """List what happened, the newest first, from before a time and the id of an event of that time."""
        before_at, before_id = before or (None, None)
        rows = await self.sql.rows(
            "list_events",
            self.database.pool,
            subject=subject,
            name=name,
            before_at=before_at,
            before_id=before_id,
            most=limit,
        )
        return [_occurrence(row) for row in rows]


@dataclass(frozen=True, slots=True)
class Enrolment:
    """Makes accounts within a transaction that holds the address's lock; implements ports.Enrolment."""

    sql: Statements
    session: Session

    async def add(self, user: User) -> Refusal | None:
        """Store a new account; or nothing, and say why: USERNAME_TAKEN, USER_ALREADY_EXISTS."""
        name = user.username
        made = await self.sql.value(
            "insert_user",
            self.session,
            id=user.id,
            email=user.email,
            email_key=user.email_key,
            username=name.name if name is not None else None,
            username_key=name.key if name is not None else None,
            locale=user.locale.tag if user.locale is not None else None,
            password_hash=user.password_hash,
            role=user.role.value,
            created_at=user.created_at,
            activated_at=user.activated_at,
            updated_at=user.updated_at,
        )
        if made is not None:
            return None
        # A statement of its own: it sees the row that the one before waited for.
        if name is not None and await self.sql.value("username_taken", self.session, username_key=name.key):
            return Refusal.USERNAME_TAKEN
        return Refusal.USER_ALREADY_EXISTS


def _entry(row: Row) -> Entry:
    return Entry(
        id=row["id"],
        email=row["email"],
        username=row["username"],
        locale=row["locale"],
        role=Role(row["role"]),
        created_at=row["created_at"],
        activated_at=row["activated_at"],
        disabled_at=row["disabled_at"],
    )


def _occurrence(row: Row) -> Occurrence:
    return Occurrence(
        id=row["id"],
        at=row["at"],
        name=row["name"],
        actor=row["actor"],
        subject=row["subject_id"],
        ip=row["ip"],
        data=json.loads(row["data"]),
    )
