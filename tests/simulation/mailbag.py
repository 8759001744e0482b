"""The outbox of a simulation as the mailer sees it, over the rows that the flows write.

What sql/queries/delivery.sql does, statement by statement: rows that somebody holds are passed over or waited for as
there, and a parcel's `attempts` and `leased_at` are its fence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from regsvc.domain.account import ON_THE_WAY_MAX
from regsvc.domain.delivery import LINK, Letter, Parcel
from regsvc.ports import Imprint, Minted, Notice, NoticeKind, OutboxCounts, Reclaimed
from regsvc.store.delivery import EXPIRED, TO_CLAIMS
from tests.flows.unit import StoredCode
from tests.simulation.base import Line
from tests.simulation.ledger import Mint
from tests.simulation.rows import WAITING, Cargo
from tests.simulation.work import Work


class Bag:
    """Implements ports.Mailbag over a process's line."""

    def __init__(self, line: Line) -> None:
        self.line, self.base = line, line.base

    async def lease(self, limit: int, lease: timedelta) -> Sequence[Parcel]:
        while True:
            parcels = await self._lease(limit, lease)
            late = [parcel for parcel in parcels if parcel.leased_at >= parcel.not_after]
            for parcel in late:
                await self._bury(parcel, EXPIRED, refund=True)
            if not late or len(late) < len(parcels):
                return [parcel for parcel in parcels if parcel.leased_at < parcel.not_after]

    async def _lease(self, limit: int, lease: timedelta) -> Sequence[Parcel]:
        await self.line.called()
        now = self.base.now
        due = [row for row in self._free("ready") if row.not_before <= now]
        due.sort(key=lambda row: row.not_before)
        until = now + lease
        taken = [
            replace(row, state="leased", attempts=row.attempts + 1, leased_at=now, lease_until=until)
            for row in due[:limit]
        ]
        self.base.outbox.update({row.id: row for row in taken})
        await self.line.gate.after()
        return [
            Parcel(r.id, r.letter, r.subject, r.trace, r.attempts, r.created_at, now, r.not_after, r.data)
            for r in sorted(taken, key=lambda row: (row.not_before, row.id))
        ]

    async def reclaim(
        self, since: datetime | None, seen: datetime | None, *, least: timedelta, most: timedelta
    ) -> Reclaimed:
        await self.line.called()
        now = self.base.now
        there = since is not None and seen is not None and since + least <= now <= seen + most
        rows = self._free("leased") if there else ()
        lapsed = [row for row in rows if row.lease_until is not None and row.lease_until < now]
        self.base.outbox.update({row.id: replace(row, state="ready", lease_until=None) for row in lapsed})
        await self.line.gate.after()
        return Reclaimed(len(lapsed), now)

    async def next_due(self) -> timedelta | None:
        await self.line.called()
        due = [row.not_before - self.base.now for row in self.base.outbox.values() if row.state == "ready"]
        return max(min(due), timedelta(0)) if due else None

    async def renew(self, parcels: Sequence[Parcel], lease: timedelta) -> None:
        await self.line.called()
        until, rows = self.base.now + lease, self.base.outbox
        mine = [row for parcel in parcels if (row := self._mine(rows, parcel)) is not None]
        free = [row for row in mine if not self.base.locked("outbox", row.id)]
        rows.update({row.id: replace(row, lease_until=until) for row in free})
        await self.line.gate.after()

    async def mint(self, parcel: Parcel, mac: bytes, lifetime: timedelta, link: Imprint | None = None) -> Minted | None:
        async with self.line.begin() as work:
            await self.line.called()
            claims = parcel.letter in TO_CLAIMS
            if claims:
                await self._hold_claim(work, parcel)
            else:
                await work.hold("user", parcel.subject)
            await self.line.called()
            await work.hold("outbox", parcel.id)
            if self._mine(work.outbox, parcel) is None:
                return None
            secrets = [(parcel.letter.purpose or "", mac, lifetime)]
            secrets += [] if link is None else [(LINK, link.mac, link.lifetime)]
            minted = self._for_claim(work, parcel, secrets) if claims else self._for_account(work, parcel, secrets)
            if minted is None:
                self._drop(work, parcel)
            return minted

    def _for_claim(self, work: Work, parcel: Parcel, secrets: list[tuple[str, bytes, timedelta]]) -> Minted | None:
        now, held = self.base.now, work.claims.get(parcel.subject)
        if held is not None and held.claim.expires_at <= now:
            self.base.ledger.lapsed.add(parcel.subject)
            return None
        if held is None or self._newer(work, parcel):
            return None
        for purpose, mac, lifetime in secrets:
            self._store(work, parcel, purpose, mac, lifetime)
            if purpose == "activate":
                work.claims[parcel.subject] = replace(held, claim=replace(held.claim, live_until=now + lifetime))
        dies_at = now + secrets[0][2]
        owner = next((user for user in work.users.values() if user.email_key == held.key), None)
        if owner is not None:
            return Minted(owner.email, None, None, dies_at, owned=True)
        return Minted(held.claim.email, None, None, dies_at)

    def _for_account(self, work: Work, parcel: Parcel, secrets: list[tuple[str, bytes, timedelta]]) -> Minted | None:
        now, user = self.base.now, work.users.get(parcel.subject)
        change = work.changes.get(parcel.subject)
        [(purpose, mac, lifetime)] = secrets
        if user is None or user.disabled_at is not None or self._newer(work, parcel):
            return None
        email = user.email
        if purpose == "change_email":
            if change is None or change.expires_at < now + lifetime:
                return None
            email = change.email.address
        self._store(work, parcel, purpose, mac, lifetime)
        return Minted(email, None, None, now + lifetime)

    def _store(self, work: Work, parcel: Parcel, purpose: str, mac: bytes, lifetime: timedelta) -> None:
        now = self.base.now
        work.mint(Mint(parcel.subject, purpose, mac, now, now + lifetime), StoredCode(mac, now + lifetime))

    async def address(self, parcel: Parcel) -> Minted | None:
        async with self.line.statement() as work:
            if self._mine(work.outbox, parcel) is None:
                return None
            user = work.users.get(parcel.subject)
            if user is None:
                await work.hold("outbox", parcel.id)
                if parcel.id in work.outbox:
                    self._drop(work, parcel)
                return None
            to = parcel.data["to"] if parcel.letter is Letter.EMAIL_CHANGED else user.email
            return Minted(to, None, None, None)

    async def done(self, *parcels: Parcel) -> None:
        async with self.line.statement() as work:
            for parcel in parcels:
                await work.hold("outbox", parcel.id)
                if (row := self._mine(work.outbox, parcel)) is not None:
                    work.outbox[row.id] = replace(row, state="sent", sent_at=self.base.now, lease_until=None)
                    work.notices.append(Notice(NoticeKind.SETTLED, row.subject))

    async def again(self, parcel: Parcel, wait: timedelta, reason: str, *, refund: bool) -> None:
        async with self.line.begin() as work:
            await self._hold_own(work, parcel)
            if (row := self._mine(work.outbox, parcel)) is None:
                return
            tries, at = row.attempts - refund, self.base.now + wait
            work.outbox[row.id] = replace(
                row, state="ready", attempts=tries, not_before=at, lease_until=None, error=reason
            )
            held = work.claims.get(row.subject)
            if held is not None and row.letter is Letter.ACTIVATION:
                until = max(held.claim.live_until, min(row.not_after, row.created_at + ON_THE_WAY_MAX))
                work.claims[row.subject] = replace(held, claim=replace(held.claim, live_until=until))

    async def dead(self, parcel: Parcel, reason: str) -> None:
        await self._bury(parcel, reason, refund=False)

    async def _bury(self, parcel: Parcel, reason: str, *, refund: bool) -> None:
        async with self.line.begin() as work:
            await self._hold_own(work, parcel)
            if (row := self._mine(work.outbox, parcel)) is None:
                return
            tries = row.attempts - refund
            work.outbox[row.id] = replace(row, state="dead", attempts=tries, lease_until=None, error=reason)
            work.notices.append(Notice(NoticeKind.SETTLED, row.subject))
            held = work.claims.get(row.subject)
            others = [r for r in work.outbox.values() if r.subject == row.subject and r.letter is row.letter]
            if held is None or row.letter is not Letter.ACTIVATION or any(r.state in WAITING for r in others):
                return
            code = work.codes.get((row.subject, "activate"))
            free_at = self.base.now if code is None or code.used else max(self.base.now, code.expires_at)
            until = min(held.claim.live_until, free_at)
            work.claims[row.subject] = replace(held, claim=replace(held.claim, live_until=until))

    async def counts(self) -> OutboxCounts:
        await self.line.called()
        states = [row.state for row in self.base.outbox.values()]
        return OutboxCounts(states.count("ready"), states.count("leased"), states.count("dead"), None)

    async def _hold_claim(self, work: Work, parcel: Parcel) -> None:
        held = work.claims.get(parcel.subject)
        if held is not None:
            await work.hold("address", held.key)

    async def _hold_own(self, work: Work, parcel: Parcel) -> None:
        if parcel.letter is Letter.ACTIVATION:
            await self.line.called()
            await self._hold_claim(work, parcel)
        await self.line.called()
        await work.hold("outbox", parcel.id)

    def _free(self, state: str) -> list[Cargo]:
        rows = self.base.outbox.values()
        return [row for row in rows if row.state == state and not self.base.locked("outbox", row.id)]

    def _mine(self, rows: Mapping[UUID, Cargo], parcel: Parcel) -> Cargo | None:
        row = rows.get(parcel.id)
        fence = parcel.attempts, parcel.leased_at
        return row if row is not None and row.state == "leased" and (row.attempts, row.leased_at) == fence else None

    def _newer(self, work: Work, parcel: Parcel) -> bool:
        mine = parcel.created_at, parcel.id
        return any(
            row.subject == parcel.subject
            and row.letter is parcel.letter
            and row.state in WAITING
            and (row.created_at, row.id) > mine
            for row in work.outbox.values()
        )

    def _drop(self, work: Work, parcel: Parcel) -> None:
        del work.outbox[parcel.id]
        work.dropped.append(parcel.id)
