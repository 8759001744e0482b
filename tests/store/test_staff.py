"""Administrators on a real PostgreSQL: pages that miss nothing, plans by index, one event a change, one admin left."""

import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
import trio

from regsvc.domain.account import NO_PASSWORD
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.session import Role, User
from regsvc.domain.staff import Actor, By, Entry, Newcomer, Sought, State, Wish, beginning, newcomer
from regsvc.domain.values import PasswordRules, Username
from regsvc.flows.staff import Page, Staff
from regsvc.ports import Occurrence, StaffUnit, Unavailable
from regsvc.store import Store, sql
from regsvc.store.embedded import Cluster
from regsvc.trio_asyncpg import Connection, open_connection
from tests.flows.fakes import Dice, Hashing
from tests.postgres import psql, temporary_database
from tests.store.scenes import LEASE, email, form, lease_one, log_in, new_id, register, rows, together, user
from tests.store.test_plans import scanned

BOSS = Actor(By.COMMAND_LINE, ip="192.0.2.9")
DISABLE, DEMOTE = Wish(disabled=True), Wish(role=Role.USER)
NOW = datetime(2026, 11, 20, 11, tzinfo=UTC)


class Ids(Dice):
    """Ids as the service makes them: of version 7."""

    def new_id(self) -> UUID:
        return new_id()


def staff(store: Store) -> Staff:
    return Staff(
        begin=store.begin,
        roster=store.roster,
        members=store.members,
        desk=store.desk,
        passwords=Hashing(),
        crypto=Ids(),
        password_rules=PasswordRules(),
    )


async def people(store: Store, *names: str, **parts: Any) -> list[User]:
    return [await user(store, name, **parts) for name in names]


async def listed(
    store: Store, query: str | None = None, sought: Sought | None = None, before: UUID | None = None, limit: int = 100
) -> list[str]:
    """The local parts of who is listed."""
    pattern = beginning(query) if query is not None else None
    found = await store.roster.list(pattern=pattern, sought=sought, before=before, limit=limit)
    return [entry.email.partition("@")[0] for entry in found]


async def events(raw: Connection) -> list[tuple[object, ...]]:
    return await rows(raw, "SELECT name, subject_id, actor, ip, data FROM events WHERE name LIKE 'admin.%' ORDER BY at")


# ------------------------------------------------------------------------------------------------- looking


async def test_accounts_are_found_by_how_they_stand(store: Store) -> None:
    await people(store, "ada")
    await people(store, "bob", disabled_at=NOW)
    await people(store, "cy", role=Role.ADMIN)
    await people(store, "dee", role=Role.ADMIN, disabled_at=NOW)
    await register(store, form("eve"))
    assert await listed(store) == ["dee", "cy", "bob", "ada"]
    assert await listed(store, sought=Sought.ACTIVE) == ["cy", "ada"]
    assert await listed(store, sought=Sought.DISABLED) == ["dee", "bob"]
    assert await listed(store, sought=Sought.ADMIN) == ["dee", "cy"]
    assert await listed(store, sought=Sought.PENDING) == ["eve"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("A", ["axb", "a_b", "ada"]),
        ("ADA@Example.com", ["ada"]),
        ("ada@exam", ["ada"]),
        ("a_", ["a_b"]),
        ("a_b@example.com", ["a_b"]),
        ("50%", ["50%off"]),
        ("%", []),
        ("_", []),
        ("\\", []),
        ("a\\", []),
        ("Count", ["ada"]),
        ("nobody", []),
        ("a" * 9000, []),
    ],
)
async def test_what_is_sought_is_a_beginning_and_no_wildcard(store: Store, query: str, found: list[str]) -> None:
    await people(store, "ada", username=Username("Countess", "countess"))
    await people(store, "a_b", "50%off", "axb")
    assert await listed(store, query) == found


async def test_registrations_are_found_by_address_and_name_until_they_expire(store: Store, raw: Connection) -> None:
    eve = form("eve", username="Mallory", locale="de")
    await register(store, eve)
    for query in ("EVE@", "mall"):
        assert await listed(store, query, Sought.PENDING) == ["eve"]
    assert await listed(store, "ada", Sought.PENDING) == []
    shown = await store.roster.show(eve.id)
    assert shown is not None
    assert (shown.state, shown.username, shown.locale) == (State.PENDING, "Mallory", "de")
    await raw.execute("UPDATE registrations SET expires_at = clock_timestamp()")
    assert await listed(store, "eve", Sought.PENDING) == []
    assert await store.roster.show(eve.id) is None


