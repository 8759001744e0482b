"""What the sweeper removes, in batches; each statement is a transaction of its own and waits for nobody.

The months of the audit trail are made and dropped by two functions of the database, which look again under a lock of
theirs, so any number of sweepers may do it at once.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, assert_never

from regsvc.domain.account import DAY, HOUR
from regsvc.ports import EVERYTHING, Heap, Partitioned, Swept
from regsvc.store.database import Database
from regsvc.store.sql import Statements

MAILBOX_KEPT: Final = 10_000  # mails; a development mailbox is for looking at the newest ones
AHEAD: Final = 2  # months of the audit trail beyond this one that have their partition
FALLEN_MAX: Final = 20_000  # rows moved out of the default partition at once: it is locked for 0.2 s


@dataclass(frozen=True, slots=True)
class Housekeeping:
    """Tidies; implements ports.Housekeeping. `events_kept`: how long the audit trail is."""

    sql: Statements
    database: Database
    events_kept: timedelta

    async def turn(self, idle: timedelta) -> bool:
        """Tell whether it is the caller's turn: for so long no process of any machine took it. Zero: it takes it."""
        return bool(await self.sql.value("turn", self.database.pool, name="sweep", idle=idle))

    async def sweep(self, limit: int, heaps: frozenset[Heap] = EVERYTHING) -> Swept:
        """Remove up to `limit` expired rows from each heap; rows that others hold are passed over."""
        gone = {heap: await self._sweep(heap, limit) for heap in Heap if heap in heaps}
        took = gone.get
        return Swept(
            registrations=took(Heap.REGISTRATIONS, 0),
            codes=took(Heap.CODES, 0),
            addresses=took(Heap.ADDRESSES, 0),
            mails=took(Heap.SENT, 0) + took(Heap.DEAD, 0) + took(Heap.MAILBOX, 0),
            sessions=took(Heap.LINKS, 0) + took(Heap.SESSIONS, 0) + took(Heap.EMAIL_CHANGES, 0),
            limits=took(Heap.LIMITS, 0),
            answers=took(Heap.ANSWERS, 0),
            events=took(Heap.EVENTS, 0),
            more=frozenset(heap for heap, rows in gone.items() if rows == limit),
        )

    async def _sweep(self, heap: Heap, limit: int) -> int:  # noqa: C901, PLR0911, PLR0912 - a table
        sql, pool = self.sql, self.database.pool
        match heap:
            case Heap.REGISTRATIONS:
                return int(await sql.value("sweep_registrations", pool, most=limit))
            case Heap.CODES:
                return int(await sql.value("sweep_codes", pool, most=limit))
            case Heap.ADDRESSES:
                windows = {"failures_window": DAY, "mails_window": HOUR}
                return int(await sql.value("sweep_addresses", pool, most=limit, **windows))
            case Heap.SENT:
                return int(await sql.value("sweep_sent", pool, most=limit))
            case Heap.DEAD:
                return int(await sql.value("sweep_dead", pool, most=limit))
            case Heap.MAILBOX:
                return int(await sql.value("sweep_mailbox", pool, most=limit, kept=MAILBOX_KEPT))
            case Heap.LINKS:
                return int(await sql.value("sweep_links", pool, most=limit))
            case Heap.SESSIONS:
                return int(await sql.value("sweep_sessions", pool, most=limit))
            case Heap.EMAIL_CHANGES:
                return int(await sql.value("sweep_email_changes", pool, most=limit))
            case Heap.LIMITS:
                return int(await sql.value("sweep_limits", pool, most=limit))
            case Heap.ANSWERS:
                return int(await sql.value("sweep_answers", pool, most=limit))
            case Heap.EVENTS:
                return int(await sql.value("sweep_events", pool, most=limit, kept=self.events_kept))
            case _:
                assert_never(heap)

    async def lag(self) -> timedelta:
        """Return for how long the oldest row that should be gone has been waiting for it; cheap."""
        return timedelta(seconds=await self.sql.value("lag", self.database.pool, kept=self.events_kept))

    async def partition(self) -> Partitioned:
        """Make the coming months' partitions of the audit trail, and drop those that are kept no longer.

        Each in a transaction of its own, so that no lock is held longer than its own work takes.
        """
        made, dropped, kept = dict[str, int](), list[str](), self.events_kept
        for row in await self.sql.rows("months_lacking", self.database.pool, ahead=AHEAD, kept=kept):
            async with self.database.transaction() as session:
                moved = await self.sql.value("make_partition", session, month=row["month"], most=FALLEN_MAX)
            if moved is not None:
                made[f"{row['month']:%Y-%m}"] = moved
        for row in await self.sql.rows("partitions_over", self.database.pool, kept=kept):
            async with self.database.transaction() as session:
                if await self.sql.value("drop_partition", session, partition=row["partition"], kept=kept):
                    dropped.append(row["partition"])
        return Partitioned(tuple(made), sum(made.values()), tuple(dropped))
