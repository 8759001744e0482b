"""The duplicate policy `uniform`: whoever registered an address learns nothing of an account there, whatever he asks.

Most of it is one comparison: the same event at an address with an account and at one without comes to the same.
"""

from dataclasses import replace
from datetime import datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regsvc.domain import account
from regsvc.domain.account import NO_PASSWORD, Activate, Address, Claim, Code, DuplicatePolicy, Owner, Resend, Rules
from regsvc.domain.delivery import Letter, Mail, Publish
from regsvc.domain.refusals import Refusal, Refused
from tests.domain.addresses import CLAIMS, EMAIL, MINUTE, NOW, RIGHT, RULES, SECOND, claimed, live, proof, registering

UNIFORM = Rules(duplicates=DuplicatePolicy.UNIFORM)
OWNER = Owner(UUID(int=900), EMAIL.address, "hash-900", NOW)  # whose password nobody here has
OWNED, FREE = Address(owner=OWNER), Address()
FULL = tuple(claimed(n) for n in range(5, 0, -1))


def test_only_this_policy_is_uniform() -> None:
    assert [policy for policy in DuplicatePolicy if Rules(duplicates=policy).uniform] == [DuplicatePolicy.UNIFORM]


def test_an_address_with_an_account_takes_a_claim_as_any_other_does() -> None:
    step = account.register(OWNED, registering(), NOW, UNIFORM)
    other = account.register(FREE, registering(), NOW, UNIFORM)
    assert isinstance(step.outcome, Claim)
    assert (step.outcome, step.effects) == (other.outcome, other.effects)
    assert step.state == replace(other.state, owner=OWNER)
    assert step.effects == (Mail(Letter.ACTIVATION, UUID(int=1)), Publish("registration.created", UUID(int=1)))


@pytest.mark.parametrize("state", [FREE, OWNED])
def test_several_claims_live_and_no_more_than_there_is_room_for(state: Address) -> None:
    taken = replace(state, claims=FULL[1:])
    assert isinstance(account.register(taken, registering(9), NOW, UNIFORM).outcome, Claim)
    full = replace(state, claims=FULL)
    refused = account.register(full, registering(9), NOW + SECOND, UNIFORM)
    assert refused.outcome == Refused(Refusal.REGISTRATION_PENDING, retry_after=59 * SECOND)
    assert (refused.state, refused.effects) == (full, ())


@pytest.mark.parametrize("state", [FREE, OWNED])
def test_an_address_gets_no_more_mails_in_an_hour_than_under_the_other_policies(state: Address) -> None:
    sent, outcomes = 0, list[object]()
    for number in range(1, 40):
        step = account.register(state, registering(number), NOW + number * MINUTE, UNIFORM)
        sent += sum(isinstance(effect, Mail) for effect in step.effects)
        state = step.state
        outcomes.append(step.outcome)
    assert sent == UNIFORM.resends_per_hour + 1
    assert outcomes[-1] == Refused(Refusal.TOO_MANY_MAILS, retry_after=account.HOUR - 38 * MINUTE)


@pytest.mark.parametrize("state", [FREE, OWNED])
def test_a_name_that_is_taken_is_refused_whatever_is_at_the_address(state: Address) -> None:
    step = account.register(state, replace(registering(), username_taken=True), NOW, UNIFORM)
    assert step.outcome == Refused(Refusal.USERNAME_TAKEN)


def test_beside_an_account_the_right_code_is_a_wrong_one_and_spends_tries() -> None:
    state = replace(OWNED, claims=(claimed(1, code=live()),))
    step = account.activate(state, Activate(proof(1), {UUID(int=1): (RIGHT,)}), NOW, UNIFORM)
    assert step.outcome == Refused(Refusal.INVALID_ACTIVATION_CODE, attempts_left=4)
    assert step.state.owner == OWNER
    assert step.state.claims == (claimed(1, code=live(failures=1)),)


