"""A login beyond the hundredth session that lives ends the oldest, and that is written down."""

from dataclasses import replace

from regsvc.domain import session
from regsvc.domain.delivery import Publish
from regsvc.domain.session import Ending
from tests.flows.house import LAPTOP, PHONE, SECOND, House
from tests.lines import Lines


async def test_the_oldest_session_ends_for_a_new_one(house: House, log: Lines) -> None:
    user = house.shelf.member()
    house.sessions = replace(house.sessions, rules=session.Rules(sessions_max=3))
    admitted = []
    for where in (LAPTOP, PHONE, LAPTOP, LAPTOP):
        admitted.append(await house.admitted(where=where))
        house.shelf.now += SECOND
    assert await house.turned_away(admitted[0])
    for one in admitted[1:]:
        await house.visiting(one)
    [ended] = [one for one in house.shelf.logins.values() if one.ended_at is not None]
    assert (ended.end_reason, ended.ended_at) == (Ending.SUPERSEDED, ended.created_at + 3 * SECOND)
    data = {"reason": "superseded", "sessions": "1"}
    assert house.shelf.published() == [Publish("sessions.ended", user.id, ip=LAPTOP.ip, data=data)]
    [said] = log.of("session_ended")
    assert (said["session_id"], said["reason"]) == (str(ended.id), "superseded")
    assert len(house.shelf.alive(user.id)) == 3


async def test_what_ended_by_itself_makes_room(house: House) -> None:
    user = house.shelf.member()
    house.sessions = replace(house.sessions, rules=session.Rules(sessions_max=2))
    first, second = await house.visitor(), await house.visitor()
    await house.sessions.logout(first)
    await house.visitor()
    assert second.session.id in house.shelf.alive(user.id)
    assert len(house.shelf.alive(user.id)) == 2
