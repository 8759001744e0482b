"""Rate limits' buckets in PostgreSQL: every process that shares the database shares them.

The table is unlogged: a take costs no flush, and after a crash of the server all buckets are whole.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Final

import trio

from regsvc.domain.quota import Level, Take
from regsvc.ports import Unavailable
from regsvc.store.database import Database
from regsvc.store.sql import Statements

PATIENCE: Final = 0.25  # seconds; whoever asks would rather let a request pass than make it wait


@dataclass(frozen=True, slots=True)
class Quotas:
    """Buckets by the database's clock, read under each row's lock; implements ports.Quotas."""

    name: ClassVar[str] = "postgres"
    sql: Statements
    database: Database

    async def take(self, takes: Sequence[Take]) -> Sequence[Level]:
        """Take from each bucket by one statement; return the levels in the same order.

        Raises Unavailable("limits"), after a quarter of a second at the latest. Cancelled: nobody knows whether it
        counted.
        """
        with _in_time():
            rows = await self.sql.rows(
                "take",
                self.database.pool,
                buckets=[take.bucket for take in takes],
                costs=[take.policy.interval for take in takes],
                spans=[take.policy.span for take in takes],
            )
        found = {row["bucket"]: row for row in rows}
        levels = ((take.policy, found[take.bucket]) for take in takes)
        return [Level(policy, allowed=row["allowed"], debt=row["debt"]) for policy, row in levels]

    async def give_back(self, takes: Sequence[Take]) -> None:
        """Undo allowed takes by one statement. Raises Unavailable("limits"), as soon as `take` does."""
        with _in_time():
            await self.sql.none(
                "give_back",
                self.database.pool,
                buckets=[take.bucket for take in takes],
                costs=[take.policy.interval for take in takes],
            )


@contextmanager
def _in_time() -> Iterator[None]:
    """Raise Unavailable("limits") where the block takes longer, or the database is away."""
    try:
        with trio.fail_after(PATIENCE):
            yield
    except trio.TooSlowError:
        raise Unavailable("limits", f"no answer within {PATIENCE:g} s") from None
    except Unavailable as away:
        raise Unavailable("limits", away.why) from away
