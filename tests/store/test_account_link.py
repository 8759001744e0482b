"""The store of addresses and of mail: the link beside a code, minted, loaded, used and voided with it."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

import pytest

from regsvc.domain import account
from regsvc.domain.account import Activate, Code, Owner, Proof, Register, Step
from regsvc.domain.delivery import Letter, Mail
from regsvc.domain.refusals import Refusal, Refused
from regsvc.ports import Imprint, Unavailable
from regsvc.store import Store
from regsvc.trio_asyncpg import Connection
from tests.store.scenes import (
    LIFETIME,
    LONGER,
    MAC,
    RULES,
    activate,
    form,
    lease_one,
    look,
    register,
    resend,
    rows,
    send,
    together,
)

TOKEN = b"t" * 32
NEWER = b"n" * 32
CODES = "SELECT purpose, mac FROM codes ORDER BY purpose"


async def deliver(store: Store, mac: bytes = MAC, token: bytes = TOKEN, life: timedelta = 10 * LIFETIME) -> None:
    """Mint code and link of the mail that is due, and have it sent."""
    parcel = await lease_one(store)
    assert await store.mailbag.mint(parcel, mac, LIFETIME, Imprint(token, life)) is not None
    await store.mailbag.done(parcel)


async def linked(store: Store, event: Register) -> Register:
    await register(store, event)
    await deliver(store)
    return event


async def follow(
    store: Store, event: Register, mac: bytes = TOKEN, meanwhile: Callable[[], Awaitable[object]] | None = None
) -> Step[Owner]:
    """What the flow does with a token; `meanwhile` something happens past the lock."""
    key = event.email.key
    async with store.begin() as unit:
        before, now = await unit.accounts.load(key)
        shown = Activate(Proof({event.id: event.password_hash}), {event.id: (mac,)})
        step = account.follow(before, shown, now, RULES)
        if meanwhile is not None:
            await meanwhile()
        await unit.accounts.save(key, before, step.state)
        await unit.outgoing.add(step.effects, trace=None)
    return step


async def test_code_and_link_are_minted_at_one_moment_and_each_lives_its_own_time(
    store: Store, raw: Connection
) -> None:
    event = form()
    await register(store, event)
    parcel = await lease_one(store)
    minted = await store.mailbag.mint(parcel, MAC, LIFETIME, Imprint(TOKEN, 10 * LIFETIME))
    assert minted is not None
    [claim] = (await look(store))[0].claims
    assert claim.code == Code(MAC, claim.live_until)
    assert claim.live_until == minted.expires_at, "the link holds the address no longer than the code"
    assert claim.link == Code(TOKEN, claim.live_until + 9 * LIFETIME)
    moments = await rows(raw, "SELECT count(DISTINCT minted_at), count(*) FROM codes")
    assert moments == [(1, 2)]


async def test_a_token_activates_once_and_voids_the_code(store: Store, raw: Connection) -> None:
    event = await linked(store, form())
    outcome = (await follow(store, event)).outcome
    assert isinstance(outcome, Owner)
    assert (await look(store))[0] == account.Address(
        owner=outcome, mails=(await look(store))[0].mails, mailed_at=(await look(store))[0].mailed_at
    )
    assert await rows(raw, "SELECT purpose, used_at IS NOT NULL FROM codes") == [("link", True)]
    assert await rows(raw, "SELECT id, password_hash FROM users") == [(event.id, event.password_hash)]
    for again in (follow, activate):
        assert (await again(store, event)).outcome == Refused(Refusal.USER_ALREADY_ACTIVATED)


async def test_a_code_voids_the_link(store: Store, raw: Connection) -> None:
    event = await linked(store, form())
    assert isinstance((await activate(store, event)).outcome, Owner)
    assert await rows(raw, "SELECT purpose FROM codes") == [("activate",)]


async def test_of_codes_and_links_at_once_one_wins(store: Store, raw: Connection, rounds: int | None) -> None:
    for round_ in range(rounds or 2):
        event = await linked(store, form(f"race{round_}"))
        outcomes: list[Owner | Refused] = []

        async def race(event: Register, outcomes: list[Owner | Refused], number: int) -> None:
            outcomes.append((await (follow if number % 2 else activate)(store, event)).outcome)

        await together(30, partial(race, event, outcomes))
        assert sum(isinstance(outcome, Owner) for outcome in outcomes) == 1
        assert outcomes.count(Refused(Refusal.USER_ALREADY_ACTIVATED)) == 29
    assert await rows(raw, "SELECT count(*) FROM users") == [(rounds or 2,)]


async def test_a_newer_mail_replaces_the_link_like_the_code(store: Store, raw: Connection) -> None:
    event = await linked(store, form())
    await resend(store, event)
    assert (await look(store))[0].claims[0].link is not None, "until then the older one is good"
    await deliver(store, LONGER, NEWER)
    assert await rows(raw, CODES) == [("activate", LONGER), ("link", NEWER)]
    assert (await follow(store, event, TOKEN)).outcome == Refused(Refusal.INVALID_ACTIVATION_CODE)
    assert isinstance((await follow(store, event, NEWER)).outcome, Owner)


async def test_a_letter_of_another_kind_leaves_code_and_link_alone(store: Store, raw: Connection) -> None:
    event = await linked(store, form())
    before = (await look(store))[0].claims[0]
    await send(store, Mail(Letter.VERIFY, event.id))
    await store.mailbag.mint(await lease_one(store), LONGER, LIFETIME)
    after = (await look(store))[0].claims[0]
    assert (after.code, after.link, after.live_until) == (before.code, before.link, before.live_until)
    assert len(await rows(raw, CODES)) == 3


async def test_spent_tries_are_written_to_the_code_and_not_to_the_link(store: Store, raw: Connection) -> None:
    event = await linked(store, form())
    await activate(store, event, b"wrong")
    assert await rows(raw, "SELECT purpose, failures FROM codes ORDER BY purpose") == [("activate", 1), ("link", 0)]
    await follow(store, event, b"wrong")
    assert await rows(raw, "SELECT purpose, failures FROM codes ORDER BY purpose") == [("activate", 1), ("link", 0)]


async def test_a_link_that_is_too_old_is_expired_whether_or_not_its_row_is_there(store: Store, raw: Connection) -> None:
    event = await linked(store, form())
    await raw.execute("UPDATE codes SET expires_at = minted_at WHERE purpose = 'link'")
    assert (await follow(store, event)).outcome == Refused(Refusal.ACTIVATION_CODE_EXPIRED)
    await raw.execute("DELETE FROM codes WHERE purpose = 'link'")
    assert (await follow(store, event)).outcome == Refused(Refusal.ACTIVATION_CODE_EXPIRED)
    assert isinstance((await activate(store, event)).outcome, Owner)


@pytest.mark.parametrize(
    "around",
    [
        "DELETE FROM codes WHERE purpose = 'link'",
        "UPDATE codes SET used_at = clock_timestamp() WHERE purpose = 'link'",
        "UPDATE codes SET mac = 'another' WHERE purpose = 'link'",
        "UPDATE codes SET expires_at = minted_at WHERE purpose = 'link'",
    ],
)
async def test_what_changed_around_the_lock_proves_nothing(store: Store, raw: Connection, around: str) -> None:
    event = await linked(store, form())
    with pytest.raises(Unavailable, match="changed around"):
        await follow(store, event, meanwhile=lambda: raw.execute(around))
    assert await rows(raw, "SELECT count(*) FROM users") == [(0,)]
