"""The link beside a code through the flows, and the alarm: what counts as a guess, and that each is counted."""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from uuid import UUID

import pytest
import trio

from regsvc.domain.account import Tally
from regsvc.domain.quota import Limit
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.values import Email, LinkToken, Secret
from regsvc.flows.account import ACTIVATE, Activated, Credentials
from regsvc.flows.errand import Errand
from tests.flows.house import ADA, CODE, HOUR, LAPTOP, NEW, RIGHT, WRONG, House, email, failed_everywhere, whole
from tests.flows.quota_fakes import Buckets, limited, metered
from tests.instruments import HangUp
from tests.lines import Lines

ME = Credentials(ADA, RIGHT)
GUESS = Secret("999999")
INVALID = Refusal.INVALID_ACTIVATION_CODE


@dataclass
class Ear:
    """A meter that hears of failed activations, each after a moment, and refuses every activation if it is `full`."""

    heard: int = 0
    full: bool = False
    asked: list[Limit] = field(default_factory=list)

    async def take(self, limit: Limit, subject: str) -> Refused | None:
        await trio.lowlevel.checkpoint()
        self.asked.append(limit)
        return Refused(Refusal.RATE_LIMITED) if self.full and limit is Limit.ACTIVATION else None

    async def give_back(self, limit: Limit, subject: str) -> None:
        await trio.lowlevel.checkpoint()

    async def failed_activation(self) -> None:
        await trio.lowlevel.checkpoint()
        self.heard += 1


@pytest.fixture
def ear() -> Ear:
    return Ear()


async def both(house: House, who: Email = ADA, password: Secret = RIGHT) -> tuple[UUID, LinkToken]:
    """Register, and have code and link minted."""
    claim = await house.registered(who, password)
    house.mint(claim, purpose=ACTIVATE)
    return claim, house.mint_link(claim)


async def exhausted(house: House, ear: Ear) -> LinkToken:
    """Spend all tries of a code, all of its address, and all activations that the limits allow."""
    _, token = await both(house)
    address = house.shelf.addresses[ADA.key]
    house.shelf.addresses[ADA.key] = replace(address, failures=Tally(10, house.shelf.now))
    refused = await house.accounts.activate(ME, CODE, Errand(meter=ear))
    assert isinstance(refused, Refused)
    assert refused.why is Refusal.TOO_MANY_ATTEMPTS
    ear.full = True
    assert await house.accounts.activate(ME, CODE, Errand(meter=ear)) == Refused(Refusal.RATE_LIMITED)
    return token


# ------------------------------------------------------------------------------------------------------ the link


async def test_a_link_and_the_password_make_an_account_once(house: House, log: Lines) -> None:
    claim, token = await both(house)
    done = await house.accounts.follow(ME, token)
    assert done == Activated(claim, ADA.address, house.shelf.now)
    assert await house.accounts.follow(ME, token) == Refused(Refusal.USER_ALREADY_ACTIVATED)
    assert await house.accounts.activate(ME, CODE) == Refused(Refusal.USER_ALREADY_ACTIVATED)
    assert log.events.count("activation_succeeded") == 1
    said = log.getvalue().decode()
    assert token.text().reveal() not in said
    assert token.secret.reveal() not in said
    assert (await house.admitted()).user.id == claim


async def test_when_all_tries_are_spent_the_link_works(house: House, ear: Ear) -> None:
    token = await exhausted(house, ear)
    ear.asked.clear()
    assert isinstance(await house.accounts.follow(ME, token, Errand(meter=ear)), Activated)
    assert Limit.ACTIVATION not in ear.asked


async def test_a_wrong_token_changes_nothing_and_is_no_guess(house: House, ear: Ear) -> None:
    claim, token = await both(house)
    _, other = await both(house, email("bob@example.org"))
    before = house.shelf.addresses[ADA.key]
    for wrong in (None, other, LinkToken(claim, house.dice.new_token()), LinkToken(other.subject, token.secret)):
        assert await house.accounts.follow(ME, wrong, Errand(meter=ear)) == Refused(INVALID)
    assert house.shelf.addresses[ADA.key] == before
    assert ear.heard == 0


async def test_a_token_without_its_password_is_worth_nothing(house: House) -> None:
    _, token = await both(house)
    for who in (Credentials(ADA, WRONG), Credentials(email("nobody@example.org"), RIGHT)):
        assert await house.accounts.follow(who, token) == Refused(Refusal.INVALID_CREDENTIALS)


async def test_a_token_is_good_under_the_secret_before_this_one_too(house: House) -> None:
    _, token = await both(house)
    house.dice.turn("another secret")
    assert isinstance(await house.accounts.follow(ME, token), Activated)


