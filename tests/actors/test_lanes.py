"""The hasher where a thread does several jobs at once: who goes together, who alone, and what is counted."""

from datetime import timedelta

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from regsvc.actors.hasher import Hasher
from regsvc.adapters.crypto import Keys, choose
from regsvc.bcrypt_lanes import open_engine
from regsvc.domain.values import Secret
from tests.actors.gate import DEADLINE, Gate, running, running_hasher
from tests.waiting import until

SECOND = 1.0


async def test_what_waits_goes_together_and_a_lone_one_at_once(mock_clock: MockClock) -> None:
    gate = Gate()
    async with running(gate, threads=1, lanes=4) as (passwords, callers):
        callers.start_soon(passwords.hash, Secret("first"))
        await gate.has_begun()
        for n in range(6):
            callers.start_soon(passwords.hash, Secret(f"{n}"), f"client {n}")
            await wait_all_tasks_blocked()
        assert (passwords.statistics().running, passwords.statistics().waiting) == (1, 6)
        gate.open()
    assert gate.batches == [1, 4, 2]
    assert gate.worked == ["first", "0", "1", "2", "3", "4", "5"]
    assert passwords.statistics().done == 7


async def test_a_wait_is_foretold_by_batches_that_were_full_whatever_lone_ones_took() -> None:
    gate = Gate()
    async with running(gate, threads=1, lanes=4) as (passwords, callers):
        callers.start_soon(passwords.hash, Secret("first"))
        await gate.has_begun()
        for n in range(4):
            callers.start_soon(passwords.hash, Secret(f"{n}"))
        await wait_all_tasks_blocked()
        gate.passes.release()
        await gate.has_begun()
        await trio.sleep(0.4)  # is what a full batch takes
        gate.open()
        await until(lambda: passwords.statistics().done == 5)
        for _ in range(20):
            await passwords.hash(Secret("lone"))
        assert gate.batches[:2] == [1, 4]
        assert passwords.statistics().mean < timedelta(seconds=0.1)
        assert passwords._wait_of(None, 8) >= 7 * 0.4 / 4  # seven come before the last of eight, four at once


async def test_before_a_batch_was_full_a_wait_is_foretold_by_a_lone_hash_and_by_how_much_longer_a_full_one_takes() -> (
    None
):
    passwords = Hasher(Gate().open(), threads=1, queue=10, deadline=DEADLINE, lanes=4, stretch=1.5)
    async with running_hasher(passwords):
        await passwords.hash(Secret("lone"))
        lone = passwords.statistics().mean.total_seconds()
        assert passwords._wait_of(None, 9) == pytest.approx(8 * 1.5 * lone / 4, rel=0.01, abs=1e-5)
        await passwords.check(Secret("all"), ["right"] * 4)
        assert passwords._mean_of_full > 0, "what was seen is believed from here on"
        assert passwords._wait_of(None, 9) == 8 * max(passwords._mean, passwords._mean_of_full) / 4


async def test_two_works_and_two_idle_threads_take_a_core_each(mock_clock: MockClock) -> None:
    gate = Gate()
    async with running(gate, threads=2, lanes=4) as (passwords, callers):
        callers.start_soon(passwords.check, Secret("x"), ["right", "wrong"])
        await gate.has_begun(2)
        gate.open()
    assert gate.batches == [1, 1]


async def test_costs_do_not_mix_and_the_order_is_kept(mock_clock: MockClock) -> None:
    gate = Gate()
    async with running(gate, threads=1, lanes=4) as (passwords, callers):
        callers.start_soon(passwords.hash, Secret("first"))
        await gate.has_begun()
        for what in ("a", "b", "dear c", "dear d", "e", "alone f", "alone g", "h"):
            callers.start_soon(passwords.hash, Secret(what), what)
            await wait_all_tasks_blocked()
        gate.open()
    assert gate.worked == ["first", "a", "b", "dear c", "dear d", "e", "alone f", "alone g", "h"]
    assert gate.batches == [1, 2, 2, 1, 1, 1, 1]


async def test_who_left_or_came_too_late_is_in_no_batch(mock_clock: MockClock) -> None:
    gate = Gate()
    async with running(gate, threads=1, lanes=4, deadline=timedelta(seconds=5)) as (passwords, callers):
        callers.start_soon(passwords.hash, Secret("first"))
        await gate.has_begun()
        async with trio.open_nursery() as people:
            for n in range(3):
                people.start_soon(passwords.hash, Secret(f"{n}"))
            await wait_all_tasks_blocked()
            people.cancel_scope.cancel(reason="they hang up")
        assert passwords.statistics().waiting == 0
        gate.open()
    assert gate.worked == ["first"]
    assert passwords.statistics().left == 3


async def test_one_that_goes_wrong_is_told_to_all_that_went_with_it_and_the_thread_lives_on() -> None:
    gate = Gate().open()
    async with running(gate, threads=1, lanes=4) as (passwords, _):
        with pytest.raises(LookupError):
            await passwords.hash(Secret("bug"))
        with pytest.raises(RuntimeError, match="panicked"):
            await passwords.hash(Secret("panic"))
        assert await passwords.hash(Secret("fine")) == "hash of fine"


async def test_the_predicted_wait_counts_with_all_lanes(mock_clock: MockClock) -> None:
    waits = []
    for lanes in (1, 4):
        gate = Gate()
        async with running(gate, threads=1, lanes=lanes, room=100) as (passwords, callers):
            callers.start_soon(passwords.hash, Secret("first"))
            await gate.has_begun()
            for n in range(12):
                callers.start_soon(passwords.hash, Secret(f"{n}"), f"client {n}")
            await wait_all_tasks_blocked()
            waits.append(passwords._wait_of("newcomer", 1))
            gate.open()
    assert waits[0] == pytest.approx(4 * waits[1])
    assert waits[0] > SECOND


async def test_bcrypt_in_lanes_for_real() -> None:
    engine, _ = open_engine()
    scheme = choose("bcrypt", Keys.derive(Secret("a secret of some length for tests")), rounds=5, engine=engine)
    passwords = Hasher(scheme, threads=2, queue=100, deadline=DEADLINE, lanes=engine.lanes)
    async with running_hasher(passwords):
        stored = [await passwords.hash(Secret(f"horse {n}")) for n in range(5)]
        right = await passwords.check(Secret("horse 3"), [*stored, "unreadable", stored[3]])
    assert right == [False, False, False, True, False, False, True]
    assert passwords.statistics().lanes == engine.lanes
