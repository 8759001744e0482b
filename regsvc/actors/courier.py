"""The mailer: takes parcels from the outbox, mints what each one carries at the last moment, hands the letter over.

Rule 1. PostgreSQL has the cargo, the bell only wakes. A parcel is ours while its lease lasts; whatever stops us, the
lease lapses and somebody carries it again. What was sent is written down before anything else, however long the
database is away, because a parcel whose 250 is forgotten is sent twice.
Rule 2. One mail, one slot: what is slow or hangs takes its own slot and no other.
Rule 3. A code is minted when its letter is about to leave and must live 45 s after the relay's 250, so minting and
sending share one deadline: a quarter of the code's life (15 s of 60). A token is a code; a notice has neither.
Rule 4. A relay that is away is nobody's fault: tries are given back, and one mail at a time asks whether it is there
again. When it answered others meanwhile, it was not away, and the try counts.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from math import inf
from typing import Final, assert_never

import trio

from regsvc import observe
from regsvc.actors import minting
from regsvc.actors.minting import facts
from regsvc.actors.relay import Channel, discreet
from regsvc.actors.tally import Drained, Pace, Tally
from regsvc.domain.delivery import (
    Accepted,
    Again,
    Dead,
    Deferred,
    Done,
    Outage,
    Outcome,
    Parcel,
    Rejected,
    Verdict,
    verdict,
)
from regsvc.ports import Crypto, Mailbag, Transport, Unavailable

SETTLE: Final = 2.0  # seconds; how long a cancellation waits for a result that is being written down
AWAY_WAIT: Final = 0.1  # seconds between tries while the database is away, doubled up to AWAY_WAIT_MAX
AWAY_WAIT_MAX: Final = 1.0
DRAIN_AWAY: Final = 2.0  # seconds of a drain in which a database that is away is waited for, with nothing in hand
CATCH_UP: Final = timedelta(seconds=5)  # in which the database was there whenever it was asked; then leases are taken
GAP: Final = timedelta(seconds=3)  # between two of those times; in a longer one it may have been away unnoticed
CONTESTED_WAIT: Final = 0.1  # seconds; a due mail that we could not lease is being taken by another mailer


def bell_rope(bell: trio.MemorySendChannel[None]) -> Callable[[], None]:
    """Return a function that rings: one ring is as good as two, and after the drain began nobody needs to hear it."""

    def ring() -> None:
        try:
            bell.send_nowait(None)
        except (trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError):
            return

    return ring


async def run(
    bell: trio.MemoryReceiveChannel[None],
    mailbag: Mailbag,
    transport: Transport,
    crypto: Crypto,
    *,
    pace: Pace,
    tally: Tally | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Carry parcels until `bell` is closed by its last sender, then what is due, and return.

    A drain leaves what is put off for later, and everything while the relay is away. `bell` is not closed here.
    Cancellation: a parcel in flight keeps its lease, which lapses in the database; it is carried again. A result that
    is being written down is written (SETTLE at most). Errors: an Unavailable database is waited for; an error of the
    transport or of a template puts that mail off. Anything else is a bug and leaves through the nursery.
    """
    courier = _Courier(mailbag, transport, crypto, pace, tally or Tally())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(courier.hear, bell, name="mailer bell")
        nursery.start_soon(courier.renew, name="mailer leases")
        task_status.started()
        try:
            await courier.lead(nursery)
        finally:
            nursery.cancel_scope.cancel(reason="the mailer ends")


@dataclass(frozen=True, slots=True)
class _Trip:
    """A parcel in flight; `began` on Trio's clock, just before its lease did on the database's."""

    parcel: Parcel
    began: float
    era: int
    answers: int

    def now(self) -> datetime:
        """The time on the database's clock, never too early."""
        return self.parcel.leased_at + timedelta(seconds=trio.current_time() - self.began)