async def test_one_account_is_shown(store: Store) -> None:
    (ada,) = await people(store, "ada", username=Username("Ada", "ada"), role=Role.ADMIN)
    shown = await store.roster.show(ada.id)
    assert shown is not None
    assert (shown.id, shown.email, shown.username, shown.role) == (ada.id, ada.email, "Ada", Role.ADMIN)
    assert await store.roster.show(new_id()) is None


async def pages(store: Store, limit: int, between: Any) -> list[str]:
    """Read all pages; `between` is done after each."""
    seen: list[str] = []
    page: Page[Entry] = Page((), more=True)
    while page.more:
        before = page.items[-1].id if page.items else None
        page = await staff(store).list(query="p", sought=None, before=before, limit=limit)
        seen += [entry.email.partition("@")[0] for entry in page.items]
        await between(len(seen))
    return seen


async def test_pages_are_complete_and_steady_while_others_come_and_go(store: Store, raw: Connection) -> None:
    names = [f"p{n}" for n in range(10)]
    await people(store, *names)

    async def come_and_go(seen: int) -> None:
        await user(store, f"pnew{seen}")
        await raw.execute("DELETE FROM users WHERE email_key = 'p9@example.com'")  # long on a page

    for limit in (3, 5):
        await raw.execute("DELETE FROM users WHERE email_key LIKE 'pnew%'")
        seen = await pages(store, limit, come_and_go)
        assert [name for name in seen if name != "p9"] == names[8::-1]
        assert len(seen) == len(set(seen))


# ---------------------------------------------------------------------------------------------- the audit trail


