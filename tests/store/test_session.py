"""The store of sessions: what is written comes back, a chain is held by its session's row, and what ended stays so."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import trio

from regsvc.domain.session import Ending, Family, Opened, Repeated, Reused, Role, Rotated
from regsvc.domain.values import EmailKey, Locale, Username
from regsvc.ports import Unavailable
from regsvc.store import Store
from regsvc.store.sql import Statement, Statements
from regsvc.trio_asyncpg import Connection
from tests.store.scenes import (
    blocked,
    digest,
    email,
    form,
    lease_one,
    log_in,
    mint,
    new_id,
    refresh,
    register,
    rows,
    user,
)
from tests.waiting import until_asked

NAMED: dict[str, Any] = {"username": Username("Ada", "ada"), "locale": Locale("de"), "role": Role.ADMIN}


async def load(store: Store, token: bytes) -> tuple[Family, datetime] | None:
    async with store.begin() as unit:
        return await unit.sessions.load(token)


async def end(
    store: Store, opened: Opened, reason: Ending = Ending.LOGOUT, *, only: bool = False, but: bool = False
) -> set[object]:
    """End the sessions of the owner of a session; that one only, or all but that one."""
    session = opened.session
    async with store.begin() as unit:
        ended = await unit.sessions.end(
            session.user_id,
            reason,
            session.created_at,
            only=session.id if only else None,
            but=session.id if but else None,
        )
    return set(ended)


async def alive(store: Store, opened: Opened) -> list[object]:
    return [session.id for session in await store.members.sessions(opened.session.user_id)]


async def test_a_session_comes_back_as_it_was_opened_whichever_way_it_is_read(store: Store) -> None:
    ada = await user(store, **NAMED)
    opened = await log_in(store, ada, digest())
    loaded = await load(store, digest())
    assert loaded is not None
    assert loaded[0] == Family(ada, opened.session, opened.link)
    visit = await store.members.visit(opened.session.id)
    assert visit is not None
    assert (visit.user, visit.session) == (ada, opened.session)
    assert loaded[1] < visit.now < loaded[1] + timedelta(seconds=5)
    assert await store.members.sessions(ada.id) == [opened.session]


async def test_what_nobody_has_is_none(store: Store) -> None:
    assert await load(store, digest()) is None
    assert await store.members.visit(new_id()) is None
    assert await store.members.sessions(new_id()) == []
    assert await store.members.by_email(EmailKey("nobody@example.com")) is None
    assert await store.members.by_username("nobody") is None
    assert await store.members.by_id(new_id()) is None


async def test_an_account_is_found_by_address_name_and_id(store: Store) -> None:
    ada, bob = await user(store, **NAMED), await user(store, "bob")
    assert await store.members.by_email(email().key) == await store.members.by_username("ada") == ada
    assert await store.members.by_id(ada.id) == ada
    assert await store.members.by_email(email("bob").key) == await store.members.by_id(bob.id) == bob


async def test_a_rotation_makes_the_next_link_of_the_chain(store: Store) -> None:
    ada = await user(store)
    opened = await log_in(store, ada, digest(1))
    first = await refresh(store, digest(1), digest(2))
    assert isinstance(first, Rotated)
    second = await refresh(store, digest(2), digest(3))
    assert isinstance(second, Rotated)
    loaded = [family for n in (1, 2, 3) if (family := await load(store, digest(n))) is not None]
    session = replace(opened.session, last_used_at=second.session.last_used_at)
    assert second.session.last_used_at > first.session.last_used_at > opened.session.last_used_at
    used = replace(first.link, used_at=second.used.used_at)
    assert [family for family, _ in loaded] == [
        Family(ada, session, first.used, used),
        Family(ada, session, used, second.link),
        Family(ada, session, second.link),
    ]


async def test_a_link_used_around_the_lock_is_an_outage_that_writes_nothing(store: Store, raw: Connection) -> None:
    await log_in(store, await user(store), digest(1))
    loaded = await load(store, digest(1))
    assert loaded is not None
    family, now = loaded
    rotated = Rotated(replace(family.session, last_used_at=now), replace(family.link, used_at=now), family.link)
    await raw.execute("UPDATE refresh_tokens SET used_at = clock_timestamp()")
    with pytest.raises(Unavailable, match="changed around its session's lock"):
        async with store.begin() as unit:
            await unit.sessions.rotate(replace(rotated, link=replace(family.link, digest=digest(2))))
    assert await rows(raw, "SELECT hash FROM refresh_tokens") == [(digest(1),)]
    assert await raw.fetchval("SELECT last_used_at FROM sessions") == family.session.last_used_at


async def test_the_clock_and_the_chain_are_read_after_the_lock_was_waited_for(store: Store, raw: Connection) -> None:
    await log_in(store, await user(store), digest(1))
    seen: list[tuple[Family, datetime] | None] = []

    async def wait_for_the_lock() -> None:
        seen.append(await load(store, digest(1)))

    async with trio.open_nursery() as nursery, store.begin() as unit:
        loaded = await unit.sessions.load(digest(1))
        assert loaded is not None
        nursery.start_soon(wait_for_the_lock, name="second")
        await until_asked(lambda: blocked(raw))
        family, now = loaded
        link = replace(family.link, digest=digest(2))
        await unit.sessions.rotate(Rotated(family.session, replace(family.link, used_at=now), link))
        released = await raw.fetchval("SELECT clock_timestamp()")
    assert seen[0] is not None
    assert seen[0][0].successor == link
    assert seen[0][1] > released


async def test_sessions_end_all_or_one_or_all_but_one(store: Store) -> None:
    ada, bob = await user(store), await user(store, "bob")
    one, two, three, four = [await log_in(store, ada, digest(n)) for n in range(4)]
    other = await log_in(store, bob, digest(9))
    assert await alive(store, one) == [four.session.id, three.session.id, two.session.id, one.session.id]
    assert await end(store, two, only=True) == {two.session.id}
    assert await end(store, two, only=True) == set()  # once
    assert await alive(store, one) == [four.session.id, three.session.id, one.session.id]
    assert await end(store, three, but=True) == {one.session.id, four.session.id}
    assert await end(store, one) == {three.session.id}
    assert await alive(store, one) == []
    assert await alive(store, other) == [other.session.id]


async def test_nobody_ends_what_is_anothers(store: Store) -> None:
    ada, bob = await user(store), await user(store, "bob")
    hers = await log_in(store, ada, digest(1))
    async with store.begin() as unit:
        assert not await unit.sessions.end(bob.id, Ending.REVOKED, hers.session.created_at, only=hers.session.id)
    assert await alive(store, hers) == [hers.session.id]


@pytest.mark.parametrize("reason", Ending, ids=lambda reason: reason.value)
async def test_what_ended_says_when_and_why_and_its_links_are_unknown(store: Store, reason: Ending) -> None:
    ada = await user(store)
    opened = await log_in(store, ada, digest(1))
    await refresh(store, digest(1), digest(2))
    await end(store, opened, reason)
    visit = await store.members.visit(opened.session.id)
    assert visit is not None
    assert (visit.session.ended_at, visit.session.end_reason) == (opened.session.created_at, reason)
    assert not visit.session.alive(visit.now)
    assert await load(store, digest(1)) is await load(store, digest(2)) is None


async def test_a_session_that_is_over_neither_is_listed_nor_ends(store: Store, raw: Connection) -> None:
    opened = await log_in(store, await user(store), digest())
    await raw.execute("UPDATE sessions SET expires_at = created_at")
    assert await alive(store, opened) == []
    assert await end(store, opened) == set()
    visit = await store.members.visit(opened.session.id)
    assert visit is not None
    assert not visit.session.alive(visit.now)


async def test_reuse_ends_the_family_whatever_the_age_of_the_link(store: Store, raw: Connection) -> None:
    opened = await log_in(store, await user(store), digest(1))
    await refresh(store, digest(1), digest(2))
    assert isinstance(await refresh(store, digest(1), digest(2)), Repeated)
    age = "used_at = used_at - interval '20 days', expires_at = used_at - interval '13 days'"
    await raw.execute(f"UPDATE refresh_tokens SET {age} WHERE used_at IS NOT NULL")  # noqa: S608 - our own words
    assert isinstance(await refresh(store, digest(1), digest(2)), Reused)
    assert await refresh(store, digest(2), digest(3)) is None
    visit = await store.members.visit(opened.session.id)
    assert visit is not None
    assert visit.session.end_reason is Ending.REUSED


async def test_an_end_that_waited_for_a_refresh_takes_the_link_it_made(store: Store, raw: Connection) -> None:
    opened = await log_in(store, await user(store), digest(1))
    async with trio.open_nursery() as nursery, store.begin() as unit:
        loaded = await unit.sessions.load(digest(1))
        assert loaded is not None
        nursery.start_soon(end, store, opened, name="end")
        await until_asked(lambda: blocked(raw))
        family, now = loaded
        link = replace(family.link, digest=digest(2))
        await unit.sessions.rotate(Rotated(family.session, replace(family.link, used_at=now), link))
    assert await alive(store, opened) == []
    assert await raw.fetchval("SELECT count(*) FROM refresh_tokens") == 0


async def test_devices_are_those_of_all_sessions_that_are_known(store: Store, raw: Connection) -> None:
    ada, bob = await user(store), await user(store, "bob")
    async with store.begin() as unit:
        assert await unit.sessions.devices(ada.id, ada.created_at) == {}
    ended = await log_in(store, ada, digest(1), "curl")
    await log_in(store, ada, digest(2), "Firefox on Linux")
    over = await log_in(store, ada, digest(3), "Firefox on Linux")
    await log_in(store, bob, digest(4), "Safari on iPhone")
    await end(store, ended, only=True)
    now = ended.session.created_at
    await raw.execute("UPDATE sessions SET expires_at = created_at WHERE id = $1", over.session.id)
    async with store.begin() as unit:
        later = now + timedelta(minutes=1)
        assert await unit.sessions.devices(ada.id, later) == {"curl": 0, "Firefox on Linux": 1}


async def test_a_session_has_one_unused_link_at_a_time(store: Store, raw: Connection) -> None:
    opened = await log_in(store, await user(store), digest(1))
    second = "INSERT INTO refresh_tokens (hash, session_id, expires_at, kept_until) SELECT '', id, now(), now()"
    with pytest.raises(Exception, match="refresh_tokens_leaf"):
        await raw.execute(f"{second} FROM sessions")
    assert await alive(store, opened) == [opened.session.id]


@pytest.mark.parametrize(
    "around",
    [
        "UPDATE codes SET used_at = clock_timestamp()",
        "UPDATE codes SET expires_at = minted_at",
        "DELETE FROM codes",
    ],
)
async def test_a_code_is_alive_until_it_is_used_or_over(store: Store, raw: Connection, around: str) -> None:
    event = form()
    await register(store, event)
    await mint(store, await lease_one(store), b"mac")
    members = store.members
    assert await members.code_alive(event.id, "activate", [b"other", b"mac"])
    assert not await members.code_alive(event.id, "activate", [b"other"])
    assert not await members.code_alive(event.id, "activate", [])
    assert not await members.code_alive(event.id, "reset", [b"mac"])
    assert not await members.code_alive(new_id(), "activate", [b"mac"])
    await raw.execute(around)
    assert not await members.code_alive(event.id, "activate", [b"mac"])


async def test_each_verb_costs_few_statements(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    find = Statements._find

    def counted(self: Statements, name: str, result: str) -> Statement:
        ran.append(name)
        return find(self, name, result)

    opened = await log_in(store, await user(store), digest(1))
    monkeypatch.setattr(Statements, "_find", counted)
    await store.members.visit(opened.session.id)
    assert ran == ["visit"]
    del ran[:]
    await refresh(store, digest(1), digest(2))
    assert ran == ["lock_session", "load_family", "rotate"]
    del ran[:]
    await end(store, opened, only=True)
    assert ran == ["end_sessions", "drop_links"]
    del ran[:]
    await end(store, opened, only=True)
    assert ran == ["end_sessions"]