@dataclass(eq=False, slots=True)
class _Batch:
    """Parcels that were sent, to be written down by one statement."""

    parcels: list[Parcel] = field(default_factory=list)
    tried: bool = False
    written: bool = False


class _Courier:
    """One life of the mailer."""

    def __init__(self, mailbag: Mailbag, transport: Transport, crypto: Crypto, pace: Pace, tally: Tally) -> None:
        self._mailbag = mailbag
        self._transport = transport
        self._crypto = crypto
        self._pace = pace
        self._tally = tally
        self._channel = Channel(pace.jitter)
        self._trips: set[_Trip] = set()
        self._unwritten = 0  # results that the database has not taken yet
        self._batch = _Batch()  # the next one to be written
        self._pen = trio.Lock()
        self._wake, self._woken = trio.open_memory_channel[None](1)
        self._ring = bell_rope(self._wake)
        self._poll_at = trio.current_time()
        # On the database's clock: since when it was there each time it was asked for lapsed leases, and the last time.
        self._since: datetime | None = None
        self._seen: datetime | None = None
        self._more = False  # the last lease was as large as there was room: more may wait
        self._sent_before: int | None = None  # when the drain began; None while nobody asked for one
        self._patient_until = inf  # on Trio's clock: how long a drain waits for the database

    # ------------------------------------------------------------------------------------ beside the mails

    async def hear(self, bell: trio.MemoryReceiveChannel[None]) -> None:
        """Wake the leader at each ring; the end of the bell begins the drain."""
        async for _ in bell:
            self._ring()
        self._sent_before = self._tally.statistics().sent
        self._patient_until = trio.current_time() + DRAIN_AWAY
        self._ring()

    async def renew(self) -> None:
        """Prolong the leases of what is in flight; soon again where that failed."""
        wait, backoff = self._pace.renew.total_seconds(), AWAY_WAIT
        while True:
            await trio.sleep(wait)
            wait = self._pace.renew.total_seconds()
            if parcels := [trip.parcel for trip in self._trips]:
                try:
                    await self._mailbag.renew(parcels, self._pace.lease)
                    backoff = AWAY_WAIT
                except Unavailable as away:
                    observe.database_away(away.why)
                    wait, backoff = backoff, min(backoff * 2, AWAY_WAIT_MAX)

    async def lead(self, nursery: trio.Nursery) -> None:
        """Lease and send until drained."""
        backoff = AWAY_WAIT
        while True:
            try:
                wait = await self._round(nursery)
                if wait is None:
                    return
                backoff = AWAY_WAIT
            except Unavailable as away:
                observe.database_away(away.why)
                if backoff > AWAY_WAIT:  # not the first time: it is away, and no single call was lost
                    self._since = None
                if not self._trips and trio.current_time() >= self._patient_until:
                    self._note_drained(None)  # what waits there, the next mailer will find
                    return
                wait, backoff = backoff, min(backoff * 2, AWAY_WAIT_MAX)
            with trio.move_on_after(wait):
                await self._woken.receive()

    async def _round(self, nursery: trio.Nursery) -> float | None:
        """Lease what there is room for; return how long to wait if nothing rings, None at the end of the drain."""
        await self._reclaim()
        draining = self._sent_before is not None
        give_up = draining and self._channel.outages > 1  # another process, or the next one, will find the relay back
        room = 0 if give_up else self._room()
        began = trio.current_time()
        parcels: Sequence[Parcel] = ()
        if room:  # a round that asks the database nothing says nothing of it
            parcels = await self._mailbag.lease(room, self._pace.lease)
            observe.database_back()
        for parcel in parcels:
            trip = _Trip(parcel, began, self._channel.era, self._channel.answers)
            self._trips.add(trip)
            self._tally.note(in_flight=1)
            nursery.start_soon(self._carry, trip, name=f"mail {parcel.id}")
        self._more = len(parcels) == room
        if draining and not self._trips and (give_up or (room and not parcels)):
            await self._account()
            return None
        return await self._pause(room)

    def _room(self) -> int:
        free = self._pace.concurrency - len(self._trips)
        if self._channel.outages:
            probes = sum(trip.era == self._channel.era for trip in self._trips)
            return 0 if self._channel.closed_for() or probes else min(free, 1)
        return free

    async def _pause(self, room: int) -> float:
        """Seconds to the next round, if nothing rings and no mail comes to its end before."""
        pause = max(self._poll_at - trio.current_time(), 0.0)
        if closed := self._channel.closed_for():
            return min(pause, closed)
        if room and not self._more:
            due = await self._mailbag.next_due()
            if due is not None:
                return min(pause, max(due.total_seconds(), CONTESTED_WAIT))
        return pause

    async def _reclaim(self) -> None:
        now = trio.current_time()
        if now < self._poll_at:
            return
        # A lapsed lease may be of a mail that was sent, and that is written down first: by us, or by another mailer
        # whose leases outages of the database outlasted, and who tries again each AWAY_WAIT_MAX, as we do. Nobody who
        # was away himself, or stood still, knows of them; so leases are taken only by somebody whom the database has
        # seen for CATCH_UP without a GAP, by its own clock, and who has missed it in no other way.
        if self._unwritten:
            self._poll_at = now + AWAY_WAIT_MAX
            return
        found = await self._mailbag.reclaim(self._since, self._seen, least=CATCH_UP, most=GAP)
        observe.database_back()
        if self._since is None or self._seen is None or found.at - self._seen > GAP:
            self._since = found.at
        self._seen = found.at
        self._poll_at = trio.current_time() + self._pace.poll.total_seconds()
        if found.mails:
            self._tally.note(reclaimed=found.mails)
            observe.emit("outbox_reclaimed", mails=found.mails)

    async def _account(self) -> None:
        """Say how the drain ended."""
        left: int | None = None
        try:
            counts = await self._mailbag.counts()
            left = counts.ready + counts.leased
        except Unavailable as away:
            observe.database_away(away.why)
        self._note_drained(left)

    def _note_drained(self, left: int | None) -> None:
        handed_over = self._tally.statistics().sent - (self._sent_before or 0)
        self._tally.note(drained=Drained(handed_over, left))

    # --------------------------------------------------------------------------------------------- one mail

    async def _carry(self, trip: _Trip) -> None:
        """Send one mail and write down what became of it."""
        try:
            here = observe.bind(traceparent=trip.parcel.trace)
            with here as place, observe.span("mail", "process outbox", at=place) as span:
                if span:
                    span.tell("mail_id", str(trip.parcel.id))
                    span.tell("letter", trip.parcel.letter.value)
                judged = await self._judge(trip)
                if span and isinstance(judged, Again | Dead):
                    span.tell("error", type(judged).__name__)
                if judged is not None:
                    await self._settle(trip, judged)
        finally:
            self._trips.remove(trip)
            self._tally.note(in_flight=-1)
            if self._more or self._sent_before is not None:
                self._ring()

    async def _judge(self, trip: _Trip) -> Verdict | None:
        """Send it; return what becomes of it, None when there is nothing left to write down."""
        parcel, pace = trip.parcel, self._pace
        if parcel.attempts > pace.attempts_max:  # it took its mailer down with it, again and again
            return Dead(f"given up after {parcel.attempts - 1} tries that were never finished")
        try:
            outcome = await self._hand_over(trip)
        except Unavailable as away:  # the database; nothing was sent
            observe.database_away(away.why)
            return Again(timedelta(seconds=AWAY_WAIT_MAX), str(away), refund=True)
        except Exception as bug:  # noqa: BLE001 - one poisoned mail must not stop the others; it is logged and put off
            observe.exception("mail_failed", bug, **facts(trip.parcel))
            outcome = Deferred(f"internal error: {type(bug).__name__}")
        if outcome is None:
            return None
        outages = max(self._channel.outages, 1)
        return verdict(
            parcel, outcome, trip.now(), attempts_max=pace.attempts_max, outages=outages, jitter=pace.jitter()
        )

    async def _hand_over(self, trip: _Trip) -> Outcome | None:
        """Mint and send; None when the letter is no longer wanted."""
        limit = self._pace.hand_over(trip.parcel.letter).total_seconds()
        with trio.move_on_after(limit):
            dispatch = await minting.dispatch(trip.parcel, self._mailbag, self._crypto, self._pace)
            if dispatch is None:
                self._tally.note(dropped=1)
                observe.emit("mail_dropped", **facts(trip.parcel), reason="nobody waits for it, or a newer one does")
                return None
            began = trio.current_time()
            outcome = await self._transport.send(dispatch)
            if isinstance(outcome, Accepted):
                self._say_sent(trip, began)
            return self._learn(trip, discreet(outcome, dispatch.secrets))
        return Deferred(f"no answer within {limit:g} s")

    def _say_sent(self, trip: _Trip, began: float) -> None:
        accept = trip.now() - trip.parcel.created_at
        observe.emit(
            "mail_sent",
            **facts(trip.parcel),
            accept_ms=round(accept.total_seconds() * 1000, 1),
            send_ms=round((trio.current_time() - began) * 1000, 1),
        )

    def _learn(self, trip: _Trip, outcome: Outcome) -> Outcome:
        """Note what the outcome says of the relay."""
        match outcome:
            case Outage(reason) if self._channel.answers == trip.answers:
                self._channel.away(trip.era, reason)
                self._tally.note_outages(self._channel.outages)
            case Outage(reason):  # Rule 4
                return Deferred(reason)
            case Accepted() | Deferred() | Rejected():
                self._channel.answered()
                self._tally.note_outages(self._channel.outages)
            case _:
                assert_never(outcome)
        return outcome

    async def _settle(self, trip: _Trip, judged: Verdict) -> None:
        parcel, mailbag = trip.parcel, self._mailbag
        match judged:
            case Done():
                self._tally.note(sent=1)
                await self._write(self._sent(parcel))
            case Again(wait, reason, refund):
                self._tally.note(deferred=1)
                wait_s = round(wait.total_seconds(), 3)
                observe.emit("mail_deferred", **facts(trip.parcel), wait_s=wait_s, reason=reason, refunded=refund)
                await self._write(partial(mailbag.again, parcel, wait, reason, refund=refund))
                self._ring()  # it may be due before anything else
            case Dead(reason):
                self._tally.note(dead=1)
                observe.emit("mail_dead", **facts(trip.parcel), reason=reason)
                await self._write(partial(mailbag.dead, parcel, reason))
            case _:
                assert_never(judged)

    def _sent(self, parcel: Parcel) -> Callable[[], Awaitable[None]]:
        """Return what writes down that it was sent, together with all whose turn comes meanwhile.

        What could not be written together is written each on its own, so that none waits for another's row.
        """
        batch = self._batch
        batch.parcels.append(parcel)

        async def write() -> None:
            if not batch.tried:
                async with self._pen:
                    if not batch.tried:
                        batch.tried, self._batch = True, _Batch()
                        await self._mailbag.done(*batch.parcels)
                        batch.written = True
            if not batch.written:
                await self._mailbag.done(parcel)

        return write

    async def _write(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write a result down, however long the database is away; Rule 1."""
        wait = AWAY_WAIT
        self._unwritten += 1
        try:
            while True:
                try:
                    with trio.move_on_after(SETTLE, shield=True):
                        await write()
                        observe.database_back()
                        return
                    observe.database_away(f"no answer within {SETTLE:g} s")
                except Unavailable as away:
                    observe.database_away(away.why)
                await trio.sleep(wait)
                wait = min(wait * 2, AWAY_WAIT_MAX)
        finally:
            self._unwritten -= 1
