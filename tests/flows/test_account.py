"""The flows over fake ports: what is committed, in which order, and what a hang-up or a failure at any point leaves."""

import contextlib
import dataclasses
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from uuid import UUID

import pytest
import trio
import trio.testing

from regsvc.domain import account
from regsvc.domain.account import Code, DuplicatePolicy, Rules
from regsvc.domain.delivery import Mail, Publish
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.values import Email, Secret, Username
from regsvc.flows.account import (
    ACTIVATE,
    Accounts,
    Activated,
    Credentials,
    Registered,
    Registration,
    Resent,
    Standing,
)
from regsvc.ports import MailState, MailStatus, Unavailable
from tests.flows.fakes import PATIENCE, START, Dice, Hashing, Shelf, Telegraph
from tests.instruments import HangUp

SECOND = timedelta(seconds=1)


def email(text: str = "Ada@Example.org") -> Email:
    parsed = Email.parse(text)
    assert isinstance(parsed, Email)
    return parsed


ADA = Credentials(email(), Secret("right password"))
FORM = Registration(ADA.email, ADA.password)
CODE = Secret("0042")


@dataclass
class House:
    """Flows, the fakes under them, and how often the bell rang."""

    shelf: Shelf = field(default_factory=Shelf)
    hashing: Hashing = field(default_factory=Hashing)
    dice: Dice = field(default_factory=Dice)
    news: Telegraph = field(default_factory=Telegraph)
    rules: Rules = field(default_factory=Rules)
    rings: int = 0

    @property
    def flows(self) -> Accounts:
        return Accounts(
            self.shelf.begin, self.shelf, self.hashing, self.dice, self.news, self._ring, self.rules, PATIENCE
        )

    def _ring(self) -> None:
        self.rings += 1

    async def registered(self, form: Registration = FORM) -> UUID:
        made = await self.flows.register(form)
        assert isinstance(made, Registered)
        return made.id

    def mint(self, claim: UUID, code: Secret = CODE) -> None:
        """Do what the mailer does when it hands a code over."""
        minted = Code(self.dice.mac(claim, ACTIVATE, code), self.shelf.now + timedelta(minutes=1))
        for key, address in self.shelf.addresses.items():
            claims = tuple(
                replace(c, code=minted, live_until=minted.expires_at) if c.id == claim else c for c in address.claims
            )
            self.shelf.addresses[key] = replace(address, claims=claims)


@pytest.fixture
def house() -> House:
    return House()


async def test_registering_commits_the_claim_with_its_mail_and_rings(house: House) -> None:
    made = await house.flows.register(replace(FORM, username=Username("Ada", "ada"), client="127.0.0.1"))
    assert made == Registered(UUID(int=1), "Ada@Example.org", START, START + 30 * SECOND)
    [claim] = house.shelf.addresses[ADA.email.key].claims
    assert claim.password_hash == "hashed:right password"
    assert (claim.username, claim.client) == (Username("Ada", "ada"), "127.0.0.1")
    assert [type(effect) for effect, _ in house.shelf.effects] == [Mail, Publish]
    assert house.rings == 1


async def test_a_duplicate_is_refused_before_anything_is_hashed(house: House) -> None:
    await house.registered()
    house.hashing.busy = lambda: pytest.fail("a hash was spent on a known no")
    refused = await house.flows.register(FORM)
    assert refused == Refused(Refusal.REGISTRATION_PENDING, retry_after=account.ON_THE_WAY_MAX)
    assert house.rings == 1
    assert len(house.shelf.effects) == 2


async def test_under_load_nobody_is_looked_up_before_he_is_refused(house: House) -> None:
    house.hashing.crowded = True
    named = replace(FORM, username=Username("Ada", "ada"))
    for asks in (partial(house.flows.register, named), partial(house.flows.activate, ADA, CODE)):
        with pytest.raises(Unavailable, match="crowded"):
            await asks()
    assert house.shelf.calls == 0


async def test_what_happened_while_we_hashed_is_seen_under_the_lock(house: House) -> None:
    other = House(house.shelf, dice=Dice(made=100))

    def meanwhile() -> None:
        house.hashing.busy = lambda: None
        house.shelf.addresses[ADA.email.key] = stolen

    await other.registered()
    stolen = house.shelf.addresses.pop(ADA.email.key)
    house.hashing.busy = meanwhile
    refused = await house.flows.register(FORM)
    assert isinstance(refused, Refused)
    assert refused.why is Refusal.REGISTRATION_PENDING
    assert house.shelf.addresses[ADA.email.key] == stolen


