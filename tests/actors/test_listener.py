"""Word from other processes: rings, wakes who waits and the locksmith, and comes back after a cut."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from regsvc.actors import listener
from regsvc.actors.listener import Newsroom
from regsvc.ports import Notice, NoticeKind
from tests.fakes import Cable
from tests.lines import Lines

ADA, BOB = UUID(int=1), UUID(int=2)


class House:
    """A listener with its cable, its newsroom and a bell that counts."""

    def __init__(self) -> None:
        self.cable = Cable()
        self.newsroom = Newsroom()
        self.rung = 0
        self.keys = 0

    def ring(self) -> None:
        self.rung += 1

    def wake(self) -> None:
        self.keys += 1

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            await nursery.start(listener.run, self.cable, self.newsroom, self.ring, self.wake)
            await wait_all_tasks_blocked()
            yield
            nursery.cancel_scope.cancel(reason="the test is over")


async def waited(newsroom: Newsroom, subject: UUID, seconds: float) -> float:
    began = trio.current_time()
    await newsroom.wait(subject, seconds)
    return trio.current_time() - began


async def test_a_notice_of_the_outbox_rings(autojump_clock: MockClock) -> None:
    house = House()
    async with house.open():
        before = house.rung
        house.cable.say(Notice(NoticeKind.OUTBOX, None))
        await wait_all_tasks_blocked()
        assert house.rung == before + 1


async def test_a_notice_of_keys_wakes_the_locksmith_and_nobody_else(autojump_clock: MockClock) -> None:
    house = House()
    async with house.open():
        assert house.keys == 1, "something may have been missed before"
        rung = house.rung
        house.cable.say(Notice(NoticeKind.KEYS, None))
        await wait_all_tasks_blocked()
        assert (house.keys, house.rung) == (2, rung)


async def test_word_of_a_subject_wakes_all_who_wait_for_it_and_no_others(autojump_clock: MockClock) -> None:
    house = House()
    took: dict[str, float] = {}

    async def wait(name: str, subject: UUID) -> None:
        took[name] = await waited(house.newsroom, subject, 10)

    async with house.open(), trio.open_nursery() as waiting:
        waiting.start_soon(wait, "ada", ADA)
        waiting.start_soon(wait, "ada's other tab", ADA)
        waiting.start_soon(wait, "bob", BOB)
        await trio.sleep(3)
        house.cable.say(Notice(NoticeKind.SETTLED, ADA))
    assert took == {"ada": 3, "ada's other tab": 3, "bob": 10}
    assert house.newsroom.waiting() == 0


async def test_one_who_leaves_does_not_take_the_word_from_another(autojump_clock: MockClock) -> None:
    house = House()
    async with house.open(), trio.open_nursery() as waiting:
        waiting.start_soon(house.newsroom.wait, ADA, 1)
        waiting.start_soon(house.newsroom.wait, ADA, 10)
        await trio.sleep(2)
        assert house.newsroom.waiting() == 1
        house.cable.say(Notice(NoticeKind.SETTLED, ADA))
        await wait_all_tasks_blocked()
        assert house.newsroom.waiting() == 0
    assert trio.current_time() < 3


async def test_word_that_names_nobody_wakes_everyone(autojump_clock: MockClock) -> None:
    house = House()
    async with house.open(), trio.open_nursery() as waiting:
        waiting.start_soon(house.newsroom.wait, ADA, 10)
        waiting.start_soon(house.newsroom.wait, BOB, 10)
        await trio.sleep(1)
        house.cable.say(Notice(NoticeKind.SETTLED, None))
    assert trio.current_time() < 2


async def test_word_that_nobody_waits_for_is_not_kept(autojump_clock: MockClock) -> None:
    house = House()
    async with house.open():
        house.cable.say(Notice(NoticeKind.SETTLED, ADA))
        await wait_all_tasks_blocked()
        assert await waited(house.newsroom, ADA, 3) == 3


async def test_after_a_cut_it_listens_again_and_wakes_everyone_once(autojump_clock: MockClock, log: Lines) -> None:
    house = House()
    async with house.open():
        assert house.rung == 1, "something may have been missed before"
        house.cable.away = True
        house.cable.cut()
        await trio.sleep(60)
        assert 60 / 5 <= house.cable.tried <= 60 / 5 + 8, "tried with backoff"
        house.cable.away = False
        assert await waited(house.newsroom, ADA, 100) <= 5
        assert (house.rung, house.keys) == (2, 2)
        house.cable.say(Notice(NoticeKind.OUTBOX, None))
        await wait_all_tasks_blocked()
        assert house.rung == 3
    assert log.events == ["listener_lost", "listener_restored"]
    assert log.of("listener_restored")[0]["away_s"] >= 60


async def test_a_short_cut_is_mended_at_once(autojump_clock: MockClock, log: Lines) -> None:
    house = House()
    async with house.open():
        for _ in range(5):
            house.cable.cut()
            await trio.sleep(0.2)
        assert house.cable.opened == 6
    assert log.events == ["listener_lost", "listener_restored"] * 5


async def test_a_subscription_that_just_ends_is_a_lost_one(autojump_clock: MockClock, log: Lines) -> None:
    class Polite(Cable):
        async def _heard(self, receive: trio.MemoryReceiveChannel[Notice]) -> AsyncIterator[Notice]:
            async for notice in receive:
                yield notice

    house = House()
    house.cable = Polite()
    async with house.open():
        house.cable.cut()
        await trio.sleep(1)
        assert house.cable.opened == 2
    assert log.of("listener_lost")[0]["reason"] == "database: the subscription ended"
