"""The hasher between clients: whose turn it is, who is put out, and that nothing is lost or done twice."""

import random
import threading
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from regsvc.actors.hasher import RETRY_LEAST, Hasher
from regsvc.domain.values import Secret
from regsvc.ports import Unavailable
from tests.actors.gate import DEADLINE, Gate, Plan, refused, running
from tests.instruments import HangUp

LONG = timedelta(days=365)  # beyond what a busy machine has a hasher foretell
NEXT = 1  # handed over to the one thread already, whoever comes then


def asks(passwords: Hasher, callers: trio.Nursery, what: str, client: str | None = None) -> None:
    callers.start_soon(passwords.hash, Secret(what), client)


async def test_who_has_64_waiting_makes_nobody_wait_more_than_a_round(mock_clock: MockClock) -> None:
    gate = Gate()
    async with running(gate, threads=1, room=70, deadline=LONG) as (passwords, callers):
        asks(passwords, callers, "running", "greedy")
        await gate.has_begun()
        for _ in range(64):
            asks(passwords, callers, "one of many", "greedy")
        await wait_all_tasks_blocked()
        for client in ("b", "c"):
            asks(passwords, callers, f"{client}'s", client)
            await wait_all_tasks_blocked()
        statistics = passwords.statistics()
        assert (statistics.waiting, statistics.clients, statistics.running) == (66, 3, 1)
        gate.open()
    before = 1 + NEXT
    assert gate.worked.index("b's") <= before + 1
    assert gate.worked.index("c's") <= before + 2
    assert passwords.statistics().done == 67


@pytest.mark.parametrize("batch", [1, 4])
async def test_a_thousand_clients_have_one_turn_each_before_anybody_has_two(mock_clock: MockClock, batch: int) -> None:
    gate = Gate()
    async with running(gate, threads=1, room=3000, deadline=LONG, lanes=batch) as (passwords, callers):
        asks(passwords, callers, "running")
        await gate.has_begun()
        for client in range(1000):
            callers.start_soon(passwords.check, Secret(f"{client}"), ["", "", ""], f"{client}")
        await wait_all_tasks_blocked()
        assert passwords.statistics().clients == 1000
        gate.open()
        gate.passes.release(3000)
    order = [what.split()[0] for what in gate.worked[1:]]
    rounds = [Counter(order[turn : turn + 1000]) for turn in (0, 1000, 2000)]
    # What was handed over before the others came is of those who came first.
    assert all(len(clients) >= 1000 - batch for clients in rounds)
    assert Counter(order) == {f"{client}": 3 for client in range(1000)}


async def test_the_predicted_wait_is_the_clients_own(mock_clock: MockClock) -> None:
    gate = Gate()
    async with running(gate, threads=1, room=1000) as (passwords, callers):
        asks(passwords, callers, "running", "greedy")
        await gate.has_begun()
        for _ in range(14):
            asks(passwords, callers, "waiting", "greedy")
        await wait_all_tasks_blocked()
        no = await refused(partial(passwords.hash, Secret("too late"), "greedy"))
        assert no.retry_after == timedelta(seconds=14.5 * 0.25)
        callers.start_soon(passwords.check, Secret("x"), ["1", "2"], "b")  # 1 + 1 before the first, 1 more for the 2nd
        await wait_all_tasks_blocked()
        assert passwords.statistics().waiting == 16
        no = await refused(partial(passwords.check, Secret("x"), ["right"] * 8, "b"))  # the 10th in 10 rounds
        assert no.retry_after == timedelta(seconds=(0.5 + 1 + 9 + 10) * 0.25)
        gate.open()


async def test_a_newcomer_takes_the_place_of_who_has_more(mock_clock: MockClock) -> None:
    gate, put_out = Gate(), list[Unavailable]()
    async with running(gate, threads=1, room=4) as (passwords, callers):
        asks(passwords, callers, "running", "greedy")
        await gate.has_begun()
        for n in range(4):
            callers.start_soon(_try, passwords, f"{n} of greedy", "greedy", put_out)
            await wait_all_tasks_blocked()
        await refused(partial(passwords.hash, Secret("more"), "greedy"))
        assert put_out == [], "one's own jobs are nobody else's"
        for client in ("b", "c", "d"):
            asks(passwords, callers, f"{client}'s", client)
            await wait_all_tasks_blocked()
        assert [no.what for no in put_out] == ["hasher"] * 3
        assert all(no.retry_after >= RETRY_LEAST for no in put_out)
        assert passwords.statistics().waiting == 4
        for client in ("e", "b"):  # each has one: who came first stays
            await refused(partial(passwords.hash, Secret("no room"), client))
        gate.open()
    assert gate.worked == ["running", "0 of greedy", "b's", "c's", "d's"]
    assert passwords.statistics().refused == 6