async def test_a_taken_username_is_refused(house: House) -> None:
    house.shelf.usernames.add("ada")
    refused = await house.flows.register(replace(FORM, username=Username("Ada", "ada")))
    assert refused == Refused(Refusal.USERNAME_TAKEN)


async def test_the_code_and_the_password_of_one_registration_make_an_account(house: House) -> None:
    house.mint(await house.registered())
    done = await house.flows.activate(ADA, CODE)
    assert done == Activated(UUID(int=1), "Ada@Example.org", START)
    again = await house.flows.activate(ADA, CODE)
    assert again == Refused(Refusal.USER_ALREADY_ACTIVATED)
    assert house.rings == 1, "an activation mails nothing"


async def test_a_wrong_code_is_committed_as_a_spent_try(house: House) -> None:
    house.mint(await house.registered())
    refused = await house.flows.activate(ADA, Secret("9999"))
    assert refused == Refused(Refusal.INVALID_ACTIVATION_CODE, attempts_left=4)
    assert house.shelf.addresses[ADA.email.key].failures.count == 1


async def test_who_has_the_wrong_password_or_no_name_here_costs_one_check_and_no_transaction(house: House) -> None:
    await house.registered()
    begun = house.shelf.begun
    nobody = Credentials(email("nobody@example.org"), ADA.password)
    for who in (nobody, Credentials(ADA.email, Secret("wrong password"))):
        assert await house.flows.activate(who, CODE) == Refused(Refusal.INVALID_CREDENTIALS)
        assert await house.flows.resend(who) == Refused(Refusal.INVALID_CREDENTIALS)
        assert await house.flows.standing(who, SECOND) == Refused(Refusal.INVALID_CREDENTIALS)
    assert house.hashing.checked == [0, 0, 0, 1, 1, 1]
    assert house.shelf.begun == begun


async def test_a_password_changed_between_the_check_and_the_lock_proves_nothing(house: House) -> None:
    house.mint(await house.registered())

    def meanwhile() -> None:
        address = house.shelf.addresses[ADA.email.key]
        changed = tuple(replace(c, password_hash="hashed:another") for c in address.claims)
        house.shelf.addresses[ADA.email.key] = replace(address, claims=changed)

    house.hashing.busy = meanwhile
    assert await house.flows.activate(ADA, CODE) == Refused(Refusal.INVALID_CREDENTIALS)


async def test_a_resend_queues_another_mail_when_it_is_time(house: House) -> None:
    await house.registered()
    soon = await house.flows.resend(ADA)
    assert isinstance(soon, Refused)
    assert soon.why is Refusal.RESEND_TOO_SOON
    house.shelf.now += 30 * SECOND
    assert await house.flows.resend(ADA) == Resent(UUID(int=1), "Ada@Example.org", START + 60 * SECOND)
    assert house.rings == 2
    assert len([effect for effect, _ in house.shelf.effects if isinstance(effect, Mail)]) == 2


async def test_standing_tells_at_once_what_is_settled(house: House) -> None:
    claim = await house.registered()
    expires_at = START + 60 * SECOND
    house.shelf.mail[claim] = MailStatus(MailState.SENT, expires_at)
    standing = await house.flows.standing(ADA, 15 * SECOND)
    assert standing == Standing(claim, "Ada@Example.org", MailState.SENT, expires_at, START + 30 * SECOND)
    assert house.news.waited == []


async def test_standing_waits_for_word_of_the_mail(house: House, autojump_clock: trio.testing.MockClock) -> None:
    claim = await house.registered()

    def sent(subject: UUID) -> None:
        assert subject == claim
        if len(house.news.waited) == 3:
            house.shelf.mail[subject] = MailStatus(MailState.FAILED, None)

    house.news.happens = sent
    standing = await house.flows.standing(ADA, 15 * SECOND)
    assert isinstance(standing, Standing)
    assert standing.mail is MailState.FAILED
    assert trio.current_time() - 3.0 == pytest.approx(autojump_clock.current_time() - 3.0)
    assert house.news.waited == [1.0, 1.0, 1.0]


