"""A mail on its way: the code it gets, the registration it holds, and how it is settled."""

from datetime import datetime, timedelta
from typing import Any

import pytest
import trio

from regsvc.domain.account import ON_THE_WAY_MAX
from regsvc.domain.delivery import Parcel
from regsvc.store import Store
from regsvc.trio_asyncpg import Connection
from tests.store.scenes import (
    CLAIMS,
    LEASE,
    LIFETIME,
    MAC,
    activate,
    blocked,
    email,
    form,
    lease_one,
    look,
    mint,
    register,
    registered_with_code,
    resend,
    rows,
    together,
)
from tests.waiting import until_asked

WHY = "451 later"


async def row(raw: Connection, parcel: Parcel) -> dict[str, Any]:
    found = await raw.fetchrow("SELECT *, clock_timestamp() AS now FROM outbox WHERE id = $1", parcel.id)
    assert found is not None
    return dict(found)


async def live_until(store: Store) -> datetime:
    return (await look(store))[0].claims[0].live_until


async def test_minting_stores_the_code_and_how_long_the_address_is_taken(store: Store, raw: Connection) -> None:
    await register(store, form(username="Ada", locale="de"))
    parcel = await lease_one(store)
    minted = await mint(store, parcel)
    assert (minted.email, minted.username, minted.locale) == (email().address, "Ada", "de")
    state, now = await look(store)
    code = state.claims[0].code
    assert code is not None
    assert (code.mac, code.failures) == (MAC, 0)
    assert code.expires_at == minted.expires_at == state.claims[0].live_until
    assert now < minted.expires_at <= now + LIFETIME
    assert await raw.fetchval("SELECT expires_at - minted_at FROM codes") == LIFETIME


async def test_minting_again_replaces_code_tries_and_use(store: Store, raw: Connection) -> None:
    event = await registered_with_code(store, form())
    await activate(store, event, b"wrong")
    await raw.execute("UPDATE codes SET used_at = minted_at")
    await resend(store, event)
    await mint(store, await lease_one(store), b"2" * 32)
    code = (await look(store))[0].claims[0].code
    assert code is not None
    assert (code.mac, code.failures) == (b"2" * 32, 0)


NEWER = """
    INSERT INTO outbox (id, kind, topic, subject_id, not_before, not_after, created_at)
    SELECT gen_random_uuid(), kind, topic, subject_id, not_before, not_after, clock_timestamp() FROM outbox
"""


@pytest.mark.parametrize(
    "gone",
    [
        "DELETE FROM registrations",
        "UPDATE registrations SET expires_at = clock_timestamp()",
        NEWER,
    ],
    ids=["the registration is gone", "it is over", "a newer mail waits"],
)
async def test_a_mail_with_nothing_left_to_say_is_deleted(store: Store, raw: Connection, gone: str) -> None:
    await register(store, form())
    parcel = await lease_one(store)
    await raw.execute(gone)
    assert await store.mailbag.mint(parcel, MAC, LIFETIME) is None
    assert await raw.fetchval("SELECT count(*) FROM outbox WHERE id = $1", parcel.id) == 0
    assert await raw.fetchval("SELECT count(*) FROM codes") == 0


async def test_an_older_mail_or_a_settled_one_stops_no_newer_one(store: Store, raw: Connection) -> None:
    event = form()
    await register(store, event)
    await resend(store, event)
    older, newer = await store.mailbag.lease(2, LEASE)
    await mint(store, newer)
    await store.mailbag.done(newer)
    # Out of order: the newer one has left, so the older one is free to go; it carries the newest code then.
    await mint(store, older, b"2" * 32)
    assert await raw.fetchval("SELECT mac FROM codes") == b"2" * 32


async def test_minting_sees_the_activation_that_it_waited_for(store: Store, raw: Connection) -> None:
    event = await registered_with_code(store, form())
    await resend(store, event)
    parcel = await lease_one(store)
    minted: list[object] = []

    async def carry() -> None:
        minted.append(await store.mailbag.mint(parcel, b"2" * 32, LIFETIME))

    async with trio.open_nursery() as nursery, raw.transaction():
        await raw.execute("UPDATE addresses SET mails = mails")  # as if in the middle of an activation
        nursery.start_soon(carry, name="mailer")
        await until_asked(lambda: blocked(raw))
        await raw.execute("DELETE FROM registrations")
    assert minted == [None]
    assert await raw.fetchval("SELECT count(*) FROM outbox WHERE state <> 'sent'") == 0
    assert await raw.fetchval("SELECT mac FROM codes") == MAC


async def test_minting_sees_the_resend_that_it_waited_for(store: Store, raw: Connection) -> None:
    event = form()
    await register(store, event)
    parcel = await lease_one(store)
    minted: list[object] = []

    async def carry() -> None:
        minted.append(await store.mailbag.mint(parcel, MAC, LIFETIME))

    async with trio.open_nursery() as nursery, raw.transaction():
        await raw.execute("UPDATE addresses SET mails = mails")
        nursery.start_soon(carry, name="mailer")
        await until_asked(lambda: blocked(raw))
        await raw.execute(NEWER)
    assert minted == [None]
    assert await rows(raw, "SELECT state FROM outbox") == [("ready",)]


async def test_minting_finds_its_address_even_if_its_row_was_swept(store: Store, raw: Connection) -> None:
    await register(store, form())
    await raw.execute("DELETE FROM addresses")
    await mint(store, await lease_one(store))
    assert await raw.fetchval("SELECT count(*) FROM addresses") == 1


