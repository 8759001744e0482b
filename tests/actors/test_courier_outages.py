"""The mailer while its relay or its database is away."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest
import trio
from trio.testing import MockClock

from regsvc.actors.tally import Pace
from regsvc.domain.delivery import Accepted, Outage, Outcome, Parcel
from regsvc.ports import Dispatch, Reclaimed
from tests.actors.office import PACE, Office, Unplugged
from tests.fakes import AWAY, Post, Relay, Trouble, accept, now
from tests.lines import Lines

# ------------------------------------------------------------------------------------------------ the relay


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


def taking(post: Post) -> Relay:
    """A relay that takes a mail as the database goes away, so that its 250 cannot be written down."""

    async def behave(_: Dispatch) -> Outcome:  # noqa: ASYNC124 - a relay is async
        post.trouble.away = True
        return Accepted()

    return Relay(behave)


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


async def test_what_was_sent_as_the_database_went_away_no_other_mailer_sends_again(autojump_clock: MockClock) -> None:
    post = Post()

    sender = Office(post, taking(post))
    others = [Office(post) for _ in range(5)]
    row = post.post("ada@example.org")
    async with sender.open():
        await sender.until(lambda: post.trouble.away)
        async with AsyncExitStack() as running:
            for other in others:  # one of them is sure to ask before the sender does
                await running.enter_async_context(other.open())
                await trio.sleep(0.2)
            await trio.sleep(PACE.lease.total_seconds() * 2 + 0.6)
            post.trouble.away = False
            assert await sender.until(post.settled) < 2
            await trio.sleep(30)
    assert row.state == "sent"
    assert [other.relay.recipients() for other in others] == [[]] * 5


@dataclass
class Still(Post):
    """The same database for a process that stands still while it is away, and so never hears of it."""

    async def lease(self, limit: int, lease: timedelta) -> Sequence[Parcel]:
        await self._still()
        return await super().lease(limit, lease)

    async def reclaim(
        self, since: datetime | None, seen: datetime | None, *, least: timedelta, most: timedelta
    ) -> Reclaimed:
        await self._still()
        return await super().reclaim(since, seen, least=least, most=most)

    async def _still(self) -> None:
        while self.trouble.away:  # noqa: ASYNC110 - it has no event
            await trio.sleep(0.01)


@asynccontextmanager
async def sent_as_it_goes_away(post: Post, other: Office, later: float = 0.0) -> AsyncIterator[None]:
    """Have a mail sent as the database goes away; after the block it is back, and the `other` mailer has sent nothing.

    `later`: seconds by which the other mailer's looks are shifted.
    """
    sender = Office(post, taking(post))
    async with other.open():
        await trio.sleep(8.1 + later)
        row = post.post("ada@example.org")
        async with sender.open():
            await sender.until(lambda: post.trouble.away)
            yield
            post.trouble.away = False
            await sender.until(post.settled)
            await trio.sleep(30)
    assert row.state == "sent"
    assert other.relay.recipients() == []


@pytest.mark.parametrize("later", [n / 4 for n in range(20)])  # its call may be on the way, or not yet
async def test_a_mailer_that_stood_still_through_an_outage_takes_nothing_that_was_sent(
    autojump_clock: MockClock, later: float
) -> None:
    post = Post()
    async with sent_as_it_goes_away(post, Office(Still(**vars(post))), later):
        await trio.sleep(PACE.lease.total_seconds() * 2)


@dataclass
class Missed(Post):
    """A mailbag in which the first renewal does nothing: it fails, or meets a row that somebody holds."""

    fails: bool = False

    async def renew(self, parcels: Sequence[Parcel], lease: timedelta) -> None:
        if self.renewed:
            return await super().renew(parcels, lease)
        self.renewed += 1
        await trio.lowlevel.checkpoint()
        if self.fails:
            raise AWAY
        return None


@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95])  # of the time from the missed renewal to the next one
@pytest.mark.parametrize("later", [n / 2 for n in range(10)])  # than the other mailer's looks
async def test_a_lease_whose_renewal_was_missed_before_an_outage_is_nobody_else_s_after_it(
    autojump_clock: MockClock, *, fails: bool, share: float, later: float
) -> None:
    async def behave(_: Dispatch) -> Outcome:
        await trio.sleep(PACE.renew.total_seconds() * (1 + share))
        post.trouble.away = True
        return Accepted()

    post = Missed(fails=fails)
    sender, other = Office(post, Relay(behave)), Office(post)
    async with other.open():
        await trio.sleep(8.1 + later)
        row = post.post("ada@example.org")
        async with sender.open():
            await sender.until(lambda: post.trouble.away)
            assert row.lease_until is not None
            await trio.sleep((row.lease_until - now()).total_seconds() + 0.01)
            post.trouble.away = False
            await sender.until(post.settled)
            await trio.sleep(30)
    assert len(sender.relay.recipients()) + len(other.relay.recipients()) == 1


@pytest.mark.parametrize("there", [0.1, 0.4, 0.8])  # seconds in which the database is back, between its outages
# Seconds of each outage after the first; who stands still in all of them notices only those that are longer than GAP.
@pytest.mark.parametrize(("away_for", "still"), [(0.9, False), (2.5, False), (8.0, False), (8.0, True)])
@pytest.mark.parametrize("later", [n / 5 for n in range(5)])
async def test_a_database_that_is_back_for_moments_gives_nobody_what_was_sent(
    autojump_clock: MockClock, *, still: bool, there: float, away_for: float, later: float
) -> None:
    post = Post()
    async with sent_as_it_goes_away(post, Office(Still(**vars(post)) if still else post), later):
        await trio.sleep(PACE.lease.total_seconds() * 2)
        for _ in range(20):
            post.trouble.away = False
            await trio.sleep(there)
            post.trouble.away = True
            await trio.sleep(away_for)


@pytest.mark.parametrize(("there", "away_for"), [(0.7, 1.3), (0.4, 2.0), (1.5, 1.0)])
async def test_who_hears_that_the_database_comes_and_goes_takes_nothing(
    autojump_clock: MockClock, there: float, away_for: float
) -> None:
    """The sender misses each moment in which it is there; the other mailer's looks are never longer than GAP apart."""
    post, trouble = Post(), Trouble()
    async with sent_as_it_goes_away(post, Office(replace(post, trouble=trouble))):
        for _ in range(20):
            trouble.away = True
            await trio.sleep(away_for)
            trouble.away = False
            await trio.sleep(there)


async def test_a_mailer_with_its_hands_full_does_not_say_that_the_database_is_back(
    autojump_clock: MockClock, log: Lines
) -> None:
    post = Post()

    office = Office(post, taking(post))
    for n in range(PACE.concurrency):
        post.post(f"p{n}@example.org")
    async with office.open():
        await office.until(lambda: post.trouble.away)
        for _ in range(100):  # all are written down again and again, and nothing can be leased
            office.ring()
            await trio.sleep(0.1)
        post.trouble.away = False
        await office.until(post.settled)
    assert [log.events.count(event) for event in ("database_unavailable", "database_recovered")] == [1, 1]


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

        async def done(self, *parcels: Parcel) -> None:
            if self.frozen:
                self.frozen = False
                await trio.sleep_forever()
            await super().done(*parcels)

    office = Office(Frozen())
    office.post.post("ada@example.org")
    async with office.open():
        await office.until(office.post.settled)
    assert [log.events.count(event) for event in ("database_unavailable", "database_recovered")] == [1, 1]
    assert office.relay.tries["ada@example.org"] == 1
