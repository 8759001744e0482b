"""Pre-hijack: whoever registered, or asked for, another's address first has nothing once its owner proved it.

`Email` addresses of the victim are the victim's mailbox: what is minted for them here, only the victim reads.
"""

import pytest

from regsvc.domain import account
from regsvc.domain.account import DuplicatePolicy
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.values import Secret
from regsvc.flows.account import ACTIVATE, Activated, Credentials
from regsvc.flows.profile import Proposed
from regsvc.flows.session import VERIFY, Admitted
from tests.flows.house import LAPTOP, MINUTE, NEW, PHONE, RIGHT, House, email

VICTIM = email("victim@example.org")
ATTACKER = email("attacker@example.org")
EVIL = Secret("the attacker chose it")
EVIL_CODE, MAILED = Secret("666666"), Secret("004242")
INVALID = Refused(Refusal.INVALID_CREDENTIALS)


@pytest.fixture(params=DuplicatePolicy)
def house(request: pytest.FixtureRequest) -> House:
    return House(rules=account.Rules(duplicates=request.param))


async def nothing(house: House) -> None:
    """Fail if the attacker has anything of the victim's account."""
    assert await house.sessions.login(VICTIM, EVIL, PHONE) == INVALID
    evil = Credentials(VICTIM, EVIL)
    assert await house.accounts.activate(evil, EVIL_CODE) == INVALID
    assert await house.accounts.resend(evil) == INVALID
    assert await house.accounts.standing(evil, MINUTE) == INVALID
    assert await house.sessions.verify(VICTIM, EVIL_CODE, PHONE) == Refused(Refusal.INVALID_ACTIVATION_CODE)
    there = house.shelf.addresses[VICTIM.key]
    assert there.owner is not None
    assert there.claims == ()
    assert {one.device for one in house.shelf.logins.values() if one.user_id == there.owner.id} <= {LAPTOP.device}


async def test_after_the_victims_activation(house: House) -> None:
    evil = await house.registered(VICTIM, EVIL)
    house.mint(evil, EVIL_CODE, purpose=ACTIVATE)
    house.mint(evil, EVIL_CODE)
    house.shelf.now += account.ON_THE_WAY_MAX
    mine = await house.registered(VICTIM, RIGHT)
    house.mint(mine, MAILED, purpose=ACTIVATE)
    assert isinstance(await house.accounts.activate(Credentials(VICTIM, RIGHT), MAILED), Activated)
    await nothing(house)
    assert (await house.admitted(VICTIM, RIGHT)).user.id == mine


async def test_after_the_victim_proved_the_attackers_own_registration(house: House) -> None:
    """The victim never registered: he asked for a code, and what it proves is the attacker's claim."""
    evil = await house.registered(VICTIM, EVIL)
    house.mint(evil, EVIL_CODE, purpose=ACTIVATE)
    await house.recovery.send_code(VICTIM)
    [mail] = [mail for mail in house.shelf.mails() if mail.letter.value == VERIFY]
    assert mail.subject == evil
    house.mint(evil, MAILED)
    admitted = await house.sessions.verify(VICTIM, MAILED, LAPTOP)
    assert isinstance(admitted, Admitted)
    await nothing(house)
    token = house.mint_reset(admitted.user)
    assert await house.recovery.reset(token, NEW) is None
    await nothing(house)
    await house.admitted(VICTIM, NEW)


async def test_after_the_victim_verified_his_own(house: House) -> None:
    house.mint(await house.registered(VICTIM, EVIL), EVIL_CODE)
    house.shelf.now += account.ON_THE_WAY_MAX
    mine = await house.registered(VICTIM, RIGHT)
    house.mint(mine, MAILED)
    admitted = await house.sessions.verify(VICTIM, MAILED, LAPTOP)
    assert isinstance(admitted, Admitted)
    assert admitted.user.id == mine
    await nothing(house)


async def test_an_account_that_proposed_the_victims_address_cannot_have_it(house: House) -> None:
    house.shelf.member(ATTACKER.address, EVIL.reveal())
    attacker = await house.visitor(ATTACKER, EVIL, PHONE)
    assert await house.profiles.propose_email(attacker, VICTIM, EVIL) == Proposed(VICTIM.address)
    house.mint_change(attacker.user, EVIL_CODE)
    house.mint(await house.registered(VICTIM, RIGHT), MAILED, purpose=ACTIVATE)
    assert isinstance(await house.accounts.activate(Credentials(VICTIM, RIGHT), MAILED), Activated)
    taken = Refused(Refusal.USER_ALREADY_EXISTS)
    assert await house.profiles.confirm_email(attacker, EVIL_CODE) == taken
    assert await house.profiles.propose_email(attacker, VICTIM, EVIL) == taken
    await nothing(house)


async def test_a_registration_of_an_address_dies_when_an_account_moves_there(house: House) -> None:
    house.mint(await house.registered(VICTIM, EVIL), EVIL_CODE, purpose=ACTIVATE)
    house.shelf.member("victim.before@example.org")
    victim = await house.visitor(email("victim.before@example.org"))
    assert await house.profiles.propose_email(victim, VICTIM, RIGHT) == Proposed(VICTIM.address)
    house.mint_change(victim.user, MAILED)
    assert await house.profiles.confirm_email(victim, MAILED) == house.user(victim.user)
    await nothing(house)
    assert (await house.admitted(VICTIM, RIGHT)).user.id == victim.user.id
