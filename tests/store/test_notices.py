"""Word from other processes."""

import pytest
import trio

from regsvc.domain.delivery import Letter, Mail
from regsvc.domain.values import Secret
from regsvc.ports import Notice, NoticeKind, Unavailable
from regsvc.store import Store, open_store
from regsvc.trio_asyncpg import Connection
from tests.store.scenes import form, hang_up_on_all, lease_one, new_id, register


async def test_word_comes_of_new_mail_and_of_settled_mail(store: Store, migrated: str) -> None:
    event = form()
    async with open_store(Secret(migrated), new_id=new_id) as other, other.notices.listen() as notices:
        await register(store, event)
        assert await anext(notices) == Notice(NoticeKind.OUTBOX, None)
        await store.mailbag.done(await lease_one(store))
        assert await anext(notices) == Notice(NoticeKind.SETTLED, event.id)
        assert aiter(notices) is notices


async def test_a_process_does_not_wake_itself(store: Store, raw: Connection) -> None:
    async with store.notices.listen() as notices:
        await register(store, form())
        await raw.execute("SELECT pg_notify('regsvc_settled', $1)", str(subject := new_id()))
        assert await anext(notices) == Notice(NoticeKind.SETTLED, subject)


async def test_what_others_say_on_our_channels_is_passed_over(store: Store, raw: Connection) -> None:
    subject = new_id()
    async with store.notices.listen() as notices:
        await raw.execute("SELECT pg_notify('regsvc_settled', 'not an id')")
        await raw.execute("SELECT pg_notify('regsvc_settled', $1)", str(subject))
        assert await anext(notices) == Notice(NoticeKind.SETTLED, subject)


async def test_nothing_is_said_of_what_was_rolled_back(store: Store, raw: Connection) -> None:
    async with store.notices.listen() as notices:
        with pytest.raises(ZeroDivisionError):
            await _fail_after_adding(store)
        await raw.execute("SELECT pg_notify('regsvc_outbox', '')")
        await anext(notices)
        with trio.move_on_after(0.05) as scope:
            await anext(notices)
        assert scope.cancelled_caught


async def _fail_after_adding(store: Store) -> None:
    async with store.begin() as unit:
        await unit.outgoing.add((Mail(Letter.ACTIVATION, new_id()),), trace=None)
        raise ZeroDivisionError


async def test_a_lost_subscription_is_an_outage(store: Store, raw: Connection) -> None:
    async with store.notices.listen() as notices:
        await hang_up_on_all(raw)
        with pytest.raises(Unavailable, match="database"):
            await anext(notices)


async def test_an_error_of_the_listener_goes_through_as_it_is(store: Store) -> None:
    with pytest.raises(BlockingIOError, match="not the database's"):
        async with store.notices.listen():
            raise BlockingIOError("not the database's")
