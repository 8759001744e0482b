"""The duplicate policy `uniform` through the flows: one answer, one hash, one transaction with the same calls."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from regsvc.domain import account
from regsvc.domain.account import DuplicatePolicy
from regsvc.domain.delivery import Letter, Mail
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.values import Secret, Username
from regsvc.flows.account import ACTIVATE, Credentials, Noted, Registration, Resent, Standing
from regsvc.flows.errand import Errand
from regsvc.ports import Unit
from tests.flows.house import ADA, CODE, HOUR, LAPTOP, MINUTE, NEW, RIGHT, SECOND, House
from tests.lines import Lines

UNIFORM = account.Rules(duplicates=DuplicatePolicy.UNIFORM)
MINE = Secret("what a stranger chose")
STRANGER = Credentials(ADA, MINE)
FORM = Registration(ADA, MINE)


def unknown(_house: House) -> None:
    pass


def owned(house: House) -> None:
    house.shelf.member(ADA.address)


def disabled(house: House) -> None:
    house.shelf.member(ADA.address, disabled_at=house.shelf.now)


KINDS = [unknown, owned, disabled]


def house_with(kind: Callable[[House], None]) -> House:
    house = House(rules=UNIFORM)
    kind(house)
    return house


@pytest.mark.parametrize("kind", KINDS)
async def test_a_registration_is_noted_and_mailed_whoever_has_the_address(
    kind: Callable[[House], None], log: Lines
) -> None:
    house = house_with(kind)
    assert await house.accounts.register(FORM) == Noted(ADA.address)
    [claim] = house.shelf.addresses[ADA.key].claims
    assert house.shelf.mails() == [Mail(Letter.ACTIVATION, claim.id)]
    assert house.rings == 1
    assert log.of("registration_created")


async def test_the_same_is_called_whoever_has_the_address() -> None:
    calls = []
    for kind in KINDS:
        house = house_with(kind)
        before = house.shelf.calls
        await house.accounts.register(FORM)
        calls.append(house.shelf.calls - before)
    assert len(set(calls)) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_when_nothing_is_stored_any_more_the_answer_and_the_hash_stay(
    kind: Callable[[House], None], log: Lines
) -> None:
    house = house_with(kind)
    hashed = 0

    def busy() -> None:
        nonlocal hashed
        hashed += 1

    house.hashing.busy = busy
    for _ in range(20):
        assert await house.accounts.register(FORM) == Noted(ADA.address)
    assert hashed == 20
    assert len(house.shelf.addresses[ADA.key].claims) == UNIFORM.claims_max
    assert len(house.shelf.mails()) == UNIFORM.claims_max
    assert {line["refusal"] for line in log.of("registration_refused")} == {"registration_pending"}
    for _ in range(20):  # an hour's mails are soon used up, by one address's registrations as by another's
        house.shelf.now += account.ON_THE_WAY_MAX / 10
        assert await house.accounts.register(FORM) == Noted(ADA.address)
    assert len(house.shelf.mails()) == UNIFORM.resends_per_hour + 1
    assert "too_many_mails" in {line["refusal"] for line in log.of("registration_refused")}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_name_that_is_taken_is_refused_before_anything_is_hashed(
    kind: Callable[[House], None], log: Lines
) -> None:
    house = house_with(kind)
    house.shelf.member("kim@example.org", username=Username("Kim", "kim"))
    house.hashing.busy = lambda: pytest.fail("a hash was spent on a known no")
    refused = await house.accounts.register(replace(FORM, username=Username("KIM", "kim")))
    assert refused == Refused(Refusal.USERNAME_TAKEN)
    assert [line["refusal"] for line in log.of("registration_refused")] == ["username_taken"]


async def test_the_answer_is_kept_as_it_is_told() -> None:
    house, kept = house_with(owned), list[object]()

    class Receipt:
        async def keep(self, unit: Unit, outcome: object) -> None:
            kept.append(outcome)

    errand = Errand(receipt=Receipt())
    for _ in range(UNIFORM.claims_max + 1):
        await house.accounts.register(FORM, errand)
    assert kept == [Noted(ADA.address)] * (UNIFORM.claims_max + 1), "and no refusal, which would not be kept"


@pytest.mark.parametrize("kind", KINDS)
async def test_the_stranger_meets_the_same_whatever_he_does_next(kind: Callable[[House], None]) -> None:
    house = house_with(kind)
    await house.registered(ADA, MINE)
    found = await house.accounts.standing(STRANGER, timedelta())
    assert isinstance(found, Standing)
    assert await house.accounts.resend(STRANGER) == Refused(
        Refusal.RESEND_TOO_SOON, retry_after=30 * SECOND, resend_available_at=house.shelf.now + 30 * SECOND
    )
    house.shelf.now += 30 * SECOND
    assert isinstance(await house.accounts.resend(STRANGER), Resent)
    assert await house.accounts.activate(STRANGER, CODE) == Refused(Refusal.ACTIVATION_CODE_EXPIRED)
    house.mint(found.id, purpose=ACTIVATE)
    wrong = await house.accounts.activate(STRANGER, Secret("999999"))
    assert wrong == Refused(Refusal.INVALID_ACTIVATION_CODE, attempts_left=4)
    assert await house.sessions.login(ADA, MINE, LAPTOP) == Refused(Refusal.INVALID_CREDENTIALS)
    nobodys = Credentials(ADA, NEW)
    assert await house.accounts.resend(nobodys) == Refused(Refusal.INVALID_CREDENTIALS)


async def test_a_guess_that_is_right_takes_no_account_over() -> None:
    house = house_with(owned)
    house.mint(await house.registered(ADA, MINE), purpose=ACTIVATE)
    before = house.shelf.addresses[ADA.key].owner
    outcome = await house.accounts.activate(STRANGER, CODE)
    assert outcome == Refused(Refusal.INVALID_ACTIVATION_CODE, attempts_left=4)
    assert house.shelf.addresses[ADA.key].owner == before
    assert (await house.admitted(ADA, RIGHT)).user.email_key == ADA.key


@pytest.mark.parametrize("registrations", [0, 1, 3])
async def test_as_many_hashes_are_checked_with_an_account_as_without(registrations: int) -> None:
    checks: list[list[int]] = []
    for kind in KINDS:
        house = house_with(kind)
        for _ in range(registrations):
            await house.registered(ADA, MINE)
            house.shelf.now += MINUTE
        house.hashing.checked.clear()
        await house.accounts.resend(Credentials(ADA, NEW))
        await house.accounts.activate(Credentials(ADA, NEW), CODE)
        await house.accounts.standing(Credentials(ADA, NEW), timedelta())
        await house.sessions.login(ADA, NEW, LAPTOP)
        checks.append([max(size, 1) for size in house.hashing.checked])
    assert checks[0] == checks[1] == checks[2]
    assert checks[0] == [max(registrations, 1) + 1] * 3 + [1]


async def test_the_owner_goes_on_as_if_nothing_had_been() -> None:
    house = house_with(owned)
    await house.registered(ADA, MINE)
    house.shelf.now += HOUR
    owner = Credentials(ADA, RIGHT)
    assert await house.accounts.resend(owner) == Refused(Refusal.USER_ALREADY_ACTIVATED)
    await house.recovery.forgot(ADA)
    assert house.shelf.mails()[-1].letter is Letter.RESET
    await house.admitted(ADA, RIGHT)
