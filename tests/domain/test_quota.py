"""Limits as arithmetic: exactly `limit` at once, never more than the rate allows in any window, and nothing less."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from regsvc.domain.quota import HOUR, MINUTE, Level, Limit, Policy, Take, give_back, policies, take, tightest

LIMITS = st.integers(1, 50)
WINDOWS = st.timedeltas(timedelta(milliseconds=1), HOUR)
POLICIES = st.builds(Policy, st.sampled_from(Limit), LIMITS, WINDOWS)
MICROSECOND = timedelta(microseconds=1)


@dataclass
class Bucket:
    """A bucket as every store has it, and what it allowed when."""

    policy: Policy
    whole_at: int = 0
    counted: list[tuple[int, int]] = field(default_factory=list)

    def take(self, now: int) -> Level:
        level = take(self.policy, self.whole_at - now)
        self.whole_at = now + level.debt
        if level.allowed:
            self.counted.append((now, 1))
        return level

    def give_back(self, now: int) -> None:
        self.whole_at = now + give_back(self.policy, self.whole_at - now)
        self.counted.append((now, -1))

    def excess(self, now: int) -> list[int]:
        """By how much more than the rate allows was counted, in each window that ends now."""
        found, sum_of = [], 0
        for at, counted in reversed(self.counted):
            sum_of += counted
            found.append(sum_of - self.policy.limit - (now - at) // self.policy.interval)
        return found


@st.composite
def gaps(draw: st.DrawFn, policy: Policy) -> list[int]:
    """Microseconds between takes: none, about an interval, or any number up to a window."""
    some = st.sampled_from([0, 0, 1, policy.interval - 1, policy.interval, policy.interval + 1])
    return draw(st.lists(some | st.integers(0, policy.span), max_size=60))


@given(POLICIES, st.integers(0, 20))
def test_exactly_the_limit_is_good_at_once(policy: Policy, more: int) -> None:
    bucket = Bucket(policy)
    levels = [bucket.take(0) for _ in range(policy.limit + more)]
    assert [level.allowed for level in levels] == [True] * policy.limit + [False] * more
    assert [level.remaining for level in levels] == [*range(policy.limit - 1, -1, -1), *[0] * more]


@given(st.data(), POLICIES)
def test_a_take_is_refused_exactly_when_some_window_would_hold_too_many(data: st.DataObject, policy: Policy) -> None:
    bucket, now = Bucket(policy), 0
    for gap in data.draw(gaps(policy)):
        now += gap
        full = any(excess >= 0 for excess in bucket.excess(now))
        assert bucket.take(now).allowed is not full
        assert max(bucket.excess(now)) <= 0


@given(st.data(), POLICIES)
def test_what_is_given_back_counts_no_more_and_nothing_else_is(data: st.DataObject, policy: Policy) -> None:
    bucket, now, out = Bucket(policy), 0, 0
    for gap in data.draw(gaps(policy)):
        now += gap
        if out and data.draw(st.booleans()):
            bucket.give_back(now)
            out -= 1
        else:
            out += bucket.take(now).allowed
        assert max(bucket.excess(now), default=0) <= 0


@given(POLICIES, st.integers(0, 49))
def test_a_take_given_back_at_once_was_never_there(policy: Policy, before: int) -> None:
    debt = min(before, policy.limit - 1) * policy.interval
    assert give_back(policy, take(policy, debt).debt) == debt


@given(POLICIES, st.integers(-(10**9), 0))
def test_nothing_is_given_back_to_a_bucket_that_is_whole(policy: Policy, debt: int) -> None:
    assert give_back(policy, debt) == 0


@given(POLICIES, st.integers(1, 10**12))
def test_a_refused_take_costs_nothing_and_a_debt_beyond_the_span_heals(policy: Policy, beyond: int) -> None:
    full = take(policy, policy.span)
    assert full == take(policy, full.debt) == Level(policy, allowed=False, debt=policy.span)
    assert take(policy, policy.span + beyond) == full


@given(POLICIES, st.integers(0, 10**10))
@example(Policy(Limit.LOGIN, 1, MINUTE), 1)
def test_a_level_says_what_will_be_good_and_when(policy: Policy, before: int) -> None:
    level = take(policy, before % (policy.span + 1))
    bucket = Bucket(policy, whole_at=level.debt)
    retry_after, reset = level.retry_after // MICROSECOND, level.reset // MICROSECOND
    assert (retry_after == 0) is (level.remaining > 0)
    assert all(bucket.take(0).allowed for _ in range(level.remaining))
    assert not bucket.take(0).allowed
    if retry_after:
        assert not bucket.take(retry_after - 1).allowed
        assert bucket.take(retry_after).allowed
    assert reset == (level.debt if level.allowed else retry_after)
    assert timedelta(0) < level.reset <= policy.window


def levels(*rows: tuple[Limit, int, int]) -> Sequence[Level]:
    """Levels of buckets of ten a minute, after `debts` intervals; ten and more are refused."""
    made = (
        take(Policy(limit, most, MINUTE), (debts - 1) * MINUTE // MICROSECOND // most) for limit, most, debts in rows
    )
    return list(made)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], None),
        ([(Limit.GLOBAL, 10, 3)], Limit.GLOBAL),
        ([(Limit.GLOBAL, 10, 3), (Limit.LOGIN, 10, 4)], Limit.LOGIN),  # it has less left
        ([(Limit.LOGIN, 3, 1), (Limit.GLOBAL, 100, 98)], Limit.GLOBAL),  # two left of each; it is whole later
        ([(Limit.LOGIN, 3, 1), (Limit.GLOBAL, 10, 11)], Limit.GLOBAL),  # it refused
        ([(Limit.LOGIN, 3, 3), (Limit.GLOBAL, 10, 11)], Limit.GLOBAL),  # neither has any left, but it refused
        ([(Limit.LOGIN, 10, 11), (Limit.GLOBAL, 3, 4)], Limit.GLOBAL),  # both refused; it does so longer
    ],
)
def test_a_client_is_told_the_tightest(rows: list[tuple[Limit, int, int]], told: Limit | None) -> None:
    found = tightest(levels(*rows))
    assert (found.policy.limit_of if found is not None else None) is told


def test_the_policies_of_a_service() -> None:
    found = policies(registrations=5, activations=3, logins=10, requests=1000)
    assert {limit: (policy.limit, policy.window) for limit, policy in found.items()} == {
        Limit.GLOBAL: (1000, MINUTE),
        Limit.REGISTRATION: (5, HOUR),
        Limit.LOGIN: (30, MINUTE),
        Limit.LOGIN_ACCOUNT: (10, MINUTE),
        Limit.ACTIVATION: (3, MINUTE),
        Limit.PASSWORD: (10, MINUTE),
        Limit.GUESSING: (300, HOUR),
    }
    assert all(policy.limit_of is limit for limit, policy in found.items())


@given(st.sampled_from(Limit), st.text(), st.sampled_from(Limit), st.text())
def test_no_two_buckets_have_one_name(limit: Limit, key: str, other: Limit, other_key: str) -> None:
    one, two = Take(Policy(limit, 1, HOUR), key), Take(Policy(other, 2, MINUTE), other_key)
    assert (one.bucket == two.bucket) is ((limit, key) == (other, other_key))
    assert one.bucket == f"{limit.value}:{key}"
