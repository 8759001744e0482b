"""What tokens open: refresh in all its ways, who shows an access token, and what ends a session."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
import trio

from regsvc.domain import session
from regsvc.domain.delivery import Publish
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.session import Ending, Role, User
from regsvc.domain.values import Secret
from regsvc.flows.session import Admitted, Visitor
from tests.flows.fakes import START
from tests.flows.house import ADA, LAPTOP, PHONE, SECOND, House, email
from tests.lines import Lines

NO_ACCESS = Refused(Refusal.INVALID_ACCESS_TOKEN)
NO_REFRESH = Refused(Refusal.INVALID_REFRESH_TOKEN)
RULES = session.Rules()


@pytest.fixture
def user(house: House) -> User:
    return house.shelf.member()


async def refreshed(house: House, token: Secret) -> Admitted:
    admitted = await house.sessions.refresh(token, LAPTOP)
    assert isinstance(admitted, Admitted), admitted
    return admitted


async def test_a_refresh_token_is_used_for_the_next(house: House, user: User, log: Lines) -> None:
    first = await house.admitted()
    house.shelf.now += timedelta(days=6)
    second = await refreshed(house, first.refresh_token)
    visitor = await house.visiting(second)
    assert visitor.session.last_used_at == house.shelf.now
    assert visitor.session.created_at == START
    assert (second.user, second.refresh_until) == (user, RULES.refresh_ttl)
    assert second.access_token == house.tokens.issue(user, visitor.session.id, house.shelf.now)
    third = await refreshed(house, second.refresh_token)
    assert len({one.refresh_token for one in (first, second, third)}) == 3
    assert [line["repeated"] for line in log.of("session_refreshed")] == [False, False]
    assert house.shelf.effects == []


async def test_no_chain_outlives_its_session(house: House, user: User) -> None:
    admitted = await house.admitted()
    for _ in range(4):
        house.shelf.now += timedelta(days=6)
        admitted = await refreshed(house, admitted.refresh_token)
    assert admitted.refresh_until == timedelta(days=6), "30 days, of which 24 are over"
    house.shelf.now += timedelta(days=6)
    assert await house.sessions.refresh(admitted.refresh_token, LAPTOP) == NO_REFRESH


async def test_a_lost_answer_is_given_again(house: House, user: User, log: Lines) -> None:
    first = await house.admitted()
    second = await refreshed(house, first.refresh_token)
    house.shelf.now += RULES.refresh_grace - timedelta(microseconds=1)
    again = await refreshed(house, first.refresh_token)
    assert again.refresh_token == second.refresh_token
    assert again.refresh_until == RULES.refresh_ttl - RULES.refresh_grace + timedelta(microseconds=1)
    assert [line["repeated"] for line in log.of("session_refreshed")] == [False, True]


async def test_a_lost_answer_is_given_again_under_the_next_secret(house: House, user: User) -> None:
    first = await house.admitted()
    second = await refreshed(house, first.refresh_token)
    house.dice.turn("the next secret")
    assert (await refreshed(house, first.refresh_token)).refresh_token == second.refresh_token
    house.dice.turn("the one after it")
    assert await house.sessions.refresh(first.refresh_token, LAPTOP) == NO_REFRESH, "nobody can say which it was"
    await refreshed(house, second.refresh_token)  # and nothing was ended for it


async def test_a_copy_that_is_used_ends_the_whole_session(house: House, user: User, log: Lines) -> None:
    first, other = await house.admitted(), await house.admitted(where=PHONE)
    second = await refreshed(house, first.refresh_token)
    stolen = (await house.visiting(second)).session.id
    effects = list(house.shelf.effects)
    house.shelf.now += RULES.refresh_grace
    assert await house.sessions.refresh(first.refresh_token, PHONE) == NO_REFRESH
    assert await house.turned_away(first)
    assert await house.turned_away(second)
    ended = house.shelf.logins[stolen]
    assert (ended.ended_at, ended.end_reason) == (house.shelf.now, Ending.REUSED)
    data = {"reason": "refresh_reused", "sessions": "1"}
    written = [(Publish("sessions.ended", user.id, ip=PHONE.ip, data=data), None)]
    assert house.shelf.effects == effects + written
    [line] = log.of("refresh_reuse_detected")
    assert (line["user_id"], line["session_id"]) == (str(user.id), str(stolen))
    assert [line["reason"] for line in log.of("session_ended")] == ["refresh_reused"]
    assert len(log.of("refresh_refused")) == 3
    await refreshed(house, other.refresh_token)  # the other device's session is another


async def test_a_copy_of_a_link_whose_successor_was_used_has_no_grace(house: House, user: User) -> None:
    first = await house.admitted()
    second = await refreshed(house, first.refresh_token)
    await refreshed(house, second.refresh_token)
    assert await house.sessions.refresh(first.refresh_token, LAPTOP) == NO_REFRESH
    assert house.shelf.alive(user.id) == []


async def test_what_was_never_a_refresh_token_is_none(house: House, user: User) -> None:
    admitted = await house.admitted()
    assert await house.sessions.refresh(Secret("x" * 43), LAPTOP) == NO_REFRESH
    assert await house.sessions.refresh(admitted.access_token, LAPTOP) == NO_REFRESH
    assert house.shelf.alive(user.id) != []


async def test_neither_an_old_one_nor_a_disabled_accounts_is_good(house: House, user: User) -> None:
    admitted = await house.admitted()
    house.shelf.put(replace(user, disabled_at=START))
    assert await house.sessions.refresh(admitted.refresh_token, LAPTOP) == NO_REFRESH
    house.shelf.put(user)
    house.shelf.now += RULES.refresh_ttl
    assert await house.sessions.refresh(admitted.refresh_token, LAPTOP) == NO_REFRESH


async def test_of_fifty_at_once_all_get_the_one_successor(house: House, user: User) -> None:
    admitted = await house.admitted()
    successors: set[Secret] = set()

    async def refresh() -> None:
        successors.add((await refreshed(house, admitted.refresh_token)).refresh_token)

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(refresh, name=f"refresh {number}")
    assert len(successors) == 1
    assert len(house.shelf.chain) == 2


async def test_an_access_token_shows_who_it_is_by_two_calls(house: House, user: User) -> None:
    admitted = await house.admitted()
    began, begun = house.shelf.calls, house.shelf.begun
    visitor = await house.sessions.authenticate(admitted.access_token.reveal())
    assert isinstance(visitor, Visitor)
    assert visitor == Visitor(user, next(iter(house.shelf.logins.values())))
    assert (house.shelf.calls - began, house.shelf.begun - begun) == (2, 0)


async def test_an_access_token_ends_by_the_databases_clock(house: House, user: User) -> None:
    admitted = await house.admitted()
    house.shelf.now += house.tokens.lifetime - timedelta(microseconds=1)
    await house.visiting(admitted)
    house.shelf.now += timedelta(microseconds=1)
    assert await house.sessions.authenticate(admitted.access_token.reveal()) == NO_ACCESS


@pytest.mark.parametrize("token", ["", "x", "access", "a.b.c"])
async def test_what_is_no_access_token_asks_nothing_of_the_database(house: House, token: str) -> None:
    assert await house.sessions.authenticate(token) == NO_ACCESS
    assert house.shelf.calls == 1, "the tokens' own"


async def test_a_token_of_another_account_or_of_no_session_shows_nobody(house: House, user: User) -> None:
    house.tokens.lifetime = timedelta(days=60)
    admitted = await house.admitted()
    visitor = await house.visiting(admitted)
    other = house.shelf.member("other@example.org")
    for token in (
        house.tokens.issue(other, visitor.session.id, house.shelf.now),
        house.tokens.issue(user, UUID(int=7), house.shelf.now),
    ):
        assert await house.sessions.authenticate(token.reveal()) == NO_ACCESS
    house.shelf.put(replace(user, disabled_at=START))
    assert await house.turned_away(admitted)
    house.shelf.put(user)
    house.shelf.now += RULES.session_max
    assert await house.turned_away(admitted)


async def test_an_account_is_read_as_it_is_now(house: House, user: User) -> None:
    admitted = await house.admitted()
    house.shelf.put(replace(user, role=Role.ADMIN))
    assert (await house.visiting(admitted)).user.role is Role.ADMIN


async def test_logging_out_ends_this_session(house: House, user: User, log: Lines) -> None:
    here, there = await house.admitted(), await house.admitted()
    visitor = await house.visiting(here)
    await house.sessions.logout(visitor)
    assert await house.turned_away(here)
    await house.visiting(there)
    data = {"reason": "logout", "sessions": "1"}
    assert house.shelf.published() == [Publish("sessions.ended", user.id, ip=LAPTOP.ip, data=data)]
    [line] = log.of("session_ended")
    assert line["session_id"] == str(visitor.session.id)
    await house.sessions.logout(visitor)
    assert len(house.shelf.published()) == len(log.of("session_ended")) == 1, "an ended one does not end again"


async def test_logging_out_everywhere_ends_all(house: House, user: User, log: Lines) -> None:
    house.shelf.member("other@example.org")
    other = await house.admitted(email("other@example.org"))
    all_three = [await house.admitted() for _ in range(3)]
    await house.sessions.logout_all(await house.visiting(all_three[0]))
    assert [await house.turned_away(one) for one in all_three] == [True] * 3
    await house.visiting(other)
    assert [event.data for event in house.shelf.published()] == [{"reason": "logout_all", "sessions": "3"}]
    assert len(log.of("session_ended")) == 3


async def test_whose_account_is_gone_logs_out_of_nothing(house: House, user: User) -> None:
    visitor = await house.visitor()
    house.shelf.logins.clear()
    house.shelf.drop(user.id)
    await house.sessions.logout(visitor)
    await house.sessions.logout_all(visitor)
    assert house.shelf.effects == []


async def test_a_list_has_the_sessions_that_are_alive_the_newest_first(house: House, user: User) -> None:
    visitors = []
    for where in (LAPTOP, PHONE, LAPTOP):
        visitors.append(await house.visitor(where=where))
        house.shelf.now += SECOND
    await house.sessions.logout(visitors[1])
    assert await house.sessions.list(visitors[0]) == [visitors[2].session, visitors[0].session]
    assert await house.sessions.show(visitors[0], visitors[2].session.id) == visitors[2].session


async def test_others_sessions_and_ended_ones_are_as_unknown_as_none(house: House, user: User) -> None:
    house.shelf.member("other@example.org")
    mine, ended = await house.visitor(), await house.visitor()
    others = await house.visitor(email("other@example.org"))
    await house.sessions.logout(ended)
    unknown = Refused(Refusal.NO_SUCH_SESSION)
    for other in (others.session.id, ended.session.id, UUID(int=7)):
        assert await house.sessions.show(mine, other) == unknown
        assert await house.sessions.revoke(mine, other) == unknown
    assert house.shelf.alive(others.user.id) == [others.session.id]


@pytest.mark.parametrize(("which", "reason"), [(0, Ending.LOGOUT), (1, Ending.REVOKED)])
async def test_a_session_is_ended_from_another_or_itself(house: House, user: User, which: int, reason: Ending) -> None:
    visitors = [await house.visitor(ADA), await house.visitor(ADA, where=PHONE)]
    ending = visitors[which].session.id
    assert await house.sessions.revoke(visitors[0], ending) is None
    assert house.shelf.logins[ending].end_reason is reason
    assert house.shelf.alive(user.id) == [visitors[1 - which].session.id]
