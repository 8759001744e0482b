"""The machine's transitions one by one, then histories against a model that knows less and checks more."""

import random
from dataclasses import replace
from datetime import datetime
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from regsvc.domain import account
from regsvc.domain.account import (
    Activate,
    Address,
    Claim,
    Code,
    DuplicatePolicy,
    Owner,
    Proof,
    Resend,
    Rules,
    Step,
    Tally,
)
from regsvc.domain.delivery import Letter, Mail, Publish
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.values import Username
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
    proof,
    refused,
    registering,
    showing,
)


def test_a_registration_is_a_claim_with_a_mail() -> None:
    step = account.register(Address(), replace(registering(), username=Username("Ada", "ada")), NOW, RULES)
    claim = step.outcome
    assert isinstance(claim, Claim)
    assert claim.code is None
    assert claim.live_until == NOW + account.ON_THE_WAY_MAX
    assert claim.expires_at == NOW + RULES.pending_ttl
    assert step.state.claims == (claim,)
    assert step.state.mails == Tally(1, NOW)
    assert step.state.mailed_at == NOW
    assert step.effects == (Mail(Letter.ACTIVATION, claim.id), Publish("registration.created", claim.id))


def test_an_account_refuses_a_registration_whatever_the_policy() -> None:
    for rules in (RULES, CLAIMS):
        step = account.register(Address(owner=OWNER), registering(2), NOW, rules)
        assert refused(step.outcome).why is Refusal.USER_ALREADY_EXISTS
        assert step.effects == ()


def test_a_taken_username_is_refused() -> None:
    step = account.register(Address(), replace(registering(), username_taken=True), NOW, RULES)
    assert refused(step.outcome).why is Refusal.USERNAME_TAKEN


def test_a_live_claim_refuses_another_and_says_for_how_long() -> None:
    state = Address(claims=(claimed(1),))
    step = account.register(state, registering(2), NOW + 20 * SECOND, RULES)
    assert refused(step.outcome) == Refused(Refusal.REGISTRATION_PENDING, retry_after=40 * SECOND)
    assert step.state == state


def test_an_expired_claim_never_blocks_and_is_kept() -> None:
    step = account.register(Address(claims=(claimed(1),)), registering(2), NOW + MINUTE, RULES)
    assert [claim.id.int for claim in step.state.claims] == [2, 1]


def test_under_claims_several_are_live_up_to_a_cap() -> None:
    state = Address(claims=tuple(claimed(n, at=NOW + n * SECOND) for n in (4, 3, 2, 1)))
    step = account.register(state, registering(5), NOW + 10 * SECOND, CLAIMS)
    assert len(step.state.claims) == 5
    over = account.register(step.state, registering(6), NOW + 11 * SECOND, CLAIMS)
    # The first of them to end is number 1, a minute after it was made.
    assert refused(over.outcome) == Refused(Refusal.REGISTRATION_PENDING, retry_after=50 * SECOND)


def test_the_oldest_dead_claim_gives_way_never_a_live_one() -> None:
    dead = tuple(claimed(n, at=NOW - 10 * MINUTE + n * SECOND) for n in (4, 2, 1))
    state = Address(claims=(claimed(7), claimed(6), *dead))
    step = account.register(state, registering(8), NOW + SECOND, CLAIMS)
    assert [claim.id.int for claim in step.state.claims] == [8, 7, 6, 4, 2]


def test_an_address_is_not_mailed_more_than_its_share() -> None:
    state = Address(mails=Tally(RULES.resends_per_hour + 1, NOW))
    step = account.register(state, registering(), NOW + 10 * MINUTE, RULES)
    assert refused(step.outcome) == Refused(Refusal.TOO_MANY_MAILS, retry_after=50 * MINUTE)
    assert isinstance(account.register(state, registering(), NOW + account.HOUR, RULES).outcome, Claim)
    assert isinstance(account.register(state, registering(), NOW, Rules(limit_mails=False)).outcome, Claim)


def test_a_resend_goes_to_the_claim_that_was_proved() -> None:
    state = Address(claims=(claimed(2), claimed(1)), mails=Tally(1, NOW), mailed_at=NOW)
    step = account.resend(state, Resend(proof(1)), NOW + 30 * SECOND, RULES)
    assert isinstance(step.outcome, Claim)
    assert step.outcome.id.int == 1
    assert step.outcome.live_until == NOW + 30 * SECOND + account.ON_THE_WAY_MAX
    assert step.state.mails.count == 2
    assert step.state.mailed_at == NOW + 30 * SECOND
    assert step.effects == (Mail(Letter.ACTIVATION, step.outcome.id),)


def test_a_resend_too_soon_says_when() -> None:
    state = Address(claims=(claimed(1),), mails=Tally(1, NOW), mailed_at=NOW)
    step = account.resend(state, Resend(proof(1)), NOW + 10 * SECOND, RULES)
    assert refused(step.outcome) == Refused(
        Refusal.RESEND_TOO_SOON, retry_after=20 * SECOND, resend_available_at=NOW + 30 * SECOND
    )
    assert step.state == state


