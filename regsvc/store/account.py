"""Addresses, their claims and their accounts: read with or without the lock, and written as the difference.

The lock on the address's row is the one thing that serialises an address (the sweeper aside, which waits for nobody);
`sql/queries/account.sql` says how.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from regsvc.domain.account import Address, Claim, Code, Owner, Tally, Way
from regsvc.domain.values import EmailKey, Locale, Username
from regsvc.ports import MailState, MailStatus, Unavailable
from regsvc.store.database import Database, Row, Session
from regsvc.store.sql import Statements

MAIL: Final = {
    "ready": MailState.QUEUED,
    "leased": MailState.QUEUED,
    "sent": MailState.SENT,
    "dead": MailState.FAILED,
}


@dataclass(frozen=True, slots=True)
class Accounts:
    """The addresses within a transaction; implements ports.Accounts."""

    sql: Statements
    session: Session

    async def load(self, key: EmailKey) -> tuple[Address, datetime]:
        """Lock the address (made if it is new), then read it, then the clock."""
        await self.sql.none("lock_address", self.session, email_key=key)
        return await _read(self.sql, self.session, key)

    async def save(self, key: EmailKey, before: Address, after: Address) -> None:
        """Write what differs; a username taken in the meantime is left out of the new account.

        Raises Unavailable when an account was made around the lock, as an import does: the next try sees it.
        """
        if after.owner != before.owner:
            if before.owner is not None or after.owner is None or after.owner.way is None:
                raise ValueError("an owner comes to an address that has none, in one of the ways, and stays")
            await self._activate(key, before, after.owner, after.owner.way)
            before = replace(before, owner=after.owner, claims=())
        known = {claim.id: claim for claim in before.claims}
        kept = {claim.id for claim in after.claims}
        if gone := [subject for subject in known if subject not in kept]:
            await self.sql.none("drop_claims", self.session, ids=gone)
        added = [claim for claim in after.claims if claim.id not in known]
        for claim in added:
            await self._insert(key, after, claim)
        changed = [(known[claim.id], claim) for claim in after.claims if claim != known.get(claim.id, claim)]
        if changed or (_counters(after) != _counters(before) and not added):
            await self._update(key, after, changed)

    async def _activate(self, key: EmailKey, before: Address, owner: Owner, way: Way) -> None:
        claim = next(claim for claim in before.claims if claim.id == owner.id)
        code = {Way.CODE: claim.code, Way.LINK: claim.link, Way.VERIFY: claim.verify}[way]
        found = await self.sql.row(
            "activate",
            self.session,
            email_key=key,
            id=claim.id,
            password_hash=claim.password_hash,
            mac=code.mac if code is not None else None,
            activated_at=owner.activated_at,
            purpose=way.value,
            owner_password_hash=owner.password_hash,
        )
        if found is None or not found["proved"]:
            raise Unavailable("transaction", "the registration changed around its address's lock")
        if found["made"]:
            return
        # Somebody has the username by now, or the address: that second one only by a way around the lock.
        made = await self.sql.value(
            "insert_unnamed_user",
            self.session,
            id=claim.id,
            email=claim.email,
            email_key=key,
            locale=claim.locale.tag if claim.locale is not None else None,
            password_hash=owner.password_hash,
            created_at=claim.created_at,
            activated_at=owner.activated_at,
        )
        if made is None:
            raise Unavailable("transaction", "an account was made around its address's lock")

    async def _insert(self, key: EmailKey, address: Address, claim: Claim) -> None:
        await self.sql.none(
            "insert_claim",
            self.session,
            email_key=key,
            **_counters(address),
            id=claim.id,
            email=claim.email,
            username=claim.username.name if claim.username is not None else None,
            username_key=claim.username.key if claim.username is not None else None,
            locale=claim.locale.tag if claim.locale is not None else None,
            password_hash=claim.password_hash,
            client=claim.client,
            created_at=claim.created_at,
            live_until=claim.live_until,
            expires_at=claim.expires_at,
        )

    async def _update(self, key: EmailKey, address: Address, changed: Sequence[tuple[Claim, Claim]]) -> None:
        moved = [claim for was, claim in changed if _times(claim) != _times(was)]
        spent = [
            (claim.id, purpose, code.failures)
            for was, claim in changed
            for purpose, code, before in (("activate", claim.code, was.code), ("verify", claim.verify, was.verify))
            if code is not None and code != before
        ]
        await self.sql.none(
            "save_address",
            self.session,
            email_key=key,
            **_counters(address),
            claims=[claim.id for claim in moved],
            live_until=[claim.live_until for claim in moved],
            expires_at=[claim.expires_at for claim in moved],
            spent=[subject for subject, _, _ in spent],
            purposes=[purpose for _, purpose, _ in spent],
            code_failures=[failures for _, _, failures in spent],
        )


@dataclass(frozen=True, slots=True)
class Directory:
    """The addresses, read outside a transaction; implements ports.Directory."""

    sql: Statements
    database: Database

    async def look(self, key: EmailKey) -> tuple[Address, datetime]:
        """Read the address (empty if nobody ever used it) and the clock."""
        return await _read(self.sql, self.database.pool, key)

    async def username_taken(self, username_key: str) -> bool:
        """Tell whether an account has that name."""
        return bool(await self.sql.value("username_taken", self.database.pool, username_key=username_key))

    async def mail_status(self, registration: UUID) -> MailStatus:
        """Tell where the registration's newest mail is; failed where there is none (any more): nothing will come."""
        found = await self.sql.row("mail_status", self.database.pool, registration=registration)
        if found is None:
            return MailStatus(MailState.FAILED, None)
        return MailStatus(MAIL[found["state"]], found["expires_at"])