async def test_standing_gives_up_waiting_in_time(house: House, autojump_clock: trio.testing.MockClock) -> None:
    await house.registered()
    began = autojump_clock.current_time()
    standing = await house.flows.standing(ADA, timedelta(seconds=2.5))
    assert isinstance(standing, Standing)
    assert standing.mail is MailState.QUEUED
    assert autojump_clock.current_time() - began == pytest.approx(2.5)


async def test_standing_ends_when_the_registration_does(house: House, autojump_clock: trio.testing.MockClock) -> None:
    await house.registered()
    house.news.happens = lambda subject: house.shelf.addresses.clear()
    assert await house.flows.standing(ADA, 15 * SECOND) == Refused(Refusal.INVALID_CREDENTIALS)
    assert autojump_clock.current_time() >= 1.0


async def test_a_database_that_does_not_answer_is_an_outage_and_changes_nothing(
    house: House, autojump_clock: trio.testing.MockClock
) -> None:
    house.shelf.stall = trio.Event()
    began = autojump_clock.current_time()
    with pytest.raises(Unavailable, match=r"database: a transaction took longer than 5 s"):
        await house.flows.register(FORM)
    assert autojump_clock.current_time() - began == pytest.approx(5)
    assert house.shelf.addresses == {}
    assert house.rings == 0


@pytest.mark.parametrize("policy", [DuplicatePolicy.CONFLICT, DuplicatePolicy.CLAIMS])
async def test_of_many_at_once_exactly_one_registers_and_one_activates(policy: DuplicatePolicy) -> None:
    house = House(rules=Rules(duplicates=policy, claims_max=1))
    answers: list[object] = []

    async def answer(call: Callable[[], Awaitable[object]]) -> None:
        answers.append(await call())

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(answer, lambda: house.flows.register(FORM), name=f"register {number}")
    assert sum(isinstance(one, Registered) for one in answers) == 1
    assert sum(isinstance(one, Refused) and one.why is Refusal.REGISTRATION_PENDING for one in answers) == 49
    [claim] = house.shelf.addresses[ADA.email.key].claims
    house.mint(claim.id)
    answers.clear()
    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(answer, lambda: house.flows.activate(ADA, CODE), name=f"activate {number}")
    assert sum(isinstance(one, Activated) for one in answers) == 1
    assert sum(one == Refused(Refusal.USER_ALREADY_ACTIVATED) for one in answers) == 49


def whole(shelf: Shelf) -> bool:
    """Tell whether nothing is half there: a claim has its mail and its event, an account has no claims beside it."""
    address = shelf.addresses.get(ADA.email.key, account.Address())
    mails = [effect.subject for effect, _ in shelf.effects if isinstance(effect, Mail)]
    events = [effect.name for effect, _ in shelf.effects if isinstance(effect, Publish)]
    claims = len(address.claims) + (address.owner is not None)
    return (
        len(mails) == address.mails.count >= claims == events.count("registration.created")
        and (address.owner is not None) == ("user.activated" in events)
        and all(not lock.locked() for lock in shelf.locks.values())
    )


async def story(house: House) -> None:
    """Register, ask again, activate: all the writing there is."""
    house.mint(await house.registered())
    house.shelf.now += 30 * SECOND
    await house.flows.resend(ADA)
    await house.flows.activate(ADA, Secret("9999"))
    await house.flows.activate(ADA, CODE)


async def test_a_client_may_hang_up_at_every_point() -> None:
    house, n = House(), 0
    while house.shelf.addresses.get(ADA.email.key, account.Address()).owner is None:
        house, n = House(), n + 1
        with trio.CancelScope() as scope:
            instrument = HangUp(scope, n)
            trio.lowlevel.add_instrument(instrument)
            try:
                await story(house)
            finally:
                trio.lowlevel.remove_instrument(instrument)
        assert whole(house.shelf), f"hung up at {n}"
    assert n > 20


@pytest.mark.parametrize("error", [ConnectionError, Unavailable, OSError])
async def test_every_port_call_may_fail(error: type[Exception]) -> None:
    house, n = House(), 0
    while house.shelf.addresses.get(ADA.email.key, account.Address()).owner is None:
        n += 1
        house = House(Shelf(fail_at=n, error=error))
        with contextlib.suppress(error):
            await story(house)
        assert whole(house.shelf), f"failed at {n}"
    assert n > 15


def test_what_holds_a_password_does_not_show_it() -> None:
    assert "right password" not in repr(FORM) + repr(ADA)
    assert {f.name for f in dataclasses.fields(Registered)} == {"id", "email", "created_at", "resend_available_at"}