def test_after_the_hour_s_share_a_resend_waits_for_the_hour() -> None:
    state = Address(claims=(claimed(1),), mails=Tally(6, NOW), mailed_at=NOW)
    assert account.resend_available_at(state, NOW + MINUTE, RULES) == NOW + account.HOUR
    assert account.resend_available_at(state, NOW + MINUTE, Rules(limit_mails=False)) == NOW + MINUTE
    assert account.resend_available_at(Address(), NOW, RULES) == NOW


@pytest.mark.parametrize("decide", ["resend", "activate"])
def test_who_proves_nothing_learns_nothing(decide: str) -> None:
    changed = Proof({UUID(int=1): "a hash that is no longer stored"})
    for state in (Address(), Address(claims=(claimed(1, code=live()),)), Address(owner=OWNER)):
        if decide == "resend":
            outcome: object = account.resend(state, Resend(changed), NOW, RULES).outcome
        else:
            outcome = account.activate(state, Activate(changed, {UUID(int=1): (RIGHT,)}), NOW, RULES).outcome
        assert outcome == Refused(Refusal.INVALID_CREDENTIALS)


def test_the_owner_is_told_that_it_is_done() -> None:
    state = Address(owner=OWNER)
    assert refused(account.activate(state, showing(RIGHT, 1), NOW, RULES).outcome).why is Refusal.USER_ALREADY_ACTIVATED
    assert refused(account.resend(state, Resend(proof(1)), NOW, RULES).outcome).why is Refusal.USER_ALREADY_ACTIVATED


def test_an_account_that_came_another_way_voids_the_claims_beside_it() -> None:
    state = Address(owner=OWNER, claims=(claimed(2, code=live()),))
    step = account.activate(state, showing(RIGHT, 2), NOW, RULES)
    assert step == Step(state, Refused(Refusal.INVALID_CREDENTIALS))
    assert refused(account.activate(state, showing(RIGHT, 1), NOW, RULES).outcome).why is Refusal.USER_ALREADY_ACTIVATED


def test_a_claim_past_its_day_proves_nothing_even_if_nobody_swept() -> None:
    state = Address(claims=(claimed(1, at=NOW - account.DAY),))
    assert refused(account.resend(state, Resend(proof(1)), NOW, RULES).outcome).why is Refusal.INVALID_CREDENTIALS


def test_the_right_code_makes_the_claim_the_account_and_ends_all_others() -> None:
    state = Address(claims=(claimed(2, code=live(b"other")), claimed(1, code=live())))
    step = account.activate(state, showing(RIGHT, 1), NOW + 59 * SECOND, CLAIMS)
    assert step.outcome == Owner(UUID(int=1), EMAIL.address, "hash-1", NOW + 59 * SECOND)
    assert step.state.owner == step.outcome
    assert step.state.claims == ()
    assert step.effects == (Publish("user.activated", UUID(int=1)),)


def test_a_code_lives_to_its_last_moment_and_not_in_it() -> None:
    state = Address(claims=(claimed(1, code=live()),))
    assert isinstance(account.activate(state, showing(RIGHT, 1), NOW + MINUTE - SECOND / 1e6, RULES).outcome, Owner)
    step = account.activate(state, showing(RIGHT, 1), NOW + MINUTE, RULES)
    assert step.outcome == Refused(Refusal.ACTIVATION_CODE_EXPIRED)
    assert step.state == state


def test_a_code_that_was_not_minted_yet_is_answered_like_an_expired_one() -> None:
    step = account.activate(Address(claims=(claimed(1),)), showing(RIGHT, 1), NOW, RULES)
    assert step.outcome == Refused(Refusal.ACTIVATION_CODE_EXPIRED)


def test_another_claim_s_code_opens_nothing() -> None:
    state = Address(claims=(claimed(2, code=live(b"two")), claimed(1, code=live(b"one"))))
    event = Activate(proof(1), {UUID(int=1): (b"two",), UUID(int=2): (b"two",)})
    assert refused(account.activate(state, event, NOW, CLAIMS).outcome).why is Refusal.INVALID_ACTIVATION_CODE


def test_with_one_password_on_two_claims_either_code_works() -> None:
    state = Address(claims=(claimed(2, code=live(b"two")), claimed(1, code=live(b"one"))))
    step = account.activate(state, Activate(proof(1, 2), {UUID(int=1): (b"one",), UUID(int=2): (b"?",)}), NOW, CLAIMS)
    assert isinstance(step.outcome, Owner)
    assert step.outcome.id.int == 1


def test_a_wrong_code_spends_a_try_of_the_code_and_of_the_address() -> None:
    state = Address(claims=(claimed(1, code=live()),), failures=Tally(3, NOW - MINUTE))
    step = account.activate(state, showing(WRONG, 1), NOW, RULES)
    assert step.outcome == Refused(Refusal.INVALID_ACTIVATION_CODE, attempts_left=4)
    assert step.state.failures == Tally(4, NOW - MINUTE)
    assert step.state.claims[0].code == live(failures=1)


