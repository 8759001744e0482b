"""Accounts by the thousand: a batch is one transaction, a snapshot is another.

What a batch brings is looked up under the locks of its addresses, and decided by the domain; so what is new goes
straight into its table by COPY, and only where somebody was quicker with a username by the statement that can pass over
a row. A temporary table in between was measured: a third slower, and each transaction leaves traces in the catalogue.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar
from uuid import UUID

import trio

from regsvc.domain.delivery import Effect
from regsvc.domain.session import Ending, Role, User
from regsvc.domain.transfer import (
    LAST_ADMIN,
    Created,
    Outcome,
    Record,
    Standing,
    Updated,
    administers,
    effects,
    resigns,
    settle,
)
from regsvc.domain.values import EmailKey, Locale, Secret, Username
from regsvc.ports import Unavailable
from regsvc.store.database import Row, copy_rows, open_dedicated, transaction
from regsvc.store.delivery import Outgoing
from regsvc.store.migrations import read_ledger
from regsvc.store.profile import ADMINS
from regsvc.store.sql import Statements, folder, read_queries
from regsvc.trio_asyncpg import Connection

COLUMNS: Final = (
    *("id", "email", "email_key", "username", "username_key", "locale", "password_hash", "role"),
    *("disabled_at", "created_at", "activated_at", "updated_at"),
)
TURN: Final = 0x696D_706F_7274  # "import": an advisory lock's key is any number that others do not use

T = TypeVar("T", Created, Updated)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The accounts at one moment; implements ports.Snapshot."""

    sql: Statements
    connection: Connection
    disabled: bool | None

    async def count(self) -> int:
        """Return how many there are."""
        return int(await self.sql.value("count_users", self.connection, disabled=self.disabled))

    async def page(self, after: UUID | None, limit: int) -> Sequence[User]:
        """Return the accounts that follow the id `after`, in the order of ids; none at the end."""
        rows = await self.sql.rows("page", self.connection, disabled=self.disabled, after=after, most=limit)
        return [_user(row) for row in rows]


@dataclass(frozen=True, slots=True)
class Roll:
    """All accounts; implements ports.Roll. For one task at a time: it has one connection."""

    queries: Mapping[str, Statements]
    connection: Connection
    new_id: Callable[[], UUID]

    @property
    def sql(self) -> Statements:
        """The statements of this room."""
        return self.queries["transfer"]

    @asynccontextmanager
    async def snapshot(self, *, disabled: bool | None) -> AsyncIterator[Snapshot]:
        """Look at the accounts as they are now: one transaction, so that nobody is seen twice, or half.

        Its pages go by id: each is one short statement by an index, which a cursor is not behind a pooler, and the
        moment is the transaction's, not the page's, or two accounts that swap a name would both be seen with it.
        """
        async with transaction(self.connection, isolation="repeatable_read", readonly=True):
            yield Snapshot(self.sql, self.connection, disabled)

    async def take(self, records: Sequence[Record], *, update: bool, dry_run: bool) -> Sequence[Outcome]:
        """Settle the records in one transaction, and say in their order what became of each."""
        async with transaction(self.connection):
            keys = [record.email.key for record in records]
            if not dry_run:
                await self.sql.none("take_turn", self.connection, key=TURN)
                await self.sql.none("lock_addresses", self.connection, email_keys=keys)
                if update:
                    await self.sql.none("lock_owners", self.connection, email_keys=keys)
            now: datetime = await self.sql.value("clock", self.connection)
            return await self._settle(records, now, update=update, dry_run=dry_run)

    async def _settle(
        self, records: Sequence[Record], now: datetime, *, update: bool, dry_run: bool
    ) -> Sequence[Outcome]:
        """Decide and write; those whose name or id was taken in between are decided anew, on what is there then."""
        found: dict[EmailKey, Outcome] = {}
        left = records
        while left:
            standing = await self._look(left)
            for record, there in zip(left, standing, strict=True):
                new_id = record.id or self.new_id()
                found[record.email.key] = settle(record, there, new_id, now, update=update)
            if dry_run:
                await self._spare_last_admin(found, left, standing, dry_run=True)
                break
            made = await self._insert(_chosen(found, left, Created))
            await self._spare_last_admin(found, left, standing, dry_run=False)
            await self._update(_chosen(found, left, Updated), now)
            left = [record for record in left if _unmade(found[record.email.key], made)]
        return [found[record.email.key] for record in records]

    async def _spare_last_admin(
        self, found: dict[EmailKey, Outcome], records: Sequence[Record], standing: Sequence[Standing], *, dry_run: bool
    ) -> None:
        """Leave one of those who resign as he is, where nobody else would administer: the last of them.

        New accounts are stored by now, but for a dry run's; the lock is the one that everybody takes last.
        """
        pairs = zip(records, standing, strict=True)
        resigning = [record.email.key for record, there in pairs if resigns(there.owner, found[record.email.key])]
        if not resigning:
            return
        if not dry_run:
            await self.sql.none("lock_admins", self.connection, key=ADMINS)
        kinds = (Created, Updated) if dry_run else (Updated,)
        coming = any(isinstance(outcome, kinds) and administers(outcome.user) for outcome in found.values())
        if not coming and not await self.sql.value("others_administer", self.connection, email_keys=resigning):
            found[resigning[-1]] = LAST_ADMIN

    async def _look(self, records: Sequence[Record]) -> Sequence[Standing]:
        keys = [record.email.key for record in records]
        ids = [record.id for record in records if record.id is not None]
        names = [record.username.key for record in records if record.username is not None]
        owners = {row["email_key"]: _user(row) for row in await self._rows_of(keys)}
        holders: dict[UUID, set[str]] = {}
        if ids:
            for row in await self.sql.rows("ids_taken", self.connection, ids=ids):
                holders.setdefault(row["id"], set()).add(row["email_key"])
        taken: set[str] = set()
        if names:
            rows = await self.sql.rows("usernames_taken", self.connection, username_keys=names)
            taken = {row["username_key"] for row in rows}
        return [
            Standing(
                owner=owners.get(record.email.key),
                id_taken=record.id is not None and not holders.get(record.id, set()) <= {record.email.key},
                username_taken=record.username is not None and record.username.key in taken,
            )
            for record in records
        ]

    async def _rows_of(self, keys: Sequence[EmailKey]) -> Sequence[Row]:
        return await self.sql.rows("owners", self.connection, email_keys=keys)

    async def _insert(self, created: Sequence[Created]) -> frozenset[UUID]:
        """Store new accounts, and return the ids of those that were."""
        if not created:
            return frozenset()
        users = [outcome.user for outcome in created]
        rows = [_columns(user) for user in users]
        if await copy_rows(self.connection, "users", COLUMNS, rows):
            done = created
        else:  # somebody was quicker with a username or an id: those who were not in anybody's way
            made = await self._insert_others(rows)
            done = [outcome for outcome in created if outcome.user.id in made]
        await self.sql.none("drop_claims", self.connection, email_keys=[outcome.user.email_key for outcome in done])
        await self._publish([effect for outcome in done for effect in effects(outcome, 0)])
        return frozenset(outcome.user.id for outcome in done)

    async def _insert_others(self, rows: Sequence[Sequence[object]]) -> frozenset[UUID]:
        ids, emails, keys, names, name_keys, locales, hashes, roles, disabled, created, activated, updated = zip(
            *rows, strict=True
        )
        made = await self.sql.rows(
            "insert_users",
            self.connection,
            ids=ids,
            emails=emails,
            email_keys=keys,
            usernames=names,
            username_keys=name_keys,
            locales=locales,
            password_hashes=hashes,
            roles=roles,
            disabled_ats=disabled,
            created_ats=created,
            activated_ats=activated,
            updated_at=updated[0],
        )
        return frozenset(row["id"] for row in made)

    async def _update(self, updated: Sequence[Updated], now: datetime) -> None:
        """Overwrite accounts; their sessions end, and so do their reset codes."""
        if not updated:
            return
        users = [outcome.user for outcome in updated]
        ids = [user.id for user in users]
        await self.sql.none(
            "update_users",
            self.connection,
            ids=ids,
            password_hashes=[user.password_hash for user in users],
            locales=[_tag(user) for user in users],
            roles=[user.role.value for user in users],
            disabled_ats=[user.disabled_at for user in users],
            updated_at=now,
        )
        rows = await self.sql.rows("end_sessions", self.connection, ids=ids, reason=Ending.STAFF.value, ended_at=now)
        ended = {row["user_id"]: int(row["sessions"]) for row in rows}
        await self.sql.none("drop_reset_codes", self.connection, ids=ids)
        await self._publish([effect for one in updated for effect in effects(one, ended.get(one.user.id, 0))])

    async def _publish(self, happened: Sequence[Effect]) -> None:
        outgoing = Outgoing(self.queries["delivery"], self.connection, self.new_id, origin="")
        await outgoing.add(happened, trace=None)


