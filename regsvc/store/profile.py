"""Accounts, as their owners and administrators change them, within a transaction and under the user's lock."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from regsvc.domain.account import Code
from regsvc.domain.profile import EmailChange
from regsvc.domain.refusals import Refusal
from regsvc.domain.session import Role, User
from regsvc.domain.values import Email, EmailKey, Locale, Username
from regsvc.store.database import Row, Taken, attempt
from regsvc.store.sql import Statements
from regsvc.trio_asyncpg import Connection

ADMINS: Final = 0x7265_6773_6164_6D6E  # "regsadmn": an advisory lock's key is any number that others do not use
TAKEN: Final = {
    "users_username_key": Refusal.USERNAME_TAKEN,
    "users_email_key": Refusal.USER_ALREADY_EXISTS,
}


@dataclass(frozen=True, slots=True)
class People:
    """The accounts within a transaction; implements ports.People."""

    sql: Statements
    session: Connection

    async def lock(self, user: UUID) -> tuple[User, datetime] | None:
        """Lock the account, then read it, then the clock; None when there is none."""
        found = await self.sql.row("lock_user", self.session, id=user)
        return (user_of(found), found["observed_at"]) if found is not None else None

    async def change(self, before: User, after: User) -> Refusal | None:
        """Write what differs, under the lock; or nothing, and say why: USERNAME_TAKEN, USER_ALREADY_EXISTS (address).

        Of those who take one name or address at once, one gets it and the others wait for that, then are refused.
        """
        if after == before:
            return None
        if (after.username, after.email_key) == (before.username, before.email_key):
            return await self._change(after)
        try:
            async with attempt(self.session):
                return await self._change(after)
        except Taken as taken:
            return TAKEN[taken.index]

    async def _change(self, after: User) -> Refusal | None:
        found = await self.sql.row(
            "change_user",
            self.session,
            id=after.id,
            email=after.email,
            email_key=after.email_key,
            username=after.username.name if after.username is not None else None,
            username_key=after.username.key if after.username is not None else None,
            locale=after.locale.tag if after.locale is not None else None,
            password_hash=after.password_hash,
            role=after.role.value,
            disabled_at=after.disabled_at,
            updated_at=after.updated_at,
        )
        if found is None or not any(found):
            raise LookupError(f"there is no account {after.id} to change: it was not locked")
        if found["username_taken"]:
            return Refusal.USERNAME_TAKEN
        return Refusal.USER_ALREADY_EXISTS if found["email_taken"] else None

    async def remove(self, user: UUID) -> None:
        """Delete the account under its lock, with its sessions, tokens, codes and mails, and claims beside it."""
        await self.sql.none("remove_user", self.session, id=user)

    async def last_admin(self, user: UUID) -> bool:
        """Tell whether nobody but `user` is an administrator who is not disabled; holds that still until the commit.

        By an advisory lock, which is the last one taken: two administrators who demote each other hold a row each by
        then, and locking the rows of all of them, in whatever order, would have them wait in a circle.
        """
        await self.sql.none("lock_admins", self.session, key=ADMINS)
        return bool(await self.sql.value("is_last_admin", self.session, id=user))

    async def use_code(self, subject: UUID, purpose: str, macs: Sequence[bytes], now: datetime) -> bool:
        """Use the code up if it is one of `macs`, was not used, and lives at `now`; tell whether it was."""
        used = await self.sql.value(
            "use_code", self.session, subject=subject, purpose=purpose, macs=list(macs), now=now
        )
        return used is not None

    async def drop_codes(self, subject: UUID, *purposes: str) -> None:
        """Delete codes."""
        await self.sql.none("drop_codes", self.session, subject=subject, purposes=list(purposes))

    async def propose(self, user: UUID, change: EmailChange, now: datetime) -> None:
        """Store the address that the user wants to have instead of any before it; its old code dies."""
        await self.sql.none(
            "propose",
            self.session,
            user=user,
            email=change.email.address,
            email_key=change.email.key,
            now=now,
            expires_at=change.expires_at,
        )

    async def proposed(self, user: UUID) -> EmailChange | None:
        """Return it with its code."""
        found = await self.sql.row("proposed", self.session, user=user)
        if found is None:
            return None
        code = Code(found["mac"], found["code_expires_at"], found["failures"]) if found["mac"] is not None else None
        return EmailChange(Email(found["email"], EmailKey(found["email_key"])), found["expires_at"], code)

    async def spend(self, user: UUID, change: EmailChange) -> None:
        """Write the failures of its code."""
        if change.code is not None:
            await self.sql.none("spend", self.session, user=user, failures=change.code.failures)

    async def settle(self, user: UUID) -> None:
        """Delete it with its code."""
        await self.sql.none("settle", self.session, user=user)


def user_of(row: Row) -> User:
    """Read an account from a row that has all columns of `users`, under their own names."""
    return User(
        id=row["id"],
        email=row["email"],
        email_key=EmailKey(row["email_key"]),
        password_hash=row["password_hash"],
        created_at=row["created_at"],
        activated_at=row["activated_at"],
        updated_at=row["updated_at"],
        username=Username(row["username"], row["username_key"]) if row["username"] is not None else None,
        locale=Locale(row["locale"]) if row["locale"] is not None else None,
        role=Role(row["role"]),
        disabled_at=row["disabled_at"],
    )
