"""The outbox as an operator works on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from regsvc.domain.delivery import NOT_AFTER
from regsvc.ports import MailRow, NoticeKind
from regsvc.store.database import Database, Row
from regsvc.store.sql import Statements


@dataclass(frozen=True, slots=True)
class MailDesk:
    """Lists, retries and discards mails; implements ports.MailDesk."""

    sql: Statements
    database: Database

    async def list(self, *, state: str | None, before: UUID | None, limit: int) -> Sequence[MailRow]:
        """List mails, newest first, from before the row `before`."""
        rows = await self.sql.rows("list_mails", self.database.pool, state=state, before=before, most=limit)
        return [_mail(row) for row in rows]

    async def show(self, mail: UUID) -> MailRow | None:
        """Return one."""
        found = await self.sql.row("show_mail", self.database.pool, id=mail)
        return _mail(found) if found is not None else None

    async def retry(self, mail: UUID) -> bool:
        """Make a dead mail ready again, with all its tries and a new `not_after`; False when it is not a dead one."""
        found = await self.sql.row(
            "retry_mail", self.database.pool, id=mail, life=NOT_AFTER, channel=NoticeKind.OUTBOX.value
        )
        return found is not None

    async def discard(self, mail: UUID) -> bool:
        """Delete a dead mail; False when it is not a dead one."""
        return await self.sql.row("discard_mail", self.database.pool, id=mail) is not None


def _mail(row: Row) -> MailRow:
    return MailRow(
        id=row["id"],
        letter=row["topic"],
        state=row["state"],
        subject=row["subject_id"],
        attempts=row["attempts"],
        created_at=row["created_at"],
        not_before=row["not_before"],
        not_after=row["not_after"],
        sent_at=row["sent_at"],
        last_error=row["last_error"],
        trace=row["trace"],
    )
