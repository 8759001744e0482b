"""Migrations: forward only, each in a transaction of its own, recorded with its checksum. By hand: it is a page.

Rule 1. Any number of processes may migrate at once: each step is taken under one advisory lock, and looks again.
Rule 2. The lock is the transaction's, not the session's (that works behind a pooler), and it is polled: who waits for a
        lock holds a snapshot, and CREATE INDEX CONCURRENTLY waits for snapshots.
Rule 3. What was applied is never changed: another checksum, a gap, or a version that is not shipped here stops all.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Final

import trio

from regsvc.domain.values import Secret
from regsvc.ports import Unavailable
from regsvc.store.database import Row, ScriptError, Session, open_dedicated, run_script, transaction
from regsvc.store.sql import Statements, folder, read_queries
from regsvc.trio_asyncpg import Connection

LOCK: Final = 0x7265_6773_7663  # "regsvc": an advisory lock's key is any number that others do not use
LOCK_WAIT: Final = timedelta(seconds=5)  # for a table: a migration that waits makes everybody else wait behind it
POLL: Final = 0.1  # seconds between two tries to get the lock
PATIENCE: Final = timedelta(minutes=10)  # for other processes that migrate
FILE: Final = re.compile(r"(\d{4})_(\w+)\.sql")


class MigrationError(Exception):
    """The database and the migrations of this version do not fit together; a person has to look."""


@dataclass(frozen=True, slots=True)
class Migration:
    """A step of the schema, as shipped."""

    version: int
    name: str
    text: str

    @property
    def checksum(self) -> bytes:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).digest()

    def __str__(self) -> str:
        return f"{self.version:04} {self.name}"


def read_migrations(migrations: Path) -> tuple[Migration, ...]:
    """Read what is shipped; blocks for some small files. Raises MigrationError for a gap or an odd name."""
    found = []
    for path in sorted(migrations.glob("*.sql")):
        name = FILE.fullmatch(path.name)
        if name is None:
            raise MigrationError(f"{path.name} is not named NNNN_name.sql")
        found.append(Migration(int(name[1]), name[2], path.read_text("utf-8")))
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise MigrationError(f"the versions have a gap or a double: {', '.join(map(str, found))}")
    return tuple(found)


class Standing(Enum):
    """Why a step applied nothing."""

    CURRENT = "current"
    BUSY = "busy"


@dataclass(frozen=True, slots=True)
class Ledger:
    """What is shipped, compared with what was applied."""

    sql: Statements
    shipped: tuple[Migration, ...]

    async def missing(self, session: Session) -> tuple[Migration, ...]:
        """Return what was not applied yet; MigrationError where what was applied is not what is shipped.

        Versions beyond those shipped are no matter here: the version before runs on the schema of the next.
        """
        applied: list[Row] = []
        if await self.sql.value("exists", session):
            applied = await self.sql.rows("applied", session)
        for number, row in enumerate(applied, 1):
            if row["version"] != number:
                raise MigrationError(f"the database has migration {row['version']:04}, but not {number:04}")
        for row, migration in zip(applied, self.shipped, strict=False):
            if (row["name"], row["checksum"]) != (migration.name, migration.checksum):
                raise MigrationError(f"{migration} is not what was applied as {row['version']:04} {row['name']}")
        return self.shipped[len(applied) :]

    async def step(self, session: Connection, report: Callable[[str], None]) -> Migration | Standing:
        """Apply the next migration, if it is this process's turn and there is one."""
        async with transaction(session):
            if not await self.sql.value("try_lock", session, key=LOCK):
                return Standing.BUSY
            missing = await self.missing(session)
            if not missing:
                await self._refuse_newer(session)
                return Standing.CURRENT
            migration = missing[0]
            report(f"applying migration {migration}")
            await self.sql.none("create", session)
            await self.sql.none("limit_lock_waits", session, longest=LOCK_WAIT)
            try:
                await run_script(session, migration.text)
            except ScriptError as exc:
                raise MigrationError(f"{migration} failed, and left nothing behind: {exc}") from exc
            await self.sql.none(
                "record", session, version=migration.version, name=migration.name, checksum=migration.checksum
            )
            return migration

    async def _refuse_newer(self, session: Session) -> None:
        applied = await self.sql.rows("applied", session)
        if len(applied) > len(self.shipped):
            raise MigrationError(
                f"the database is at migration {len(applied):04}, this version knows {len(self.shipped):04}: "
                "it was migrated by a newer one, and there is no way back"
            )


def read_ledger(place: Path) -> Ledger:
    """Read what is shipped in `place`; blocks for some small files. Raises MigrationError."""
    return Ledger(read_queries(place / "queries")["migrations"], read_migrations(place / "migrations"))


async def migrate(
    dsn: Secret,
    *,
    report: Callable[[str], None] = lambda _: None,
    patience: timedelta = PATIENCE,
    place: Path | None = None,
) -> list[Migration]:
    """Apply what is missing; return what this process applied. Any number of processes may do so at once.

    `report` is told, in a line each, what takes its time; `place` is the folder of the SQL. Raises MigrationError, and
    Unavailable: when the database is away, a table stayed locked, or others have been migrating for `patience`.
    Cancelled: the step under way is undone, those before stay.
    """
    ledger = await _read(place)
    applied: list[Migration] = []
    waiting = False
    with trio.move_on_after(patience.total_seconds()):
        async with open_dedicated(dsn) as session:
            while (step := await ledger.step(session, report)) is not Standing.CURRENT:
                if isinstance(step, Migration):
                    applied.append(step)
                    continue
                if not waiting:
                    report("waiting for another process that migrates")
                waiting = True
                await trio.sleep(POLL)
        return applied
    raise Unavailable("database", f"migrations took longer than {patience}")


async def pending(dsn: Secret, *, place: Path | None = None) -> list[Migration]:
    """Return what is shipped and was not applied yet. Raises MigrationError and Unavailable."""
    ledger = await _read(place)
    async with open_dedicated(dsn) as session:
        return list(await ledger.missing(session))


async def fallen(dsn: Secret) -> bool:
    """Tell whether the audit trail has rows of months without a partition; of a migrated database. Raises Unavailable.

    A sweeper moves them, a month at a time. Where they stay, none runs, or there are too many to be moved in a blink.
    """
    ledger = await _read(None)
    async with open_dedicated(dsn) as session:
        return bool(await ledger.sql.value("fallen", session))


async def _read(place: Path | None) -> Ledger:
    return await trio.to_thread.run_sync(lambda: read_ledger(place or folder()), limiter=trio.CapacityLimiter(1))
