"""What was sent is written down together with what is sent meanwhile, and each on its own where that fails."""

from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock

from regsvc.actors.tally import Pace
from regsvc.domain.delivery import Parcel
from tests.actors.office import Office
from tests.fakes import AWAY, Post
from tests.lines import Lines

MAILS = 8
PACE = Pace(concurrency=MAILS, jitter=lambda: 1.0)


@dataclass
class Slow(Post):
    """A mailbag whose database takes its time to write down what was sent."""

    takes: float = 0.05
    told: list[list[str]] = field(default_factory=list)

    async def done(self, *parcels: Parcel) -> None:
        self.told.append([self.people[parcel.subject] for parcel in parcels])
        await trio.sleep(self.takes)
        await super().done(*parcels)


def full(post: Post) -> Office:
    """A mailer to which one mail comes for each of its slots."""
    office = Office(post, pace=PACE)
    for n in range(MAILS):
        post.post(f"{n}@example.org")
    return office


async def test_what_is_sent_while_another_is_written_down_is_written_at_once(autojump_clock: MockClock) -> None:
    post = Slow(takes=1.0)
    office = Office(post, pace=PACE)
    post.post("0@example.org")
    async with office.open():
        await office.until(lambda: len(post.told) == 1)
        for n in range(1, MAILS):
            post.post(f"{n}@example.org")
            office.ring()
            await trio.sleep(0.02)  # one after the other, while the first is written down
        await office.until(post.settled)
    assert post.told == [["0@example.org"], [f"{n}@example.org" for n in range(1, MAILS)]]
    assert office.tally.statistics().sent == MAILS


@pytest.mark.parametrize("late", [False, True])
async def test_what_could_not_be_written_together_is_written_each_on_its_own(
    autojump_clock: MockClock, *, late: bool
) -> None:
    class Failing(Slow):
        async def done(self, *parcels: Parcel) -> None:
            if len(parcels) > 1 and not late:
                raise AWAY
            await super().done(*parcels)
            if len(parcels) > 1:
                raise AWAY  # it was written, and nobody heard of it

    post = Failing()
    office = full(post)
    async with office.open():
        await office.until(lambda: post.settled() and office.tally.statistics().in_flight == 0)
        await trio.sleep(PACE.lease.total_seconds() * 2)
    assert post.written.count(1) == MAILS
    assert (max(post.written) > 1) is late
    assert set(office.relay.tries.values()) == {1}, "what was sent is never sent again"


async def test_a_row_that_nobody_can_write_keeps_no_other_result_back(autojump_clock: MockClock, log: Lines) -> None:
    class Stuck(Slow):
        stuck = True

        async def done(self, *parcels: Parcel) -> None:
            if self.stuck and any(self.people[parcel.subject] == "3@example.org" for parcel in parcels):
                await trio.sleep_forever()
            await super().done(*parcels)

    post = Stuck()
    office = full(post)
    async with office.open():
        await office.until(lambda: post.states().count("sent") == MAILS - 1, within=5)
        for n in range(MAILS):
            post.post(f"later-{n}@example.org")
        office.ring()
        assert await office.until(lambda: post.states().count("sent") == 2 * MAILS - 1) < 1
        post.stuck = False
        await office.until(post.settled)
    assert set(office.relay.tries.values()) == {1}
    assert log.events.count("database_recovered") > 0
