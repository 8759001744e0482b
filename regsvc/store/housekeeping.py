"""What the sweeper removes, in batches; each statement is a transaction of its own and waits for nobody."""

from dataclasses import dataclass
from typing import Final

from regsvc.domain.account import DAY, HOUR
from regsvc.ports import Swept
from regsvc.store.database import Database
from regsvc.store.sql import Statements

MAILBOX_KEPT: Final = 10_000  # mails; a development mailbox is for looking at the newest ones


@dataclass(frozen=True, slots=True)
class Housekeeping:
    """Tidies; implements ports.Housekeeping."""

    sql: Statements
    database: Database

    async def sweep(self, limit: int) -> Swept:
        """Remove up to `limit` expired rows of each kind; rows that others hold are passed over."""
        sql, pool = self.sql, self.database.pool
        registrations = int(await sql.value("sweep_registrations", pool, most=limit))
        codes = int(await sql.value("sweep_codes", pool, most=limit))
        addresses = int(await sql.value("sweep_addresses", pool, most=limit, failures_window=DAY, mails_window=HOUR))
        sent = int(await sql.value("sweep_sent", pool, most=limit))
        dead = int(await sql.value("sweep_dead", pool, most=limit))
        boxed = int(await sql.value("sweep_mailbox", pool, most=limit, kept=MAILBOX_KEPT))
        links = int(await sql.value("sweep_links", pool, most=limit))
        sessions = int(await sql.value("sweep_sessions", pool, most=limit))
        changes = int(await sql.value("sweep_email_changes", pool, most=limit))
        limits = int(await sql.value("sweep_limits", pool, most=limit))
        answers = int(await sql.value("sweep_answers", pool, most=limit))
        more = limit in {registrations, codes, addresses, sent, dead, boxed, links, sessions, changes, limits, answers}
        mails, ends = sent + dead + boxed, links + sessions + changes
        return Swept(registrations, codes, addresses, mails, ends, limits, answers, more)