async def test_several_jobs_take_as_many_places_or_none(mock_clock: MockClock) -> None:
    gate, put_out = Gate(), list[Unavailable]()
    async with running(gate, threads=1, room=6) as (passwords, callers):
        asks(passwords, callers, "running", "greedy")
        await gate.has_begun()
        asks(passwords, callers, "handed over", "greedy")
        await wait_all_tasks_blocked()
        for n in range(2):
            callers.start_soon(_try_check, passwords, [f"{n}", f"{n}"], "greedy", put_out)
            await wait_all_tasks_blocked()
        callers.start_soon(passwords.check, Secret("x"), ["own"], "b")
        await wait_all_tasks_blocked()
        await refused(partial(passwords.check, Secret("x"), ["1", "2", "3"], "c"))  # greedy's five are two too many
        assert put_out == []
        callers.start_soon(passwords.check, Secret("x"), ["1", "2"], "c")
        await wait_all_tasks_blocked()
        assert len(put_out) == 1, "a call leaves as it came: with all of its jobs"
        assert passwords.statistics().waiting == 6
        gate.open()
    assert "x against own" in gate.worked
    assert "x against 1" in gate.worked
    assert passwords.statistics().done == 2 + 2 + 1 + 2


async def test_what_goes_wrong_in_one_of_several_spares_the_others_the_work(mock_clock: MockClock) -> None:
    class Faulty(Gate):
        def to_check(self, password: Secret, stored: str) -> Plan:
            plan = super().to_check(password, stored)

            def run() -> object:
                plan.run()
                raise LookupError(stored)

            return Plan(run)

    gate = Faulty()
    async with running(gate, threads=1) as (passwords, callers):
        asks(passwords, callers, "running")
        await gate.has_begun()
        callers.start_soon(_fails, passwords)
        await wait_all_tasks_blocked()
        gate.open()
    assert gate.worked[:2] == ["running", "x against 1"]
    assert passwords.statistics().done + passwords.statistics().left == 1 + 5


async def test_a_caller_may_leave_at_any_point() -> None:
    gate = Gate().open()
    gate.passes.release(10_000)
    async with running(gate, threads=2, room=100) as (passwords, _):
        ended = 0
        for n in range(1, 400):
            with trio.CancelScope() as scope:
                hang_up = HangUp(scope, n)
                trio.lowlevel.add_instrument(hang_up)
                try:
                    await passwords.check(Secret("x"), ["1", "2", "3"], f"{n % 3}")
                finally:
                    if hang_up.left > 0:
                        ended += 1
                    trio.lowlevel.remove_instrument(hang_up)
            if ended > 3:
                break
        assert ended > 3
        assert await passwords.check(Secret("x"), ["right", "wrong"]) == [True, False]
        statistics = passwords.statistics()
        assert (statistics.waiting, statistics.clients) == (0, 0)
        assert not passwords._calls


class Ledger:
    """A scheme that counts how often it did what."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.done: Counter[str] = Counter()

    def to_hash(self, password: Secret) -> Plan:
        return Plan(partial(self._count, password.reveal()))

    def to_check(self, password: Secret, stored: str) -> Plan:
        return Plan(lambda: self._count(stored) == password.reveal())

    def to_waste(self, password: Secret) -> Plan:
        return self.to_hash(password)

    def do(self, works: Sequence[Plan]) -> list[object]:
        return [work.run() for work in works]

    def _count(self, what: str) -> str:
        with self.lock:
            self.done[what] += 1
        return what

    def outdated(self, stored: str) -> bool:
        return False


@pytest.mark.parametrize("batch", [1, 4])
async def test_each_job_is_done_once_or_its_caller_knows_better(batch: int, rounds: int | None) -> None:
    ledger, dice = Ledger(), random.Random(4)
    passwords = Hasher(ledger, threads=3, queue=20, deadline=timedelta(milliseconds=20), lanes=batch)
    passwords._mean = 1e-4  # else the guess of a real hash says no to all
    answered: list[str] = []

    async def caller(number: int) -> None:
        works = [f"{number}-{n}" for n in range(dice.randint(1, 3))]
        with trio.move_on_after(dice.choice([0, 0.001, 0.01, 1])):
            try:
                await passwords.check(Secret("x"), works, dice.choice("abcd"))
            except Unavailable:
                return
            answered.extend(works)

    async with trio.open_nursery() as actors:
        await actors.start(passwords.run)
        for start in range(0, 100 * (rounds or 20), 100):
            async with trio.open_nursery() as callers:
                for number in range(start, start + 100):
                    callers.start_soon(caller, number)
        passwords._deadline = DEADLINE  # whether anybody still answers, and not how soon
        with trio.fail_after(DEADLINE.total_seconds()):
            assert await passwords.check(Secret("x"), ["last"]) == [False]
        actors.cancel_scope.cancel(reason="the test is over")
    assert set(ledger.done.values()) == {1}
    assert {*answered} <= ledger.done.keys()
    statistics = passwords.statistics()
    assert (statistics.waiting, statistics.running, statistics.clients) == (0, 0, 0)
    assert answered
    assert statistics.refused


async def _try(passwords: Hasher, what: str, client: str, put_out: list[Unavailable]) -> None:
    try:
        await passwords.hash(Secret(what), client)
    except Unavailable as no:
        put_out.append(no)


async def _try_check(passwords: Hasher, stored: list[str], client: str, put_out: list[Unavailable]) -> None:
    try:
        await passwords.check(Secret("x"), stored, client)
    except Unavailable as no:
        put_out.append(no)


async def _fails(passwords: Hasher) -> None:
    with pytest.raises(LookupError, match="1"):
        await passwords.check(Secret("x"), ["1", "2", "3", "4", "5"])
