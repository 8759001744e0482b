"""A change of address: the limits of its mail, the code that proves it, and what moves with it."""

from dataclasses import replace
from datetime import timedelta

import pytest
import trio
import trio.testing

from regsvc.domain.delivery import Letter, Mail, Publish
from regsvc.domain.profile import PROPOSAL_TTL
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.session import User
from regsvc.domain.values import Secret
from regsvc.flows.profile import Proposed
from regsvc.flows.recovery import RESET
from regsvc.flows.session import Visitor
from tests.flows.fakes import START, Members
from tests.flows.house import ADA, CODE, HOUR, MINUTE, RIGHT, SECOND, WRONG, House, email
from tests.lines import Lines

NEW = email("ada.new@example.org")
OTHER = email("other@example.org")
TAKEN = Refused(Refusal.USER_ALREADY_EXISTS)
EXPIRED = Refused(Refusal.CODE_EXPIRED)


@pytest.fixture
async def visitor(house: House) -> Visitor:
    house.shelf.member()
    return await house.visitor()


@pytest.fixture
async def proposing(house: House, visitor: Visitor) -> Visitor:
    assert await house.profiles.propose_email(visitor, NEW, RIGHT) == Proposed(NEW.address)
    house.mint_change(visitor.user)
    return visitor


async def test_the_code_moves_the_account_and_the_old_address_is_told(
    house: House, proposing: Visitor, log: Lines
) -> None:
    house.mint_reset(proposing.user)
    house.shelf.effects.clear()
    house.shelf.now += MINUTE
    moved = await house.profiles.confirm_email(proposing, CODE)
    assert moved == replace(proposing.user, email=NEW.address, email_key=NEW.key, updated_at=house.shelf.now)
    me = proposing.user.id
    assert [effect for effect, _ in house.shelf.effects] == [
        Mail(Letter.EMAIL_CHANGED, me, {"to": ADA.address}),
        Publish("user.email_changed", me, actor=me),
    ]
    assert house.rings == 2
    assert (me, RESET) not in house.shelf.codes, "it was mailed to the address that it was"
    assert house.shelf.changes == {}
    assert await Members(house.shelf).by_email(NEW.key) == moved
    assert await Members(house.shelf).by_email(ADA.key) is None
    assert (await house.admitted(NEW)).user == moved
    [line] = log.of("email_changed")
    assert line["address"] == house.dice.pseudonym(NEW.key)
    assert await house.profiles.confirm_email(proposing, CODE) == EXPIRED, "once"
    await house.registered(ADA, WRONG)  # the address that it was is free


async def test_a_wrong_code_is_committed_as_a_spent_try(house: House, proposing: Visitor, log: Lines) -> None:
    for left in (4, 3, 2, 1, 0):
        refused = await house.profiles.confirm_email(proposing, Secret("999999"))
        assert refused == Refused(Refusal.INVALID_CODE, attempts_left=left)
    refused = await house.profiles.confirm_email(proposing, CODE)
    assert isinstance(refused, Refused)
    assert refused.why is Refusal.TOO_MANY_ATTEMPTS
    assert house.user(proposing.user).email == ADA.address
    assert [line["refusal"] for line in log.of("profile_refused")] == ["invalid_code"] * 5 + ["too_many_attempts"]


async def test_a_new_mail_brings_new_tries_and_ends_the_old_code(house: House, proposing: Visitor) -> None:
    await house.profiles.confirm_email(proposing, Secret("999999"))
    house.shelf.now += MINUTE
    assert await house.profiles.propose_email(proposing, NEW, RIGHT) == Proposed(NEW.address)
    assert await house.profiles.confirm_email(proposing, CODE) == EXPIRED, "its mail has not left yet"
    house.mint_change(proposing.user, Secret("171717"))
    refused = await house.profiles.confirm_email(proposing, CODE)
    assert refused == Refused(Refusal.INVALID_CODE, attempts_left=4)
    assert isinstance(await house.profiles.confirm_email(proposing, Secret("171717")), User)


async def test_a_code_under_the_secret_before_is_good(house: House, proposing: Visitor) -> None:
    house.dice.turn("the next secret")
    assert isinstance(await house.profiles.confirm_email(proposing, CODE), User)


async def test_neither_code_nor_proposal_is_good_for_ever(house: House, proposing: Visitor) -> None:
    house.shelf.now += 10 * MINUTE
    assert await house.profiles.confirm_email(proposing, CODE) == EXPIRED
    house.shelf.now = START + PROPOSAL_TTL
    house.mint_change(proposing.user)
    assert await house.profiles.confirm_email(proposing, CODE) == EXPIRED


async def test_who_proposed_nothing_confirms_nothing(house: House, visitor: Visitor) -> None:
    assert await house.profiles.confirm_email(visitor, CODE) == EXPIRED


