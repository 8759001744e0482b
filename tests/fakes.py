"""The ports of the actors, in memory, on Trio's clock: a mailbag with leases and fences, a relay one can unplug.

Each port call is a scheduling point, and `Trouble` makes the n-th of them fail; that the real ones behave the same is
shown in tests/store and tests/adapters.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import trio

from regsvc.domain.delivery import Accepted, Letter, Outcome, Parcel
from regsvc.domain.values import EmailKey, Secret
from regsvc.ports import (
    EVERYTHING,
    Dispatch,
    Heap,
    Imprint,
    Minted,
    Notice,
    OutboxCounts,
    Partitioned,
    Reclaimed,
    Swept,
    Unavailable,
)

START = datetime(2026, 11, 20, 11, tzinfo=UTC)
AWAY = Unavailable("database", "it is not there")


def now() -> datetime:
    """The database's clock: Trio's, so that a MockClock moves both."""
    return START + timedelta(seconds=trio.current_time())


@dataclass
class Trouble:
    """Makes port calls fail: the `fail_at`-th, before or after its effect, or all of them while `away`."""

    fail_at: int | None = None
    late: bool = False
    error: Exception = AWAY
    away: bool = False
    calls: int = 0

    @asynccontextmanager
    async def call(self) -> AsyncIterator[None]:
        self.calls += 1
        mine = self.calls == self.fail_at
        await trio.lowlevel.checkpoint()
        if self.away or (mine and not self.late):
            raise self.error
        yield
        await trio.lowlevel.checkpoint()
        if mine:
            raise self.error


@dataclass
class Row:
    """An outbox row."""

    id: UUID
    subject: UUID
    not_before: datetime
    not_after: datetime
    created_at: datetime
    letter: Letter = Letter.ACTIVATION
    data: Mapping[str, str] = field(default_factory=dict)
    trace: str | None = None
    state: str = "ready"
    attempts: int = 0
    lease_until: datetime | None = None
    error: str | None = None


@dataclass
class Post:
    """A Mailbag. `codes` has the one live MAC of a subject; a subject not in `people` is gone."""

    trouble: Trouble = field(default_factory=Trouble)
    rows: dict[UUID, Row] = field(default_factory=dict)
    people: dict[UUID, str] = field(default_factory=dict)
    owned: set[UUID] = field(default_factory=set)  # claims whose address has an account
    codes: dict[UUID, tuple[bytes, datetime]] = field(default_factory=dict)
    links: dict[UUID, tuple[bytes, datetime]] = field(default_factory=dict)
    contested: bool = False
    leases: list[int] = field(default_factory=list)
    written: list[int] = field(default_factory=list)  # how many were said to be sent at once, each time
    renewed: int = 0

    def post(
        self,
        to: str,
        letter: Letter = Letter.ACTIVATION,
        *,
        data: Mapping[str, str] | None = None,
        trace: str | None = None,
        wait: float = 0.0,
        attempts: int = 0,
    ) -> Row:
        """Put a mail in, as a committed registration does."""
        n = len(self.rows) + 1
        row = Row(
            UUID(int=n),
            UUID(int=1000 + n),
            now() + timedelta(seconds=wait),
            now() + timedelta(minutes=30),
            now(),
            letter,
            data or {},
            trace,
            attempts=attempts,
        )
        self.rows[row.id] = row
        self.people[row.subject] = to
        return row

    def states(self) -> list[str]:
        return [row.state for row in self.rows.values()]

    def settled(self) -> bool:
        return all(state in ("sent", "dead") for state in self.states())

    async def lease(self, limit: int, lease: timedelta) -> Sequence[Parcel]:
        async with self.trouble.call():
            self.leases.append(limit)
            due = [row for row in self.rows.values() if row.state == "ready" and row.not_before <= now()]
            due.sort(key=lambda row: row.not_before)
            if self.contested:  # another mailer holds the rows' locks
                due = []
            for row in due[:limit]:
                row.state, row.lease_until = "leased", now() + lease
                row.attempts += 1
            return [
                Parcel(
                    row.id,
                    row.letter,
                    row.subject,
                    row.trace,
                    row.attempts,
                    row.created_at,
                    now(),
                    row.not_after,
                    row.data,
                )
                for row in due[:limit]
            ]

    async def reclaim(
        self, since: datetime | None, seen: datetime | None, *, least: timedelta, most: timedelta
    ) -> Reclaimed:
        async with self.trouble.call():
            there = since is not None and seen is not None and since + least <= now() <= seen + most
            lapsed = [row for row in self.rows.values() if there and row.state == "leased" and _past(row.lease_until)]
            for row in lapsed:
                row.state = "ready"
            return Reclaimed(len(lapsed), now())

    async def next_due(self) -> timedelta | None:
        async with self.trouble.call():
            due = [row.not_before - now() for row in self.rows.values() if row.state == "ready"]
            return max(min(due), timedelta(0)) if due else None

    async def renew(self, parcels: Sequence[Parcel], lease: timedelta) -> None:
        async with self.trouble.call():
            self.renewed += 1
            for parcel in parcels:
                if row := self._held(parcel):
                    row.lease_until = now() + lease

    async def mint(self, parcel: Parcel, mac: bytes, lifetime: timedelta, link: Imprint | None = None) -> Minted | None:
        async with self.trouble.call():
            if parcel.subject not in self.people:
                del self.rows[parcel.id]
                return None
            self.codes[parcel.subject] = mac, now() + lifetime
            if link is not None:
                self.links[parcel.subject] = link.mac, now() + link.lifetime
            return Minted(self.people[parcel.subject], None, None, now() + lifetime, owned=parcel.subject in self.owned)

    async def address(self, parcel: Parcel) -> Minted | None:
        async with self.trouble.call():
            if parcel.subject not in self.people:
                del self.rows[parcel.id]
                return None
            return Minted(self.people[parcel.subject], None, None, None)

    async def done(self, *parcels: Parcel) -> None:
        self.written.append(len(parcels))
        async with self.trouble.call():
            for parcel in parcels:
                self._close(parcel, "sent", None)

    async def again(self, parcel: Parcel, wait: timedelta, reason: str, *, refund: bool) -> None:
        async with self.trouble.call():
            if row := self._held(parcel):
                row.state, row.error, row.not_before = "ready", reason, now() + wait
                row.attempts -= refund

    async def dead(self, parcel: Parcel, reason: str) -> None:
        async with self.trouble.call():
            self._close(parcel, "dead", reason)

    async def counts(self) -> OutboxCounts:
        async with self.trouble.call():
            states = self.states()
            return OutboxCounts(states.count("ready"), states.count("leased"), states.count("dead"), None)

    def _close(self, parcel: Parcel, state: str, reason: str | None) -> None:
        if row := self._held(parcel):
            row.state, row.error = state, reason

    def _held(self, parcel: Parcel) -> Row | None:
        row = self.rows.get(parcel.id)
        held = row is not None and row.state == "leased" and row.attempts == parcel.attempts
        return row if held else None


def _past(at: datetime | None) -> bool:
    return at is not None and at <= now()


async def accept(_: Dispatch) -> Outcome:
    """What a healthy relay does."""
    await trio.sleep(0.01)
    return Accepted()


@dataclass
class Relay:
    """A Transport. `behave` decides; what it accepts is `delivered`, with the time of its 250."""

    behave: Callable[[Dispatch], Awaitable[Outcome]] = accept
    delivered: list[tuple[datetime, Dispatch]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    tries: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    async def send(self, dispatch: Dispatch) -> Outcome:
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        self.tries[dispatch.to] += 1
        try:
            outcome = await self.behave(dispatch)
        finally:
            self.at_once -= 1
        if isinstance(outcome, Accepted):
            self.delivered.append((now(), dispatch))
        return outcome

    def recipients(self) -> list[str]:
        return [dispatch.to for _, dispatch in self.delivered]


@dataclass
class Dice:
    """Crypto with codes in a row, and MACs one can read."""

    codes: int = 0
    ids: int = 0
    next_tokens: list[Secret] = field(default_factory=list)

    def new_id(self) -> UUID:
        self.ids += 1
        return UUID(int=self.ids)

    def new_code(self, digits: int) -> Secret:
        self.codes += 1
        return Secret(f"{314159 + self.codes:0{digits}}")  # unlike anything else that a test says

    def mac(self, subject: UUID, purpose: str, code: Secret) -> bytes:
        return f"{subject}/{purpose}/{code.reveal()}".encode()

    def macs(self, subject: UUID, purpose: str, code: Secret) -> Sequence[bytes]:
        return [self.mac(subject, purpose, code)]

    def new_token(self) -> Secret:
        self.codes += 1
        return self.next_tokens.pop(0) if self.next_tokens else Secret(f"{314159 + self.codes:032x}")

    def new_refresh(self) -> Secret:
        raise NotImplementedError("actors open no sessions")

    def successors(self, token: Secret) -> Sequence[Secret]:
        raise NotImplementedError("actors open no sessions")

    def digest(self, token: Secret) -> bytes:
        raise NotImplementedError("actors open no sessions")

    def pseudonym(self, key: EmailKey) -> str:
        return f"~{len(key)}"


@dataclass
class Broom:
    """Housekeeping that finds `heaps` in turn, and `partitions`; an exception among them is raised."""

    heaps: list[Swept | Exception]
    partitions: list[Partitioned | Exception] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    mine: list[bool] = field(default_factory=list)
    takes: float = 0.0
    at: list[float] = field(default_factory=list)
    asked: list[frozenset[Heap]] = field(default_factory=list)
    turns: list[timedelta] = field(default_factory=list)

    async def turn(self, idle: timedelta) -> bool:
        self.turns.append(idle)
        await trio.lowlevel.checkpoint()
        return self.mine.pop(0) if self.mine else True

    async def sweep(self, limit: int, heaps: frozenset[Heap] = EVERYTHING) -> Swept:
        self.at.append(trio.current_time())
        self.asked.append(heaps)
        await trio.sleep(self.takes)
        found = self.heaps.pop(0) if self.heaps else Swept()
        if isinstance(found, Exception):
            raise found
        return found

    async def lag(self) -> timedelta:
        await trio.lowlevel.checkpoint()
        return timedelta(seconds=self.lags.pop(0) if self.lags else 0.0)

    async def partition(self) -> Partitioned:
        await trio.lowlevel.checkpoint()
        found = self.partitions.pop(0) if self.partitions else Partitioned()
        if isinstance(found, Exception):
            raise found
        return found


@dataclass
class Cable:
    """Notices over a cable that can be cut; `say` reaches whoever listens now."""

    away: bool = False
    opened: int = 0
    tried: int = 0
    _ends: set[trio.MemorySendChannel[Notice]] = field(default_factory=set)

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[AsyncIterator[Notice]]:
        self.tried += 1
        await trio.lowlevel.checkpoint()
        if self.away:
            raise AWAY
        send, receive = trio.open_memory_channel[Notice](100)
        self._ends.add(send)
        self.opened += 1
        try:
            yield self._heard(receive)
        finally:
            self._ends.discard(send)
            send.close()
            receive.close()

    async def _heard(self, receive: trio.MemoryReceiveChannel[Notice]) -> AsyncIterator[Notice]:
        async for notice in receive:
            yield notice
        raise Unavailable("database", "the cable was cut")

    def say(self, notice: Notice) -> None:
        for end in self._ends:
            end.send_nowait(notice)

    def cut(self) -> None:
        for end in list(self._ends):
            end.close()
