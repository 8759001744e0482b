"""What the sweeper of a simulation removes, the buckets of its limits, and word from the other processes."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Final

import trio

from regsvc.domain.quota import Level, Take
from regsvc.ports import EVERYTHING, Heap, Notice, NoticeKind, Partitioned, Swept, Unavailable
from tests.flows.quota_fakes import Buckets
from tests.simulation.base import Line
from tests.simulation.rows import SECRETS, WAITING
from tests.simulation.work import Work

MICROSECOND: Final = timedelta(microseconds=1)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATE: Final = {Heap.REGISTRATIONS: timedelta(minutes=1), Heap.CODES: timedelta(hours=1)}


class Broom:
    """Implements ports.Housekeeping over a process's line, as far as histories last: registrations and codes."""

    def __init__(self, line: Line) -> None:
        self.line, self.base = line, line.base

    async def turn(self, idle: timedelta) -> bool:
        await self.line.called()
        base = self.base
        mine = base.swept_at is None or base.swept_at <= base.now - idle
        if mine:
            base.swept_at = base.now
        return mine

    async def sweep(self, limit: int, heaps: frozenset[Heap] = EVERYTHING) -> Swept:
        async with self.line.statement() as work:
            claims = self._sweep_claims(work)[:limit] if Heap.REGISTRATIONS in heaps else []
            codes = self._sweep_codes(work)[:limit] if Heap.CODES in heaps else []
        return Swept(registrations=len(claims), codes=len(codes))

    def _sweep_claims(self, work: Work) -> list[object]:
        until, base = self.base.now - LATE[Heap.REGISTRATIONS], self.base
        over = [held for held in work.claims.values() if held.claim.expires_at < until]
        free = [held.claim.id for held in over if not base.locked("address", held.key)]
        for claim in free:
            del work.claims[claim]
            for purpose in SECRETS:
                work.codes.pop((claim, purpose), None)
            for row in [row for row in base.outbox.values() if row.subject == claim and row.state in WAITING]:
                if not base.locked("outbox", row.id):
                    del work.outbox[row.id]
            work.ended.append((claim, "expired"))
        return [*free]

    def _sweep_codes(self, work: Work) -> list[object]:
        until = self.base.now - LATE[Heap.CODES]
        old = [place for place, code in work.codes.items() if code.expires_at < until]
        for place in old:
            del work.codes[place]
        return [*old]

    async def lag(self) -> timedelta:
        await self.line.called()
        return timedelta(0)

    async def partition(self) -> Partitioned:
        await self.line.called()
        return Partitioned()


class SharedBuckets(Buckets):
    """Implements ports.Quotas: the buckets that all processes share, over a process's line."""

    def __init__(self, line: Line) -> None:
        super().__init__("postgres", whole_at=line.base.buckets)
        self.line = line

    async def take(self, takes: Sequence[Take]) -> Sequence[Level]:
        levels = await super().take(takes)
        for take, level in zip(takes, levels, strict=True):
            if level.allowed:
                self.line.base.ledger.takes.setdefault(take.bucket, []).append((self.now, take.policy))
        await self.line.gate.after("limits")
        return levels

    async def give_back(self, takes: Sequence[Take]) -> None:
        await super().give_back(takes)
        for take in takes:
            self.line.base.ledger.takes[take.bucket].pop()
        await self.line.gate.after("limits")

    async def _trip(self, takes: Sequence[Take]) -> None:
        await self.line.gate.before("limits")
        self.now = (self.line.base.now - EPOCH) // MICROSECOND


class Wire:
    """Implements ports.Notices over a process's line; a process is not told of its own mails. `cut` ends it."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self._end: trio.MemorySendChannel[Notice] | None = None

    def say(self, notice: Notice, origin: str) -> None:
        if self._end is not None and (notice.kind is not NoticeKind.OUTBOX or origin != self.line.name):
            self._end.send_nowait(notice)

    def cut(self) -> None:
        """End the subscription."""
        if self._end is not None:
            self._end.close()
            self._end = None

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[AsyncIterator[Notice]]:
        await self.line.called()
        self._end, heard = trio.open_memory_channel[Notice](inf)
        try:
            yield _Heard(heard)
        finally:
            self.cut()
            heard.close()


class _Heard(AsyncIterator[Notice]):
    def __init__(self, heard: trio.MemoryReceiveChannel[Notice]) -> None:
        self.heard = heard

    async def __anext__(self) -> Notice:
        try:
            return await self.heard.receive()
        except trio.EndOfChannel:
            raise Unavailable("database", "the line was cut") from None
