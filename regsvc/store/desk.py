"""The outbox as an operator works on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from regsvc.domain.delivery import Letter
from regsvc.ports import MailRow, NoticeKind
from regsvc.store.database import Row, Session
from regsvc.store.sql import Statements


@dataclass(frozen=True, slots=True)
class MailDesk:
    """Lists, retries and discards mails, within a transaction or without; implements ports.MailDesk."""

    sql: Statements
    session: Session

    async def list(self, *, state: str | None, before: UUID | None, limit: int) -> Sequence[MailRow]:
        """List mails, newest first, from before the row `before`."""
        rows = await self.sql.rows("list_mails", self.session, state=state, before=before, most=limit)
        return [_mail(row) for row in rows]

    async def show(self, mail: UUID) -> MailRow | None:
        """Return one."""
        found = await self.sql.row("show_mail", self.session, id=mail)
        return _mail(found) if found is not None else None

    async def retry(self, mail: UUID) -> bool:
        """Make a dead mail ready again, with all its tries and a new `not_after`; False when it is not a dead one.

        One whose letter this version does not know is not dead for it: it could not say how long that is good.
        """
        found = await self.sql.row(
            "retry_mail",
            self.session,
            id=mail,
            topics=[letter.value for letter in Letter],
            lives=[letter.not_after for letter in Letter],
            channel=NoticeKind.OUTBOX.value,
        )
        return found is not None

    async def discard(self, mail: UUID) -> bool:
        """Delete a dead mail; False when it is not a dead one."""
        return await self.sql.row("discard_mail", self.session, id=mail) is not None


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