# ------------------------------------------------------------------------------------------------- settling


async def test_done_is_told_to_who_waits(store: Store, raw: Connection) -> None:
    event = form()
    await register(store, event)
    parcel = await lease_one(store)
    async with raw.listen("regsvc_settled") as heard:
        await store.mailbag.done(parcel)
        assert (await anext(heard)).payload == str(event.id)
    sent = await row(raw, parcel)
    assert (sent["state"], sent["lease_until"]) == ("sent", None)
    assert sent["now"] - timedelta(seconds=5) < sent["sent_at"] <= sent["now"]


async def test_what_was_sent_is_settled_at_once_but_for_what_somebody_else_has_by_now(
    store: Store, raw: Connection
) -> None:
    for name in ("ada", "bea", "cal"):
        await register(store, form(name))
    parcels = await store.mailbag.lease(3, LEASE)
    lost = parcels[1]
    await raw.execute("UPDATE outbox SET attempts = attempts + 1 WHERE id = $1", lost.id)  # its lease lapsed
    async with raw.listen("regsvc_settled") as heard:
        await store.mailbag.done(*parcels)
        told = {(await anext(heard)).payload, (await anext(heard)).payload}
    assert told == {str(parcel.subject) for parcel in parcels if parcel is not lost}
    assert [(await row(raw, parcel))["state"] for parcel in parcels] == ["sent", "leased", "sent"]
    await store.mailbag.done(*parcels)  # nobody heard of it: said again
    assert [(await row(raw, parcel))["state"] for parcel in parcels] == ["sent", "leased", "sent"]


@pytest.mark.parametrize("refund", [True, False])
async def test_a_mail_put_off_holds_its_address_again(store: Store, raw: Connection, refund: bool) -> None:  # noqa: FBT001 - pytest's way
    await register(store, form())
    parcel = await lease_one(store)
    await mint(store, parcel)
    await store.mailbag.again(parcel, timedelta(seconds=7), WHY, refund=refund)
    back = await row(raw, parcel)
    assert (back["state"], back["attempts"], back["last_error"]) == ("ready", 0 if refund else 1, WHY)
    assert back["not_before"] <= back["now"] + timedelta(seconds=7) <= back["not_before"] + timedelta(seconds=5)
    assert await live_until(store) == parcel.created_at + ON_THE_WAY_MAX


async def test_a_dead_letter_ends_the_claim(store: Store, raw: Connection) -> None:
    event = form()
    await register(store, event)
    parcel = await lease_one(store)
    async with raw.listen("regsvc_settled") as heard:
        await store.mailbag.dead(parcel, "550 no such user")
        assert (await anext(heard)).payload == str(event.id)
    buried = await row(raw, parcel)
    assert (buried["state"], buried["attempts"], buried["last_error"]) == ("dead", 1, "550 no such user")
    state, now = await look(store)
    assert state.claims[0].live_until <= now


async def test_a_dead_letter_leaves_a_living_code_its_time(store: Store) -> None:
    await register(store, form())
    parcel = await lease_one(store)
    minted = await mint(store, parcel)
    await store.mailbag.dead(parcel, WHY)
    assert await live_until(store) == minted.expires_at


async def test_a_dead_letter_does_not_end_a_claim_whose_next_mail_is_on_the_way(store: Store) -> None:
    event = form()
    await register(store, event)
    parcel = await lease_one(store)
    await resend(store, event)
    before = await live_until(store)
    await store.mailbag.dead(parcel, WHY)
    assert await live_until(store) == before


async def test_a_mail_whose_claim_was_activated_away_settles_quietly(store: Store, raw: Connection) -> None:
    rival = await registered_with_code(store, form(), b"r" * 32, CLAIMS)
    winner = await registered_with_code(store, form(), MAC, CLAIMS)
    await resend(store, rival, CLAIMS)
    parcel = await lease_one(store)
    await activate(store, winner)
    await store.mailbag.again(parcel, timedelta(0), WHY, refund=False)
    await store.mailbag.dead(parcel, WHY)
    await store.mailbag.done(parcel)
    assert await rows(raw, "SELECT DISTINCT state FROM outbox") == [("sent",)]


async def mailer(store: Store) -> None:
    """Carry what there is; every mail is put off once."""
    while parcels := await store.mailbag.lease(4, LEASE):
        await store.mailbag.renew(parcels, LEASE)
        for parcel in parcels:
            if await store.mailbag.mint(parcel, MAC, LIFETIME) is None:
                continue
            if parcel.attempts == 1:
                await store.mailbag.again(parcel, timedelta(0), WHY, refund=False)
            else:
                await store.mailbag.done(parcel)


async def sweeper(store: Store, times: int) -> None:
    for _ in range(times):
        await store.housekeeping.sweep(100)


async def test_activations_resends_mailers_and_a_sweeper_never_deadlock(
    store: Store, raw: Connection, rounds: int | None
) -> None:
    events = [form(f"n{n}") for n in range(rounds or 16)]
    for event in events:
        await register(store, event)
        await resend(store, event)

    async def person(number: int) -> None:
        await resend(store, events[number])
        while (await look(store, f"n{number}"))[0].owner is None:
            await activate(store, events[number])

    async with trio.open_nursery() as nursery:
        for n in range(3):
            nursery.start_soon(mailer, store, name=f"mailer {n}")
        nursery.start_soon(sweeper, store, len(events), name="sweeper")
        nursery.start_soon(together, len(events), person, name="people")
    assert await raw.fetchval("SELECT count(*) FROM users") == len(events)
    assert await raw.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0
