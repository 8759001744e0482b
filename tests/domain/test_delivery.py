from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regsvc.domain import delivery
from regsvc.domain.delivery import Accepted, Again, Dead, Deferred, Done, Letter, Outage, Parcel, Rejected, verdict

NOW = datetime(2026, 11, 20, 11, tzinfo=UTC)


def parcel(attempts: int = 1, life: timedelta = delivery.NOT_AFTER) -> Parcel:
    return Parcel(UUID(int=1), Letter.ACTIVATION, UUID(int=2), None, attempts, NOW, NOW, NOW + life)


def test_each_letter_has_its_purpose_or_is_a_notice() -> None:
    assert {letter: letter.purpose for letter in Letter} == {
        Letter.ACTIVATION: "activate",
        Letter.VERIFY: "verify",
        Letter.RESET: "reset",
        Letter.CHANGE_EMAIL: "change_email",
        Letter.PASSWORD_CHANGED: None,
        Letter.EMAIL_CHANGED: None,
        Letter.NEW_DEVICE: None,
        Letter.REGISTERED_AGAIN: None,
    }


@pytest.mark.parametrize("letter", Letter)
def test_what_carries_a_secret_is_worth_half_an_hour_and_what_tells_something_three_days(letter: Letter) -> None:
    assert letter.notice is (letter.purpose is None)
    assert letter.not_after == (timedelta(days=3) if letter.notice else timedelta(minutes=30))


def test_accepted_is_done() -> None:
    assert verdict(parcel(), Accepted(), NOW, attempts_max=8, outages=0, jitter=0.5) == Done()


def test_what_the_relay_will_never_take_is_dead_at_once() -> None:
    assert verdict(parcel(), Rejected("550 no"), NOW, attempts_max=8, outages=0, jitter=0.5) == Dead("550 no")


def test_a_deferred_mail_comes_back_with_doubling_waits_and_keeps_its_try() -> None:
    waits = []
    for attempts in range(1, 8):
        again = verdict(parcel(attempts), Deferred("451 later"), NOW, attempts_max=8, outages=0, jitter=0.0)
        assert isinstance(again, Again)
        assert not again.refund
        waits.append(again.wait)
    assert [wait / waits[0] for wait in waits] == [1, 2, 4, 8, 16, 32, 64]
    assert waits[0] == delivery.DEFER_WAIT / 2  # jitter 0 takes half


def test_the_last_try_is_the_last() -> None:
    dead = verdict(parcel(8), Deferred("451 later"), NOW, attempts_max=8, outages=0, jitter=0.5)
    assert dead == Dead("given up after 8 tries: 451 later")


def test_an_outage_costs_no_try_however_often() -> None:
    again = verdict(parcel(8), Outage("refused"), NOW, attempts_max=8, outages=99, jitter=0.999)
    assert isinstance(again, Again)
    assert again.refund
    assert again.wait <= delivery.OUTAGE_WAIT_MAX


@pytest.mark.parametrize("outcome", [Outage("refused"), Deferred("451 later")])
def test_a_mail_that_would_come_too_late_is_dead(outcome: Outage | Deferred) -> None:
    dead = verdict(parcel(1, timedelta(0)), outcome, NOW, attempts_max=8, outages=1, jitter=0.5)
    assert isinstance(dead, Dead)
    assert dead.reason == f"expired: {outcome.reason}"


def test_a_relay_that_talks_too_much_is_cut_short() -> None:
    dead = verdict(parcel(), Rejected("x" * 9_999), NOW, attempts_max=8, outages=0, jitter=0.5)
    assert dead == Dead("x" * delivery.ERROR_MAX)


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_waits_are_bounded_whatever_happens(attempts: int, outages: int, jitter: float) -> None:
    again = verdict(parcel(attempts), Deferred("4"), NOW, attempts_max=99_999, outages=outages, jitter=jitter)
    assert isinstance(again, Again)
    assert delivery.DEFER_WAIT / 2 <= again.wait <= delivery.DEFER_WAIT_MAX
    assert timedelta(seconds=0.25) <= delivery.outage_wait(outages, jitter) <= delivery.OUTAGE_WAIT_MAX