def _chosen(found: Mapping[EmailKey, Outcome], records: Sequence[Record], kind: type[T]) -> Sequence[T]:
    return [outcome for record in records if isinstance(outcome := found[record.email.key], kind)]


def _unmade(outcome: Outcome, made: frozenset[UUID]) -> bool:
    return isinstance(outcome, Created) and outcome.user.id not in made


def _columns(user: User) -> Sequence[object]:
    """Return what `_user` reads, in the order of COLUMNS."""
    return (
        user.id,
        user.email,
        user.email_key,
        user.username.name if user.username is not None else None,
        user.username.key if user.username is not None else None,
        _tag(user),
        user.password_hash,
        user.role.value,
        user.disabled_at,
        user.created_at,
        user.activated_at,
        user.updated_at,
    )


def _tag(user: User) -> str | None:
    return user.locale.tag if user.locale is not None else None


def _user(row: Row) -> User:
    return User(
        id=row["id"],
        email=row["email"],
        email_key=row["email_key"],
        password_hash=row["password_hash"],
        created_at=row["created_at"],
        activated_at=row["activated_at"],
        updated_at=row["updated_at"],
        username=Username(row["username"], row["username_key"]) if row["username"] is not None else None,
        locale=Locale(row["locale"]) if row["locale"] is not None else None,
        role=Role(row["role"]),
        disabled_at=row["disabled_at"],
    )


@asynccontextmanager
async def open_roll(dsn: Secret, *, new_id: Callable[[], UUID]) -> AsyncIterator[Roll]:
    """Open all accounts for the time of the block, on a connection whose statements take as long as they take.

    `new_id` makes UUIDs of version 7. Raises Unavailable, where migrations are missing too, and MigrationError.
    """
    place = folder()
    queries, ledger = await trio.to_thread.run_sync(
        lambda: (read_queries(place / "queries"), read_ledger(place)), limiter=trio.CapacityLimiter(1)
    )
    async with open_dedicated(dsn) as connection:
        if await ledger.missing(connection):
            raise Unavailable("database", "it lacks migrations: run `regsvc migrate`")
        yield Roll(queries, connection, new_id)
