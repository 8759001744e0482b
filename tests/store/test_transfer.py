"""Accounts by the thousand: a batch is all or nothing, meets a running service under its locks, and comes out again."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import pytest
import trio

from regsvc.domain import account, session, transfer
from regsvc.domain.account import NO_PASSWORD, Owner
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.session import Role, User
from regsvc.domain.transfer import Created, Fault, Outcome, Record, Unchanged, Updated
from regsvc.domain.values import Locale, Secret, Username
from regsvc.ports import Unavailable
from regsvc.store import Store
from regsvc.store.transfer import Roll, open_roll
from regsvc.trio_asyncpg import Connection
from tests.store import scenes
from tests.store.cuts import cut, points
from tests.store.scenes import (
    activate,
    blocked,
    digest,
    email,
    form,
    log_in,
    new_id,
    register,
    registered_with_code,
    rows,
    sizes,
)
from tests.waiting import until_asked

THEN = datetime(2020, 2, 29, 12, 30, 0, 123456, tzinfo=UTC)
ONCE: dict[str, Any] = {"created_at": THEN, "activated_at": THEN}


@pytest.fixture
async def roll(migrated: str) -> AsyncIterator[Roll]:
    async with open_roll(Secret(migrated), new_id=new_id) as roll:
        yield roll


def record(name: str = "ada", **told: Any) -> Record:
    given = frozenset(("email", "password_hash", *told))
    if "username" in told:
        told["username"] = Username(told["username"], told["username"].casefold())
    return Record(**{"email": email(name), "password_hash": "$hash", "given": given, **told})


async def take(roll: Roll, *records: Record, update: bool = False, dry_run: bool = False) -> Sequence[Outcome]:
    return await roll.take(records, update=update, dry_run=dry_run)


def kinds(outcomes: Sequence[Outcome]) -> list[object]:
    return [outcome.field if isinstance(outcome, Fault) else type(outcome) for outcome in outcomes]


async def everybody(roll: Roll, *, disabled: bool | None = None, limit: int = 2) -> list[User]:
    async with roll.snapshot(disabled=disabled) as snapshot:
        found: list[User] = []
        while page := await snapshot.page(found[-1].id if found else None, limit):
            found += page
        assert await snapshot.count() == len(found)
    return found


async def test_accounts_go_in_as_they_are_told_and_come_out_the_same(roll: Roll, raw: Connection) -> None:
    full = record(
        "bob",
        username="Bob",
        locale=Locale("de"),
        id=UUID(int=9),
        role=Role.ADMIN,
        disabled=True,
        disabled_at=THEN,
        **ONCE,
    )
    [ada, bob] = await take(roll, record(password_hash=NO_PASSWORD), full)
    assert isinstance(ada, Created)
    assert isinstance(bob, Created)
    assert bob.user.username == Username("Bob", "bob")
    assert (bob.user.id, bob.user.role, bob.user.disabled_at) == (UUID(int=9), Role.ADMIN, THEN)
    assert (bob.user.created_at, bob.user.activated_at) == (THEN, THEN)
    assert ada.user.created_at == ada.user.activated_at == ada.user.updated_at
    assert await everybody(roll) == [bob.user, ada.user]
    told = await rows(raw, "SELECT subject_id, name, data->>'change' FROM events ORDER BY subject_id")
    assert told == [(one, "user.imported", "created") for one in (bob.user.id, ada.user.id)]


async def test_the_same_again_changes_nothing(roll: Roll, raw: Connection) -> None:
    records = [record(f"p{n}", username=f"p{n}") for n in range(20)]
    first = await take(roll, *records)
    assert kinds(first) == [Created] * 20
    before = await sizes(raw)
    for update in (False, True):
        assert await take(roll, *records, update=update) == [Unchanged()] * 20
    exported = [one.user for one in first if isinstance(one, Created)]
    assert sorted(exported, key=lambda user: user.id) == await everybody(roll, limit=7)
    assert await sizes(raw) == before


async def test_what_is_there_otherwise_is_refused(roll: Roll) -> None:
    await take(roll, record(username="ada", id=UUID(int=1)))
    refused = await take(
        roll,
        record(password_hash="$other"),
        record("bob", username="ADA"),
        record("cy", id=UUID(int=1)),
        record("dan", username="dan"),
    )
    assert kinds(refused) == ["email", "username", "id", Created]
    assert [user.password_hash for user in await everybody(roll)] == ["$hash", "$hash"]


async def test_an_id_that_a_claim_has_becomes_nobody_else_s(store: Store, roll: Roll) -> None:
    event = await registered_with_code(store, form())
    assert kinds(await take(roll, record("bob", id=event.id))) == ["id"]
    assert kinds(await take(roll, record("ada", id=event.id))) == [Created]


@pytest.mark.parametrize("kind", [Updated, "email"])
async def test_a_dry_run_says_the_same_and_writes_nothing(
    store: Store, roll: Roll, raw: Connection, kind: object
) -> None:
    update = kind is Updated
    await scenes.user(store, "ada", username=Username("ada", "ada"))
    await register(store, form("claimed"))
    before, everyone = await sizes(raw), await everybody(roll)
    records = [record("ada", role=Role.ADMIN), record("bob", username="ada"), record("claimed"), record("eve")]
    said = kinds(await take(roll, *records, update=update, dry_run=True))
    assert (await sizes(raw), await everybody(roll)) == (before, everyone)
    assert said == kinds(await take(roll, *records, update=update))
    assert said == [kind, "username", Created, Created]


async def test_an_update_overwrites_ends_sessions_and_kills_reset_codes(
    store: Store, roll: Roll, raw: Connection
) -> None:
    ada = await scenes.user(store, "ada", username=Username("ada", "ada"))
    eve = await scenes.user(store, "eve")
    for number, who in enumerate((ada, ada, eve)):
        await log_in(store, who, digest(number))
    for purpose in ("reset", "verify"):
        await raw.execute(
            "INSERT INTO codes (subject_id, purpose, mac, minted_at, expires_at) VALUES ($1, $2, 'm', now(), now())",
            ada.id,
            purpose,
        )
    changed = record(
        "ada", password_hash="$new", locale=Locale("fr"), role=Role.ADMIN, disabled=True, username="countess"
    )
    [outcome] = await take(roll, changed, update=True)
    assert isinstance(outcome, Updated)
    assert outcome.changed == ("password_hash", "locale", "role", "disabled_at")
    after = outcome.user
    assert after == replace(
        ada,
        password_hash="$new",
        locale=Locale("fr"),
        role=Role.ADMIN,
        disabled_at=after.updated_at,
        updated_at=after.updated_at,
    )
    assert await everybody(roll) == [after, eve]
    ended = "SELECT user_id, end_reason, ended_at FROM sessions WHERE ended_at IS NOT NULL"
    assert await rows(raw, ended) == [(ada.id, "staff", after.updated_at)] * 2
    assert await rows(raw, "SELECT purpose FROM codes WHERE used_at IS NULL") == [("verify",)]
    told = await rows(raw, "SELECT name, data->>'sessions' FROM events WHERE name ~ 'imported|ended'")
    assert sorted(told, key=str) == [("sessions.ended", "2"), ("user.imported", None)]


# --------------------------------------------------------------------------------------------------- beside the service


async def test_claims_of_an_imported_address_are_void(store: Store, roll: Roll, raw: Connection) -> None:
    event = await registered_with_code(store, form("ada"))
    await register(store, form("ada2"))
    [outcome] = await take(roll, record("ada"))
    assert isinstance(outcome, Created)
    refused = (await activate(store, event)).outcome
    assert refused == Refused(Refusal.INVALID_CREDENTIALS)
    assert await rows(raw, "SELECT email FROM registrations") == [("ada2@example.com",)]
    assert await raw.fetchval("SELECT count(*) FROM outbox WHERE state = 'ready'") == 1
    assert await raw.fetchval("SELECT count(*) FROM codes") == 0
    again = (await register(store, form("ada"))).outcome
    assert again == Refused(Refusal.USER_ALREADY_EXISTS)


async def test_an_activation_and_an_import_of_one_address_queue_up(store: Store, roll: Roll, raw: Connection) -> None:
    """Whoever comes second finds what the first made; neither meets an error."""
    for number in range(10):
        name = f"race{number}"
        event = await registered_with_code(store, form(name))
        imported: list[Outcome] = []
        activated: list[Owner | Refused] = []

        async def race(which: int, event: account.Register = event, name: str = name) -> None:
            if which:
                imported.extend(await take(roll, record(name)))  # noqa: B023 - awaited before the next round
            else:
                activated.append((await activate(store, event)).outcome)  # noqa: B023

        await scenes.together(2, race)
        made = [kinds(imported) == [Created], isinstance(activated[0], Owner)]
        assert made.count(True) == 1
        assert await raw.fetchval("SELECT count(*) FROM users WHERE email = $1", f"{name}@example.com") == 1


async def test_a_username_that_goes_in_between_is_refused_and_all_others_go_in(roll: Roll, raw: Connection) -> None:
    outcomes: list[Outcome] = []

    async def bring() -> None:
        outcomes.extend(await take(roll, record("ada", username="taken"), record("bob", username="free")))

    async with trio.open_nursery() as nursery, raw.transaction():
        await raw.execute(
            "INSERT INTO users"
            " (id, email, email_key, username, username_key, password_hash, created_at, activated_at, updated_at)"
            " VALUES ($1, 'eve', 'eve', 'taken', 'taken', '!', now(), now(), now())",
            new_id(),
        )
        nursery.start_soon(bring, name="import")
        await until_asked(lambda: blocked(raw))
    assert kinds(outcomes) == ["username", Created]
    assert {user.email for user in await everybody(roll)} == {"eve", "bob@example.com"}
    assert await raw.fetchval("SELECT count(*) FROM events WHERE name = 'user.imported'") == 1


async def test_two_imports_at_once_bring_everybody_once(roll: Roll, migrated: str, raw: Connection) -> None:
    """In opposite orders, and with usernames that cross: nobody waits in a circle."""
    one = [record(f"p{n}", username=f"u{n}") for n in range(200)]
    other = [record(f"p{n}", username=f"u{n + 1}") for n in reversed(range(200))]
    async with open_roll(Secret(migrated), new_id=new_id) as second:

        async def bring(which: int) -> None:
            for start in range(0, 200, 20):
                await take((roll, second)[which], *(one, other)[which][start : start + 20])

        await scenes.together(2, bring)
    assert await raw.fetchval("SELECT count(DISTINCT email_key) FROM users") == 200
    assert await raw.fetchval("SELECT count(*) FROM events WHERE name = 'user.imported'") == 200


async def test_a_batch_cut_anywhere_is_whole_or_nothing_and_the_next_completes_it(
    migrated: str, raw: Connection, rounds: int | None
) -> None:
    async def bring(name: str) -> None:
        async with open_roll(Secret(migrated), new_id=new_id) as roll:
            await take(roll, record(f"{name}a"), record(f"{name}b"))

    total = await points(partial(bring, "whole"))
    seen = set()
    for n in range(1, total + 3, 1 if rounds else 5):
        await cut(partial(bring, f"cut{n}"), n)
        there = await raw.fetchval("SELECT count(*) FROM users WHERE email LIKE $1", f"cut{n}_@%")
        assert there in {0, 2}
        assert await raw.fetchval("SELECT count(*) FROM events") == await raw.fetchval("SELECT count(*) FROM users")
        seen.add(there)
        await bring(f"cut{n}")
        assert await raw.fetchval("SELECT count(*) FROM users WHERE email LIKE $1", f"cut{n}_@%") == 2
    assert seen == {0, 2}


# ------------------------------------------------------------------------------------------------------------ snapshots


async def test_disabled_accounts_are_looked_at_apart(roll: Roll) -> None:
    await take(roll, record("ada"), record("bob", disabled=True), record("cy", disabled=True), record("dan"))
    assert {user.email[0] for user in await everybody(roll, disabled=True)} == {"b", "c"}
    assert {user.email[0] for user in await everybody(roll, disabled=False, limit=1)} == {"a", "d"}


async def test_a_snapshot_is_of_one_moment(roll: Roll, migrated: str) -> None:
    await take(roll, record("ada", id=UUID(int=1)), record("bob", id=UUID(int=2)))
    async with roll.snapshot(disabled=None) as snapshot, open_roll(Secret(migrated), new_id=new_id) as other:
        [ada] = await snapshot.page(None, 1)
        await take(other, record("bob", password_hash="$new"), record("cy", id=UUID(int=3)), update=True)
        rest = await snapshot.page(ada.id, 10)
        assert [(user.id.int, user.password_hash) for user in rest] == [(2, "$hash")]
        assert await snapshot.count() == 2
    assert len(await everybody(roll)) == 3


async def test_what_was_exported_goes_into_another_database_the_same(store: Store, roll: Roll, raw: Connection) -> None:
    await scenes.user(store, "ada", username=Username("Ada", "ada"), locale=Locale("de"), role=Role.ADMIN)
    await scenes.user(store, "bob", disabled_at=THEN)
    await take(roll, record("cy", password_hash=NO_PASSWORD, **ONCE))
    before = await everybody(roll)
    lines = [transfer.written(user) for user in before]
    await raw.execute("TRUNCATE users CASCADE")
    records = [found for line in lines if isinstance(found := transfer.read(line, lambda _: None), Record)]
    assert kinds(await take(roll, *records)) == [Created] * 3
    after = await everybody(roll)
    assert [replace(user, updated_at=THEN) for user in after] == [replace(user, updated_at=THEN) for user in before]
    assert [transfer.written(user) for user in after] == lines


async def test_a_database_without_its_migrations_is_told(database: str) -> None:
    with pytest.raises(Unavailable, match="regsvc migrate"):
        async with open_roll(Secret(database), new_id=new_id):
            pytest.fail("it opened")


async def test_a_session_of_somebody_updated_opens_nothing(store: Store, roll: Roll) -> None:
    ada = await scenes.user(store, "ada")
    opened = await log_in(store, ada, digest())
    await take(roll, record("ada", password_hash="$new"), update=True)
    visit = await store.members.visit(opened.session.id)
    assert visit is not None
    assert not visit.session.alive(visit.now)
    assert await scenes.try_to_log_in(store, ada, digest(2)) == Refused(Refusal.INVALID_CREDENTIALS)
    assert isinstance(await scenes.refresh(store, digest(), digest(3)), Refused | session.Reused)


async def admins(roll: Roll) -> list[str]:
    return [user.email.partition("@")[0] for user in await everybody(roll) if transfer.administers(user)]


@pytest.mark.parametrize("resigning", [{"role": Role.USER}, {"disabled": True}], ids=["role", "disabled"])
async def test_the_last_administrator_is_neither_demoted_nor_disabled(roll: Roll, resigning: dict[str, Any]) -> None:
    people = [record(name, role=Role.ADMIN) for name in ("ada", "bob")]
    await take(roll, *people)
    both = [replace(one, **{"role": Role.ADMIN, **resigning}, given=one.given | {*resigning}) for one in people]
    for dry_run in (True, False):
        first, last = await take(roll, *both, update=True, dry_run=dry_run)
        assert isinstance(first, Updated)
        assert last == transfer.LAST_ADMIN
    assert await admins(roll) == ["bob"]
    assert await take(roll, both[1], update=True) == [transfer.LAST_ADMIN]


@pytest.mark.parametrize("new", ["cy", "bob"], ids=["a new account", "an account that is there"])
async def test_an_administrator_goes_where_another_comes(roll: Roll, new: str) -> None:
    await take(roll, record("ada", role=Role.ADMIN), record("bob"))
    lines = [record("ada", role=Role.USER), record(new, role=Role.ADMIN)]
    for dry_run in (True, False):
        outcomes = await take(roll, *lines, update=True, dry_run=dry_run)
        assert kinds(outcomes) == [Updated, Updated if new == "bob" else Created]
    assert await admins(roll) == [new]


async def test_an_import_waits_for_whoever_resigns_meanwhile(store: Store, roll: Roll, raw: Connection) -> None:
    _, bob = await take(roll, record("ada", role=Role.ADMIN), record("bob", role=Role.ADMIN))
    assert isinstance(bob, Created)
    outcomes: list[Outcome] = []

    async def demote_ada() -> None:
        outcomes.extend(await take(roll, record("ada", role=Role.USER), update=True))

    async with trio.open_nursery() as nursery, store.begin() as unit:
        locked = await unit.people.lock(bob.user.id)
        assert locked is not None
        assert not await unit.people.last_admin(bob.user.id)
        nursery.start_soon(demote_ada, name="import")
        await until_asked(lambda: blocked(raw))
        await unit.people.change(locked[0], replace(locked[0], role=Role.USER))
    assert outcomes == [transfer.LAST_ADMIN]
    assert await admins(roll) == ["ada"]
