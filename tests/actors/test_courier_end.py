"""How the mailer ends: drained, cancelled, or by a failure at any call."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from uuid import UUID

import pytest
import trio
from trio.testing import MockClock

from regsvc.actors import keeper
from regsvc.actors.courier import DRAIN_AWAY
from regsvc.actors.tally import Drained, Pace
from regsvc.domain.delivery import Accepted, Letter, Outage, Outcome
from regsvc.domain.values import LinkToken
from regsvc.ports import Dispatch, OutboxCounts
from tests.actors.office import Office, Unplugged
from tests.fakes import Post, Relay, Trouble, accept
from tests.instruments import HangUp
from tests.lines import Lines

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


async def test_a_drain_does_not_wait_to_its_end_for_a_database_that_is_away(autojump_clock: MockClock) -> None:
    office = Office()
    async with trio.open_nursery() as nursery:
        await nursery.start(office.run)
        office.post.trouble.away = True
        began = trio.current_time()
        office.bell.close()
    assert DRAIN_AWAY <= trio.current_time() - began < DRAIN_AWAY + 2
    assert office.tally.statistics().drained == Drained(handed_over=0, left=None)


async def test_a_drain_waits_for_a_database_that_comes_back(autojump_clock: MockClock) -> None:
    office = Office()
    office.post.post("someone@example.org")
    office.post.trouble.away = True
    async with trio.open_nursery() as nursery:
        await nursery.start(office.run)
        office.bell.close()
        await trio.sleep(DRAIN_AWAY / 2)
        office.post.trouble.away = False
    assert office.post.states() == ["sent"]


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

LETTERS = (Letter.ACTIVATION, Letter.RESET, Letter.PASSWORD_CHANGED)
MAILS = len(LETTERS)


def _simulate(main: Callable[[], Awaitable[bool]]) -> bool:
    return trio.run(main, clock=MockClock(autojump_threshold=0))


def _all_is_well(office: Office) -> None:
    """Nothing is lost, nothing is twice, and what was delivered last is what opens."""
    assert office.post.states() == ["sent"] * MAILS
    assert Counter(office.relay.recipients()) == Counter(f"p{n}@example.org" for n in range(MAILS))
    opens = {row.subject: mac for row in office.post.rows.values() if (mac := office.post.codes.get(row.subject))}
    assert {subject: mac for subject, (mac, _) in opens.items()} == dict(_shown(office))


def _shown(office: Office) -> Iterator[tuple[UUID, bytes]]:
    """The MACs of what was delivered."""
    for _, dispatch in office.relay.delivered:
        if (code := dispatch.code) is not None:
            token = LinkToken.parse(code.reveal())
            subject, purpose = UUID(int=1000 + dispatch.id.int), dispatch.letter.purpose
            assert purpose is not None
            yield subject, office.dice.mac(subject, purpose, code if token is None else token.secret)


def _posted(trouble: Trouble | None = None) -> Office:
    office = Office(Post(trouble or Trouble()), pace=Pace(concurrency=2))
    for n, letter in enumerate(LETTERS):
        office.post.post(f"p{n}@example.org", letter)
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
    assert n >= 10, "what is sent at once is written down at once; there are more calls than that all the same"


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
