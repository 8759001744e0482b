"""The mailer, against a mailbag and a relay in memory and on a clock that jumps."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from uuid import UUID

import pytest
import trio
from trio.testing import MockClock

from regsvc.actors import courier, keeper
from regsvc.actors.courier import bell_rope
from regsvc.actors.tally import Drained, Pace, Tally
from regsvc.domain.delivery import Accepted, Deferred, Outage, Outcome, Parcel, Rejected
from regsvc.ports import Dispatch, OutboxCounts
from tests.fakes import Dice, Post, Relay, Trouble, accept, now
from tests.instruments import HangUp
from tests.lines import Lines

PACE = Pace(concurrency=4, jitter=lambda: 1.0)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Office:
    """A mailer with its ports, its bell and its count."""

    def __init__(self, post: Post | None = None, relay: Relay | None = None, pace: Pace = PACE) -> None:
        self.post = post or Post()
        self.relay = relay or Relay()
        self.pace = pace
        self.tally = Tally()
        self.dice = Dice()
        self.bell, self.ringing = trio.open_memory_channel[None](1)
        self.ring = bell_rope(self.bell)
        self.run = partial(courier.run, self.ringing, self.post, self.relay, self.dice, pace=pace, tally=self.tally)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[trio.Nursery]:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.run)
            yield nursery
            nursery.cancel_scope.cancel(reason="the test is over")

    async def until(self, condition: Callable[[], bool], *, within: float = 3600) -> float:
        """Let time pass until it is so; return how many seconds that took."""
        began = trio.current_time()
        with trio.fail_after(within):
            while not condition():  # noqa: ASYNC110 - the clock jumps: this is how a test lets time pass
                await trio.sleep(max(0.01, (trio.current_time() - began) / 100))
        return trio.current_time() - began


async def test_a_ring_carries_what_waits_at_once(autojump_clock: MockClock, log: Lines) -> None:
    office = Office(pace=Pace(poll=timedelta(hours=1)))
    async with office.open():
        await trio.sleep(1)
        row = office.post.post("ada@example.org", trace=TRACE)
        office.ring()
        assert await office.until(office.post.settled) < 0.1
    [(_, dispatch)] = office.relay.delivered
    assert dispatch.to == "ada@example.org"
    assert dispatch.id == row.id
    assert office.post.codes[row.subject][0] == office.dice.mac(row.subject, "activate", dispatch.code)
    assert office.tally.statistics().sent == 1
    [minted], [sent] = log.of("code_minted"), log.of("mail_sent")
    assert minted["trace_id"] == sent["trace_id"] == TRACE.split("-")[1]
    assert dispatch.trace is not None
    assert dispatch.trace.split("-")[1:3] == [sent["trace_id"], sent["span_id"]]
    assert 0 < sent["send_ms"] <= sent["accept_ms"] < 100
    assert dispatch.code.reveal() not in log.getvalue().decode()


async def test_without_a_ring_the_poll_finds_it(autojump_clock: MockClock) -> None:
    office = Office()
    async with office.open():
        await trio.sleep(1)
        office.post.post("ada@example.org")
        assert await office.until(office.post.settled) <= 5.1


async def test_what_is_put_off_is_carried_when_due_not_at_the_next_poll(autojump_clock: MockClock) -> None:
    office = Office(pace=Pace(poll=timedelta(hours=1)))
    office.post.post("ada@example.org", wait=3)
    async with office.open():
        assert 3 <= await office.until(office.post.settled) < 3.2


async def test_what_a_relay_deferred_is_carried_when_due(autojump_clock: MockClock) -> None:
    outcomes: list[Outcome] = [Deferred("450 later")]

    async def behave(dispatch: Dispatch) -> Outcome:
        return outcomes.pop() if outcomes else await accept(dispatch)

    office = Office(relay=Relay(behave), pace=Pace(poll=timedelta(hours=1), jitter=lambda: 1.0))
    office.post.post("ada@example.org")
    async with office.open():
        assert 3 <= await office.until(office.post.settled) < 3.2


async def test_a_lapsed_lease_is_carried_again(autojump_clock: MockClock, log: Lines) -> None:
    office = Office()
    row = office.post.post("ada@example.org")
    row.state, row.attempts, row.lease_until = "leased", 1, now() + timedelta(seconds=12)
    async with office.open():
        assert 12 <= await office.until(office.post.settled) < 17.1
    assert [line["mails"] for line in log.of("outbox_reclaimed")] == [1]
    assert row.attempts == 2


async def test_a_letter_nobody_waits_for_is_dropped(autojump_clock: MockClock, log: Lines) -> None:
    office = Office()
    row = office.post.post("ada@example.org")
    del office.post.people[row.subject]
    async with office.open():
        await office.until(lambda: not office.post.rows)
    assert not office.relay.delivered
    assert len(log.of("mail_dropped")) == office.tally.statistics().dropped == 1


async def test_leases_no_more_than_there_are_slots(autojump_clock: MockClock) -> None:
    office = Office()
    for n in range(50):
        office.post.post(f"p{n}@example.org")
    async with office.open():
        assert await office.until(office.post.settled) < 0.3
    assert office.relay.most_at_once == PACE.concurrency
    assert max(office.post.leases) == PACE.concurrency


async def test_mails_that_hang_take_their_own_slots_only(autojump_clock: MockClock, log: Lines) -> None:
    async def behave(dispatch: Dispatch) -> Outcome:
        if dispatch.to.startswith("hang"):
            await trio.sleep(3600)
        return await accept(dispatch)

    office = Office(relay=Relay(behave))
    hanging = [office.post.post(f"hang{n}@example.org") for n in range(PACE.concurrency - 1)]
    healthy = [office.post.post(f"ok{n}@example.org") for n in range(40)]
    async with office.open():
        await office.until(lambda: all(row.state == "sent" for row in healthy), within=1)
        await office.until(lambda: all(row.state == "ready" for row in hanging), within=13)
    assert all("no answer within 12 s" in str(row.error) for row in hanging)
    assert not log.of("mail_channel_down")


async def test_a_code_lives_45_seconds_after_its_250(autojump_clock: MockClock) -> None:
    waits = iter([11.9, 12.1, 5.0])

    async def behave(dispatch: Dispatch) -> Outcome:
        await trio.sleep(next(waits))
        return Accepted()

    office = Office(relay=Relay(behave), pace=Pace(concurrency=1))
    lives: list[float] = []
    async with office.open():
        for n in range(2):
            row = office.post.post(f"p{n}@example.org")
            office.ring()
            await office.until(lambda row=row: row.state == "sent")  # type: ignore[misc]  # a lambda's default
            at, _ = office.relay.delivered[-1]
            lives.append((office.post.codes[row.subject][1] - at).total_seconds())
    assert office.relay.tries["p1@example.org"] == 2
    assert min(lives) >= 45


def test_a_short_code_life_shortens_the_hand_over() -> None:
    assert Pace(code_lifetime=timedelta(seconds=20)).hand_over == timedelta(seconds=5)
    assert Pace(timeout=timedelta(seconds=3)).hand_over == timedelta(seconds=5)
    assert Pace(timeout=timedelta(seconds=60)).hand_over == timedelta(seconds=15)


async def test_a_4xx_is_tried_again_and_given_up_after_eight(autojump_clock: MockClock, log: Lines) -> None:
    async def behave(dispatch: Dispatch) -> Outcome:
        await trio.lowlevel.checkpoint()
        return Deferred(f"450 <{dispatch.to}> is greylisted, your code was {dispatch.code.reveal()}")

    office = Office(relay=Relay(behave))
    row = office.post.post("ada@example.org")
    async with office.open():
        await office.until(office.post.settled)
    assert (row.state, row.attempts) == ("dead", 8)
    assert row.error == "given up after 8 tries: 450 <…@…> is greylisted, your code was …"
    assert [line["attempts"] for line in log.of("mail_deferred")] == list(range(1, 8))
    assert len(log.of("mail_dead")) == office.tally.statistics().dead == 1
    assert "ada" not in log.getvalue().decode()


async def test_a_5xx_is_never_tried_again(autojump_clock: MockClock) -> None:
    async def behave(_: Dispatch) -> Outcome:
        await trio.lowlevel.checkpoint()
        return Rejected("550 no such user")

    office = Office(relay=Relay(behave))
    office.post.post("ada@example.org")
    async with office.open():
        await office.until(office.post.settled)
        await trio.sleep(100)
    assert office.post.states() == ["dead"]
    assert office.relay.tries["ada@example.org"] == 1


async def test_a_mail_that_took_its_mailer_down_too_often_is_not_tried_again(autojump_clock: MockClock) -> None:
    office = Office()
    row = office.post.post("ada@example.org", attempts=8)
    async with office.open():
        await office.until(office.post.settled)
    assert row.state == "dead"
    assert not office.relay.tries


async def test_a_poisoned_mail_is_put_off_and_harms_no_other(autojump_clock: MockClock, log: Lines) -> None:
    async def behave(dispatch: Dispatch) -> Outcome:
        if dispatch.to.startswith("poison"):
            raise LookupError("no template for this")
        return await accept(dispatch)

    office = Office(relay=Relay(behave))
    poisoned = office.post.post("poison@example.org")
    office.post.post("ok@example.org")
    async with office.open():
        await office.until(office.post.settled)
    assert office.post.states() == ["dead", "sent"]
    assert poisoned.attempts == len(log.of("mail_failed")) == 8
    assert "LookupError: no template" in log.of("mail_failed")[0]["traceback"]


# ------------------------------------------------------------------------------------------------ the relay


class Unplugged:
    """A relay that one can unplug and plug in."""

    def __init__(self) -> None:
        self.away = False
        self.tried: list[float] = []

    async def __call__(self, dispatch: Dispatch) -> Outcome:
        self.tried.append(trio.current_time())
        await trio.sleep(1 if self.away else 0.01)
        return Outage("connection refused") if self.away else Accepted()


async def test_an_outage_is_probed_by_one_mail_at_a_time_and_costs_no_try(
    autojump_clock: MockClock, log: Lines
) -> None:
    plug = Unplugged()
    office = Office(relay=Relay(plug))
    async with office.open():
        plug.away = True
        for n in range(30):
            office.post.post(f"p{n}@example.org")
        office.ring()
        await office.until(lambda: bool(log.of("mail_channel_down")))
        office.relay.most_at_once = 0
        for _ in range(2000):
            office.ring()
            await trio.sleep(0.3)
        assert office.relay.most_at_once == 1
        assert len(plug.tried) < 600 / 7.5 + 20, "a relay that is away is left alone for up to 15 s"
        assert office.tally.statistics().outages > 1
        plug.away = False
        assert await office.until(office.post.settled) <= 30
    assert Counter(office.relay.recipients()) == Counter(f"p{n}@example.org" for n in range(30))
    assert max(row.attempts for row in office.post.rows.values()) <= 2
    assert len(log.of("mail_channel_down")) == 1
    [up] = log.of("mail_channel_up")
    assert up["down_s"] >= 600
    assert office.tally.statistics().outages == 0


@pytest.mark.parametrize("mails", [1, PACE.concurrency])
async def test_a_relay_that_restarts_is_no_outage(autojump_clock: MockClock, log: Lines, mails: int) -> None:
    async def behave(dispatch: Dispatch) -> Outcome:
        await trio.sleep(0.01)
        return Outage("connection reset") if office.relay.tries[dispatch.to] == 1 else Accepted()

    office = Office(relay=Relay(behave))
    for n in range(mails):
        office.post.post(f"p{n}@example.org")
    async with office.open():
        assert await office.until(office.post.settled) < 1
    assert not [event for event in log.events if event.startswith("mail_channel")]


async def test_who_is_cut_off_while_others_get_through_spends_tries(autojump_clock: MockClock, log: Lines) -> None:
    async def behave(dispatch: Dispatch) -> Outcome:
        if dispatch.to.startswith("cut"):
            await trio.sleep(1)
            return Outage("closed before the dot")
        return await accept(dispatch)

    office = Office(relay=Relay(behave))
    cut = office.post.post("cut@example.org")
    async with office.open():
        for n in range(2000):
            office.post.post(f"p{n}@example.org")
            office.ring()
            await trio.sleep(0.5)
            if cut.state == "dead":
                break
    assert cut.state == "dead"
    assert office.relay.tries["cut@example.org"] == 8
    assert not log.of("mail_channel_down")


# --------------------------------------------------------------------------------------------- the database


async def test_a_lost_database_is_said_once_and_waited_for(autojump_clock: MockClock, log: Lines) -> None:
    office = Office()
    async with office.open():
        await trio.sleep(1)
        office.post.trouble.away = True
        office.post.post("ada@example.org")
        office.ring()
        await trio.sleep(60)
        office.post.trouble.away = False
        assert await office.until(office.post.settled) < 1.2
    assert [log.events.count(event) for event in ("database_unavailable", "database_recovered")] == [1, 1]
    assert office.post.trouble.calls < 200


@pytest.mark.parametrize("away_for", [120 + n / 7 for n in range(7)])  # the lease lapsed; who comes first varies
def test_what_was_sent_is_written_down_however_long_the_database_is_away(away_for: float, log: Lines) -> None:
    async def main() -> None:
        post = Post()

        async def behave(_: Dispatch) -> Outcome:
            await trio.sleep(0.01)
            post.trouble.away = True
            return Accepted()

        office = Office(post, Relay(behave))
        row = post.post("ada@example.org")
        async with office.open():
            await trio.sleep(away_for)
            post.trouble.away = False
            await office.until(post.settled)
        assert office.relay.tries["ada@example.org"] == 1
        assert row.state == "sent"

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_a_lease_is_renewed_while_its_mail_is_on_the_way(autojump_clock: MockClock) -> None:
    async def behave(_: Dispatch) -> Outcome:
        await trio.sleep(50)
        return Accepted()

    pace = Pace(timeout=timedelta(seconds=60), code_lifetime=timedelta(minutes=10))
    office = Office(relay=Relay(behave), pace=pace)
    row = office.post.post("ada@example.org")
    async with office.open():
        await office.until(office.post.settled)
    assert (row.state, row.attempts) == ("sent", 1)
    assert office.post.renewed >= 9


async def test_a_lease_that_could_not_be_renewed_is_no_reason_to_end(autojump_clock: MockClock, log: Lines) -> None:
    post = Post()

    async def behave(_: Dispatch) -> Outcome:
        post.trouble.away = True
        await trio.sleep(8)
        post.trouble.away = False
        return Accepted()

    office = Office(post, Relay(behave))
    post.post("ada@example.org")
    async with office.open():
        await office.until(post.settled)
    assert log.events.count("database_unavailable") == 1


async def test_mails_that_another_mailer_is_taking_are_not_fought_for(autojump_clock: MockClock) -> None:
    office = Office(Post(contested=True))
    office.post.post("ada@example.org")
    async with office.open():
        await trio.sleep(1)
        assert len(office.post.leases) <= 12
        office.post.contested = False
        await office.until(office.post.settled)


async def test_a_database_that_does_not_answer_is_away_too(autojump_clock: MockClock, log: Lines) -> None:
    class Frozen(Post):
        frozen = True

        async def done(self, parcel: Parcel) -> None:
            if self.frozen:
                self.frozen = False
                await trio.sleep_forever()
            await super().done(parcel)

    office = Office(Frozen())
    office.post.post("ada@example.org")
    async with office.open():
        await office.until(office.post.settled)
    assert [log.events.count(event) for event in ("database_unavailable", "database_recovered")] == [1, 1]
    assert office.relay.tries["ada@example.org"] == 1


# ------------------------------------------------------------------------------------------------ the drain


async def test_the_end_of_the_bell_empties_what_is_due_and_ends_the_mailer(autojump_clock: MockClock) -> None:
    office = Office()
    async with trio.open_nursery() as nursery:
        await nursery.start(office.run)
        await trio.sleep(1)
        for n in range(20):
            office.post.post(f"p{n}@example.org")
        later = office.post.post("later@example.org", wait=30)
        office.bell.close()
    assert trio.current_time() < 2
    assert later.state == "ready"
    assert office.tally.statistics().drained == Drained(handed_over=20, left=1)
    assert office.tally.statistics().in_flight == 0
    office.ring()  # too late, and harmless


async def test_a_drain_waits_for_what_is_in_flight(autojump_clock: MockClock) -> None:
    async def behave(_: Dispatch) -> Outcome:
        await trio.sleep(3)
        return Accepted()

    office = Office(relay=Relay(behave))
    office.post.post("ada@example.org")
    async with trio.open_nursery() as nursery:
        await nursery.start(office.run)
        await trio.sleep(1)
        office.bell.close()
    assert 3 <= trio.current_time() < 3.1, "it ends with the last mail, not with the next poll"
    assert office.tally.statistics().drained == Drained(handed_over=1, left=0)


async def test_a_drain_does_not_wait_for_a_relay_that_is_away(autojump_clock: MockClock) -> None:
    plug = Unplugged()
    plug.away = True
    office = Office(relay=Relay(plug))
    for n in range(20):
        office.post.post(f"p{n}@example.org")
    async with trio.open_nursery() as nursery:
        await nursery.start(office.run)
        await trio.sleep(30)
        office.bell.close()
    assert trio.current_time() < 31
    assert office.tally.statistics().drained == Drained(handed_over=0, left=20)


async def test_a_drain_is_not_ended_by_one_lost_connection(autojump_clock: MockClock) -> None:
    outcomes: list[Outcome] = [Outage("connection reset")]

    async def behave(dispatch: Dispatch) -> Outcome:
        return outcomes.pop() if outcomes else await accept(dispatch)

    office = Office(relay=Relay(behave), pace=Pace(concurrency=1))
    async with trio.open_nursery() as nursery:
        await nursery.start(office.run)
        await trio.sleep(1)
        for n in range(3):
            office.post.post(f"p{n}@example.org")
        office.bell.close()
    assert office.post.states().count("sent") >= 2, "the one that was put off is due later"


async def test_a_drain_does_not_know_what_is_left_without_a_database(autojump_clock: MockClock) -> None:
    class Dying(Post):
        async def counts(self) -> OutboxCounts:
            self.trouble.away = True
            return await super().counts()

    office = Office(Dying())
    async with trio.open_nursery() as nursery:
        await nursery.start(office.run)
        office.bell.close()
    assert office.tally.statistics().drained == Drained(handed_over=0, left=None)


# ------------------------------------------------------------------------------------- wherever it is struck

MAILS = 3


def _simulate(main: Callable[[], Awaitable[bool]]) -> bool:
    return trio.run(main, clock=MockClock(autojump_threshold=0))


def _all_is_well(office: Office) -> None:
    """Nothing is lost, nothing is twice, and the code that was delivered last is the one that opens."""
    assert office.post.states() == ["sent"] * MAILS
    assert Counter(office.relay.recipients()) == Counter(f"p{n}@example.org" for n in range(MAILS))
    for _, dispatch in office.relay.delivered:
        subject = UUID(int=1000 + dispatch.id.int)
        assert office.post.codes[subject][0] == office.dice.mac(subject, "activate", dispatch.code)


def _posted(trouble: Trouble | None = None) -> Office:
    office = Office(Post(trouble or Trouble()), pace=Pace(concurrency=2))
    for n in range(MAILS):
        office.post.post(f"p{n}@example.org")
    return office


def test_cancelled_anywhere_it_loses_nothing_and_sends_nothing_twice(log: Lines) -> None:
    async def struck_at(n: int) -> bool:
        office = _posted()
        with trio.CancelScope() as scope:
            instrument = HangUp(scope, n)
            trio.lowlevel.add_instrument(instrument)
            async with office.open():
                await office.until(office.post.settled)
        trio.lowlevel.remove_instrument(instrument)
        async with office.open():  # the next worker
            await office.until(office.post.settled)
        _all_is_well(office)
        return instrument.left > 0

    n = 1
    while not _simulate(partial(struck_at, n)):
        n += 1
    assert n > 30, "the mailer has more scheduling points than that"


@pytest.mark.parametrize("late", [False, True], ids=["before it happened", "after it happened"])
def test_a_database_that_fails_at_any_call_costs_no_mail(log: Lines, *, late: bool) -> None:
    async def struck_at(n: int) -> bool:
        office = _posted(Trouble(fail_at=n, late=late))
        async with office.open():
            await office.until(office.post.settled)
            _all_is_well(office)
        assert late or {row.attempts for row in office.post.rows.values()} == {1}, "no fault of the mails"
        return office.post.trouble.calls < n

    n = 1
    while not _simulate(partial(struck_at, n)):
        n += 1
    assert n > 10


def test_a_bug_at_any_call_is_survived_under_its_keeper(log: Lines) -> None:
    async def struck_at(n: int) -> bool:
        office = _posted(Trouble(fail_at=n, error=RuntimeError("a bug")))
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(keeper.keep, office.run, name="mailer"))
            await office.until(office.post.settled)
            nursery.cancel_scope.cancel(reason="the test is over")
        # A bug may strike between a 250 and its note: such a mail is sent again. None is lost.
        assert set(office.relay.recipients()) == {f"p{n}@example.org" for n in range(MAILS)}
        assert len(office.relay.delivered) <= MAILS + 2
        return office.post.trouble.calls < n

    n = 1
    while not _simulate(partial(struck_at, n)):
        n += 1
    assert "actor_restarted" in log.events
    assert "mail_failed" in log.events