async def _read(sql: Statements, session: Session, key: EmailKey) -> tuple[Address, datetime]:
    rows = await sql.rows("load_address", session, email_key=key)
    first = rows[0]
    address = Address(
        owner=_owner(first),
        claims=tuple(_claim(row) for row in rows if row["id"] is not None),
        failures=Tally(first["failures"] or 0, first["failures_since"]),
        verify_failures=Tally(first["verify_failures"] or 0, first["verify_failures_since"]),
        mails=Tally(first["mails"] or 0, first["mails_since"]),
        mailed_at=first["mailed_at"],
        asked=Tally(first["asked"] or 0, first["asked_since"]),
        asked_at=first["asked_at"],
    )
    return address, first["observed_at"]


def _owner(row: Row) -> Owner | None:
    if row["owner_id"] is None:
        return None
    return Owner(row["owner_id"], row["owner_email"], row["owner_password_hash"], row["activated_at"])


def _claim(row: Row) -> Claim:
    return Claim(
        id=row["id"],
        email=row["email"],
        password_hash=row["password_hash"],
        created_at=row["created_at"],
        live_until=row["live_until"],
        expires_at=row["expires_at"],
        username=Username(row["username"], row["username_key"]) if row["username"] is not None else None,
        locale=Locale(row["locale"]) if row["locale"] is not None else None,
        client=row["client"],
        code=_code(row["mac"], row["code_expires_at"], row["code_failures"]),
        link=_code(row["link_mac"], row["link_expires_at"], 0),
        verify=_code(row["verify_mac"], row["verify_expires_at"], row["verify_code_failures"]),
    )


def _code(mac: bytes | None, expires_at: datetime, failures: int) -> Code | None:
    return Code(mac, expires_at, failures) if mac is not None else None


def _times(claim: Claim) -> tuple[datetime, datetime]:
    return claim.live_until, claim.expires_at


def _counters(address: Address) -> dict[str, object]:
    return {
        "failures": address.failures.count,
        "failures_since": address.failures.since,
        "verify_failures": address.verify_failures.count,
        "verify_failures_since": address.verify_failures.since,
        "mails": address.mails.count,
        "mails_since": address.mails.since,
        "mailed_at": address.mailed_at,
        "asked": address.asked.count,
        "asked_since": address.asked.since,
        "asked_at": address.asked_at,
    }