def test_a_code_is_dead_after_its_tries_even_for_the_right_guess() -> None:
    state = Address(claims=(claimed(1, code=live()),), mailed_at=NOW)
    for left in (4, 3, 2, 1, 0):
        step = account.activate(state, showing(WRONG, 1), NOW, RULES)
        assert refused(step.outcome).attempts_left == left
        state = step.state
    last = account.activate(state, showing(RIGHT, 1), NOW, RULES)
    assert last.outcome == Refused(Refusal.TOO_MANY_ATTEMPTS, attempts_left=0, retry_after=30 * SECOND)
    assert last.state == state


def test_the_address_s_budget_holds_over_new_codes_and_new_claims() -> None:
    state = Address(claims=(claimed(1, code=live()),), failures=Tally(9, NOW))
    step = account.activate(state, showing(WRONG, 1), NOW, RULES)
    assert refused(step.outcome).attempts_left == 0
    renewed = replace(step.state, claims=(claimed(2, code=live()), claimed(1, code=live())))
    out = account.activate(renewed, showing(RIGHT, 2), NOW + SECOND, RULES)
    assert out.outcome == Refused(Refusal.TOO_MANY_ATTEMPTS, attempts_left=0, retry_after=account.DAY - SECOND)
    tomorrow = NOW + account.DAY
    fresh = replace(renewed, claims=(claimed(3, code=Code(RIGHT, tomorrow + MINUTE), at=tomorrow),))
    assert isinstance(account.activate(fresh, showing(RIGHT, 3), tomorrow, RULES).outcome, Owner)


class Histories(RuleBasedStateMachine):
    """Any order of events, people and clocks: what must hold always, holds after each."""

    @initialize(policy=st.sampled_from(DuplicatePolicy), seed=st.integers(0, 2**32))
    def begin(self, policy: DuplicatePolicy, seed: int) -> None:
        self.knobs = Rules(duplicates=policy)
        self.random = random.Random(seed)
        self.state, self.now = Address(), NOW
        self.made = 0
        self.guesses: list[datetime] = []
        self.mails: list[datetime] = []
        self.activated = 0

    @rule(seconds=st.sampled_from([0, 1, 29, 30, 59, 60, 599, 3600, 86_400]))
    def wait(self, seconds: int) -> None:
        self.now += seconds * SECOND

    @rule()
    def register(self) -> None:
        self.made += 1
        step = account.register(self.state, registering(self.made), self.now, self.knobs)
        live_before = [c for c in self.state.claims if self.now < c.live_until]
        assert set(live_before) <= set(step.state.claims), "a live claim never gives way"
        if isinstance(step.outcome, Claim):
            self.mails.append(self.now)
        self.state = step.state

    @precondition(lambda self: self.state.claims)
    @rule()
    def mint(self) -> None:
        claim = self.random.choice(self.state.claims)
        code = Code(b"%d" % self.random.randrange(4), self.now + MINUTE)
        minted = replace(claim, code=code, live_until=code.expires_at)
        self.state = replace(self.state, claims=tuple(minted if c == claim else c for c in self.state.claims))

    @precondition(lambda self: self.made)
    @rule()
    def resend(self) -> None:
        step = account.resend(self.state, Resend(proof(self.random.randrange(1, self.made + 1))), self.now, self.knobs)
        if isinstance(step.outcome, Claim):
            self.mails.append(self.now)
        self.state = step.state

    @precondition(lambda self: self.made)
    @rule(guess=st.integers(0, 4))
    def activate(self, guess: int) -> None:
        number = self.random.randrange(1, self.made + 1)
        claim = next((c for c in self.state.claims if c.id.int == number), None)
        step = account.activate(self.state, showing(b"%d" % guess, number), self.now, self.knobs)
        if isinstance(step.outcome, Owner):
            self.activated += 1
            assert claim is not None
            assert claim.code is not None
            assert claim.code.mac == b"%d" % guess
            assert self.now < claim.code.expires_at
        elif step.outcome.why is Refusal.INVALID_ACTIVATION_CODE:
            self.guesses.append(self.now)
        self.state = step.state

    @invariant()
    def what_must_hold(self) -> None:
        if not hasattr(self, "knobs"):
            return
        assert self.activated <= 1
        if not self.knobs.uniform:
            assert not (self.state.owner and self.state.claims), "an activation ends every other claim"
        assert len(self.state.claims) <= self.knobs.claims_max
        if self.knobs.duplicates is DuplicatePolicy.CONFLICT:
            unminted = [c for c in self.state.claims if c.code is None and self.now < c.live_until]
            assert len(unminted) <= 1 or len(self.mails) > 1
        # A fixed window admits at most two budgets in any day, and one in each of its own.
        day = [at for at in self.guesses if at > self.now - account.DAY]
        assert len(day) <= 2 * self.knobs.code_failures_per_day
        hour = [at for at in self.mails if at > self.now - account.HOUR]
        assert len(hour) <= 2 * (self.knobs.resends_per_hour + 1)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
