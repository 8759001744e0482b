"""Passwords and addresses of accounts, one transition at a time, and what no row of events brings about."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regsvc.domain import profile
from regsvc.domain.account import Address, Code, Owner, Rules, Tally
from regsvc.domain.delivery import Letter, Mail, Publish
from regsvc.domain.profile import PROPOSAL_TTL, Changed, EmailChange, Missed, Proposal
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.session import User
from regsvc.domain.values import Email, EmailKey
from tests.domain.addresses import MINUTE, NOW, SECOND

RULES = Rules()
ADA = User(UUID(int=1), "Ada@Example.org", EmailKey("ada@example.org"), "hash", NOW, NOW, NOW)
NEW = Email("Ada.New@Example.org", EmailKey("ada.new@example.org"))
ME = Owner(ADA.id, ADA.email, ADA.password_hash, NOW)
OTHER = Owner(UUID(int=2), NEW.address, "hash", NOW)
RIGHT, WRONG, BEFORE = b"right", b"wrong", b"under the secret before"
CHANGE = EmailChange(NEW, NOW + PROPOSAL_TTL, Code(RIGHT, NOW + 10 * MINUTE))
LATER = NOW + MINUTE


@pytest.mark.parametrize(
    ("change", "name"),
    [(profile.change_password, "user.password_changed"), (profile.reset_password, "user.password_reset")],
)
def test_a_new_password_is_told_to_its_owner(change: Callable[[User, str, datetime], Changed], name: str) -> None:
    assert change(ADA, "another hash", LATER) == Changed(
        replace(ADA, password_hash="another hash", updated_at=LATER),
        (Mail(Letter.PASSWORD_CHANGED, ADA.id), Publish(name, ADA.id, actor=ADA.id)),
    )


def test_a_proposal_counts_its_mail_with_those_that_anybody_may_ask_for() -> None:
    there = Address(mails=Tally(3, NOW), mailed_at=NOW)
    proposal = profile.propose(ADA, NEW, there, NOW, RULES)
    assert proposal == Proposal(
        EmailChange(NEW, NOW + PROPOSAL_TTL),
        replace(there, asked=Tally(1, NOW), asked_at=NOW),
        (Mail(Letter.CHANGE_EMAIL, ADA.id),),
    )


def test_an_address_of_another_is_not_proposed_and_ones_own_is() -> None:
    assert profile.propose(ADA, NEW, Address(owner=OTHER), NOW, RULES) == Refused(Refusal.USER_ALREADY_EXISTS)
    own = Email("ADA@example.org", ADA.email_key)
    assert isinstance(profile.propose(ADA, own, Address(owner=ME), NOW, RULES), Proposal)


@given(
    count=st.integers(0, 10),
    since=st.integers(0, 7200),
    last=st.integers(0, 7200),
    limited=st.booleans(),
)
def test_a_proposal_that_is_refused_says_when_it_would_not_be(
    count: int, since: int, last: int, *, limited: bool
) -> None:
    rules = replace(RULES, limit_mails=limited)
    there = Address(asked=Tally(count, NOW - since * SECOND), asked_at=NOW - min(since, last) * SECOND)
    refused = profile.propose(ADA, NEW, there, NOW, rules)
    if isinstance(refused, Proposal):
        assert refused.effects
        return
    assert limited
    assert refused.why is Refusal.RESEND_TOO_SOON
    at = refused.resend_available_at
    assert at is not None
    assert refused.retry_after == at - NOW > timedelta(0)
    assert isinstance(profile.propose(ADA, NEW, there, at, rules), Proposal)
    sooner = profile.propose(ADA, NEW, there, at - timedelta(microseconds=1), rules)
    assert isinstance(sooner, Refused)


@pytest.mark.parametrize("shown", [[RIGHT], [WRONG, RIGHT]])
def test_the_code_gives_the_address(shown: list[bytes]) -> None:
    moved = profile.confirm(ADA, CHANGE, Address(), shown, LATER, RULES)
    assert moved == Changed(
        replace(ADA, email=NEW.address, email_key=NEW.key, updated_at=LATER),
        (Mail(Letter.EMAIL_CHANGED, ADA.id, {"to": ADA.email}), Publish("user.email_changed", ADA.id, actor=ADA.id)),
    )


@pytest.mark.parametrize(
    ("change", "now"),
    [
        (None, LATER),
        (replace(CHANGE, code=None), LATER),
        (CHANGE, NOW + 10 * MINUTE),
        (replace(CHANGE, expires_at=LATER), LATER),
    ],
    ids=["nothing proposed", "not mailed yet", "the code is over", "the proposal is over"],
)
def test_without_a_living_code_there_is_nothing_to_confirm(change: EmailChange | None, now: datetime) -> None:
    assert profile.confirm(ADA, change, Address(), [RIGHT], now, RULES) == Refused(Refusal.CODE_EXPIRED)


def test_the_very_last_moment_is_in_time() -> None:
    last = NOW + 10 * MINUTE - timedelta(microseconds=1)
    assert isinstance(profile.confirm(ADA, CHANGE, Address(), [RIGHT], last, RULES), Changed)


def test_an_address_that_another_proved_meanwhile_is_not_given() -> None:
    taken = Refused(Refusal.USER_ALREADY_EXISTS)
    assert profile.confirm(ADA, CHANGE, Address(owner=OTHER), [RIGHT], LATER, RULES) == taken
    assert isinstance(profile.confirm(ADA, CHANGE, Address(owner=ME), [RIGHT], LATER, RULES), Changed)


@given(shown=st.lists(st.sampled_from([RIGHT, WRONG, BEFORE, b""]), max_size=2).map(tuple), tries=st.integers(0, 7))
def test_a_code_opens_within_its_tries_only(shown: tuple[bytes, ...], tries: int) -> None:
    change, spent = CHANGE, 0
    for _ in range(tries):
        step = profile.confirm(ADA, change, Address(), [WRONG], LATER, RULES)
        if not isinstance(step, Missed):
            break
        spent += 1
        assert step.refused == Refused(Refusal.INVALID_CODE, attempts_left=RULES.code_attempts - spent)
        change = step.change
    assert change.code is not None
    assert change.code.failures == spent == min(tries, RULES.code_attempts)
    step = profile.confirm(ADA, change, Address(), shown, LATER, RULES)
    if spent == RULES.code_attempts:
        refused = Refused(Refusal.TOO_MANY_ATTEMPTS, attempts_left=0, retry_after=RULES.resend_cooldown)
        assert step == refused
    else:
        assert isinstance(step, Changed) == (RIGHT in shown)


def test_what_holds_a_code_does_not_show_it() -> None:
    assert "right" not in repr(CHANGE)
