"""What people do with their own account: what is committed, what is told to whom, and what a strike leaves."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from uuid import UUID

import pytest

from regsvc.domain.delivery import Letter, Mail, Publish
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.session import Ending, Role, User
from regsvc.domain.values import Locale, Secret, Username
from regsvc.flows.profile import Keep, Proposed
from regsvc.flows.recovery import RESET
from regsvc.flows.session import Visitor
from regsvc.ports import Unavailable
from tests.flows.fakes import START
from tests.flows.house import (
    ADA,
    LAPTOP,
    MINUTE,
    NEW,
    PHONE,
    RIGHT,
    WRONG,
    House,
    email,
    failed_everywhere,
    hung_up_everywhere,
    whole,
)
from tests.lines import Lines

NAME, GERMAN = Username("Ada.L", "ada.l"), Locale("de-AT")
GONE = Refused(Refusal.INVALID_ACCESS_TOKEN)
WRONG_PASSWORD = Refused(Refusal.WRONG_PASSWORD)


@pytest.fixture
def user(house: House) -> User:
    return house.shelf.member()


@pytest.fixture
async def visitor(house: House, user: User) -> Visitor:
    return await house.visitor()


async def test_a_name_and_a_language_are_given_left_and_taken(house: House, visitor: Visitor, log: Lines) -> None:
    house.shelf.now += MINUTE
    both = await house.profiles.change(visitor, username=NAME, locale=GERMAN)
    assert both == replace(visitor.user, username=NAME, locale=GERMAN, updated_at=house.shelf.now)
    assert house.user(visitor.user) == both
    nameless = await house.profiles.change(visitor, username=None, locale=Keep.KEEP)
    assert nameless == replace(both, username=None)
    plain = await house.profiles.change(visitor, username=Keep.KEEP, locale=None)
    assert plain == replace(visitor.user, updated_at=house.shelf.now)
    changed = ["username locale", "username", "locale"]
    me = visitor.user.id
    assert house.shelf.published() == [Publish("user.changed", me, me, data={"fields": one}) for one in changed]
    assert [line["changed"] for line in log.of("profile_changed")] == [one.split() for one in changed]
    assert house.rings == 0


@pytest.mark.parametrize("same", [Keep.KEEP, None])
async def test_what_changes_nothing_writes_nothing(house: House, visitor: Visitor, same: Keep | None) -> None:
    house.shelf.now += MINUTE
    assert await house.profiles.change(visitor, username=same, locale=same) == visitor.user
    assert (house.shelf.effects, house.user(visitor.user).updated_at) == ([], START)


async def test_a_name_that_another_has_is_taken(house: House, visitor: Visitor, log: Lines) -> None:
    house.shelf.member("other@example.org", username=NAME)
    spelled = Username("ADA.L", NAME.key)
    refused = await house.profiles.change(visitor, username=spelled, locale=GERMAN)
    assert refused == Refused(Refusal.USERNAME_TAKEN)
    assert house.user(visitor.user) == visitor.user
    assert house.shelf.effects == []
    [line] = log.of("profile_refused")
    assert (line["user_id"], line["refusal"]) == (str(visitor.user.id), "username_taken")


async def test_ones_own_name_may_be_spelled_anew(house: House, visitor: Visitor) -> None:
    await house.profiles.change(visitor, username=NAME, locale=Keep.KEEP)
    spelled = Username("ADA.L", NAME.key)
    renamed = await house.profiles.change(visitor, username=spelled, locale=Keep.KEEP)
    assert isinstance(renamed, User)
    assert renamed.username == spelled


async def test_an_account_is_deleted_with_all_that_is_its_own(house: House, visitor: Visitor, log: Lines) -> None:
    house.mint_reset(visitor.user)
    await house.profiles.propose_email(visitor, email("new@example.org"), RIGHT)
    house.shelf.effects.clear()
    assert await house.profiles.remove(visitor, RIGHT) is None
    tables = (house.shelf.users, house.shelf.logins, house.shelf.chain, house.shelf.codes, house.shelf.changes)
    assert [len(table) for table in tables] == [0] * 5
    assert house.shelf.published() == [Publish("user.deleted", visitor.user.id, actor=visitor.user.id)]
    assert [line["user_id"] for line in log.of("user_deleted")] == [str(visitor.user.id)]
    await house.registered(ADA, NEW)  # the address is free again


async def test_the_last_administrator_stays(house: House) -> None:
    house.shelf.member(role=Role.ADMIN)
    house.shelf.member("disabled@example.org", role=Role.ADMIN, disabled_at=START)
    visitor = await house.visitor()
    assert await house.profiles.remove(visitor, RIGHT) == Refused(Refusal.LAST_ADMIN)
    assert visitor.user.id in house.shelf.users
    house.shelf.member("another@example.org", role=Role.ADMIN)
    assert await house.profiles.remove(visitor, RIGHT) is None


async def test_a_password_is_changed_and_the_other_sessions_end(house: House, visitor: Visitor, log: Lines) -> None:
    others = [await house.admitted(), await house.admitted()]
    house.mint_reset(visitor.user)
    house.shelf.now += MINUTE
    assert await house.profiles.change_password(visitor, RIGHT, NEW) is None
    me = visitor.user.id
    changed = replace(visitor.user, password_hash="hashed:another password", updated_at=house.shelf.now)
    assert house.user(visitor.user) == changed
    assert [await house.turned_away(one) for one in others] == [True, True]
    assert house.shelf.alive(me) == [visitor.session.id]
    assert (me, RESET) not in house.shelf.codes, "what would reset it was asked for before"
    assert [effect for effect, _ in house.shelf.effects] == [
        Mail(Letter.PASSWORD_CHANGED, me),
        Publish("user.password_changed", me, actor=me),
        Publish("sessions.ended", me, data={"reason": Ending.PASSWORD_CHANGED.value, "sessions": "2"}),
    ]
    assert house.rings == 1
    assert len(log.of("password_changed")) == 1
    assert len(log.of("session_ended")) == 2
    await house.admitted(password=NEW)


@pytest.mark.parametrize("password", ["short", "ada@example.org", "ada", "regsvc"])
async def test_a_weak_password_is_refused_before_anything_is_hashed(
    house: House, visitor: Visitor, password: str
) -> None:
    checked = len(house.hashing.checked)
    refused = await house.profiles.change_password(visitor, RIGHT, Secret(password))
    flaw = house.password_rules.flaw(Secret(password), ADA)
    assert refused == Refused(Refusal.WEAK_PASSWORD, flaw=flaw, field="new_password")
    assert len(house.hashing.checked) == checked


async def test_an_address_is_proposed_and_stays_until_the_code(house: House, visitor: Visitor, log: Lines) -> None:
    new = email("Ada.New@Example.org")
    proposed = await house.profiles.propose_email(visitor, new, RIGHT)
    assert proposed == Proposed(new.address)
    assert house.shelf.mails() == [Mail(Letter.CHANGE_EMAIL, visitor.user.id)]
    assert house.shelf.changes[visitor.user.id].email == new
    assert house.user(visitor.user).email == ADA.address
    assert house.rings == 1
    [line] = log.of("email_change_asked")
    assert line["address"] == house.dice.pseudonym(new.key)


PROOFS: dict[str, Callable[[House, Visitor, Secret], Awaitable[object]]] = {
    "remove": lambda house, visitor, password: house.profiles.remove(visitor, password),
    "password": lambda house, visitor, password: house.profiles.change_password(visitor, password, NEW),
    "address": lambda house, visitor, password: house.profiles.propose_email(
        visitor, email("new@example.org"), password
    ),
}
EVERY_PROOF = pytest.mark.parametrize("act", PROOFS.values(), ids=PROOFS.keys())
Act = Callable[[House, Visitor, Secret], Awaitable[object]]


@EVERY_PROOF
async def test_a_wrong_password_changes_nothing(house: House, visitor: Visitor, act: Act, log: Lines) -> None:
    begun = house.shelf.begun
    assert await act(house, visitor, WRONG) == WRONG_PASSWORD
    assert (house.user(visitor.user), house.shelf.effects, house.shelf.begun) == (visitor.user, [], begun)
    assert [line["refusal"] for line in log.of("profile_refused")] == ["wrong_password"]


@EVERY_PROOF
@pytest.mark.parametrize(
    ("change", "expected"), [("password", WRONG_PASSWORD), ("disabled", GONE), ("gone", GONE)], ids=str
)
async def test_what_happened_while_we_hashed_is_seen_under_the_lock(
    house: House, visitor: Visitor, act: Act, change: str, expected: Refused
) -> None:
    def meanwhile() -> None:
        house.shelf.drop(visitor.user.id)
        if change == "password":
            house.shelf.put(replace(visitor.user, password_hash="hashed:yet another"))
        if change == "disabled":
            house.shelf.put(replace(visitor.user, disabled_at=START))

    house.hashing.busy = meanwhile
    assert await act(house, visitor, RIGHT) == expected
    assert (house.shelf.effects, house.shelf.changes) == ([], {})


async def test_whose_account_is_gone_changes_no_name(house: House, visitor: Visitor) -> None:
    house.shelf.put(replace(visitor.user, disabled_at=START))
    assert await house.profiles.change(visitor, username=NAME, locale=GERMAN) == GONE


async def story(house: House) -> None:
    """Everything there is to change, once and wrong once, and the end."""
    house.shelf.member("ada.taken@example.org", username=NAME)
    house.shelf.member(role=Role.ADMIN)
    other, visitor = await house.visitor(where=PHONE), await house.visitor(where=LAPTOP)
    await house.profiles.change(visitor, username=NAME, locale=GERMAN)
    await house.profiles.change(visitor, username=Keep.KEEP, locale=GERMAN)
    house.mint_reset(visitor.user)
    await house.profiles.change_password(visitor, RIGHT, NEW)
    visitor = await house.visitor(password=NEW)
    await house.registered(email("ada.new@example.org"))
    await house.profiles.propose_email(visitor, email("ada.taken@example.org"), NEW)
    await house.profiles.propose_email(visitor, email("ada.new@example.org"), NEW)
    house.mint_change(visitor.user)
    await house.profiles.confirm_email(visitor, Secret("999999"))
    await house.profiles.confirm_email(visitor, Secret("004242"))
    await house.profiles.remove(visitor, NEW)
    house.shelf.member("admin@example.org", role=Role.ADMIN)
    visitor = await house.visitor(email("ada.new@example.org"), NEW)
    await house.profiles.remove(visitor, NEW)
    assert other.user.id not in house.shelf.users


def holds(house: House) -> None:
    """Fail if a change was made and not written down, or nobody was told, or its codes outlived it."""
    whole(house)
    names = [event.name for event in house.shelf.published()]
    me = UUID(int=0xA001)
    letters = [mail.letter for mail in house.shelf.mails()]
    assert names.count("user.password_changed") == letters.count(Letter.PASSWORD_CHANGED)
    assert names.count("user.email_changed") == letters.count(Letter.EMAIL_CHANGED)
    assert letters.count(Letter.CHANGE_EMAIL) == (me in house.shelf.changes or "user.email_changed" in names)
    user = house.shelf.users.get(me)
    assert (user is None) == ("user.deleted" in names or not house.shelf.users)
    if user is None:
        assert me not in {one.user_id for one in house.shelf.logins.values()}
        return
    assert (user.locale == GERMAN) == ("user.changed" in names)
    assert (user.password_hash == "hashed:another password") == ("user.password_changed" in names)
    assert (user.email != ADA.address) == ("user.email_changed" in names)
    if "user.password_changed" in names:
        assert (me, RESET) not in house.shelf.codes
        assert PHONE.device not in {house.shelf.logins[one].device for one in house.shelf.alive(me)}


async def test_a_client_may_hang_up_at_every_point() -> None:
    assert await hung_up_everywhere(story, holds) > 80


@pytest.mark.parametrize("error", [ConnectionError, Unavailable, OSError])
async def test_every_port_call_may_fail(error: type[Exception]) -> None:
    assert await failed_everywhere(story, holds, error) > 80