@pytest.mark.parametrize("gone", [True, False])
async def test_whose_account_went_does_not_move(house: House, proposing: Visitor, *, gone: bool) -> None:
    if gone:
        house.shelf.drop(proposing.user.id)
    else:
        house.shelf.put(replace(proposing.user, disabled_at=START))
    assert await house.profiles.confirm_email(proposing, CODE) == Refused(Refusal.INVALID_ACCESS_TOKEN)


async def test_an_address_with_an_account_is_taken(house: House, visitor: Visitor) -> None:
    house.shelf.member(OTHER.address)
    assert await house.profiles.propose_email(visitor, OTHER, RIGHT) == TAKEN
    assert (house.shelf.changes, house.shelf.effects) == ({}, [])


async def test_an_address_that_was_taken_meanwhile_is_not_moved_to(house: House, proposing: Visitor) -> None:
    other = house.shelf.member(NEW.address)
    assert await house.profiles.confirm_email(proposing, CODE) == TAKEN
    assert house.user(proposing.user).email == ADA.address
    house.shelf.addresses[NEW.key] = replace(house.shelf.addresses[NEW.key], owner=None)
    assert await house.profiles.confirm_email(proposing, CODE) == TAKEN, "the unique index says it too"
    assert house.user(other).email == NEW.address
    house.shelf.put(other)


async def test_ones_own_address_may_be_spelled_anew(house: House, visitor: Visitor) -> None:
    spelled = email("ADA@example.org")
    assert spelled.key == ADA.key
    assert await house.profiles.propose_email(visitor, spelled, RIGHT) == Proposed(spelled.address)
    house.mint_change(visitor.user)
    moved = await house.profiles.confirm_email(visitor, CODE)
    assert moved == house.user(visitor.user) == replace(visitor.user, email=spelled.address)
    assert (await house.admitted(ADA)).user == moved


async def test_nobody_mails_a_stranger_in_a_loop(house: House, visitor: Visitor) -> None:
    house.shelf.member(OTHER.address)
    other = await house.visitor(OTHER)
    assert isinstance(await house.profiles.propose_email(visitor, NEW, RIGHT), Proposed)
    for who in (visitor, other):  # counted over all accounts
        refused = await house.profiles.propose_email(who, NEW, RIGHT)
        at = START + house.rules.resend_cooldown
        assert refused == Refused(Refusal.RESEND_TOO_SOON, retry_after=at - START, resend_available_at=at)
    for _ in range(house.rules.resends_per_hour):
        house.shelf.now += MINUTE
        assert isinstance(await house.profiles.propose_email(other, NEW, RIGHT), Proposed)
    house.shelf.now += MINUTE
    refused = await house.profiles.propose_email(visitor, NEW, RIGHT)
    left = START + HOUR - house.shelf.now
    assert refused == Refused(Refusal.RESEND_TOO_SOON, retry_after=left, resend_available_at=START + HOUR)
    await house.recovery.forgot(NEW)
    assert len(house.shelf.mails()) == house.rules.resends_per_hour + 1
    house.shelf.now += left
    assert isinstance(await house.profiles.propose_email(visitor, NEW, RIGHT), Proposed)


async def test_a_refused_proposal_leaves_the_one_before_it(house: House, proposing: Visitor) -> None:
    again = await house.profiles.propose_email(proposing, NEW, RIGHT)
    assert isinstance(again, Refused)
    assert isinstance(await house.profiles.confirm_email(proposing, CODE), User)


async def test_of_two_who_proved_one_address_one_has_it(house: House, proposing: Visitor) -> None:
    house.shelf.member(OTHER.address)
    other = await house.visitor(OTHER)
    house.shelf.now += MINUTE
    await house.profiles.propose_email(other, NEW, RIGHT)
    house.mint_change(other.user)
    answers: list[object] = []

    async def confirm(visitor: Visitor) -> None:
        answers.append(await house.profiles.confirm_email(visitor, CODE))

    async with trio.open_nursery() as nursery:
        for visitor in (proposing, other):
            nursery.start_soon(confirm, visitor, name=f"confirm {visitor.user.email}")
    assert answers.count(TAKEN) == 1
    assert sum(isinstance(one, User) for one in answers) == 1


async def test_an_address_that_is_proposed_meanwhile_is_not_the_one_that_is_locked(
    house: House, proposing: Visitor
) -> None:
    """Another is proposed between the look and the locks: with its own code, it would move to an address unlocked."""
    house.shelf.now += SECOND
    lock = house.shelf.locks[("address", NEW.key)]
    await lock.acquire()
    answers: list[object] = []

    async def confirm() -> None:
        answers.append(await house.profiles.confirm_email(proposing, CODE))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(confirm, name="confirm")
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(await house.profiles.propose_email(proposing, OTHER, RIGHT), Proposed)
        house.mint_change(proposing.user)
        lock.release()
    assert answers == [EXPIRED]
    assert house.user(proposing.user).email == ADA.address
    moved = await house.profiles.confirm_email(proposing, CODE)
    assert isinstance(moved, User)
    assert moved.email == OTHER.address
    assert moved.updated_at - START == timedelta(seconds=1)