def test_beside_an_account_the_right_link_opens_nothing() -> None:
    state = replace(OWNED, claims=(replace(claimed(1), link=live()),))
    step = account.follow(state, Activate(proof(1), {UUID(int=1): (RIGHT,)}), NOW, UNIFORM)
    assert (step.outcome, step.state) == (Refused(Refusal.INVALID_ACTIVATION_CODE), state)


def test_under_the_other_policies_an_account_voids_what_is_beside_it() -> None:
    state = replace(OWNED, claims=(claimed(1, code=live()),))
    for rules in (RULES, CLAIMS):
        assert account.resend(state, Resend(proof(1)), NOW, rules).outcome == Refused(Refusal.INVALID_CREDENTIALS)


@pytest.mark.parametrize("rules", [RULES, CLAIMS, UNIFORM])
def test_the_owner_s_own_password_says_that_the_account_is_active(rules: Rules) -> None:
    state = replace(OWNED, claims=(claimed(1, code=live()),))
    owner = account.Proof({OWNER.id: OWNER.password_hash})
    assert account.resend(state, Resend(owner), NOW, rules).outcome == Refused(Refusal.USER_ALREADY_ACTIVATED)


@pytest.mark.parametrize(
    ("claims", "least"), [((), 2), (FULL[:1], 2), (FULL[:2], 3), (FULL, 6)], ids=["none", "one", "two", "five"]
)
def test_a_password_is_checked_as_often_whether_there_is_an_account(claims: tuple[Claim, ...], least: int) -> None:
    for owner in (None, OWNER):
        state = Address(owner=owner, claims=claims)
        subjects, stored = account.hashes(state, UNIFORM)
        assert len(stored) == least
        assert stored[: len(subjects)] == tuple(subject.password_hash for subject in subjects)
        assert set(stored[len(subjects) :]) <= {NO_PASSWORD}
        _, stored = account.hashes(state, CLAIMS)
        assert len(stored) == len(subjects), "and elsewhere no more often than there is reason to"


moments = st.sampled_from([0, 1, 29, 30, 59, 60, 61, 600, 3600, 86_400])
codes = st.sampled_from([None, 0, 4, 5])


@given(
    st.lists(st.tuples(st.sampled_from(["register", "resend", "activate", "follow", "stand"]), moments), max_size=30),
    st.lists(codes, max_size=30),
)
def test_whatever_is_done_comes_to_the_same_beside_an_account(
    events: list[tuple[str, int]], minted: list[int | None]
) -> None:
    """Two addresses live through one history; nobody shows a right code, for nobody reads the owner's mail."""
    states, now, number = [FREE, OWNED], NOW, 0
    for step, (event, seconds) in enumerate(events):
        now += seconds * SECOND
        failures = minted[step] if step < len(minted) else None
        if failures is not None:
            states = [_minted(state, failures, now) for state in states]
        number += event == "register"
        told = []
        for at, state in enumerate(states):
            outcome, states[at] = _done(event, number, state, now)
            told.append(outcome)
        assert told[0] == told[1]
        assert replace(states[0], owner=OWNER) == states[1]


def _minted(state: Address, failures: int, now: datetime) -> Address:
    code = Code(b"nobody knows", now + MINUTE, failures)
    claims = [replace(claim, code=code, link=replace(code, expires_at=now + account.HOUR)) for claim in state.claims]
    return replace(state, claims=tuple(claims))


def _done(event: str, number: int, state: Address, now: datetime) -> tuple[object, Address]:
    match event:
        case "register":
            step = account.register(state, registering(number), now, UNIFORM)
            return (step.outcome, step.effects), step.state
        case "resend":
            again = account.resend(state, Resend(proof(number, 1)), now, UNIFORM)
            return (again.outcome, again.effects), again.state
        case "activate" | "follow":
            show = account.activate if event == "activate" else account.follow
            shown = Activate(proof(number, 1), {UUID(int=n): (b"a guess",) for n in (number, 1)})
            tried = show(state, shown, now, UNIFORM)
            return (tried.outcome, tried.effects), tried.state
        case _:
            return account.claims_proved(state, proof(number), now, UNIFORM), state
