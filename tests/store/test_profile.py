"""The store of accounts: what is changed comes back, what somebody has is refused, what is removed leaves nothing."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import trio

from regsvc.domain.account import NO_PASSWORD, Code
from regsvc.domain.delivery import Letter, Mail, Publish
from regsvc.domain.profile import EmailChange
from regsvc.domain.refusals import Refusal
from regsvc.domain.session import Role, User
from regsvc.domain.values import Email, EmailKey, Locale, Username
from regsvc.store import Store
from regsvc.trio_asyncpg import Connection
from tests.store.scenes import (
    blocked,
    digest,
    email,
    form,
    log_in,
    look,
    new_id,
    register,
    registered_with_code,
    rows,
    sizes,
    user,
)
from tests.waiting import until_asked

CODE = "INSERT INTO codes (subject_id, purpose, mac, minted_at, expires_at) VALUES ($1, $2, $3, now(), $4)"


async def lock(store: Store, who: UUID) -> tuple[User, datetime]:
    async with store.begin() as unit:
        locked = await unit.people.lock(who)
    assert locked is not None
    return locked


async def change(store: Store, before: User, after: User) -> Refusal | None:
    async with store.begin() as unit:
        await unit.people.lock(before.id)
        return await unit.people.change(before, after)


async def give_code(raw: Connection, subject: UUID, purpose: str, mac: bytes, *, minutes: int = 1) -> None:
    await raw.execute(CODE, subject, purpose, mac, await clock(raw) + timedelta(minutes=minutes))


async def clock(raw: Connection) -> datetime:
    now: datetime = await raw.fetchval("SELECT clock_timestamp()")
    return now


async def test_there_is_nobody_to_lock(store: Store) -> None:
    async with store.begin() as unit:
        assert await unit.people.lock(new_id()) is None


async def test_everything_that_can_change_comes_back(store: Store) -> None:
    ada = await user(store)
    _, now = await lock(store, ada.id)
    after = replace(
        ada,
        email="Ada@Elsewhere.example",
        email_key=EmailKey("ada@elsewhere.example"),
        password_hash=NO_PASSWORD,
        updated_at=now,
        username=Username("Ada", "ada"),
        locale=Locale("de-AT"),
        role=Role.ADMIN,
        disabled_at=now,
    )
    assert await change(store, ada, after) is None
    assert (await lock(store, ada.id))[0] == after
    bare = replace(after, username=None, locale=None, disabled_at=None, role=Role.USER)
    assert await change(store, after, bare) is None
    assert (await lock(store, ada.id))[0] == bare


async def test_what_does_not_differ_is_not_written(store: Store, raw: Connection) -> None:
    ada = await user(store)
    version = "SELECT xmin::text FROM users"
    before = await raw.fetchval(version)
    assert await change(store, ada, replace(ada)) is None
    assert await raw.fetchval(version) == before
    assert await change(store, ada, replace(ada, locale=Locale("fr"))) is None
    assert await raw.fetchval(version) != before


async def test_a_row_is_read_and_the_clock_too_after_the_lock_was_waited_for(store: Store, raw: Connection) -> None:
    ada = await user(store)
    seen: list[tuple[User, datetime]] = []

    async def wait_for_the_lock() -> None:
        seen.append(await lock(store, ada.id))

    async with trio.open_nursery() as nursery, store.begin() as unit:
        await unit.people.lock(ada.id)
        nursery.start_soon(wait_for_the_lock, name="second")
        await until_asked(lambda: blocked(raw))
        after = replace(ada, locale=Locale("fr"))
        await unit.people.change(ada, after)
        released = await clock(raw)
    assert seen[0][0] == after
    assert seen[0][1] > released


TAKEN = [
    ({"username": Username("BOB", "bob")}, Refusal.USERNAME_TAKEN),
    ({"email": "Bob@example.com", "email_key": email("bob").key}, Refusal.USER_ALREADY_EXISTS),
]


@pytest.mark.parametrize(("columns", "refusal"), TAKEN)
async def test_what_another_has_is_refused_and_the_transaction_goes_on(
    store: Store, columns: dict[str, Any], refusal: Refusal
) -> None:
    ada = await user(store)
    await user(store, "bob", username=Username("bob", "bob"))
    async with store.begin() as unit:
        await unit.people.lock(ada.id)
        assert await unit.people.change(ada, replace(ada, **columns)) is refusal
        assert await unit.people.change(ada, replace(ada, locale=Locale("fr"))) is None
    assert (await lock(store, ada.id))[0] == replace(ada, locale=Locale("fr"))


@pytest.mark.parametrize(("columns", "refusal"), TAKEN)
@pytest.mark.parametrize("commits", [True, False])
async def test_who_wants_what_another_just_takes_waits_and_is_refused_or_has_it(
    store: Store, raw: Connection, columns: dict[str, Any], refusal: Refusal, *, commits: bool
) -> None:
    ada, bob = await user(store), await user(store, "zoe")
    after = replace(ada, **columns)
    answers: list[Refusal | None] = []

    async def second() -> None:
        async with store.begin() as unit:
            await unit.people.lock(ada.id)
            answers.append(await unit.people.change(ada, after))
            await unit.people.change(ada, replace(ada if answers[0] else after, locale=Locale("fr")))

    async with trio.open_nursery() as nursery:
        transaction = raw.transaction()
        await transaction.__aenter__()
        await raw.execute(
            "UPDATE users SET username_key = 'bob', email_key = $2 WHERE id = $1", bob.id, email("bob").key
        )
        nursery.start_soon(second, name="second")
        await until_asked(lambda: blocked(raw))
        error = None if commits else LookupError()
        await transaction.__aexit__(type(error) if error else None, error, None)
    assert answers == [refusal if commits else None]
    assert (await lock(store, ada.id))[0] == replace(ada if commits else after, locale=Locale("fr"))


async def test_to_change_who_is_not_there_is_a_bug(store: Store) -> None:
    ada = await user(store)
    nobody = replace(ada, id=new_id(), email_key=EmailKey("new@example.com"))
    with pytest.raises(LookupError, match="was not locked"):
        await change(store, replace(nobody, locale=Locale("fr")), nobody)


async def test_a_removed_account_leaves_its_trail_alone(store: Store, raw: Connection) -> None:
    bob = await user(store, "bob")
    await log_in(store, bob, digest(1))
    kept = await sizes(raw)
    ada = await user(store)
    await log_in(store, ada, digest(2))
    await log_in(store, ada, digest(3))
    for purpose in ("reset", "change_email"):
        await give_code(raw, ada.id, purpose, b"mac")
    async with store.begin() as unit:
        await unit.people.propose(ada.id, EmailChange(email("new"), await clock(raw)), await clock(raw))
        await unit.outgoing.add((Mail(Letter.RESET, ada.id), Publish("user.tried", ada.id)), trace=None)
    events = await raw.fetchval("SELECT count(*) FROM events")
    before = await sizes(raw)
    assert (before["sessions"], before["refresh_tokens"], before["email_changes"]) == (3, 3, 1)
    async with store.begin() as unit:
        await unit.people.lock(ada.id)
        await unit.people.remove(ada.id)
    left = await sizes(raw)
    assert left == kept | {"addresses": left["addresses"], "events": events}
    assert await store.members.by_email(email().key) is None
    again = await user(store)  # the address is free
    assert again.id != ada.id


async def test_claims_beside_a_removed_account_go_with_it(store: Store, raw: Connection) -> None:
    ada = await user(store)
    await registered_with_code(store, form("bob"))
    claim = form("eve")
    await register(store, claim)
    await raw.execute("UPDATE registrations SET email_key = $2 WHERE id = $1", claim.id, ada.email_key)
    await give_code(raw, claim.id, "activate", b"mac")
    async with store.begin() as unit:
        await unit.people.lock(ada.id)
        await unit.people.remove(ada.id)
    assert (await look(store))[0].claims == ()
    counted = await sizes(raw)
    assert (counted["registrations"], counted["codes"], counted["outbox"]) == (1, 1, 1)  # bob's


async def test_claims_that_somebody_holds_are_not_waited_for(store: Store, raw: Connection) -> None:
    ada = await user(store)
    claim = form("eve")
    await register(store, claim)
    await raw.execute("UPDATE registrations SET email_key = $2 WHERE id = $1", claim.id, ada.email_key)
    async with raw.transaction():
        await raw.execute("SELECT FROM registrations FOR UPDATE")
        with trio.fail_after(10):
            async with store.begin() as unit:
                await unit.people.lock(ada.id)
                await unit.people.remove(ada.id)
    assert [found.id for found in (await look(store))[0].claims] == [claim.id]


@pytest.mark.parametrize(
    ("others", "last"),
    [
        ({}, True),
        ({"role": Role.ADMIN}, False),
        ({"role": Role.ADMIN, "disabled_at": datetime.fromisoformat("2026-01-01T00:00:00Z")}, True),
    ],
)
async def test_the_last_admin_is_the_one_beside_whom_nobody_else_is(
    store: Store, others: dict[str, Any], *, last: bool
) -> None:
    ada = await user(store, role=Role.ADMIN)
    bob = await user(store, "bob", **others)
    async with store.begin() as unit:
        assert await unit.people.last_admin(ada.id) is last
        assert await unit.people.last_admin(bob.id) is False


@pytest.mark.parametrize(
    ("purpose", "macs", "minutes", "used"),
    [
        ("reset", [b"other", b"mac"], 1, True),
        ("reset", [b"other"], 1, False),
        ("reset", [], 1, False),
        ("reset", [b"mac"], 0, False),
        ("change_email", [b"mac"], 1, False),
    ],
)
async def test_a_code_is_used_up_if_it_is_right_and_alive(
    store: Store, raw: Connection, purpose: str, macs: Sequence[bytes], minutes: int, *, used: bool
) -> None:
    ada = await user(store)
    await give_code(raw, ada.id, "reset", b"mac", minutes=minutes)
    now = await clock(raw)
    async with store.begin() as unit:
        assert await unit.people.use_code(ada.id, purpose, macs, now) is used
        assert not await unit.people.use_code(ada.id, purpose, macs, now)  # once
    stamped = await rows(raw, "SELECT used_at FROM codes WHERE purpose = 'reset'")
    assert stamped == [(now if used else None,)]


async def test_codes_are_dropped_by_purpose(store: Store, raw: Connection) -> None:
    ada = await user(store)
    other = new_id()
    for subject in (ada.id, other):
        for purpose in ("reset", "change_email"):
            await give_code(raw, subject, purpose, b"mac")
    async with store.begin() as unit:
        await unit.people.drop_codes(ada.id, "reset", "activate")
    left = await rows(raw, "SELECT subject_id, purpose FROM codes ORDER BY minted_at")
    assert left == [(ada.id, "change_email"), (other, "reset"), (other, "change_email")]


async def test_a_proposed_address_comes_back_and_the_newest_replaces_it(store: Store, raw: Connection) -> None:
    ada = await user(store)
    now = await clock(raw)
    first = EmailChange(email("first"), now + timedelta(hours=1))
    second = EmailChange(Email("Second@Example.com", EmailKey("second@example.com")), now + timedelta(hours=2))
    async with store.begin() as unit:
        assert await unit.people.proposed(ada.id) is None
        await unit.people.propose(ada.id, first, now)
        assert await unit.people.proposed(ada.id) == first
    await give_code(raw, ada.id, "change_email", b"mac")
    expires_at = await raw.fetchval("SELECT expires_at FROM codes WHERE purpose = 'change_email'")
    async with store.begin() as unit:
        with_code = replace(first, code=Code(b"mac", expires_at))
        assert await unit.people.proposed(ada.id) == with_code
        spent = replace(with_code, code=Code(b"mac", expires_at, 1))
        await unit.people.spend(ada.id, spent)
        await unit.people.spend(ada.id, first)  # without a code there is nothing to write
        assert await unit.people.proposed(ada.id) == spent
        await unit.people.propose(ada.id, second, now)
        assert await unit.people.proposed(ada.id) == second
    await give_code(raw, ada.id, "change_email", b"mac")
    async with store.begin() as unit:
        await unit.people.settle(ada.id)
        assert await unit.people.proposed(ada.id) is None
    assert await raw.fetchval("SELECT count(*) FROM codes WHERE purpose = 'change_email'") == 0


async def test_a_used_code_of_a_change_is_none(store: Store, raw: Connection) -> None:
    ada = await user(store)
    now = await clock(raw)
    async with store.begin() as unit:
        await unit.people.propose(ada.id, EmailChange(email("first"), now), now)
    await give_code(raw, ada.id, "change_email", b"mac")
    async with store.begin() as unit:
        assert await unit.people.use_code(ada.id, "change_email", [b"mac"], now)
        assert await unit.people.proposed(ada.id) == EmailChange(email("first"), now)
