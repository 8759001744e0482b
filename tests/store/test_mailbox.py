"""The development mailbox."""

from datetime import timedelta

from regsvc.store import Store
from regsvc.trio_asyncpg import Connection
from tests.store.scenes import new_id

RAW = bytes(range(256))  # a message is octets, whatever they are


async def put(store: Store, to: str, subject: str) -> None:
    await store.mailbox.put(sender="a@b.example", to=to, subject=subject, text="1234", html="<b>1234</b>", raw=RAW)


async def test_a_mail_comes_back_as_it_was_put(store: Store, raw: Connection) -> None:
    await put(store, "Ada@Example.com", "für dich")
    total, (mail,) = await store.mailbox.list(to=None, start=0, limit=10)
    assert total == 1
    assert (mail.sender, mail.to, mail.subject) == ("a@b.example", "Ada@Example.com", "für dich")
    assert (mail.text, mail.html, mail.raw) == ("1234", "<b>1234</b>", RAW)
    assert abs(mail.at - await raw.fetchval("SELECT clock_timestamp()")) < timedelta(seconds=5)
    assert await store.mailbox.show(mail.id) == mail


async def test_mails_are_listed_newest_first_by_recipient_in_any_case(store: Store) -> None:
    for n in range(3):
        await put(store, "Ada@example.com", f"to ada {n}")
        await put(store, "bob@example.com", f"to bob {n}")
    total, mails = await store.mailbox.list(to="aDA@example.com", start=1, limit=1)
    assert total == 3
    assert [mail.subject for mail in mails] == ["to ada 1"]
    total, mails = await store.mailbox.list(to=None, start=0, limit=2)
    assert total == 6
    assert [mail.subject for mail in mails] == ["to bob 2", "to ada 2"]
    assert await store.mailbox.list(to=None, start=6, limit=2) == (6, [])
    assert await store.mailbox.list(to="nobody", start=0, limit=2) == (0, [])


async def test_one_mail_is_removed_and_all_are_cleared(store: Store) -> None:
    for n in range(3):
        await put(store, "ada@example.com", f"{n}")
    _, (newest, *_) = await store.mailbox.list(to=None, start=0, limit=3)
    assert await store.mailbox.remove(newest.id)
    assert not await store.mailbox.remove(newest.id)
    assert await store.mailbox.show(newest.id) is None
    assert await store.mailbox.clear() == 2
    assert await store.mailbox.clear() == 0
    assert await store.mailbox.show(new_id()) is None