async def test_the_trail_is_read_whole_page_by_page_also_within_one_moment(store: Store, raw: Connection) -> None:
    ada, bob = new_id(), new_id()
    for n in range(9):
        at, name = NOW + timedelta(minutes=n // 4), f"e{n % 2}"
        insert = "INSERT INTO events (id, at, name, actor, subject_id, ip, data) VALUES ($1, $2, $3, $4, $5, $6, $7)"
        await raw.execute(insert, new_id(), at, name, bob, ada if n % 3 else bob, "192.0.2.7", f'{{"n": "{n}"}}')
    seen: list[Occurrence] = []
    before = None
    while found := await store.roster.events(subject=None, name=None, before=before, limit=2):
        seen += found
        before = found[-1].at, found[-1].id
    assert sorted(int(one.data["n"]) for one in seen) == list(range(9))
    assert [(one.at, one.id) for one in seen] == sorted([(one.at, one.id) for one in seen], reverse=True)
    assert (seen[0].actor, seen[0].subject, seen[0].ip, seen[0].name) == (bob, ada, "192.0.2.7", "e0")
    found = await store.roster.events(subject=bob, name="e0", before=None, limit=9)
    assert [one.data["n"] for one in found] == ["6", "0"]


async def test_every_change_leaves_one_event_in_its_transaction(store: Store, raw: Connection) -> None:
    (ada, boss) = await people(store, "ada", "boss", role=Role.ADMIN)
    actor = Actor(By.ACCOUNT, boss.id, "192.0.2.7")
    await log_in(store, ada, b"token")
    await register(store, form("eve"))
    mail = await lease_one(store)
    await store.mailbag.dead(mail, "550 no")
    desk = staff(store)
    for wish in (DISABLE, DISABLE, Wish(disabled=False), DEMOTE, Wish(role=Role.ADMIN)):
        assert isinstance(await desk.change(actor, ada.id, wish), Entry)
    await log_in(store, ada, b"another")
    assert await desk.end_sessions(actor, ada.id) == 1
    assert await desk.end_sessions(actor, ada.id) == 0
    assert await desk.remove(actor, ada.id) is None
    assert await desk.retry_mail(actor, mail.id) is None
    assert await desk.retry_mail(actor, mail.id) == Refused(Refusal.NO_SUCH_MAIL)
    made = await desk.create(BOSS, Newcomer(email("ada")), None)
    assert isinstance(made, Entry)
    found = await events(raw)
    names = [
        "user_disabled", "user_enabled", "user_demoted", "user_promoted", "sessions_ended", "user_deleted",
        "mail_retried", "user_created",
    ]  # fmt: skip
    assert [row[0] for row in found] == [f"admin.{name}" for name in names]
    assert [row[1:4] for row in found[:6]] == [(ada.id, boss.id, "192.0.2.7")] * 6
    assert json.loads(str(found[0][4])) == {"sessions": "1"}
    assert found[6][1] == mail.subject
    assert found[7][1:4] == (made.id, None, "192.0.2.9")
    assert json.loads(str(found[7][4])) == {"role": "user", "by": "command_line"}


@asynccontextmanager
async def torn(store: Store) -> AsyncIterator[StaffUnit]:
    """A transaction that does not reach its end."""
    async with store.begin() as unit:
        yield unit
        raise Unavailable("database", "torn")


async def test_a_torn_deed_leaves_neither_change_nor_event(store: Store, raw: Connection) -> None:
    (ada,) = await people(store, "ada")
    await log_in(store, ada, b"token")
    await register(store, form("eve"))
    (mail,) = await store.mailbag.lease(1, LEASE)
    await store.mailbag.dead(mail, "550 no")
    desk = replace(staff(store), begin=partial(torn, store))
    for deed in (
        lambda: desk.change(BOSS, ada.id, DISABLE),
        lambda: desk.end_sessions(BOSS, ada.id),
        lambda: desk.remove(BOSS, ada.id),
        lambda: desk.retry_mail(BOSS, mail.id),
        lambda: desk.discard_mail(BOSS, mail.id),
        lambda: desk.create(BOSS, Newcomer(email("bob")), None),
    ):
        with pytest.raises(Unavailable):
            await deed()
    assert await events(raw) == []
    assert await store.members.by_id(ada.id) == ada
    assert len(await store.members.sessions(ada.id)) == 1
    assert await raw.fetchval("SELECT state FROM outbox WHERE id = $1", mail.id) == "dead"
    assert await raw.fetchval("SELECT count(*) FROM users") == 1


# ------------------------------------------------------------------------------------------------ collisions


async def leave(store: Store, who: User, how: Wish | None) -> object:
    if how is None:
        return await staff(store).remove(BOSS, who.id)
    return await staff(store).change(BOSS, who.id, how)


@pytest.mark.parametrize("ways", [(DISABLE, DISABLE), (DEMOTE, DEMOTE), (None, None), (DISABLE, DEMOTE, None)])
async def test_of_administrators_who_all_go_at_once_one_stays(
    store: Store, raw: Connection, rounds: int | None, ways: tuple[Wish | None, ...]
) -> None:
    for round_ in range(rounds or 4):
        await raw.execute("DELETE FROM users")
        admins = [await user(store, f"admin{n}", role=Role.ADMIN) for n in range(6)]
        outcomes: list[object] = []

        async def go(number: int, admins: list[User] = admins, outcomes: list[object] = outcomes) -> None:
            outcomes.append(await leave(store, admins[number], ways[number % len(ways)]))

        with trio.fail_after(15):
            await together(len(admins), go)
        assert [one.why for one in outcomes if isinstance(one, Refused)] == [Refusal.LAST_ADMIN], f"round {round_}"
        able = "SELECT count(*) FROM users WHERE role = 'admin' AND disabled_at IS NULL"
        assert await raw.fetchval(able) == 1


async def test_of_accounts_made_at_once_with_one_address_or_name_there_is_one(store: Store, raw: Connection) -> None:
    outcomes: list[Entry | Refused] = []

    async def make(number: int) -> None:
        name, local = ("same", f"n{number}") if number % 2 else (f"n{number}", "same")
        who = Newcomer(email(local), Username(name, name))
        outcomes.append(await staff(store).create(BOSS, who, None))

    await together(12, make)
    made = [one for one in outcomes if isinstance(one, Entry)]
    assert sorted("same" in one.email for one in made) == [False, True]
    whys = [one.why for one in outcomes if isinstance(one, Refused)]
    assert sorted(why.value for why in whys) == ["user_already_exists"] * 5 + ["username_taken"] * 5
    assert len(await events(raw)) == 2


async def test_an_account_that_came_around_the_lock_is_no_bug(store: Store) -> None:
    (ada,) = await people(store, "ada")
    async with store.begin() as unit:
        who = newcomer(new_id(), Newcomer(email("ada"), Username("Eve", "eve")), None, NOW)
        assert await unit.enrolment.add(who) is Refusal.USER_ALREADY_EXISTS
    assert await store.members.by_email(ada.email_key) == ada


async def test_an_account_that_is_made_ends_the_claims_to_its_address(store: Store, raw: Connection) -> None:
    await register(store, form("ada"))
    made = await staff(store).create(BOSS, Newcomer(email("ada"), role=Role.ADMIN), None)
    assert isinstance(made, Entry)
    found = await store.members.by_id(made.id)
    assert found is not None
    assert (found.password_hash, found.role) == (NO_PASSWORD, Role.ADMIN)
    left = "SELECT (SELECT count(*) FROM registrations), (SELECT count(*) FROM outbox)"
    assert await rows(raw, left) == [(0, 0)]


# ---------------------------------------------------------------------------------------------------- plans

FILL = """
    INSERT INTO users (
        id, email, email_key, username, username_key, password_hash, role, disabled_at, created_at, activated_at,
        updated_at
    )
    SELECT gen_random_uuid(), 'p' || n || '@example.com', 'p' || n || '@example.com', 'u' || n, 'u' || n, 'hash',
        CASE WHEN n % 5000 = 0 THEN 'admin' ELSE 'user' END, CASE WHEN n % 5000 = 1 THEN now() END, now(), now(), now()
    FROM generate_series(1, {rows}) AS n;
    INSERT INTO registrations (id, email, email_key, password_hash, created_at, live_until, expires_at)
    SELECT id, email, email_key, 'hash', now(), now(), now() + interval '1 day' FROM users;
    INSERT INTO events (id, at, name, subject_id)
    SELECT id, now() + interval '70 days' - random() * interval '170 days', 'e' || (random() * 50)::int, id FROM users;
    ANALYZE;
"""
LAST = UUID(int=1 << 127)
PLANS: dict[str, list[tuple[list[Any], str]]] = {  # with the index that is read
    "list_users": [
        ([None, None, False, None, 51], "users_pkey"),
        ([None, None, False, LAST, 51], "users_pkey"),
        (["p777%", None, False, None, 51], "users_email_prefix"),
        (["u777%", False, False, LAST, 51], "users_username_prefix"),
        (["p%", None, False, None, 51], "users_pkey"),
        ([None, True, False, None, 51], "users_disabled"),
        ([None, None, True, None, 51], "users_admins"),
    ],
    "list_registrations": [
        ([None, None, 51], "registrations_pkey"),
        ([None, LAST, 51], "registrations_pkey"),
        (["p777%", None, 51], "registrations_email_prefix"),
    ],
    "show": [([UUID(int=7)], "users_pkey")],
    "list_events": [
        ([None, None, None, None, 51], "_pkey"),
        ([None, None, NOW, UUID(int=7), 51], "_pkey"),
        ([UUID(int=7), None, None, None, 51], "_subject_id_at_idx"),
        ([None, "rare", None, None, 51], "_name_at_idx"),
        ([UUID(int=7), "e7", NOW, UUID(int=7), 51], "_subject_id_at_idx"),
    ],
    "username_taken": [(["u7"], "users_username_")],
}


@pytest.fixture(scope="module")
def crowded(postgres: Cluster, template: str, rounds: int | None) -> Iterator[str]:
    """A database with many rows."""
    name = f"crowded_staff_{os.getpid()}"
    with temporary_database(postgres, name, template=template) as dsn:
        psql(postgres, FILL.format(rows=1000 * (rounds or 20)), database=name)
        yield dsn


@pytest.mark.parametrize("name", PLANS)
async def test_administrators_read_by_index_however_often_they_ask(crowded: str, name: str) -> None:
    queries = await trio.to_thread.run_sync(sql.read_queries, sql.folder() / "queries")
    (statement,) = (statement for statement in queries["staff"] if statement.name == name)
    async with open_connection(crowded) as connection:
        types = ", ".join(one.name for one in (await connection.prepare(statement.text)).get_parameters())
        await connection.execute(f"PREPARE asked ({types}) AS {statement.text}")
        for arguments, index in PLANS[name]:
            words = ", ".join("NULL" if one is None else f"'{one}'" for one in arguments)
            for _ in range(7):  # from the sixth on, PostgreSQL may take a plan for all parameters
                plan = json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE asked ({words})"))
                shown = json.dumps(plan, indent=1)
                assert index in shown, shown
                assert not list(scanned(plan[0]["Plan"])), shown
