"""The outbox: what a transaction puts into it, and what the mailer does with it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from regsvc import observe
from regsvc.domain.account import ON_THE_WAY_MAX
from regsvc.domain.delivery import LINK, Effect, Letter, Mail, Parcel, Publish
from regsvc.ports import Imprint, Minted, NoticeKind, OutboxCounts, Reclaimed
from regsvc.store.database import Database, Row, Session
from regsvc.store.sql import Statements

EXPIRED: Final = "expired: it was not sent in time"
KNOWN: Final = tuple(letter.value for letter in Letter)  # another version may write others: those are for its mailers
TO_CLAIMS: Final = frozenset((Letter.ACTIVATION, Letter.VERIFY))


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What must leave, within the transaction that causes it; implements ports.Outgoing."""

    sql: Statements
    session: Session
    new_id: Callable[[], UUID]
    origin: str

    async def add(self, effects: Sequence[Effect], *, trace: str | None) -> None:
        """Write mails into the outbox (other processes are notified at the commit), and events into the audit trail."""
        mails = [effect for effect in effects if isinstance(effect, Mail)]
        events = [effect for effect in effects if isinstance(effect, Publish)]
        if not effects:
            return
        with observe.span("outbox", "send outbox") if mails else observe.NO_SPAN as span:
            if span:  # the mailer goes on from here
                span.tell("mails", len(mails))
                trace = span.traceparent
            await self.sql.none(
                "add",
                self.session,
                mails=[self.new_id() for _ in mails],
                topics=[mail.letter.value for mail in mails],
                mail_subjects=[mail.subject for mail in mails],
                payloads=[json.dumps(dict(mail.data)) for mail in mails],
                lives=[mail.letter.not_after for mail in mails],
                trace=trace,
                events=[self.new_id() for _ in events],
                names=[event.name for event in events],
                event_subjects=[event.subject for event in events],
                actors=[event.actor for event in events],
                ips=[event.ip for event in events],
                data=[json.dumps(dict(event.data)) for event in events],
                channel=NoticeKind.OUTBOX.value,
                origin=self.origin,
            )


