"""So many sessions of an account live and no more: what ends for a new one, and all who log in at once."""

from dataclasses import replace

import trio

from regsvc.domain.session import Ending, Opened, Rotated
from regsvc.store import Store
from regsvc.trio_asyncpg import Connection
from tests.store.scenes import SESSION_RULES, digest, log_in, refresh, rows, together, try_to_log_in, user

THREE = replace(SESSION_RULES, sessions_max=3)


async def test_the_oldest_end_with_their_links_and_nobody_elses(store: Store, raw: Connection) -> None:
    ada, bob = await user(store), await user(store, "bob")
    first = [await log_in(store, ada, digest(number)) for number in range(5)]
    his = await log_in(store, bob, digest(9))
    new = await try_to_log_in(store, ada, digest(5), rules=THREE)
    assert isinstance(new, Opened)
    alive = [session.id for session in await store.members.sessions(ada.id)]
    assert alive == [new.session.id, first[4].session.id, first[3].session.id]
    assert [session.id for session in await store.members.sessions(bob.id)] == [his.session.id]
    ended = await rows(raw, "SELECT id, end_reason, ended_at FROM sessions WHERE ended_at IS NOT NULL ORDER BY id")
    at, why = new.session.created_at, Ending.SUPERSEDED.value
    assert ended == [(one.session.id, why, at) for one in first[:3]]
    assert await refresh(store, digest(2), digest(20)) is None
    assert isinstance(await refresh(store, digest(3), digest(30)), Rotated)


async def test_of_many_who_log_in_at_once_and_refresh_meanwhile_no_more_live(
    store: Store, raw: Connection, rounds: int | None
) -> None:
    ada = await user(store)
    for round_ in range(rounds or 3):

        async def race(number: int, first: int = round_ << 8) -> None:
            assert isinstance(await try_to_log_in(store, ada, digest(first + number), rules=THREE), Opened)
            await trio.lowlevel.checkpoint()
            await refresh(store, digest(first + number), digest(first + number + 100))

        await together(16, race)
        assert len(await store.members.sessions(ada.id)) == 3
        leaves = "SELECT count(*) FROM refresh_tokens WHERE used_at IS NULL"
        assert await rows(raw, leaves) == [(3,)]
        orphans = (
            "SELECT count(*) FROM refresh_tokens INNER JOIN sessions ON session_id = id WHERE ended_at IS NOT NULL"
        )
        assert await rows(raw, orphans) == [(0,)]
