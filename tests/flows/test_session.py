"""Log in, by password and by the longer code: what is committed, what is told to whom, and what a strike leaves."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
import trio
import trio.testing

from regsvc.domain.account import NO_PASSWORD
from regsvc.domain.delivery import Letter, Mail
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.session import Link, Session
from regsvc.domain.values import Email, Secret, Username
from regsvc.flows.account import Registration
from regsvc.flows.session import Admitted
from regsvc.ports import Unavailable
from tests.flows.fakes import START
from tests.flows.house import (
    ADA,
    CODE,
    LAPTOP,
    NEW,
    PHONE,
    RIGHT,
    SECOND,
    WRONG,
    House,
    email,
    failed_everywhere,
    hung_up_everywhere,
    nobody,
    whole,
)
from tests.lines import Lines

INVALID = Refused(Refusal.INVALID_CREDENTIALS)
NAME = Username("Ada", "ada")
WEEK = timedelta(days=7)


@pytest.mark.parametrize("who", [ADA, NAME], ids=["address", "name"])
async def test_the_password_opens_a_session(house: House, who: Email | Username) -> None:
    user = house.shelf.member(username=NAME)
    admitted = await house.sessions.login(who, RIGHT, LAPTOP)
    assert isinstance(admitted, Admitted)
    [opened] = house.shelf.logins.values()
    assert opened == Session(
        opened.id, user.id, LAPTOP.device, LAPTOP.ip, START, START, START + timedelta(days=30), None, None
    )
    [chained] = house.shelf.chain.values()
    assert chained.link == Link(house.dice.digest(admitted.refresh_token), START + WEEK)
    assert admitted == Admitted(
        house.tokens.issue(user, opened.id, START), house.tokens.lifetime, admitted.refresh_token, WEEK, user
    )
    assert house.shelf.effects == []
    assert house.rings == 0


async def test_what_a_login_says_and_to_whom(house: House, log: Lines) -> None:
    user = house.shelf.member(username=NAME)
    admitted = await house.admitted()
    await house.sessions.login(ADA, WRONG, LAPTOP)
    await house.sessions.login(NAME, WRONG, LAPTOP)
    [opened] = log.of("login_succeeded")
    assert opened["user_id"] == str(user.id)
    assert opened["session_id"] == str(next(iter(house.shelf.logins)))
    assert (opened["proof"], opened["address"]) == ("password", house.dice.pseudonym(ADA.key))
    by_address, by_name = log.of("login_refused")
    assert (by_address["refusal"], by_address["address"]) == ("invalid_credentials", house.dice.pseudonym(ADA.key))
    assert "address" not in by_name
    said = log.getvalue().decode() + repr(admitted)
    for secret in (RIGHT, admitted.access_token, admitted.refresh_token):
        assert secret.reveal() not in said


def standings() -> dict[str, House]:
    """Houses in which one address stands in each of the ways that a stranger must not tell apart."""
    houses = {name: House() for name in ("unknown", "member", "disabled", "without a password")}
    houses["member"].shelf.member(username=NAME)
    houses["disabled"].shelf.member(username=NAME, disabled_at=START)
    houses["without a password"].shelf.member(username=NAME, password_hash=NO_PASSWORD)
    return houses


async def test_a_wrong_password_costs_the_same_whoever_is_asked_for() -> None:
    houses = standings()
    houses["pending"] = House()
    await houses["pending"].registered()
    for who in (ADA, NAME):
        costs = set()
        for name, house in houses.items():
            began, begun, checked = house.shelf.calls, house.shelf.begun, len(house.hashing.checked)
            assert await house.sessions.login(who, WRONG, LAPTOP) == INVALID, name
            assert house.hashing.checked[checked:] in ([0], [1]), "none and one cost one hash"
            costs.add((house.shelf.calls - began, house.shelf.begun - begun))
        assert costs == {(2, 0)}, "one read and one check, and no transaction"


async def test_only_the_right_password_learns_that_the_account_is_disabled() -> None:
    house = standings()["disabled"]
    assert await house.sessions.login(ADA, WRONG, LAPTOP) == INVALID
    assert await house.sessions.login(ADA, RIGHT, LAPTOP) == Refused(Refusal.ACCOUNT_DISABLED)
    assert house.shelf.logins == {}


async def test_only_the_right_password_learns_that_a_registration_is_not_active(house: House) -> None:
    await house.registered()
    assert await house.sessions.login(ADA, WRONG, LAPTOP) == INVALID
    assert await house.sessions.login(ADA, RIGHT, LAPTOP) == Refused(Refusal.NOT_ACTIVATED)
    house.shelf.now += house.rules.pending_ttl
    assert await house.sessions.login(ADA, RIGHT, LAPTOP) == INVALID, "it is over, whether or not its row is there"


async def test_a_claim_beside_an_account_that_came_another_way_opens_nothing(house: House) -> None:
    await house.registered(password=NEW)
    house.shelf.member()
    assert await house.sessions.login(ADA, NEW, LAPTOP) == INVALID
    await house.admitted()


async def test_no_password_is_right_where_there_is_none() -> None:
    house = standings()["without a password"]
    for guess in (NO_PASSWORD, "", f"hashed:{NO_PASSWORD}"):
        assert await house.sessions.login(ADA, Secret(guess), LAPTOP) == INVALID


@pytest.mark.parametrize("change", ["another password", "gone"])
async def test_what_happened_while_we_hashed_is_seen_under_the_lock(house: House, change: str) -> None:
    user = house.shelf.member()

    def meanwhile() -> None:
        house.shelf.drop(user.id)
        if change != "gone":
            house.shelf.put(replace(user, password_hash=f"hashed:{change}"))

    house.hashing.busy = meanwhile
    assert await house.sessions.login(ADA, RIGHT, LAPTOP) == INVALID
    assert house.shelf.logins == {}
    assert len(house.hashing.checked) == 2, "it looked once more, then said no"


async def test_a_login_makes_an_old_hash_anew_and_nothing_else(house: House, log: Lines) -> None:
    user = house.shelf.member(password_hash="old:right password")
    house.shelf.now += SECOND
    admitted = await house.admitted()
    assert house.user(user) == replace(user, password_hash="hashed:right password")
    assert admitted.user.updated_at == START
    assert [line["user_id"] for line in log.of("password_upgraded")] == [str(user.id)]
    await house.admitted()
    assert len(log.of("password_upgraded")) == 1


async def test_a_full_hasher_keeps_nobody_from_logging_in(house: House, log: Lines) -> None:
    user = house.shelf.member(password_hash="old:right password")
    house.hashing.full = True
    await house.admitted()
    assert house.user(user) == user
    assert log.of("password_upgraded") == []


@pytest.mark.parametrize("who", [ADA, NAME])
async def test_under_load_a_login_is_refused_before_anybody_is_looked_up(house: House, who: Email | Username) -> None:
    house.shelf.member()
    house.hashing.crowded = True
    before = house.shelf.calls
    with pytest.raises(Unavailable, match="crowded"):
        await house.sessions.login(who, RIGHT, LAPTOP)
    assert house.shelf.calls == before


async def test_a_hash_that_is_made_anew_keeps_no_other_login_out(house: House, log: Lines) -> None:
    house.shelf.member(password_hash="old:right password")
    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(house.admitted, name=f"login {number}")
    assert len(house.shelf.logins) == 50
    assert len(log.of("password_upgraded")) == 1


async def test_a_hash_that_changes_again_and_again_is_looked_at_twice(house: House, log: Lines) -> None:
    user = house.shelf.member()

    def meanwhile() -> None:
        scheme = "old" if len(house.hashing.checked) == 1 else "hashed"
        house.shelf.put(replace(user, password_hash=f"{scheme}:right password"))

    house.hashing.busy = meanwhile
    assert await house.sessions.login(ADA, RIGHT, LAPTOP) == INVALID
    assert len(house.hashing.checked) == 2
    assert len(log.of("login_refused")) == 1


async def test_a_disabled_account_is_not_upgraded(house: House) -> None:
    user = house.shelf.member(password_hash="old:right password", disabled_at=START)
    assert await house.sessions.login(ADA, RIGHT, LAPTOP) == Refused(Refusal.ACCOUNT_DISABLED)
    assert house.user(user) == user


async def test_a_new_device_is_told_to_the_owner(house: House) -> None:
    user = house.shelf.member()
    await house.admitted(where=LAPTOP)
    await house.admitted(where=LAPTOP)
    assert (house.shelf.effects, house.rings) == ([], 0)
    await house.admitted(where=PHONE)
    assert house.shelf.mails() == [Mail(Letter.NEW_DEVICE, user.id, {"device": PHONE.device})]
    assert house.rings == 1


async def test_the_longer_code_activates_and_opens_a_session(house: House, log: Lines) -> None:
    claim = await house.registered()
    house.mint(claim)
    admitted = await house.sessions.verify(ADA, CODE, LAPTOP)
    assert isinstance(admitted, Admitted)
    assert admitted.user == house.shelf.users[claim]
    assert admitted.user.password_hash == NO_PASSWORD, "who reads the mail need not be who chose the password"
    visitor = await house.visiting(admitted)
    assert visitor.session.device == LAPTOP.device
    assert [event.name for event in house.shelf.published()] == ["registration.created", "user.activated"]
    assert [line["proof"] for line in log.of("login_succeeded")] == ["code"]
    assert len(log.of("activation_succeeded")) == 1
    assert await house.sessions.verify(ADA, CODE, LAPTOP) == Refused(Refusal.INVALID_ACTIVATION_CODE), "once"
    assert len(log.of("activation_refused")) == 1


async def test_a_code_that_was_made_under_the_secret_before_is_good(house: House) -> None:
    house.mint(await house.registered())
    house.dice.turn("the next secret")
    assert isinstance(await house.sessions.verify(ADA, CODE, LAPTOP), Admitted)


async def test_a_wrong_longer_code_spends_a_try_and_costs_the_same_everywhere(house: House) -> None:
    house.mint(await house.registered())
    house.shelf.member("owner@example.org")
    costs = set()
    for who in (ADA, email("owner@example.org"), email("nobody@example.org")):
        began = house.shelf.calls
        refused = await house.sessions.verify(who, Secret("999999"), LAPTOP)
        assert refused == Refused(Refusal.INVALID_ACTIVATION_CODE)
        assert nobody(house, who).verify_failures.count == 1
        costs.add(house.shelf.calls - began)
    assert len(costs) == 1


async def test_of_many_who_show_the_longer_code_at_once_one_is_admitted(house: House) -> None:
    house.mint(await house.registered())
    answers: list[object] = []

    async def show() -> None:
        answers.append(await house.sessions.verify(ADA, CODE, LAPTOP))

    async with trio.open_nursery() as nursery:
        for number in range(9):
            nursery.start_soon(show, name=f"verify {number}")
    assert sum(isinstance(one, Admitted) for one in answers) == 1
    assert len(house.shelf.logins) == 1


async def test_a_database_that_does_not_answer_is_an_outage_and_changes_nothing(
    house: House, autojump_clock: trio.testing.MockClock
) -> None:
    house.shelf.member()
    house.shelf.stall = trio.Event()
    with pytest.raises(Unavailable, match=r"database: a transaction took longer than 5 s"):
        await house.sessions.login(ADA, RIGHT, LAPTOP)
    assert autojump_clock.current_time() == pytest.approx(5)
    assert house.shelf.logins == {}
    whole(house)


async def story(house: House) -> None:
    """Log in with an old hash, from another device, by the longer code; go on, be copied, and leave."""
    house.shelf.member("grace@example.org", password_hash="old:right password")
    first = await house.admitted(email("grace@example.org"), where=LAPTOP)
    other = await house.admitted(email("grace@example.org"), where=PHONE)
    claim = await house.registered()
    house.mint(claim)
    await house.sessions.verify(ADA, WRONG, LAPTOP)
    await house.sessions.verify(ADA, CODE, LAPTOP)
    visitor = await house.visiting(first)
    await house.sessions.refresh(first.refresh_token, LAPTOP)
    house.shelf.now += 11 * SECOND
    await house.sessions.refresh(first.refresh_token, PHONE)
    await house.sessions.show(visitor, UUID(int=1))
    await house.sessions.revoke(visitor, (await house.visiting(other)).session.id)
    await house.sessions.list(visitor)
    await house.sessions.logout(visitor)
    again = await house.visitor(ADA_NEW, NEW)
    await house.sessions.logout_all(again)


ADA_NEW = email("ada.new@example.org")


def told() -> House:
    house = House()
    house.shelf.member("ada.new@example.org", password_hash="hashed:another password")
    return house


def holds(house: House) -> None:
    """Fail if a session ended without its event, or an account was made without one."""
    whole(house)
    ended = [one for one in house.shelf.logins.values() if one.ended_at is not None]
    events = [event for event in house.shelf.published() if event.name == "sessions.ended"]
    assert len(ended) == sum(int(event.data["sessions"]) for event in events)
    activated = [event.subject for event in house.shelf.published() if event.name == "user.activated"]
    assert set(activated) == {user for user in house.shelf.users if user.int < 0xA000}
    assert {one.user_id for one in house.shelf.logins.values()} >= set(activated), "a session comes with it"
    assert len(house.shelf.mails()) <= house.rings + 1, "the bell is rung for each, but for who hung up before it"


async def test_a_client_may_hang_up_at_every_point() -> None:
    assert await hung_up_everywhere(story, holds, told) > 70


@pytest.mark.parametrize("error", [ConnectionError, Unavailable, OSError])
async def test_every_port_call_may_fail(error: type[Exception]) -> None:
    assert await failed_everywhere(story, holds, error, told) > 70


def test_what_holds_a_password_does_not_show_it(house: House) -> None:
    user = house.shelf.member()
    assert user.password_hash not in repr(user)
    assert RIGHT.reveal() not in repr(Registration(ADA, RIGHT))
