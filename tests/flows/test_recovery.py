"""Letters that anybody may ask for, the same for everybody; and what a reset token opens."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from uuid import UUID

import pytest
import trio

from regsvc.domain import account
from regsvc.domain.account import NO_PASSWORD, DuplicatePolicy, Tally
from regsvc.domain.delivery import Letter, Mail, Publish
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.session import Ending
from regsvc.domain.values import Email, LinkToken, Secret, Username
from regsvc.flows.profile import CHANGE_EMAIL
from regsvc.flows.recovery import RESET, Recovery
from regsvc.ports import Unavailable
from tests.flows.fakes import START
from tests.flows.house import (
    ADA,
    CODE,
    HOUR,
    LAPTOP,
    MINUTE,
    NEW,
    PHONE,
    RIGHT,
    SECOND,
    House,
    email,
    failed_everywhere,
    hung_up_everywhere,
    nobody,
    whole,
)
from tests.lines import Lines

INVALID = Refused(Refusal.INVALID_RESET_TOKEN)


async def test_who_forgot_his_password_is_mailed(house: House, log: Lines) -> None:
    user = house.shelf.member()
    await house.recovery.forgot(ADA)
    assert house.shelf.mails() == [Mail(Letter.RESET, user.id)]
    assert house.rings == 1
    [line] = log.of("letter_asked")
    assert (line["letter"], line["address"]) == ("reset", house.dice.pseudonym(ADA.key))


async def test_who_registered_is_mailed_the_longer_code_for_his_newest_claim() -> None:
    house = House(rules=account.Rules(duplicates=DuplicatePolicy.CLAIMS))
    older, newer = await house.registered(), await house.registered()
    await house.recovery.send_code(ADA)
    assert house.shelf.mails()[-1] == Mail(Letter.VERIFY, newer)
    assert house.shelf.addresses[ADA.key].mails.count == 2, "counted apart from what registrations cause"
    house.shelf.addresses[ADA.key] = replace(
        house.shelf.addresses[ADA.key],
        claims=tuple(
            replace(claim, expires_at=START if claim.id == newer else claim.expires_at)
            for claim in house.shelf.addresses[ADA.key].claims
        ),
    )
    house.shelf.now += MINUTE
    await house.recovery.send_code(ADA)
    assert house.shelf.mails()[-1] == Mail(Letter.VERIFY, older), "the newest that is not over"


@pytest.mark.parametrize("ask", [Recovery.forgot, Recovery.send_code], ids=["forgot", "send-code"])
async def test_the_same_is_done_for_every_address(ask: Callable[[Recovery, Email], Awaitable[None]]) -> None:
    houses = {name: House() for name in ("unknown", "pending", "over", "member", "disabled")}
    for name in ("pending", "over"):
        await houses[name].registered()
    houses["over"].shelf.now += houses["over"].rules.pending_ttl
    houses["member"].shelf.member()
    houses["disabled"].shelf.member(disabled_at=START)
    seen = set()
    for house in houses.values():
        calls, mails, rings = house.shelf.calls, len(house.shelf.mails()), house.rings
        made = house.dice.made
        await ask(house.recovery, ADA)
        address = house.shelf.addresses[ADA.key]
        assert (address.asked, address.asked_at) == (Tally(1, house.shelf.now), house.shelf.now)
        counts = len(house.shelf.mails()) - mails, house.rings - rings, house.dice.made - made
        seen.add((house.shelf.calls - calls, *counts))
    assert seen == {(5, 1, 1, 1)}, "begin, load, save, add, commit; one mail, one ring, one id"


async def test_what_nobody_is_asked_for_is_an_id_that_nobody_has(house: House) -> None:
    user = house.shelf.member()
    house.shelf.member("grace@example.org")
    claim = await house.registered(email("new@example.org"))
    await house.recovery.send_code(ADA)
    await house.recovery.forgot(email("new@example.org"))
    await house.recovery.forgot(email("nobody@example.org"))
    subjects = {mail.subject for mail in house.shelf.mails() if mail.letter is not Letter.ACTIVATION}
    assert len(subjects) == 3
    assert not subjects & {user.id, claim, *house.shelf.users}


async def test_a_claim_beside_an_account_that_came_another_way_gets_no_code(house: House) -> None:
    claim = await house.registered()
    house.shelf.member()
    await house.recovery.send_code(ADA)
    assert claim not in {mail.subject for mail in house.shelf.mails() if mail.letter is Letter.VERIFY}


@pytest.mark.parametrize("known", [True, False])
async def test_nobody_is_mailed_in_a_loop(house: House, log: Lines, *, known: bool) -> None:
    if known:
        house.shelf.member()
    for _ in range(3):
        await house.recovery.forgot(ADA)
    assert (len(house.shelf.mails()), house.rings) == (1, 1), "not too soon after the last one"
    for _ in range(20):
        house.shelf.now += MINUTE
        await house.recovery.forgot(ADA)
    assert len(house.shelf.mails()) == house.rules.resends_per_hour + 1
    assert len(log.of("letter_asked")) == len(house.shelf.mails())
    house.shelf.now += HOUR
    await house.recovery.forgot(ADA)
    assert len(house.shelf.mails()) == house.rules.resends_per_hour + 2


async def test_a_reset_gives_a_password_and_ends_all_sessions(house: House, log: Lines) -> None:
    house.shelf.member("other@example.org")
    other = await house.visitor(email("other@example.org"))
    user = house.shelf.member()
    admitted = [await house.admitted(where=LAPTOP), await house.admitted(where=LAPTOP)]
    token = house.mint_reset(user)
    house.shelf.now += MINUTE
    assert await house.recovery.reset(token, NEW) is None
    changed = house.user(user)
    assert changed == replace(user, password_hash="hashed:another password", updated_at=house.shelf.now)
    assert [await house.turned_away(one) for one in admitted] == [True, True]
    assert {one.end_reason for one in house.shelf.logins.values()} == {Ending.PASSWORD_RESET, None}
    assert house.shelf.alive(other.user.id) == [other.session.id]
    assert [effect for effect, _ in house.shelf.effects] == [
        Mail(Letter.PASSWORD_CHANGED, user.id),
        Publish("user.password_reset", user.id, actor=user.id),
        Publish("sessions.ended", user.id, data={"reason": "password_reset", "sessions": "2"}),
    ]
    assert house.rings == 1
    assert [line["user_id"] for line in log.of("password_reset")] == [str(user.id)]
    assert [line["reason"] for line in log.of("session_ended")] == ["password_reset"] * 2
    assert (await house.admitted(password=NEW)).user == changed
    assert await house.sessions.login(ADA, RIGHT, LAPTOP) == Refused(Refusal.INVALID_CREDENTIALS)


async def test_a_token_is_used_once_also_by_many_at_once(house: House, log: Lines) -> None:
    token = house.mint_reset(house.shelf.member())
    answers: list[object] = []

    async def reset(number: int) -> None:
        answers.append(await house.recovery.reset(token, Secret(f"password number {number}")))

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(reset, number, name=f"reset {number}")
    assert answers.count(None) == 1
    assert answers.count(INVALID) == 19
    assert await house.recovery.reset(token, NEW) == INVALID
    assert len(log.of("reset_refused")) == 20


async def test_what_is_no_token_or_another_accounts_costs_no_hash(house: House) -> None:
    user, other = house.shelf.member(), house.shelf.member("other@example.org")
    token = house.mint_reset(user)
    house.shelf.codes[user.id, CHANGE_EMAIL] = house.shelf.codes[user.id, RESET]
    house.hashing.busy = lambda: pytest.fail("a hash was spent on a known no")
    for wrong in (
        None,
        replace(token, secret=Secret("0" * 32)),
        replace(token, subject=other.id),
        LinkToken(UUID(int=7), token.secret),
    ):
        assert await house.recovery.reset(wrong, NEW) == INVALID
    house.shelf.now += 30 * MINUTE
    assert await house.recovery.reset(token, NEW) == INVALID, "its time is over"
    assert house.shelf.begun == 0


async def test_a_token_under_the_secret_before_is_good(house: House) -> None:
    token = house.mint_reset(house.shelf.member())
    house.dice.turn("the next secret")
    assert await house.recovery.reset(token, NEW) is None


@pytest.mark.parametrize("password", ["short", "ada@example.org", "ada.lovelace", "ADA@EXAMPLE.ORG"])
async def test_a_weak_password_is_refused_and_the_token_still_good(house: House, password: str, log: Lines) -> None:
    user = house.shelf.member(username=Username("Ada.Lovelace", "ada.lovelace"))
    token = house.mint_reset(user)
    refused = await house.recovery.reset(token, Secret(password))
    assert isinstance(refused, Refused)
    assert (refused.why, refused.field) == (Refusal.WEAK_PASSWORD, "new_password")
    assert refused.flaw == house.password_rules.flaw(Secret(password), ADA, user.username)
    assert [line["refusal"] for line in log.of("reset_refused")] == ["weak_password"]
    assert await house.recovery.reset(token, NEW) is None


async def test_who_has_no_password_gets_his_first(house: House) -> None:
    user = house.shelf.member(password_hash=NO_PASSWORD)
    assert await house.recovery.reset(house.mint_reset(user), NEW) is None
    await house.admitted(password=NEW)


async def test_a_disabled_account_is_not_reset(house: House) -> None:
    user = house.shelf.member(disabled_at=START)
    house.hashing.busy = lambda: pytest.fail("a hash was spent on a known no")
    assert await house.recovery.reset(house.mint_reset(user), NEW) == INVALID
    assert house.user(user) == user


@pytest.mark.parametrize("change", ["disabled", "gone", "used", "over"])
async def test_what_happened_while_we_hashed_is_seen_under_the_lock(house: House, change: str) -> None:
    user = house.shelf.member()
    token = house.mint_reset(user)

    def meanwhile() -> None:
        match change:
            case "disabled":
                house.shelf.put(replace(user, disabled_at=START))
            case "gone":
                house.shelf.drop(user.id)
            case "used":
                house.shelf.codes[user.id, RESET] = replace(house.shelf.codes[user.id, RESET], used=True)
            case _:
                house.shelf.now += HOUR

    house.hashing.busy = meanwhile
    assert await house.recovery.reset(token, NEW) == INVALID
    assert [one.password_hash for one in house.shelf.users.values()] in ([], [user.password_hash])
    assert (house.shelf.effects, house.rings) == ([], 0)


async def test_an_address_that_a_thief_proposed_dies_with_the_old_password(house: House) -> None:
    user = house.shelf.member()
    thief = await house.visitor(where=PHONE)
    await house.profiles.propose_email(thief, email("thief@example.org"), RIGHT)
    house.mint_change(user)
    assert await house.recovery.reset(house.mint_reset(user), NEW) is None
    assert house.shelf.changes == {}
    assert await house.profiles.confirm_email(thief, CODE) == Refused(Refusal.CODE_EXPIRED)


async def story(house: House) -> None:
    """Ask for every letter, for somebody and nobody, and reset twice."""
    user = house.shelf.member()
    await house.admitted()
    await house.recovery.forgot(ADA)
    await house.recovery.forgot(email("nobody@example.org"))
    await house.registered(email("grace@example.org"))
    await house.recovery.send_code(email("grace@example.org"))
    token = house.mint_reset(user)
    await house.recovery.reset(token, NEW)
    await house.recovery.reset(token, RIGHT)
    house.shelf.now += SECOND
    await house.recovery.send_code(ADA)


def holds(house: House) -> None:
    """Fail if a password was changed and a session, the token, or a proposal outlived it, or nobody was told."""
    whole(house)
    for user in house.shelf.users.values():
        reset = [event for event in house.shelf.published() if event.name == "user.password_reset"]
        assert (user.password_hash == "hashed:another password") == bool(reset)
        assert len(reset) == house.shelf.mails().count(Mail(Letter.PASSWORD_CHANGED, user.id))
        if reset:
            assert house.shelf.alive(user.id) == []
            assert house.shelf.codes[user.id, RESET].used
    assert all(nobody(house, email(f"{who}@example.org")).owner is None for who in ("nobody", "grace"))


async def test_a_client_may_hang_up_at_every_point() -> None:
    assert await hung_up_everywhere(story, holds) > 40


@pytest.mark.parametrize("error", [ConnectionError, Unavailable, OSError])
async def test_every_port_call_may_fail(error: type[Exception]) -> None:
    assert await failed_everywhere(story, holds, error) > 40


def test_a_token_does_not_show_what_it_proves_with(house: House) -> None:
    token = house.mint_reset(house.shelf.member())
    assert token.secret.reveal() not in repr(token)
