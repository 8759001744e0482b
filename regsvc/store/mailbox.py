"""The development mailbox: mails kept in the database, so that every process shows the same ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from regsvc.ports import BoxedMail
from regsvc.store.database import Database, Row
from regsvc.store.sql import Statements


@dataclass(frozen=True, slots=True)
class Mailbox:
    """Keeps mails; implements ports.Mailbox. Newest first is by id: `new_id` returns UUIDs of version 7."""

    sql: Statements
    database: Database
    new_id: Callable[[], UUID]

    async def put(self, *, sender: str, to: str, subject: str, text: str, html: str, raw: bytes) -> None:
        """Keep a mail."""
        await self.sql.none(
            "put_mail",
            self.database.pool,
            id=self.new_id(),
            sender=sender,
            recipient=to,
            subject=subject,
            body_text=text,
            body_html=html,
            raw=raw,
        )

    async def list(self, *, to: str | None, start: int, limit: int) -> tuple[int, Sequence[BoxedMail]]:
        """Return how many there are, and those from `start` on, newest first; `to` matches an address in any case."""
        total = int(await self.sql.value("count_mails", self.database.pool, recipient=to))
        rows = await self.sql.rows("list_mails", self.database.pool, recipient=to, start=start, most=limit)
        return total, [_mail(row) for row in rows]

    async def show(self, mail: UUID) -> BoxedMail | None:
        """Return one."""
        found = await self.sql.row("show_mail", self.database.pool, id=mail)
        return _mail(found) if found is not None else None

    async def remove(self, mail: UUID) -> bool:
        """Delete one; False when there is none of that id."""
        return await self.sql.row("remove_mail", self.database.pool, id=mail) is not None

    async def clear(self) -> int:
        """Delete all; return how many."""
        return int(await self.sql.value("clear", self.database.pool))


def _mail(row: Row) -> BoxedMail:
    return BoxedMail(
        id=row["id"],
        at=row["at"],
        sender=row["sender"],
        to=row["recipient"],
        subject=row["subject"],
        text=row["body_text"],
        html=row["body_html"],
        raw=row["raw"],
    )
