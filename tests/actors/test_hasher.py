"""The hasher on real threads: who waits, who is told no, who is computed, and what is left behind.

The clock stands still unless a test moves it, so deadlines pass exactly when they should; the threads are real, and a
scheme whose work waits at a gate shows what runs.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from itertools import count

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from regsvc.actors import hands
from regsvc.actors.hasher import OUTLIER, Hasher
from regsvc.adapters.crypto import Bcrypt, Keys
from regsvc.domain.values import Secret
from regsvc.ports import Unavailable
from tests.actors.gate import DEADLINE, PATIENCE, Gate, refused, running
from tests.lines import Lines
from tests.waiting import until


def threads_of_ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("hasher ")]


async def test_bcrypt_for_real() -> None:
    scheme = Bcrypt(Keys.derive(Secret("a secret of some length for tests")), rounds=4)
    passwords = Hasher(scheme, threads=2, queue=10, deadline=DEADLINE)
    async with trio.open_nursery() as nursery:
        await nursery.start(passwords.run)
        stored = await passwords.hash(Secret("correct horse"))
        assert await passwords.check(Secret("correct horse"), [stored, "unreadable"]) == [True, False]
        assert await passwords.check(Secret("wrong horse"), [stored]) == [False]
        assert await passwords.check(Secret("correct horse"), []) == []
        nursery.cancel_scope.cancel(reason="the test is over")
    assert passwords.statistics().done == 5
    assert passwords.statistics().mean < timedelta(milliseconds=200)


async def test_nobody_costs_as_much_as_somebody() -> None:
    gate = Gate().open()
    async with running(gate) as (passwords, _):
        assert await passwords.check(Secret("x"), []) == []
        assert await passwords.check(Secret("x"), ["right"]) == [True]
    assert gate.worked == ["waste x", "x against right"]


async def test_as_many_as_there_are_threads_and_the_others_in_turn(mock_clock: MockClock) -> None:
    gate = Gate()
    async with running(gate) as (passwords, callers):
        for n in range(6):
            callers.start_soon(passwords.hash, Secret(f"p{n}"))
            await wait_all_tasks_blocked()
        await gate.has_begun(2)
        statistics = passwords.statistics()
        assert (statistics.running, statistics.waiting, statistics.threads) == (2, 4, 2)
        assert len(threads_of_ours()) == 2
        for _ in range(4):
            gate.passes.release()
            await gate.has_begun()
        gate.open()
    assert sorted(gate.worked[:2]) == ["p0", "p1"]
    assert gate.worked[2:] == ["p2", "p3", "p4", "p5"]
    assert passwords.statistics().done == 6


async def test_a_full_queue_says_no_at_once_and_when_to_come_back(mock_clock: MockClock, log: Lines) -> None:
    gate = Gate()
    async with running(gate, room=3) as (passwords, callers):
        for _ in range(2):
            callers.start_soon(passwords.hash, Secret("running"))
        await gate.has_begun(2)
        for _ in range(3):
            callers.start_soon(passwords.hash, Secret("waiting"))
        await wait_all_tasks_blocked()
        no = await refused(partial(passwords.hash, Secret("too many")))
        assert no.retry_after >= timedelta(seconds=1)
        gate.open()
    assert "too many" not in gate.worked
    [line] = log.of("hash_queue_full")
    assert (line["waiting"], line["refused"], line["retry_after_s"]) == (3, 1, 1)


async def test_a_wait_that_would_take_too_long_is_refused_though_there_is_room(mock_clock: MockClock) -> None:
    gate = Gate()
    async with running(gate, threads=1, room=1000) as (passwords, callers):
        callers.start_soon(passwords.hash, Secret("running"))
        await gate.has_begun()
        for _ in range(14):  # one half done, 13 others, the last itself: 14.5 × 0.25 s, three quarters of 5 s at most
            callers.start_soon(passwords.hash, Secret("waiting"))
        await wait_all_tasks_blocked()
        no = await refused(partial(passwords.hash, Secret("too late")))
        assert no.retry_after == timedelta(seconds=14.5 * 0.25)
        gate.open()


async def test_who_need_not_wait_is_hashed_however_short_the_deadline(mock_clock: MockClock) -> None:
    gate = Gate()
    async with running(gate, threads=2, room=1000, deadline=timedelta(milliseconds=100)) as (passwords, callers):
        assert passwords.statistics().mean > timedelta(milliseconds=100)
        for n in range(2):
            callers.start_soon(passwords.hash, Secret(f"{n}"))
            await gate.has_begun()
        await refused(partial(passwords.hash, Secret("who would wait")))
        gate.open()
    assert sorted(gate.worked) == ["0", "1"]


async def test_of_several_that_begin_at_once_the_last_is_only_to_be_begun_by_then(mock_clock: MockClock) -> None:
    gate = Gate().open()
    async with running(gate, threads=1, room=1000, deadline=timedelta(milliseconds=500)) as (passwords, _):
        assert await passwords.check(Secret("x"), ["right", "wrong"]) == [True, False]
        passwords._mean = passwords._mean_of_full = 0.25
        await refused(partial(passwords.check, Secret("x"), ["right"] * 3))  # the third would be begun after 0.5 s


async def test_a_machine_that_stood_still_once_does_not_refuse_people_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate().open()
    async with running(gate, threads=1) as (passwords, _):
        await passwords.hash(Secret("first"))
        passwords._mean = 0.25
        monkeypatch.setattr(hands, "time", StandingStill(seconds=40))
        await passwords.hash(Secret("while it stood still"))
        assert passwords.statistics().mean == timedelta(seconds=0.25 + (OUTLIER * 0.25 - 0.25) / 8)
        monkeypatch.setattr(hands, "time", StandingStill(seconds=2.5))
        for _ in range(12):
            await passwords.hash(Secret("since it is ten times as slow"))
        assert timedelta(seconds=1.5) < passwords.statistics().mean < timedelta(seconds=2.5)


class StandingStill:
    """A clock by which so much passes between any two looks at it."""

    def __init__(self, seconds: float, since: float = 0.0) -> None:
        self.perf_counter = count(since, seconds).__next__


async def test_complaints_come_once_a_second_and_count(mock_clock: MockClock, log: Lines) -> None:
    gate = Gate()
    async with running(gate, threads=1, room=1) as (passwords, callers):
        callers.start_soon(passwords.hash, Secret("running"))
        await gate.has_begun()
        callers.start_soon(passwords.hash, Secret("waiting"))
        await wait_all_tasks_blocked()
        for _ in range(2):
            for _ in range(5):
                await refused(partial(passwords.hash, Secret("x")))
            mock_clock.jump(1)
        assert [line["refused"] for line in log.of("hash_queue_full")] == [1, 5]
        assert passwords.statistics().refused == 10
        gate.open()


async def test_who_was_not_begun_by_the_deadline_is_refused_and_never_computed(mock_clock: MockClock) -> None:
    gate = Gate()
    async with running(gate, threads=1) as (passwords, callers):
        callers.start_soon(passwords.hash, Secret("running"))
        await gate.has_begun()
        callers.start_soon(refused, partial(passwords.hash, Secret("too late")))
        await wait_all_tasks_blocked()
        mock_clock.jump(DEADLINE.total_seconds())
        await wait_all_tasks_blocked()
        assert passwords.statistics().waiting == 0
        gate.open()
    assert gate.worked == ["running"], "what runs is waited for, what waited is gone"


async def test_when_it_goes_slower_than_foretold_the_last_are_refused_before_their_deadline(
    mock_clock: MockClock, log: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, put_out = Gate(), list[int]()

    async def ask(passwords: Hasher, number: int) -> None:
        with contextlib.suppress(Unavailable):
            await passwords.hash(Secret(f"{number}"))
            return
        put_out.append(number)

    async with running(gate, threads=1, room=1000) as (passwords, callers):
        for number in range(14):  # 0.25 s each, it seems
            callers.start_soon(ask, passwords, number)
            await wait_all_tasks_blocked()
        await gate.has_begun()
        mock_clock.jump(0.8)
        monkeypatch.setattr(hands, "time", StandingStill(seconds=1, since=time.perf_counter()))
        gate.passes.release()
        await gate.has_begun()
        await until(lambda: passwords.statistics().done == 1)
        assert put_out == []
        passwords._mean = passwords._mean_of_full = 1.0
        gate.passes.release()
        await gate.has_begun()
        await until(lambda: passwords.statistics().done == 2)  # and 4.2 s are left
        await wait_all_tasks_blocked()
        assert sorted(put_out) == [6, 7, 8, 9, 10, 11, 12, 13]
        assert passwords.statistics().refused == 8
        assert [line["refused"] for line in log.of("hash_queue_full")] == [1]
        gate.open()
    assert gate.worked == ["0", "1", "2", "3", "4", "5"]


async def test_who_leaves_gives_up_the_place(mock_clock: MockClock) -> None:
    gate = Gate()
    async with running(gate, threads=1, room=1) as (passwords, callers):
        callers.start_soon(passwords.hash, Secret("running"))
        await gate.has_begun()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as leaving:
                leaving.start_soon(passwords.hash, Secret("left"))
                await wait_all_tasks_blocked()
                scope.cancel(reason="the client hung up")
        assert passwords.statistics().left == 1
        callers.start_soon(passwords.hash, Secret("came after"))
        await wait_all_tasks_blocked()
        gate.open()
    assert gate.worked == ["running", "came after"]


async def test_several_checks_are_admitted_together_or_not_at_all(mock_clock: MockClock) -> None:
    gate = Gate()
    async with running(gate, threads=1, room=3) as (passwords, callers):
        callers.start_soon(passwords.hash, Secret("running"))
        await gate.has_begun()
        await refused(partial(passwords.check, Secret("x"), ["1", "2", "3", "4"]))
        assert passwords.statistics().waiting == 0
        callers.start_soon(refused, partial(passwords.check, Secret("x"), ["1", "2", "3"]))
        await wait_all_tasks_blocked()
        assert passwords.statistics().waiting == 3
        mock_clock.jump(DEADLINE.total_seconds())
        await wait_all_tasks_blocked()
        gate.open()
    assert gate.worked == ["running"]


@pytest.mark.parametrize(("what", "error"), [("bug", LookupError), ("panic", RuntimeError)])
async def test_what_goes_wrong_is_the_callers_and_the_thread_lives_on(what: str, error: type[Exception]) -> None:
    async with running(Gate().open(), threads=1) as (passwords, _):
        with pytest.raises(error):
            await passwords.hash(Secret(what))
        assert await passwords.hash(Secret("fine")) == "hash of fine"


async def test_without_its_actor_it_says_no() -> None:
    passwords = Hasher(Gate(), threads=1, queue=1, deadline=DEADLINE)
    assert "not running" in str(await refused(partial(passwords.hash, Secret("x"))))


async def test_the_end_refuses_who_waits_and_finishes_what_runs(mock_clock: MockClock) -> None:
    gate = Gate()
    passwords = Hasher(gate, threads=1, queue=10, deadline=DEADLINE)
    ended: list[object] = []

    async def hash_running() -> None:
        ended.append(await passwords.hash(Secret("running")))

    async with trio.open_nursery() as callers:
        async with trio.open_nursery() as actors:
            await actors.start(passwords.run)
            callers.start_soon(hash_running)
            await gate.has_begun()
            callers.start_soon(refused, partial(passwords.hash, Secret("waiting")))
            await wait_all_tasks_blocked()
            actors.cancel_scope.cancel(reason="the worker ends")
            callers.start_soon(_open_when_all_is_still, gate)
        assert not threads_of_ours()
    assert ended == ["hash of running"]
    await refused(partial(passwords.hash, Secret("later")))


@pytest.mark.parametrize("batch", [1, 4])
async def test_it_can_be_started_again(batch: int) -> None:
    passwords = Hasher(Gate().open(), threads=2, queue=10, deadline=DEADLINE, lanes=batch)
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            await nursery.start(passwords.run)
            assert await passwords.check(Secret("x"), ["right", "wrong"] * 4) == [True, False] * 4
            nursery.cancel_scope.cancel(reason="a restart")
        assert not threads_of_ours()


def test_a_hash_that_does_not_end_cannot_hold_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hands, "JOIN", 0.05)
    gate = Gate()
    passwords = Hasher(gate, threads=1, queue=1, deadline=DEADLINE)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(passwords.run)
            nursery.start_soon(passwords.hash, Secret("stuck"))
            await gate.has_begun()
            nursery.cancel_scope.cancel(reason="the worker ends")

    trio.run(main)
    [stuck] = [thread for thread in threading.enumerate() if thread.name.startswith("hasher ")]
    gate.open()
    stuck.join(PATIENCE)
    assert not stuck.is_alive(), "it ends by itself, though the loop it would report to is gone"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a priority for each thread")
async def test_only_the_hashers_threads_step_back() -> None:
    gate = Gate().open()
    here = os.getpriority(os.PRIO_PROCESS, 0)
    async with running(gate, threads=3) as (passwords, callers):
        for _ in range(9):
            callers.start_soon(passwords.hash, Secret("x"))
    assert gate.niceness == {min(19, here + hands.NICENESS)}

    def other() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    others: set[int] = set()
    async with trio.open_nursery() as nursery:
        for _ in range(9):
            nursery.start_soon(partial(_note, others, other))
    assert others == {here}, "no thread that Trio keeps for others has stepped back"


async def _open_when_all_is_still(gate: Gate) -> None:
    await wait_all_tasks_blocked()
    gate.open()


async def _note(into: set[int], what: Callable[[], int]) -> None:
    into.add(await trio.to_thread.run_sync(what))


def test_whether_a_hash_is_outdated_is_the_scheme_s_to_say_at_once() -> None:
    gate = Gate()
    passwords = Hasher(gate, threads=1, queue=1, deadline=DEADLINE)  # it need not even run
    assert passwords.outdated("old")
    assert not passwords.outdated("right")
    assert gate.worked == []
