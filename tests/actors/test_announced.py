"""Calls that are announced to the hasher: who is told no before anything was looked up for him, and who is not."""

import contextlib

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from regsvc.actors.hasher import Hasher
from regsvc.domain.values import Secret
from regsvc.ports import Unavailable
from tests.actors.gate import DEADLINE, Gate, running


def tells_no(passwords: Hasher, client: str | None = None) -> Unavailable | None:
    """Announce one more; return the refusal, or None where there was none."""
    try:
        with passwords.announced(client):
            return None
    except Unavailable as no:
        return no


async def busy(passwords: Hasher, callers: trio.Nursery, gate: Gate, waiting: int, client: str | None = None) -> None:
    """Let the one thread be busy, and so many wait."""
    callers.start_soon(passwords.hash, Secret("running"), client)
    await gate.has_begun()
    for _ in range(waiting):
        callers.start_soon(passwords.hash, Secret("waiting"), client)
    await wait_all_tasks_blocked()


async def test_who_comes_after_the_announced_that_fill_the_room_is_told_no(mock_clock: MockClock) -> None:
    gate = Gate()
    async with running(gate, threads=1, room=4) as (passwords, callers):
        await busy(passwords, callers, gate, 2)
        with passwords.announced(), contextlib.ExitStack() as later:
            assert tells_no(passwords) is None
            later.enter_context(passwords.announced())
            assert tells_no(passwords) is not None
        assert tells_no(passwords) is None  # who announced himself and stays away is in nobody's way
        assert passwords.statistics().refused == 1
        assert passwords.statistics().waiting == 2
        gate.open()
    assert passwords.statistics().done == 3


async def test_where_nothing_may_wait_nothing_is_announced(mock_clock: MockClock) -> None:
    async with running(Gate(), threads=1, room=0) as (passwords, _):
        assert tells_no(passwords) is not None


async def test_the_announced_are_waited_for_as_those_who_wait(mock_clock: MockClock) -> None:
    gate = Gate()
    async with running(gate, threads=1, room=1000) as (passwords, callers):
        await busy(passwords, callers, gate, 7)
        with contextlib.ExitStack() as announced:
            for _ in range(7):  # one half done, 13 others, the last itself: 14.5 × 0.25 s, three quarters of 5 s
                announced.enter_context(passwords.announced())
            no = tells_no(passwords)
            assert no is not None
            assert no.retry_after is not None
            assert no.retry_after.total_seconds() >= 7.5 * 0.25
            # Each other client has its turn after one of theirs, whoever was announced before it.
            assert tells_no(passwords, "another client") is None
        gate.open()


async def test_of_other_clients_as_many_come_first_as_have_their_turns_first(mock_clock: MockClock) -> None:
    gate = Gate()
    async with running(gate, threads=1, room=1000) as (passwords, callers):
        await busy(passwords, callers, gate, 0)
        with contextlib.ExitStack() as announced:
            for client in range(13):
                announced.enter_context(passwords.announced(str(client)))
            assert tells_no(passwords, "one more client") is None
            announced.enter_context(passwords.announced("one more client"))
            assert tells_no(passwords, "and another") is not None
        gate.open()


async def test_who_could_take_another_s_place_is_not_told_no(mock_clock: MockClock) -> None:
    gate = Gate()
    async with running(gate, threads=1, room=4) as (passwords, callers):
        await busy(passwords, callers, gate, 3, "greedy")
        with passwords.announced("modest"):
            assert tells_no(passwords, "newcomer") is None  # of the greedy one's three, one would give way
            assert tells_no(passwords, "greedy") is not None
        gate.open()


async def test_an_announced_call_that_fails_leaves_nothing_behind(mock_clock: MockClock) -> None:
    gate = Gate()
    async with running(gate, threads=1, room=1) as (passwords, callers):
        await busy(passwords, callers, gate, 0)
        for _ in range(3):
            with pytest.raises(LookupError), passwords.announced():
                raise LookupError
        assert tells_no(passwords) is None
        gate.open()


def test_without_its_threads_it_says_so() -> None:
    passwords = Hasher(Gate(), threads=1, queue=4, deadline=DEADLINE)
    no = tells_no(passwords)
    assert no is not None
    assert "not running" in str(no)
