"""The operator's view of the outbox."""

from datetime import timedelta
from uuid import UUID

from regsvc.domain.delivery import NOT_AFTER
from regsvc.store import Store
from regsvc.trio_asyncpg import Connection
from tests.store.scenes import LEASE, form, lease_one, mint, new_id, register


async def three(store: Store) -> list[UUID]:
    """A sent, a dead and a ready mail, in this order of age; their ids."""
    for name in ("ada", "bob", "cy"):
        await register(store, form(name), trace=f"trace of {name}")
    sent, dead = await store.mailbag.lease(2, LEASE)
    await store.mailbag.done(sent)
    await store.mailbag.dead(dead, "550 no such user")
    (ready,) = await store.desk.list(state="ready", before=None, limit=10)
    return [sent.id, dead.id, ready.id]


async def test_mails_are_listed_newest_first_page_by_page(store: Store) -> None:
    sent, dead, ready = await three(store)
    first = await store.desk.list(state=None, before=None, limit=2)
    assert [mail.id for mail in first] == [ready, dead]
    rest = await store.desk.list(state=None, before=first[-1].id, limit=2)
    assert [mail.id for mail in rest] == [sent]
    assert [mail.id for mail in await store.desk.list(state="dead", before=None, limit=10)] == [dead]
    assert await store.desk.list(state="dead", before=dead, limit=10) == []


async def test_a_mail_shows_what_became_of_it(store: Store) -> None:
    sent, dead, _ = await three(store)
    shown = await store.desk.show(dead)
    assert shown is not None
    assert (shown.letter, shown.state, shown.attempts, shown.trace) == ("activation", "dead", 1, "trace of bob")
    assert (shown.last_error, shown.sent_at) == ("550 no such user", None)
    assert shown.not_after == shown.created_at + NOT_AFTER
    done = await store.desk.show(sent)
    assert done is not None
    assert done.sent_at is not None
    assert await store.desk.show(new_id()) is None


async def test_a_retried_mail_is_as_good_as_new(store: Store, raw: Connection) -> None:
    sent, dead, ready = await three(store)
    await raw.execute("UPDATE outbox SET not_after = created_at, not_before = created_at + interval '1 hour'")
    async with raw.listen("regsvc_outbox") as heard:
        assert await store.desk.retry(dead)
        await anext(heard)
    parcel = await lease_one(store)
    assert (parcel.id, parcel.attempts) == (dead, 1)
    assert abs(parcel.not_after - parcel.leased_at - NOT_AFTER) < timedelta(seconds=5)
    await mint(store, parcel)
    for other in (sent, ready, dead, new_id()):
        assert not await store.desk.retry(other)


async def test_only_a_dead_mail_is_discarded(store: Store) -> None:
    sent, dead, ready = await three(store)
    for other in (sent, ready, new_id()):
        assert not await store.desk.discard(other)
    assert await store.desk.discard(dead)
    assert not await store.desk.discard(dead)
    assert {mail.id for mail in await store.desk.list(state=None, before=None, limit=10)} == {sent, ready}
