"""The mailer, against a mailbag and a relay in memory and on a clock that jumps."""

from datetime import timedelta

import trio
from trio.testing import MockClock

from regsvc.actors.tally import Pace
from regsvc.domain.delivery import Accepted, Deferred, Outcome, Rejected
from regsvc.ports import Dispatch
from tests.actors.office import PACE, TRACE, Office
from tests.fakes import Relay, accept, now
from tests.lines import Lines


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
    assert dispatch.code is not None
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


async def test_a_4xx_is_tried_again_and_given_up_after_eight(autojump_clock: MockClock, log: Lines) -> None:
    async def behave(dispatch: Dispatch) -> Outcome:
        await trio.lowlevel.checkpoint()
        assert dispatch.code is not None
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
