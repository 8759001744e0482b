"""Buckets in a dict: paid off by trio's clock, and never more of them than there is room for."""

from datetime import timedelta

import pytest
import trio
from trio.testing import MockClock

from regsvc.adapters.memory import LOOKED_AT, MOST, MemoryQuotas
from regsvc.domain.quota import HOUR, Level, Limit, Policy, Take

POLICY = Policy(Limit.LOGIN, 3, timedelta(seconds=30))


async def take(quotas: MemoryQuotas, key: str, policy: Policy = POLICY) -> Level:
    (level,) = await quotas.take([Take(policy, key)])
    return level


async def test_time_pays_a_bucket_off(mock_clock: MockClock) -> None:
    quotas = MemoryQuotas()
    assert [(await take(quotas, "a")).allowed for _ in range(4)] == [True, True, True, False]
    mock_clock.jump(9.999)
    assert not (await take(quotas, "a")).allowed
    mock_clock.jump(0.002)
    assert (await take(quotas, "a")).allowed
    assert not (await take(quotas, "a")).allowed
    mock_clock.jump(100)
    assert await take(quotas, "a") == Level(POLICY, allowed=True, debt=POLICY.interval)


async def test_what_is_given_back_after_it_was_paid_is_no_credit(mock_clock: MockClock) -> None:
    quotas = MemoryQuotas()
    await take(quotas, "a")
    mock_clock.jump(100)
    await quotas.give_back([Take(POLICY, "a"), Take(POLICY, "never taken")])
    assert (await take(quotas, "a")).remaining == 2
    assert len(quotas) == 1


async def test_whole_buckets_are_forgotten_as_new_ones_come(mock_clock: MockClock) -> None:
    quotas = MemoryQuotas()
    owing = 50  # ten seconds each, five new ones a second
    for n in range(10 * owing):
        await take(quotas, f"{n}")
        assert len(quotas) <= 2 * owing
        mock_clock.jump(0.2)
    mock_clock.jump(100)
    for n in range(owing):
        await take(quotas, f"late {n}")
    assert len(quotas) == owing


@pytest.mark.parametrize("most", [1, 2, 1000])
async def test_a_flood_of_keys_takes_no_more_than_its_room(mock_clock: MockClock, most: int) -> None:
    quotas = MemoryQuotas(most=most)
    for n in range(20 * most):
        assert (await take(quotas, f"{n}")).allowed
        assert len(quotas) <= most
    assert len(quotas) == most


async def test_a_flood_of_keys_makes_no_exhausted_bucket_be_forgotten(mock_clock: MockClock) -> None:
    quotas = MemoryQuotas(most=1000)
    for _ in range(3):
        await take(quotas, "victim")
    for n in range(20_000):  # each owes four times what the victim does, and a sixth of what it may
        await take(quotas, f"{n}", Policy(Limit.REGISTRATION, 6, timedelta(seconds=720)))
    assert not (await take(quotas, "victim")).allowed


@pytest.mark.parametrize(("seen", "remaining"), [(0, 4), (1, 3)])
async def test_of_buckets_equally_empty_the_one_longest_unseen_goes(
    mock_clock: MockClock, seen: int, remaining: int
) -> None:
    quotas, policy = MemoryQuotas(most=100), Policy(Limit.GLOBAL, 5, HOUR)
    for n in range(100):
        await take(quotas, f"{n}", policy)
    _, due = list(quotas._buckets)[LOOKED_AT].split(":")  # those before it will be looked at, and go to the end
    for _ in range(seen):
        await take(quotas, due, policy)
        await quotas.give_back([Take(policy, due)])
    await take(quotas, "new", policy)
    assert (await take(quotas, due, policy)).remaining == remaining


async def test_the_room_there_is_by_default() -> None:
    quotas = MemoryQuotas()
    for n in range(MOST + 10):
        await quotas.take([Take(Policy(Limit.REGISTRATION, 5, HOUR), f"{n}")])
    assert len(quotas) == MOST


async def test_taking_never_waits() -> None:
    """A client that hangs up cannot come between a take and its verdict."""
    quotas = MemoryQuotas()
    with trio.CancelScope() as scope:
        scope.cancel(reason="hung up")
        assert (await take(quotas, "a")).allowed
        await quotas.give_back([Take(POLICY, "a")])
    assert not scope.cancelled_caught
