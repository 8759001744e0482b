"""The outbox: who gets a mail, what a lapsed lease may still do (nothing), and what a mail does to its registration."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import trio

from regsvc.domain.delivery import NOT_AFTER, Letter, Parcel, Publish
from regsvc.observe import Trace, open_log
from regsvc.ports import OutboxCounts
from regsvc.store import Store
from regsvc.trio_asyncpg import Connection
from tests.lines import Lines
from tests.store.scenes import (
    LEASE,
    LIFETIME,
    form,
    lease_one,
    look,
    new_id,
    register,
    registered_with_code,
    resend,
    rows,
    together,
)

WHY = "451 later"


async def row(raw: Connection, parcel: Parcel) -> dict[str, Any]:
    found = await raw.fetchrow("SELECT *, clock_timestamp() AS now FROM outbox WHERE id = $1", parcel.id)
    assert found is not None
    return dict(found)


# ------------------------------------------------------------------------------------------------- putting in


async def test_a_registration_leaves_a_mail_and_an_event_of_one_moment(store: Store, raw: Connection) -> None:
    event = form()
    await register(store, event, trace="00-trace-01")
    parcel = await lease_one(store)
    assert (parcel.letter, parcel.subject, parcel.trace) == (Letter.ACTIVATION, event.id, "00-trace-01")
    assert parcel.attempts == 1
    assert parcel.not_after == parcel.created_at + NOT_AFTER
    assert await rows(raw, "SELECT name, subject_id, at FROM events") == [
        ("registration.created", event.id, parcel.created_at)
    ]


async def test_nothing_to_add_is_no_statement_and_an_event_alone_wakes_nobody(store: Store, raw: Connection) -> None:
    async with raw.listen("regsvc_outbox") as heard:
        async with store.begin() as unit:
            await unit.outgoing.add((), trace=None)
            await unit.outgoing.add((Publish("something.happened", new_id()),), trace=None)
        await register(store, form())
        assert (await anext(heard)).channel == "regsvc_outbox"
        with trio.move_on_after(0) as scope:
            await anext(heard)  # the registration's was the only one
        assert scope.cancelled_caught
    assert await raw.fetchval("SELECT count(*) FROM events") == 2


# ------------------------------------------------------------------------------------------------- leasing


async def test_leases_are_taken_oldest_first_and_by_one_only(store: Store) -> None:
    events = [form(f"n{n}") for n in range(5)]
    for event in events:
        await register(store, event)
    first = await store.mailbag.lease(2, LEASE)
    rest = await store.mailbag.lease(10, LEASE)
    assert [parcel.subject for parcel in (*first, *rest)] == [event.id for event in events]
    assert await store.mailbag.lease(10, LEASE) == []
    counts = await store.mailbag.counts()
    assert (counts.ready, counts.leased, counts.dead) == (0, 5, 0)


async def test_eight_mailers_share_what_is_there(store: Store) -> None:
    for n in range(40):
        await register(store, form(f"n{n}"))
    taken: list[Parcel] = []

    async def mailer(_: int) -> None:
        while parcels := await store.mailbag.lease(3, LEASE):
            taken.extend(parcels)

    await together(8, mailer)
    assert len(taken) == len({parcel.id for parcel in taken}) == 40


async def test_a_mail_is_not_leased_before_it_is_due(store: Store, raw: Connection) -> None:
    await register(store, form())
    assert await store.mailbag.next_due() == timedelta(0)
    parcel = await lease_one(store)
    assert await store.mailbag.next_due() is None
    await store.mailbag.again(parcel, timedelta(minutes=1), WHY, refund=False)
    due = await store.mailbag.next_due()
    assert due is not None
    assert timedelta(seconds=50) < due <= timedelta(minutes=1)
    assert await store.mailbag.lease(10, LEASE) == []
    await raw.execute("UPDATE outbox SET not_before = clock_timestamp()")
    assert (await lease_one(store)).attempts == 2


async def test_mails_that_come_too_late_die_and_hide_nobody(store: Store, raw: Connection) -> None:
    late, place = [form(f"late{n}") for n in range(5)], Trace.new()
    for event in late:
        await register(store, event, trace=str(place))
    await raw.execute("UPDATE outbox SET not_after = clock_timestamp()")
    await register(store, form("fresh"))
    async with raw.listen("regsvc_settled") as heard:
        with open_log(log := Lines(), level="info", fmt="json"):
            (parcel,) = await store.mailbag.lease(2, LEASE)
        assert {line["subject_id"] for line in log.of("mail_dead")} == {str(event.id) for event in late}
        assert {line["trace_id"] for line in log.of("mail_dead")} == {place.trace_id}
        assert {(await anext(heard)).payload for _ in late} == {str(event.id) for event in late}
    assert parcel.subject not in {event.id for event in late}
    dead = await rows(raw, "SELECT DISTINCT state, attempts, last_error FROM outbox WHERE state = 'dead'")
    assert dead == [("dead", 0, "expired: it was not sent in time")]
    state, now = await look(store, "late0")
    assert state.claims[0].live_until <= now


async def reclaimed(store: Store) -> int:
    """Reclaim as somebody who was there just before; return how many."""
    here = await store.mailbag.reclaim(None, None, least=timedelta(0), most=LEASE)
    assert here.mails == 0, "whoever was never there takes nothing"
    return (await store.mailbag.reclaim(here.at, here.at, least=timedelta(0), most=LEASE)).mails


@pytest.mark.parametrize(
    ("since", "last", "mails"), [(120, 20, 1), (120, 60, 1), (120, 120, 0), (60, 20, 0), (-20, -20, 0)]
)
async def test_a_lapsed_lease_is_for_whoever_was_there_all_the_time(
    store: Store, raw: Connection, since: int, last: int, mails: int
) -> None:
    await register(store, form())
    await store.mailbag.lease(1, timedelta(0))
    seen: datetime = await raw.fetchval("SELECT clock_timestamp()")
    least, most = timedelta(seconds=90), timedelta(seconds=90)
    began, came = (seen - timedelta(seconds=ago) for ago in (since, last))
    found = await store.mailbag.reclaim(began, came, least=least, most=most)
    assert found.mails == mails
    assert found.at > seen


async def test_a_lapsed_lease_is_for_the_next(store: Store) -> None:
    await register(store, form())
    (lapsed,) = await store.mailbag.lease(1, timedelta(0))
    assert await reclaimed(store) == 1
    assert await reclaimed(store) == 0
    second = await lease_one(store)
    assert (second.id, second.attempts) == (lapsed.id, 2)
    assert await reclaimed(store) == 0  # that one is in its time


async def test_a_renewed_lease_lasts(store: Store, raw: Connection) -> None:
    await register(store, form())
    await register(store, form("bob"))
    ada, bob = await store.mailbag.lease(2, timedelta(0))
    await store.mailbag.renew([ada, replace(bob, attempts=7)], LEASE)
    assert await reclaimed(store) == 1
    assert (await row(raw, ada))["state"] == "leased"


async def test_renewing_waits_for_nobody(store: Store, raw: Connection) -> None:
    await register(store, form())
    parcel = await lease_one(store)
    async with raw.transaction():
        await raw.execute("SELECT FROM outbox FOR UPDATE")
        with trio.fail_after(10):
            await store.mailbag.renew([parcel], LEASE)
            assert await reclaimed(store) == 0


# ------------------------------------------------------------------------------------------------- the fence


async def mint_it(store: Store, parcel: Parcel) -> None:
    assert await store.mailbag.mint(parcel, b"late" * 8, LIFETIME) is None


LATE: list[Callable[[Store, Parcel], Awaitable[object]]] = [
    mint_it,
    lambda store, parcel: store.mailbag.done(parcel),
    lambda store, parcel: store.mailbag.again(parcel, timedelta(0), WHY, refund=True),
    lambda store, parcel: store.mailbag.dead(parcel, WHY),
    lambda store, parcel: store.mailbag.renew([parcel], timedelta(days=1)),
]
NAMES = ["mint", "done", "again", "dead", "renew"]


@pytest.mark.parametrize("late", LATE, ids=NAMES)
@pytest.mark.parametrize("now", ["ready", "leased by another", "leased as often", "sent"])
async def test_who_lost_the_lease_changes_nothing(
    store: Store, raw: Connection, late: Callable[[Store, Parcel], Awaitable[object]], now: str
) -> None:
    await resend(store, await registered_with_code(store, form()))
    parcel = await lease_one(store)
    if now == "leased as often":  # a refund can make the counts meet again
        await store.mailbag.again(parcel, timedelta(0), WHY, refund=True)
        assert (await lease_one(store)).attempts == parcel.attempts
    elif now == "sent":
        await store.mailbag.done(parcel)
    else:
        await raw.execute("UPDATE outbox SET lease_until = created_at WHERE state = 'leased'")
        await reclaimed(store)
        if now == "leased by another":
            await lease_one(store)
    before = await everything(raw)
    await late(store, parcel)
    assert await everything(raw) == before


async def everything(raw: Connection) -> list[list[tuple[object, ...]]]:
    return [await rows(raw, f"SELECT * FROM {table} ORDER BY 1") for table in ("outbox", "codes", "registrations")]  # noqa: S608 - our names


async def test_counts_are_by_state_with_the_longest_wait(store: Store, raw: Connection) -> None:
    assert await store.mailbag.counts() == OutboxCounts(0, 0, 0, None)
    for n in range(6):
        await register(store, form(f"n{n}"))
    first, second, _ = await store.mailbag.lease(3, LEASE)
    await store.mailbag.done(first)
    await store.mailbag.dead(second, WHY)
    await raw.execute("UPDATE outbox SET created_at = created_at - interval '1 hour' WHERE state = 'leased'")
    counts = await store.mailbag.counts()
    assert (counts.ready, counts.leased, counts.dead) == (3, 1, 1)
    assert counts.oldest is not None
    assert timedelta(hours=1) <= counts.oldest < timedelta(hours=1, minutes=1)