async def test_who_owns_the_mailbox_opens_no_registration_that_a_stranger_made(house: House) -> None:
    _, strangers = await both(house, password=NEW)
    house.shelf.now += HOUR
    _, mine = await both(house, password=RIGHT)
    assert await house.accounts.follow(ME, strangers) == Refused(INVALID)
    assert isinstance(await house.accounts.follow(ME, mine), Activated)


async def test_of_codes_and_links_at_once_one_activates(house: House) -> None:
    _, token = await both(house)
    answers: list[Activated | Refused] = []

    async def race(number: int) -> None:
        answers.append(await (house.accounts.follow(ME, token) if number % 2 else house.accounts.activate(ME, CODE)))

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(race, number, name=f"racer {number}")
    assert sum(isinstance(one, Activated) for one in answers) == 1
    assert answers.count(Refused(Refusal.USER_ALREADY_ACTIVATED)) == 49


@pytest.mark.parametrize("error", [ConnectionError, OSError])
async def test_every_port_call_may_fail(error: type[Exception]) -> None:
    async def story(house: House) -> None:
        _, token = await both(house)
        assert isinstance(await house.accounts.follow(ME, token), Activated)

    assert await failed_everywhere(story, whole, error) > 8


# ----------------------------------------------------------------------------------------------------- the alarm


async def test_a_wrong_code_after_the_right_password_is_a_guess_and_nothing_else_is(house: House, ear: Ear) -> None:
    errand = Errand(meter=ear)
    await both(house)
    for guesses in (1, 2):
        refused = await house.accounts.activate(ME, GUESS, errand)
        assert isinstance(refused, Refused)
        assert (refused.why, ear.heard) == (INVALID, guesses)
    await house.accounts.activate(Credentials(ADA, WRONG), GUESS, errand)
    await house.accounts.activate(Credentials(email("nobody@example.org"), RIGHT), GUESS, errand)
    house.shelf.now += timedelta(minutes=10)
    assert await house.accounts.activate(ME, GUESS, errand) == Refused(Refusal.ACTIVATION_CODE_EXPIRED)
    house.mint(house.shelf.addresses[ADA.key].claims[0].id, purpose=ACTIVATE)
    assert isinstance(await house.accounts.activate(ME, CODE, errand), Activated)
    await house.accounts.activate(ME, GUESS, errand)
    assert ear.heard == 2


async def test_a_guess_without_a_password_is_counted_whoever_it_is_about(house: House, ear: Ear) -> None:
    errand = Errand(meter=ear)
    claim = await house.registered()
    house.mint(claim)
    nobody = email("nobody@example.org")
    for guesses, who in enumerate((ADA, nobody, ADA), 1):
        await house.sessions.verify(who, GUESS, LAPTOP, errand)
        assert ear.heard == guesses
    for _ in range(20):
        await house.sessions.verify(nobody, GUESS, LAPTOP, errand)
    assert ear.heard == 3 + 9, "what was refused for its number was not compared"
    await house.sessions.verify(ADA, CODE, LAPTOP, errand)
    assert ear.heard == 12


async def test_who_hangs_up_while_he_guesses_is_counted_all_the_same() -> None:
    async def guess(house: House, errand: Errand) -> None:
        await house.accounts.activate(ME, GUESS, errand)
        await house.sessions.verify(ADA, GUESS, LAPTOP, errand)

    n, spent = 0, 0
    while spent < 2:
        n += 1
        house, ear = House(), Ear()
        claim, _ = await both(house)
        house.mint(claim)
        with trio.CancelScope() as scope:
            instrument = HangUp(scope, n)
            trio.lowlevel.add_instrument(instrument)
            try:
                await guess(house, Errand(meter=ear))
            finally:
                trio.lowlevel.remove_instrument(instrument)
        address = house.shelf.addresses[ADA.key]
        spent = address.failures.count + address.verify_failures.count
        assert ear.heard == spent, f"hung up at {n}"
    assert n > 4


async def test_the_three_hundred_and_first_guess_of_an_hour_rings_the_alarm_once(house: House, log: Lines) -> None:
    limits = limited(Buckets(), enabled=False)
    for number in range(31):
        who = email(f"someone{number}@example.org")
        for _ in range(10):
            await house.sessions.verify(who, GUESS, LAPTOP, metered(limits))
            assert len(log.of("code_guessing_suspected")) == (number == 30)
    [rung] = log.of("code_guessing_suspected")
    assert (rung["level"], rung["failures"], rung["window_s"]) == ("warning", 300, 3600)
