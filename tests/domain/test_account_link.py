"""The link of an activation letter, and what is left to whoever guesses: the budget of an address, over all codes."""

import math
import random
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regsvc.domain import account
from regsvc.domain.account import Address, Claim, Code, DuplicatePolicy, Owner, Resend, Rules, Tally, Way
from regsvc.domain.delivery import Publish
from regsvc.domain.refusals import Refusal, Refused
from tests.domain.addresses import (
    CLAIMS,
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

TOKEN = b"token"
UNIFORM = Rules(duplicates=DuplicatePolicy.UNIFORM)
POLICIES = [RULES, CLAIMS, UNIFORM]


def linked(number: int = 1, *, code: Code | None = None, token: bytes = TOKEN, life: timedelta = 10 * MINUTE) -> Claim:
    return replace(claimed(number, code=code), link=Code(token, NOW + life))


# ------------------------------------------------------------------------------------------------------ the link


@pytest.mark.parametrize("rules", POLICIES)
def test_the_token_of_a_link_makes_its_claim_the_account_and_ends_the_others(rules: Rules) -> None:
    state = Address(claims=(claimed(2, code=live()), linked(1, code=live())))
    step = account.follow(state, showing(TOKEN, 1), NOW, rules)
    assert step.outcome == Owner(claimed(1).id, claimed(1).email, "hash-1", NOW)
    assert isinstance(step.outcome, Owner)
    assert step.outcome.way is Way.LINK
    assert step.state == replace(state, owner=step.outcome, claims=())
    assert step.effects == (Publish("user.activated", claimed(1).id),)
    for again in (account.follow, account.activate):
        twice = again(step.state, showing(TOKEN, 1), NOW, rules)
        assert twice == account.Step(step.state, Refused(Refusal.USER_ALREADY_ACTIVATED))


@pytest.mark.parametrize("rules", POLICIES)
def test_neither_the_tries_of_the_code_nor_those_of_the_address_are_asked_for(rules: Rules) -> None:
    state = Address(claims=(linked(1, code=live(failures=5)),), failures=Tally(10, NOW))
    assert refused(account.activate(state, showing(RIGHT, 1), NOW, rules).outcome).why is Refusal.TOO_MANY_ATTEMPTS
    assert isinstance(account.follow(state, showing(TOKEN, 1), NOW, rules).outcome, Owner)


@pytest.mark.parametrize("shown", [WRONG, b"", RIGHT])
def test_a_wrong_token_spends_nothing(shown: bytes) -> None:
    state = Address(claims=(linked(1, code=live(RIGHT)),), failures=Tally(3, NOW))
    step = account.follow(state, showing(shown, 1), NOW, RULES)
    assert step == account.Step(state, Refused(Refusal.INVALID_ACTIVATION_CODE))


def test_a_code_is_no_token_and_a_token_no_code() -> None:
    state = Address(claims=(linked(1, code=live(RIGHT)),))
    assert refused(account.activate(state, showing(TOKEN, 1), NOW, RULES).outcome).attempts_left == 4


def test_a_token_lives_longer_than_its_code_and_not_for_ever() -> None:
    state = Address(claims=(linked(1, code=live()),))
    later = NOW + 5 * MINUTE
    assert (
        refused(account.activate(state, showing(RIGHT, 1), later, RULES).outcome).why is Refusal.ACTIVATION_CODE_EXPIRED
    )
    assert isinstance(account.follow(state, showing(TOKEN, 1), later, RULES).outcome, Owner)
    for shown in (TOKEN, WRONG):
        late = account.follow(state, showing(shown, 1), NOW + 10 * MINUTE, RULES)
        assert late == account.Step(state, Refused(Refusal.ACTIVATION_CODE_EXPIRED))


def test_before_its_mail_has_left_a_claim_has_no_link() -> None:
    state = Address(claims=(claimed(1),))
    assert refused(account.follow(state, showing(TOKEN, 1), NOW, RULES).outcome).why is Refusal.ACTIVATION_CODE_EXPIRED


def test_a_token_needs_the_password_of_its_own_claim() -> None:
    mine, other = linked(1, token=b"mine"), linked(2, token=b"other")
    state = Address(claims=(other, mine))
    assert refused(account.follow(state, showing(b"mine"), NOW, CLAIMS).outcome).why is Refusal.INVALID_CREDENTIALS
    step = account.follow(state, showing(b"other", 1), NOW, CLAIMS)
    assert step == account.Step(state, Refused(Refusal.INVALID_ACTIVATION_CODE))


def test_with_one_password_on_two_claims_either_link_works() -> None:
    state = Address(claims=(linked(2, token=b"two"), linked(1, token=b"one")))
    step = account.follow(state, showing(b"one", 1, 2), NOW, CLAIMS)
    assert isinstance(step.outcome, Owner)
    assert step.outcome.id == claimed(1).id


def test_beside_an_account_every_token_is_a_wrong_one() -> None:
    state = Address(owner=replace(OWNER, password_hash="its own"), claims=(linked(1),))
    step = account.follow(state, showing(TOKEN, 1), NOW, UNIFORM)
    assert step == account.Step(state, Refused(Refusal.INVALID_ACTIVATION_CODE))
    for rules in (RULES, CLAIMS):
        assert refused(account.follow(state, showing(TOKEN, 1), NOW, rules).outcome).why is Refusal.INVALID_CREDENTIALS


# ---------------------------------------------------------------------------------------------------- the budget


class Guesser:
    """Guesses at an address for as long as he is let, with claims of his own, and counts what was compared."""

    def __init__(self, rules: Rules, dice: random.Random, begin: datetime = NOW) -> None:
        self.rules, self.dice, self.now = rules, dice, begin
        self.state, self.made, self.compared, self.inside = Address(), 0, 0, False

    def register(self) -> None:
        self.made += 1
        self.state = account.register(self.state, registering(self.made), self.now, self.rules).state

    def resend(self) -> None:
        event = Resend(proof(*range(1, self.made + 1)))
        self.state = account.resend(self.state, event, self.now, self.rules).state

    def mint(self, life: timedelta = MINUTE) -> None:
        """What the mailer does for each claim there is: a new code, with all its tries."""
        codes = [Code(b"%04d" % self.dice.randrange(10_000), self.now + life) for _ in self.state.claims]
        both = zip(self.state.claims, codes, strict=True)
        minted = tuple(replace(claim, code=code, live_until=code.expires_at) for claim, code in both)
        self.state = replace(self.state, claims=minted)

    def guess(self) -> None:
        shown = b"%04d" % self.dice.randrange(10_000)
        step = account.activate(self.state, showing(shown, *range(1, self.made + 1)), self.now, self.rules)
        self.state = step.state
        self.inside |= isinstance(step.outcome, Owner)
        self.compared += isinstance(step.outcome, Owner) or step.outcome.why is Refusal.INVALID_ACTIVATION_CODE

    def guess_until(self, end: datetime, most: int = 1_000_000) -> None:
        """Register, have codes mailed and guess, again and again, until `most` guesses were compared."""
        self.compared = 0
        while self.now < end and not self.inside and self.compared < most:
            before = self.compared
            for step in (self.register, self.mint, *[self.guess] * 6, self.resend, self.mint, *[self.guess] * 6):
                step()
            self.now += 2 * MINUTE if self.compared > before else account.HOUR


@pytest.mark.parametrize("rules", POLICIES)
@settings(max_examples=30)
@given(seed=st.integers(0, 2**32))
def test_no_order_of_registering_resending_and_guessing_refills_the_budget_of_a_day(rules: Rules, seed: int) -> None:
    dice = random.Random(seed)
    guesser = Guesser(rules, dice)
    for _ in range(200):
        dice.choice([guesser.register, guesser.resend, guesser.mint, *[guesser.guess] * 4])()
        guesser.now += dice.choice([0, 1, 29, 31, 61]) * SECOND
    assert guesser.now < NOW + account.DAY
    assert guesser.compared <= rules.code_failures_per_day


@pytest.mark.parametrize("rules", POLICIES)
def test_who_guesses_for_a_day_has_ten_guesses_and_the_next_day_ten(rules: Rules) -> None:
    guesser = Guesser(rules, random.Random(4))
    for _ in range(3):
        guesser.guess_until(guesser.now + account.DAY)
        assert not guesser.inside, "another seed is wanted"
        assert guesser.compared == 10


def test_four_digits_are_guessed_in_a_day_once_in_a_thousand(rounds: int | None) -> None:
    days = rounds or 2000
    dice = random.Random(days)
    inside = 0
    for _ in range(days):
        guesser = Guesser(CLAIMS, dice)
        guesser.guess_until(NOW + account.DAY, 10)  # as many as there are, says the test above
        inside += guesser.inside
    assert inside <= quantile(days, 10 / 10_000), f"{inside} of {days}"
    if days > 10_000:
        assert inside >= 0.5 * days / 1000, "then he was not let guess ten times"


def quantile(days: int, chance: float) -> int:
    """How many of so many days, each with this chance, bring luck at most: all but once in ten thousand."""
    found, up_to = 0, (1 - chance) ** days
    while up_to < 0.9999:
        found += 1
        up_to += math.comb(days, found) * chance**found * (1 - chance) ** (days - found)
    return found


@pytest.mark.parametrize("rules", POLICIES)
def test_a_stranger_who_spends_the_tries_of_an_address_keeps_nobody_from_it(rules: Rules) -> None:
    stranger = Guesser(rules, random.Random(5))
    stranger.guess_until(NOW + account.DAY, 10)
    assert stranger.state.failures.count == 10
    stranger.now += account.HOUR  # when an address may be mailed to again; its tries are back much later
    state = account.register(stranger.state, registering(100), stranger.now, rules).state
    mine = next(claim for claim in state.claims if claim.id == registering(100).id)
    mailed = replace(mine, code=Code(RIGHT, stranger.now + MINUTE), link=Code(TOKEN, stranger.now + 10 * MINUTE))
    state = replace(state, claims=(mailed, *[claim for claim in state.claims if claim != mine]))
    code = account.activate(state, showing(RIGHT, 100), stranger.now, rules)
    assert refused(code.outcome).why is Refusal.TOO_MANY_ATTEMPTS
    link = account.follow(state, showing(TOKEN, 100), stranger.now, rules)
    assert isinstance(link.outcome, Owner)
    assert link.outcome.password_hash == "hash-100"
