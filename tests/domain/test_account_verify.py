"""The code that proves an address alone, and the letters that anybody may ask for: nobody learns who is there."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regsvc.domain import account
from regsvc.domain.account import NO_PASSWORD, Address, Code, Owner, Rules, Step, Tally, Verify
from regsvc.domain.delivery import Letter, Mail, Publish
from regsvc.domain.refusals import Refusal, Refused
from tests.domain.addresses import (
    CLAIMS,
    EMAIL,
    MINUTE,
    NOW,
    OWNER,
    RIGHT,
    RULES,
    SECOND,
    WRONG,
    claimed,
    live,
    showing,
)

waits = st.lists(st.sampled_from([0, 1, 29, 30, 60, 599, 3600, 86_399, 86_400]), max_size=40)


def guessing(mac: bytes, *numbers: int) -> Verify:
    return Verify({UUID(int=number): (mac,) for number in numbers})


def shown(state: Address, mac: bytes = RIGHT, at: datetime = NOW, rules: Rules = RULES) -> Step[Owner]:
    return account.verify(state, guessing(mac, 1, 2, 3), at, rules)


def test_the_right_code_makes_the_claim_an_account_without_a_password() -> None:
    state = Address(claims=(claimed(2, verify=live(b"other")), claimed(1, code=live(), verify=live())))
    step = shown(state)
    assert step.outcome == Owner(UUID(int=1), EMAIL.address, NO_PASSWORD, NOW)
    assert (step.state.owner, step.state.claims) == (step.outcome, ())
    assert step.effects == (Publish("user.activated", UUID(int=1)),)
    assert step.state.verify_failures == Tally()


def test_either_secret_s_mac_opens() -> None:
    state = Address(claims=(claimed(1, code=live(), verify=live()),))
    both = {UUID(int=1): (WRONG, RIGHT)}
    assert isinstance(account.verify(state, Verify(both), NOW, RULES).outcome, Owner)
    assert isinstance(account.activate(state, replace(showing(WRONG, 1), macs=both), NOW, RULES).outcome, Owner)


def test_the_short_code_is_not_the_longer_one() -> None:
    state = Address(claims=(claimed(1, code=live(b"short"), verify=live(b"longer")),))
    assert shown(state, b"short").outcome == Refused(Refusal.INVALID_ACTIVATION_CODE)
    step = account.activate(state, showing(b"longer", 1), NOW, RULES)
    assert step.outcome == Refused(Refusal.INVALID_ACTIVATION_CODE, attempts_left=4)


def test_a_wrong_code_spends_a_try_of_all_codes_and_none_of_those_with_a_password() -> None:
    ended = claimed(3, verify=live(), at=NOW - account.DAY)
    state = Address(claims=(claimed(2, code=live(), verify=live()), claimed(1), ended), failures=Tally(2, NOW))
    step = shown(state, WRONG)
    assert step.outcome == Refused(Refusal.INVALID_ACTIVATION_CODE)
    assert step.effects == ()
    assert step.state == replace(
        state,
        claims=(claimed(2, code=live(), verify=live(failures=1)), claimed(1), ended),
        verify_failures=Tally(1, NOW),
    )


def test_a_code_is_dead_after_its_tries_and_says_no_more_than_a_wrong_one() -> None:
    state = Address(claims=(claimed(1, verify=live(failures=RULES.code_attempts)),))
    assert shown(state).outcome == Refused(Refusal.INVALID_ACTIVATION_CODE)
    assert shown(state).state.verify_failures == Tally(1, NOW)


def test_only_who_has_the_code_is_told_that_it_expired() -> None:
    state = Address(claims=(claimed(1, verify=live()),))
    step = shown(state, at=NOW + MINUTE)
    assert step == Step(state, Refused(Refusal.ACTIVATION_CODE_EXPIRED))
    assert isinstance(shown(state, at=NOW + MINUTE - SECOND / 1e6).outcome, Owner)
    assert shown(state, WRONG, at=NOW + MINUTE).outcome == Refused(Refusal.INVALID_ACTIVATION_CODE)


def test_a_claim_past_its_day_proves_nothing_even_if_nobody_swept() -> None:
    state = Address(claims=(claimed(1, verify=Code(RIGHT, NOW + account.HOUR), at=NOW - account.DAY),))
    assert shown(state).outcome == Refused(Refusal.INVALID_ACTIVATION_CODE)


def test_an_account_that_came_another_way_voids_the_claims_beside_it() -> None:
    state = Address(owner=OWNER, claims=(claimed(2, verify=live()),))
    step = shown(state)
    assert step.outcome == Refused(Refusal.INVALID_ACTIVATION_CODE)
    assert step.state == replace(state, verify_failures=Tally(1, NOW))


def test_the_address_s_budget_is_for_a_day_and_holds_for_the_right_code_too() -> None:
    state = Address(claims=(claimed(1, verify=live()),), verify_failures=Tally(RULES.code_failures_per_day, NOW))
    step = shown(state, at=NOW + SECOND)
    assert step == Step(state, Refused(Refusal.TOO_MANY_ATTEMPTS, retry_after=account.DAY - SECOND))
    tomorrow = NOW + account.DAY
    fresh = replace(state, claims=(claimed(1, verify=Code(RIGHT, tomorrow + MINUTE), at=tomorrow),))
    assert isinstance(shown(fresh, at=tomorrow).outcome, Owner)


EXISTING = {
    "nothing": Address(),
    "an account": Address(owner=OWNER),
    "a claim": Address(claims=(claimed(1),)),
    "claims with codes": Address(claims=(claimed(2, code=live(), verify=live()), claimed(1, verify=live(failures=4)))),
    "an account beside a claim": Address(owner=OWNER, claims=(claimed(1, verify=live()),)),
}


@given(waits, st.sampled_from([RULES, CLAIMS, Rules(code_attempts=1, code_failures_per_day=3)]))
def test_without_the_code_all_addresses_are_one(waited: list[int], rules: Rules) -> None:
    states, now = dict(EXISTING), NOW
    for seconds in waited:
        now += timedelta(seconds=seconds)
        steps = {what: shown(state, WRONG, now, rules) for what, state in states.items()}
        assert len({(step.outcome, step.effects, step.state.verify_failures) for step in steps.values()}) == 1
        for what, step in steps.items():
            assert without_codes(step.state) == without_codes(EXISTING[what]), "nothing else is different after it"
            states[what] = step.state


def without_codes(state: Address) -> Address:
    claims = tuple(replace(claim, verify=None) for claim in state.claims)
    return replace(state, claims=claims, verify_failures=Tally())


@given(waits)
def test_guesses_have_one_budget_a_day_however_often_a_new_code_is_mailed(waited: list[int]) -> None:
    state, now, wrong = Address(claims=(claimed(1),)), NOW, list[datetime]()
    for seconds in waited:
        now += timedelta(seconds=seconds)
        state = replace(state, claims=(claimed(1, verify=Code(RIGHT, now + MINUTE), at=now),))
        step = shown(state, WRONG, now)
        if step.outcome == Refused(Refusal.INVALID_ACTIVATION_CODE):
            wrong.append(now)
        state = step.state
        # A fixed window admits at most two budgets in any day, and one in each of its own.
        assert len([at for at in wrong if at > now - account.DAY]) <= 2 * RULES.code_failures_per_day


# ---------------------------------------------------------------------------------- letters anybody may ask for

SUBJECT = UUID(int=7)


def asked(state: Address, at: datetime, rules: Rules = RULES) -> tuple[Address, bool]:
    after, mails = account.ask(state, Letter.RESET, SUBJECT, at, rules)
    assert mails in ((), (Mail(Letter.RESET, SUBJECT),))
    return after, bool(mails)


def test_a_letter_that_is_asked_for_is_counted_apart_from_those_of_registrations() -> None:
    state = Address(mails=Tally(6, NOW), mailed_at=NOW)
    assert asked(state, NOW + SECOND) == (
        replace(state, asked=Tally(1, NOW + SECOND), asked_at=NOW + SECOND),
        True,
    )


def test_too_soon_nothing_is_sent_and_nothing_changes() -> None:
    state, _ = asked(Address(), NOW)
    assert asked(state, NOW + 29 * SECOND) == (state, False)
    assert asked(state, NOW + 30 * SECOND)[1]
    assert asked(state, NOW, Rules(limit_mails=False))[1]


def test_an_address_has_its_share_an_hour() -> None:
    state = Address()
    for n in range(RULES.resends_per_hour + 1):  # the first one, and those after it
        state, sent = asked(state, NOW + n * MINUTE)
        assert sent
    assert asked(state, NOW + 59 * MINUTE) == (state, False)
    assert asked(state, NOW + account.HOUR) == (
        replace(state, asked=Tally(1, NOW + account.HOUR), asked_at=NOW + account.HOUR),
        True,
    )


@given(waits)
def test_asking_is_the_same_for_every_address(waited: list[int]) -> None:
    states, now = dict(EXISTING), NOW
    for seconds in waited:
        now += timedelta(seconds=seconds)
        after = {what: asked(state, now) for what, state in states.items()}
        assert len({(state.asked, state.asked_at, sent) for state, sent in after.values()}) == 1
        states = {what: state for what, (state, _) in after.items()}


@pytest.mark.parametrize("macs", [{}, {UUID(int=1): ()}, {UUID(int=9): (RIGHT,)}])
def test_a_code_that_was_computed_for_nobody_here_is_wrong(macs: Mapping[UUID, Sequence[bytes]]) -> None:
    state = Address(claims=(claimed(1, verify=live()),))
    assert account.verify(state, Verify(macs), NOW, RULES).outcome == Refused(Refusal.INVALID_ACTIVATION_CODE)