@dataclass(frozen=True, slots=True)
class Mailbag:
    """The outbox as the mailer sees it; implements ports.Mailbag.

    What touches a registration too is a transaction that locks the registration's address first, as everybody does; a
    code for an account is minted under the account's lock.
    """

    sql: Statements
    database: Database

    async def lease(self, limit: int, lease: timedelta) -> Sequence[Parcel]:
        """Take up to `limit` due mails that nobody else has, oldest first; mails past their `not_after` become dead."""
        while True:
            rows = await self.sql.rows("lease", self.database.pool, most=limit, lease=lease, topics=KNOWN)
            parcels = [_parcel(row) for row in rows]
            late = [parcel for parcel in parcels if parcel.leased_at >= parcel.not_after]
            for parcel in late:
                await self._bury(parcel, EXPIRED, refund=True)
                with observe.bind(traceparent=parcel.trace):
                    observe.emit(
                        "mail_dead",
                        mail_id=str(parcel.id),
                        subject_id=str(parcel.subject),
                        letter=parcel.letter.value,
                        attempts=parcel.attempts - 1,
                        reason=EXPIRED,
                    )
            # A batch of nothing but late ones may hide others behind it.
            if not late or len(late) < len(parcels):
                return [parcel for parcel in parcels if parcel.leased_at < parcel.not_after]

    async def reclaim(
        self, since: datetime | None, seen: datetime | None, *, least: timedelta, most: timedelta
    ) -> Reclaimed:
        """Make lapsed leases ready again, for a mailer that was here all the time; see ports.Mailbag."""
        row = await self.sql.row("reclaim", self.database.pool, since=since, seen=seen, least=least, most=most)
        assert row is not None, "an aggregate brings a row"  # noqa: S101 - a bug of ours, no value
        return Reclaimed(row["mails"], row["at"])

    async def next_due(self) -> timedelta | None:
        """Return how long until the next ready mail is due (zero: now); None when there is none."""
        wait: timedelta | None = await self.sql.value("next_due", self.database.pool, topics=KNOWN)
        return wait

    async def renew(self, parcels: Sequence[Parcel], lease: timedelta) -> None:
        """Prolong leases."""
        await self.sql.none("renew", self.database.pool, **_fences(parcels), lease=lease)

    async def mint(self, parcel: Parcel, mac: bytes, lifetime: timedelta, link: Imprint | None = None) -> Minted | None:
        """Store the code's MAC, living from now, and beside it that of a claim's `link`.

        None when the subject is gone or a newer mail is queued for it: the parcel is deleted then. None too when its
        lease was lost: somebody else sees to it.
        """
        fence, purpose = _fence(parcel), parcel.letter.purpose
        async with self.database.transaction() as session:
            if parcel.letter in TO_CLAIMS:
                await self.sql.none("lock_claim", session, subject=parcel.subject)
                secrets = [(mac, lifetime, purpose), *([] if link is None else [(link.mac, link.lifetime, LINK)])]
                macs, lifetimes, purposes = zip(*secrets, strict=True)
                found = await self.sql.row(
                    "mint_for_claim", session, **fence, macs=macs, lifetimes=lifetimes, purposes=purposes
                )
            else:
                await self.sql.none("lock_account", session, subject=parcel.subject)
                found = await self.sql.row(
                    "mint_for_account", session, **fence, mac=mac, lifetime=lifetime, purpose=purpose
                )
        if found is None:
            return None
        return Minted(found["email"], found["username"], found["locale"], found["expires_at"], found["owned"])

    async def address(self, parcel: Parcel) -> Minted | None:
        """Return whom a notice goes to; None, and the parcel is deleted, when the account is gone.

        None too when its lease was lost.
        """
        found = await self.sql.row("address", self.database.pool, **_fence(parcel))
        if found is None:
            return None
        to = parcel.data["to"] if parcel.letter is Letter.EMAIL_CHANGED else found["email"]
        return Minted(to, found["username"], found["locale"], None)

    async def done(self, *parcels: Parcel) -> None:
        """Record that they were sent."""
        await self.sql.none("done", self.database.pool, **_fences(parcels), channel=NoticeKind.SETTLED.value)

    async def again(self, parcel: Parcel, wait: timedelta, reason: str, *, refund: bool) -> None:
        """Put it back for later; `refund` takes the try back."""
        async with self.database.transaction() as session:
            await self._hold(parcel, session)
            await self.sql.none(
                "again",
                session,
                **_fence(parcel),
                wait=wait,
                reason=reason,
                refund=refund,
                on_the_way=ON_THE_WAY_MAX,
            )

    async def dead(self, parcel: Parcel, reason: str) -> None:
        """Give it up; the registration it was for no longer holds the address."""
        await self._bury(parcel, reason, refund=False)

    async def counts(self) -> OutboxCounts:
        """Count."""
        (found,) = await self.sql.rows("counts", self.database.pool)
        return OutboxCounts(found["ready"], found["leased"], found["dead"], found["oldest"])

    async def _hold(self, parcel: Parcel, session: Session) -> None:
        """Lock the address that a registration's own mail holds, where it is one: no other does."""
        if parcel.letter is Letter.ACTIVATION:
            await self.sql.none("lock_claim", session, subject=parcel.subject)

    async def _bury(self, parcel: Parcel, reason: str, *, refund: bool) -> None:
        async with self.database.transaction() as session:
            await self._hold(parcel, session)
            await self.sql.none(
                "bury",
                session,
                **_fence(parcel),
                reason=reason,
                refund=refund,
                channel=NoticeKind.SETTLED.value,
            )


def _parcel(row: Row) -> Parcel:
    return Parcel(
        id=row["id"],
        letter=Letter(row["topic"]),
        subject=row["subject_id"],
        trace=row["trace"],
        attempts=row["attempts"],
        created_at=row["created_at"],
        leased_at=row["leased_at"],
        not_after=row["not_after"],
        data=json.loads(row["payload"]),
    )


def _fence(parcel: Parcel) -> dict[str, object]:
    return {"id": parcel.id, "attempts": parcel.attempts, "leased_at": parcel.leased_at}


def _fences(parcels: Sequence[Parcel]) -> dict[str, object]:
    return {
        "ids": [parcel.id for parcel in parcels],
        "attempts": [parcel.attempts for parcel in parcels],
        "leased_at": [parcel.leased_at for parcel in parcels],
    }
