"""Letters of every kind on their way: what they say besides, whom they are for, and who is in whose way."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
import trio

from regsvc.domain.delivery import NOT_AFTER, NOTICE_NOT_AFTER, Letter, Mail, Parcel, Publish
from regsvc.domain.profile import PROPOSAL_TTL, EmailChange
from regsvc.domain.session import User
from regsvc.domain.values import Locale, Username
from regsvc.ports import Minted
from regsvc.store import Store
from regsvc.trio_asyncpg import Connection
from tests.store.scenes import (
    LEASE,
    LIFETIME,
    LONGER,
    MAC,
    blocked,
    email,
    form,
    lease_one,
    look,
    mint,
    new_id,
    register,
    registered_with_code,
    rows,
    send,
    together,
    user,
    verify,
)
from tests.waiting import until_asked

WHY = "451 later"
NOTICES = [letter for letter in Letter if letter.notice]
TO_ACCOUNTS = [letter for letter in Letter if letter not in (Letter.ACTIVATION, Letter.VERIFY)]
ODD = {"device": 'Firefox on "Windows"\n\\', "to": "käthe@bücher.example", "🙂": ""}


async def post(store: Store, letter: Letter, subject: UUID, **data: str) -> Parcel:
    """Have a letter leave, and take it."""
    await send(store, Mail(letter, subject, data))
    return await lease_one(store)


async def propose(store: Store, who: User, name: str = "new", life: timedelta = PROPOSAL_TTL) -> None:
    async with store.begin() as unit:
        locked = await unit.people.lock(who.id)
        assert locked is not None
        await unit.people.propose(who.id, EmailChange(email(name), locked[1] + life), locked[1])


async def remove(store: Store, who: UUID) -> None:
    async with store.begin() as unit:
        if await unit.people.lock(who) is not None:
            await unit.people.remove(who)


async def disable(store: Store, user_id: UUID) -> None:
    async with store.begin() as unit:
        locked = await unit.people.lock(user_id)
        assert locked is not None
        who, now = locked
        await unit.people.change(who, replace(who, disabled_at=now, updated_at=now))


# --------------------------------------------------------------------------------------------- what they say besides


@pytest.mark.parametrize("letter", Letter)
async def test_a_letter_comes_back_with_what_it_says_and_as_long_as_it_is_good(store: Store, letter: Letter) -> None:
    subject = new_id()
    parcel = await post(store, letter, subject, **ODD)
    assert (parcel.letter, parcel.subject, parcel.data) == (letter, subject, ODD)
    assert parcel.not_after - parcel.created_at == (NOTICE_NOT_AFTER if letter.notice else NOT_AFTER)


async def test_letters_and_events_of_one_moment_each_keep_their_own(store: Store, raw: Connection) -> None:
    who, actor = new_id(), new_id()
    told: Mapping[str, str] = {"reason": "log\nout", "sessions": "3"}
    await send(
        store,
        Mail(Letter.RESET, who),
        Publish("sessions.ended", who, actor=actor, ip="2001:db8::7", data=told),
        Mail(Letter.NEW_DEVICE, who, {"device": "curl"}),
        Publish("user.activated", who),
    )
    parcels = await store.mailbag.lease(10, LEASE)
    assert [(parcel.letter, parcel.data) for parcel in parcels] == [
        (Letter.RESET, {}),
        (Letter.NEW_DEVICE, {"device": "curl"}),
    ]
    at = {parcel.created_at for parcel in parcels}
    written = await rows(raw, "SELECT name, subject_id, actor, ip, data ->> 'reason', data ->> 'sessions' FROM events")
    assert sorted(written, key=str) == [
        ("sessions.ended", who, actor, "2001:db8::7", "log\nout", "3"),
        ("user.activated", who, None, None, None, None),
    ]
    assert {row[0] for row in await rows(raw, "SELECT at FROM events")} == at


async def test_letters_of_a_version_to_come_are_left_to_it(store: Store, raw: Connection) -> None:
    for name in ("ada", "bob"):
        await register(store, form(name))
    await raw.execute("UPDATE outbox SET topic = 'birthday' WHERE id = (SELECT id FROM outbox ORDER BY id LIMIT 1)")
    [parcel] = await store.mailbag.lease(10, LEASE)
    assert parcel.letter is Letter.ACTIVATION
    await store.mailbag.done(parcel)
    assert await store.mailbag.lease(10, LEASE) == []
    assert await store.mailbag.next_due() is None, "a mailer that has nothing to do does not spin"
    assert await rows(raw, "SELECT state, attempts FROM outbox WHERE topic = 'birthday'") == [("ready", 0)]


async def test_an_operator_leaves_them_alone_too_and_gives_each_letter_its_own_time(
    store: Store, raw: Connection
) -> None:
    for letter in (Letter.PASSWORD_CHANGED, Letter.RESET):
        parcel = await post(store, letter, new_id())
        await store.mailbag.dead(parcel, WHY)
        assert await store.desk.retry(parcel.id)
        again = await lease_one(store)
        assert abs(again.not_after - again.leased_at - letter.not_after) < timedelta(seconds=5)
        await store.mailbag.dead(again, WHY)
        await raw.execute("UPDATE outbox SET topic = 'birthday'")
        assert not await store.desk.retry(parcel.id)


# ------------------------------------------------------------------------------------------------ codes for claims


async def test_the_longer_code_is_minted_beside_the_short_one_and_holds_no_address(
    store: Store, raw: Connection
) -> None:
    event = await registered_with_code(store, form(username="Ada", locale="de"))
    before, _ = await look(store)
    minted = await mint(store, await post(store, Letter.VERIFY, event.id), LONGER)
    after, now = await look(store)
    [was], [claim] = before.claims, after.claims
    assert (minted.email, minted.username, minted.locale) == (event.email.address, "Ada", "de")
    assert (claim.code, claim.live_until) == (was.code, was.live_until)
    assert claim.verify is not None
    assert (claim.verify.mac, claim.verify.failures) == (LONGER, 0)
    assert claim.verify.expires_at == minted.expires_at
    assert now < claim.verify.expires_at <= now + LIFETIME
    assert await rows(raw, "SELECT purpose FROM codes ORDER BY 1") == [("activate",), ("verify",)]


async def test_a_new_longer_code_has_all_its_tries(store: Store) -> None:
    event = await registered_with_code(store, form())
    for mac in (b"1" * 32, b"2" * 32):
        parcel = await post(store, Letter.VERIFY, event.id)
        await mint(store, parcel, mac)
        await store.mailbag.done(parcel)
        assert (await look(store))[0].claims[0].verify is not None
        await verify(store, event, b"wrong")
        code = (await look(store))[0].claims[0].verify
        assert code is not None
        assert (code.mac, code.failures) == (mac, 1)


@pytest.mark.parametrize("gone", ["DELETE FROM registrations", "UPDATE registrations SET expires_at = now()"])
async def test_a_longer_code_for_no_claim_is_not_minted(store: Store, raw: Connection, gone: str) -> None:
    event = await registered_with_code(store, form())
    parcel = await post(store, Letter.VERIFY, event.id)
    await raw.execute(gone)
    assert await store.mailbag.mint(parcel, LONGER, LIFETIME) is None
    assert await raw.fetchval("SELECT count(*) FROM outbox WHERE state <> 'sent'") == 0
    assert await rows(raw, "SELECT purpose FROM codes") == [("activate",)]


@pytest.mark.parametrize("letter", Letter)
async def test_a_letter_for_an_id_that_nobody_has_is_dropped(store: Store, raw: Connection, letter: Letter) -> None:
    parcel = await post(store, letter, new_id())
    assert await deliver(store, parcel) is None
    assert await raw.fetchval("SELECT count(*) FROM outbox") == 0
    assert await raw.fetchval("SELECT count(*) FROM codes") == 0


async def deliver(store: Store, parcel: Parcel) -> Minted | None:
    """What the mailer does before it writes."""
    if parcel.letter.notice:
        return await store.mailbag.address(parcel)
    return await store.mailbag.mint(parcel, MAC, LIFETIME)


async def test_a_letter_is_overtaken_by_its_like_only(store: Store) -> None:
    event = form()
    await register(store, event)
    await send(store, Mail(Letter.VERIFY, event.id))
    first, second = await store.mailbag.lease(2, LEASE)
    await mint(store, first)
    await mint(store, second, LONGER)
    claim = (await look(store))[0].claims[0]
    assert claim.code is not None
    assert claim.verify is not None
    who = await user(store, "bob")
    await send(store, Mail(Letter.RESET, who.id), Mail(Letter.NEW_DEVICE, who.id))
    reset, _ = await store.mailbag.lease(2, LEASE)
    await mint(store, reset)


@pytest.mark.parametrize("settle", ["again", "dead"])
async def test_what_becomes_of_a_longer_code_s_mail_changes_no_registration(
    store: Store, raw: Connection, settle: str
) -> None:
    event = await registered_with_code(store, form())
    await raw.execute("UPDATE registrations SET live_until = created_at + interval '9 minutes'")
    before = await rows(raw, "SELECT * FROM registrations")
    parcel = await post(store, Letter.VERIFY, event.id)
    await mint(store, parcel, LONGER)
    async with raw.transaction():
        await raw.execute("SELECT FROM addresses FOR UPDATE")  # nor does it wait for who decides about the address
        if settle == "again":
            await store.mailbag.again(parcel, timedelta(seconds=7), WHY, refund=True)
        else:
            await store.mailbag.dead(parcel, WHY)
    assert await rows(raw, "SELECT * FROM registrations") == before
    states = await rows(raw, "SELECT state, attempts, last_error FROM outbox WHERE topic = 'verify'")
    assert states == [("ready", 0, WHY) if settle == "again" else ("dead", 1, WHY)]


async def test_a_longer_code_on_the_way_keeps_no_registration_alive(store: Store) -> None:
    event = form()
    await register(store, event)
    parcel = await lease_one(store)
    await send(store, Mail(Letter.VERIFY, event.id))
    await store.mailbag.dead(parcel, "550 no such user")
    state, now = await look(store)
    assert state.claims[0].live_until <= now


# ---------------------------------------------------------------------------------------------- codes for accounts


async def test_a_reset_goes_to_the_account_and_replaces_the_token_before(store: Store, raw: Connection) -> None:
    who = await user(store, username=Username("Ada", "ada"), locale=Locale("de-AT"))
    for mac in (b"1" * 32, b"2" * 32):
        parcel = await post(store, Letter.RESET, who.id)
        minted = await mint(store, parcel, mac)
        await store.mailbag.done(parcel)
        assert (minted.email, minted.username, minted.locale) == (who.email, "Ada", "de-AT")
        found = await rows(raw, "SELECT mac, expires_at, expires_at - minted_at FROM codes WHERE purpose = 'reset'")
        assert found == [(mac, minted.expires_at, LIFETIME)]
    assert await store.members.code_alive(who.id, "reset", [b"2" * 32])
    assert not await store.members.code_alive(who.id, "reset", [b"1" * 32])


async def test_a_code_for_another_address_goes_there_with_all_its_tries(store: Store, raw: Connection) -> None:
    who = await user(store)
    await propose(store, who)
    await mint(store, await post(store, Letter.CHANGE_EMAIL, who.id))
    await raw.execute("UPDATE codes SET failures = 4, used_at = minted_at WHERE purpose = 'change_email'")
    minted = await mint(store, await post(store, Letter.CHANGE_EMAIL, who.id), b"2" * 32)
    assert minted.email == email("new").address
    async with store.begin() as unit:
        change = await unit.people.proposed(who.id)
    assert change is not None
    assert change.code is not None
    assert (change.code.mac, change.code.failures, change.code.expires_at) == (b"2" * 32, 0, minted.expires_at)


@pytest.mark.parametrize("life", [None, timedelta(0), LIFETIME - timedelta(seconds=1)])
async def test_a_code_that_would_outlive_what_it_proves_is_not_minted(
    store: Store, raw: Connection, life: timedelta | None
) -> None:
    who = await user(store)
    if life is not None:
        await propose(store, who, life=life)
    assert await deliver(store, await post(store, Letter.CHANGE_EMAIL, who.id)) is None
    assert await raw.fetchval("SELECT count(*) FROM outbox WHERE state <> 'sent'") == 0
    assert await raw.fetchval("SELECT count(*) FROM codes WHERE purpose = 'change_email'") == 0


@pytest.mark.parametrize("letter", TO_ACCOUNTS)
async def test_who_is_disabled_gets_notices_and_no_codes(store: Store, raw: Connection, letter: Letter) -> None:
    who = await user(store)
    await propose(store, who)
    parcel = await post(store, letter, who.id, to="old@example.com")
    await disable(store, who.id)
    assert (await deliver(store, parcel) is not None) is letter.notice
    left = await rows(raw, "SELECT id FROM outbox WHERE state = 'leased'")
    assert left == ([(parcel.id,)] if letter.notice else [])


@pytest.mark.parametrize("letter", TO_ACCOUNTS)
async def test_a_newer_code_overtakes_and_a_newer_notice_does_not(store: Store, letter: Letter) -> None:
    who = await user(store)
    await propose(store, who)
    for _ in range(2):
        await send(store, Mail(letter, who.id, {"to": "old@example.com"}))
    older, newer = await store.mailbag.lease(2, LEASE)
    assert (await deliver(store, older) is not None) is letter.notice
    assert await deliver(store, newer) is not None


# --------------------------------------------------------------------------------------------------------- notices


@pytest.mark.parametrize("letter", NOTICES)
async def test_a_notice_goes_to_the_account_or_to_where_it_was(store: Store, letter: Letter) -> None:
    who = await user(store, username=Username("Ada", "ada"), locale=Locale("de"))
    parcel = await post(store, letter, who.id, to="Old@example.com")
    to = "Old@example.com" if letter is Letter.EMAIL_CHANGED else who.email
    assert await store.mailbag.address(parcel) == Minted(to, "Ada", "de", None)
    await store.mailbag.done(parcel)


LATE: dict[str, Callable[[Store, Parcel], Awaitable[object]]] = {
    "mint": lambda store, parcel: store.mailbag.mint(parcel, b"late" * 8, LIFETIME),
    "address": lambda store, parcel: store.mailbag.address(parcel),
}


@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("there", [True, False], ids=["there", "gone"])
async def test_who_lost_the_lease_changes_nothing(store: Store, raw: Connection, late: str, *, there: bool) -> None:
    who = await user(store)
    subject = who.id if there else new_id()
    parcel = await post(store, Letter.RESET, subject)
    await store.mailbag.again(parcel, timedelta(0), WHY, refund=True)
    assert (await lease_one(store)).attempts == parcel.attempts
    before = await rows(raw, "SELECT * FROM outbox"), await rows(raw, "SELECT * FROM codes")
    assert await LATE[late](store, parcel) is None
    assert (await rows(raw, "SELECT * FROM outbox"), await rows(raw, "SELECT * FROM codes")) == before


# ------------------------------------------------------------------------------------------- in each other's way


@pytest.mark.parametrize("end", ["DELETE FROM users", "UPDATE users SET disabled_at = clock_timestamp()"])
async def test_minting_sees_the_end_of_the_account_that_it_waited_for(store: Store, raw: Connection, end: str) -> None:
    who = await user(store)
    parcel = await post(store, Letter.RESET, who.id)
    minted: list[Minted | None] = []

    async def carry() -> None:
        minted.append(await store.mailbag.mint(parcel, MAC, LIFETIME))

    async with trio.open_nursery() as nursery, raw.transaction():
        await raw.execute("SELECT FROM users FOR UPDATE")
        nursery.start_soon(carry, name="mailer")
        await until_asked(lambda: blocked(raw))
        await raw.execute(end)
    assert minted == [None]
    assert await raw.fetchval("SELECT count(*) FROM codes WHERE purpose = 'reset'") == 0
    assert await raw.fetchval("SELECT count(*) FROM outbox WHERE state <> 'sent'") == 0


async def test_minting_for_an_account_does_not_wait_for_who_logs_in(store: Store, raw: Connection) -> None:
    who = await user(store)
    parcel = await post(store, Letter.RESET, who.id)
    async with raw.transaction():
        await raw.execute("SELECT FROM users FOR KEY SHARE")  # as a new session's foreign key does
        with trio.fail_after(5):
            await mint(store, parcel)


async def test_an_account_that_ends_while_its_letters_leave_never_deadlocks(
    store: Store, raw: Connection, rounds: int | None
) -> None:
    async def act(number: int) -> None:
        if number >= len(parcels):
            await remove(store, who.id)
            return
        parcel = parcels[number]
        await deliver(store, parcel)
        if number % 3 == 0:
            await store.mailbag.done(parcel)
        elif number % 3 == 1:
            await store.mailbag.again(parcel, timedelta(0), WHY, refund=False)
        else:
            await store.mailbag.dead(parcel, WHY)

    for round_ in range(rounds or 10):
        who = await user(store, f"n{round_}")
        await propose(store, who, f"new{round_}")
        letters = [letter for letter in TO_ACCOUNTS for _ in range(2)]
        await send(store, *(Mail(letter, who.id, {"to": "old@example.com"}) for letter in letters))
        parcels = await store.mailbag.lease(len(letters), LEASE)
        assert len(parcels) == len(letters)
        await together(len(parcels) + 2, act)
        assert await raw.fetchval("SELECT count(*) FROM outbox WHERE subject_id = $1", who.id) == 0
        assert await raw.fetchval("SELECT count(*) FROM codes WHERE subject_id = $1", who.id) == 0
    assert await raw.fetchval("SELECT count(*) FROM users") == 0
    assert await raw.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0
