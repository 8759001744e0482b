"""The store of addresses: what is written comes back, and what changed around the lock proves nothing."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
import trio

from regsvc.domain.account import Address, Claim, Owner, Proof, Register, Resend, Tally, Way
from regsvc.domain.account import resend as decide_resend
from regsvc.domain.refusals import Refusal, Refused
from regsvc.ports import MailState, MailStatus, Unavailable
from regsvc.store import Store
from regsvc.store.sql import Statement, Statements
from regsvc.trio_asyncpg import Connection
from tests.store.scenes import (
    CLAIMS,
    LIFETIME,
    MAC,
    RULES,
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
    sizes,
)
from tests.waiting import until_asked

KEY = email().key


async def test_an_unknown_address_is_empty_and_looking_leaves_no_trace(store: Store, raw: Connection) -> None:
    state, now = await look(store)
    assert state == Address()
    assert abs(now - await raw.fetchval("SELECT clock_timestamp()")) < timedelta(seconds=5)
    assert now.utcoffset() == timedelta(0)
    assert set((await sizes(raw)).values()) == {0}


async def test_a_registration_comes_back_as_it_was_decided(store: Store) -> None:
    step = await register(store, form(username="Ada", locale="de-AT"))
    state, _ = await look(store)
    assert state == step.state
    assert state.claims == (step.outcome,)


async def test_a_registration_without_the_optional_parts_comes_back_too(store: Store) -> None:
    step = await register(store, replace(form(), client=None))
    assert (await look(store))[0] == step.state


async def test_claims_come_newest_first_with_their_own_codes(store: Store) -> None:
    first = await registered_with_code(store, form(), b"1" * 32, CLAIMS)
    second = await registered_with_code(store, form(), b"2" * 32, CLAIMS)
    state, now = await look(store)
    assert [claim.id for claim in state.claims] == [second.id, first.id]
    assert [claim.code.mac for claim in state.claims if claim.code is not None] == [b"2" * 32, b"1" * 32]
    assert all(now < claim.live_until <= now + LIFETIME for claim in state.claims)


async def test_a_wrong_code_spends_a_try_of_the_code_and_of_the_address(store: Store) -> None:
    event = await registered_with_code(store, form())
    refused = (await activate(store, event, b"wrong")).outcome
    assert isinstance(refused, Refused)
    assert refused.attempts_left == RULES.code_attempts - 1
    state, _ = await look(store)
    assert state.failures.count == 1
    assert state.claims[0].code is not None
    assert state.claims[0].code.failures == 1


async def test_a_used_code_is_none(store: Store, raw: Connection) -> None:
    event = await registered_with_code(store, form())
    await raw.execute("UPDATE codes SET used_at = clock_timestamp()")
    assert (await look(store))[0].claims[0].code is None
    assert (await store.directory.mail_status(event.id)).code_expires_at is None


async def test_counters_alone_are_written_too(store: Store) -> None:
    await register(store, form())
    async with store.begin() as unit:
        before, now = await unit.accounts.load(KEY)
        after = replace(before, failures=Tally(3, now), mails=Tally(4, now), mailed_at=now)
        await unit.accounts.save(KEY, before, after)
    assert (await look(store))[0] == after


async def test_a_resend_prolongs_the_claim(store: Store, raw: Connection) -> None:
    event = await registered_with_code(store, form())
    await raw.execute("UPDATE registrations SET live_until = created_at")
    step = await resend(store, event)
    state, now = await look(store)
    assert isinstance(step.outcome, Claim)
    assert state.claims[0].live_until == step.outcome.live_until > now + timedelta(minutes=9)


async def test_the_clock_is_read_after_the_lock_was_waited_for(store: Store, raw: Connection) -> None:
    await register(store, form())
    seen: list[tuple[Address, datetime]] = []

    async def wait_for_the_lock() -> None:
        async with store.begin() as second:
            seen.append(await second.accounts.load(KEY))

    async with trio.open_nursery() as nursery, store.begin() as unit:
        before, held = await unit.accounts.load(KEY)
        nursery.start_soon(wait_for_the_lock, name="second")
        await until_asked(lambda: blocked(raw))
        changed = replace(before, mailed_at=held)
        await unit.accounts.save(KEY, before, changed)
        released = await raw.fetchval("SELECT clock_timestamp()")
    # It saw what was committed while it waited, and a clock later than that.
    assert seen[0][0] == changed
    assert seen[0][1] > released


async def test_an_activation_moves_the_claim_to_an_account(store: Store, raw: Connection) -> None:
    rival = await registered_with_code(store, form(password_hash="rival"), b"r" * 32, CLAIMS)
    winner = await registered_with_code(store, form(username="Ada", locale="de"), MAC, CLAIMS)
    await resend(store, winner, CLAIMS)
    await resend(store, rival, CLAIMS)
    step = await activate(store, winner)
    assert isinstance(step.outcome, Owner)
    state, _ = await look(store)
    assert state.owner == step.outcome
    assert state.claims == ()
    user = await raw.fetchrow("SELECT * FROM users")
    assert user is not None
    assert (user["id"], user["email"], user["email_key"]) == (winner.id, winner.email.address, KEY)
    assert (user["username"], user["username_key"], user["locale"], user["password_hash"]) == (
        "Ada",
        "ada",
        "de",
        "hash",
    )
    assert user["activated_at"] == step.outcome.activated_at
    # The used code stays as a trace; the rival's is gone, and so is what was still to be mailed to either.
    assert await rows(raw, "SELECT subject_id, used_at FROM codes") == [(winner.id, step.outcome.activated_at)]
    assert await raw.fetchval("SELECT count(*) FROM outbox WHERE state <> 'sent'") == 0
    names = [name for (name,) in await rows(raw, "SELECT name FROM events ORDER BY at")]
    assert names == ["registration.created", "registration.created", "user.activated"]
    assert await store.directory.username_taken("ada")
    assert not await store.directory.username_taken("bob")


async def test_a_username_taken_meanwhile_is_left_out(store: Store, raw: Connection) -> None:
    first = await registered_with_code(store, form("ada", username="Same"))
    second = await registered_with_code(store, form("bob", username="same", locale="fr"))
    await activate(store, first)
    step = await activate(store, second)
    assert isinstance(step.outcome, Owner)
    assert (await look(store, "bob"))[0].owner == step.outcome
    users = await rows(raw, "SELECT id, username, locale FROM users ORDER BY created_at")
    assert users == [(first.id, "Same", None), (second.id, None, "fr")]


async def take_over(store: Store, event: Register, meanwhile: Callable[[], Awaitable[object]]) -> None:
    """Save what a right proof comes to, after something happened past the lock."""
    async with store.begin() as unit:
        before, now = await unit.accounts.load(KEY)
        await meanwhile()
        owner = Owner(event.id, event.email.address, event.password_hash, now, Way.CODE)
        await unit.accounts.save(KEY, before, replace(before, owner=owner, claims=()))


IMPORT = """
    INSERT INTO users (id, email, email_key, password_hash, created_at, activated_at, updated_at)
    SELECT gen_random_uuid(), email, email_key, 'imported', created_at, created_at, created_at FROM registrations
"""


async def test_an_account_made_around_the_lock_is_an_outage_then_a_refusal(store: Store, raw: Connection) -> None:
    event = await registered_with_code(store, form())
    before, _ = await look(store)
    with pytest.raises(Unavailable, match="made around its address's lock"):
        await take_over(store, event, lambda: raw.execute(IMPORT))
    assert (await look(store))[0].claims == before.claims
    assert (await activate(store, event)).outcome == Refused(Refusal.INVALID_CREDENTIALS)


@pytest.mark.parametrize(
    "around",
    [
        "DELETE FROM registrations",
        "UPDATE registrations SET password_hash = 'another'",
        "DELETE FROM codes",
        "UPDATE codes SET used_at = clock_timestamp()",
        "UPDATE codes SET mac = 'another'",
        "UPDATE codes SET expires_at = minted_at",
    ],
)
async def test_what_changed_around_the_lock_proves_nothing(store: Store, raw: Connection, around: str) -> None:
    event = await registered_with_code(store, form())
    with pytest.raises(Unavailable, match="changed around"):
        await take_over(store, event, lambda: raw.execute(around))
    assert await raw.fetchval("SELECT count(*) FROM users") == 0
    assert (await look(store))[0].owner is None


async def test_an_owner_neither_changes_nor_leaves_here(store: Store) -> None:
    event = await registered_with_code(store, form())
    await activate(store, event)
    before, _ = await look(store)
    async with store.begin() as unit:
        with pytest.raises(ValueError, match="stays"):
            await unit.accounts.save(KEY, before, replace(before, owner=None))
    assert (await look(store))[0] == before


async def test_claims_that_make_room_go_with_code_and_mail(store: Store, raw: Connection) -> None:
    one = replace(CLAIMS, claims_max=1)
    first = await registered_with_code(store, form())
    await resend(store, first)
    await raw.execute("UPDATE registrations SET live_until = created_at")
    second = form()
    step = await register(store, second, one)
    assert (await look(store))[0] == step.state
    assert await rows(raw, "SELECT id FROM registrations") == [(second.id,)]
    assert await raw.fetchval("SELECT count(*) FROM codes") == 0
    assert await rows(raw, "SELECT subject_id FROM outbox WHERE state = 'ready'") == [(second.id,)]


async def test_mail_status_follows_the_newest_mail(store: Store) -> None:
    event = form()
    assert await store.directory.mail_status(event.id) == MailStatus(MailState.FAILED, None)
    await register(store, event)
    assert await store.directory.mail_status(event.id) == MailStatus(MailState.QUEUED, None)
    parcel = await lease_one(store)
    minted = await mint(store, parcel)
    assert await store.directory.mail_status(event.id) == MailStatus(MailState.QUEUED, minted.expires_at)
    await store.mailbag.done(parcel)
    assert await store.directory.mail_status(event.id) == MailStatus(MailState.SENT, minted.expires_at)
    await resend(store, event)
    assert (await store.directory.mail_status(event.id)).mail is MailState.QUEUED
    await store.mailbag.dead(await lease_one(store), "550 no")
    assert (await store.directory.mail_status(event.id)).mail is MailState.FAILED


async def test_a_proof_of_another_password_is_refused_under_the_lock(store: Store) -> None:
    event = await registered_with_code(store, form())
    async with store.begin() as unit:
        state, now = await unit.accounts.load(KEY)
        step = decide_resend(state, Resend(Proof({event.id: "another"})), now, RULES)
    assert step.outcome == Refused(Refusal.INVALID_CREDENTIALS)


async def test_each_verb_costs_few_statements(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    find = Statements._find

    def counted(self: Statements, name: str, result: str) -> Statement:
        ran.append(name)
        return find(self, name, result)

    monkeypatch.setattr(Statements, "_find", counted)
    event = form()
    # With BEGIN and COMMIT: six, six, five and six.
    await register(store, event)
    assert ran == ["lock_address", "load_address", "insert_claim", "add"]
    await mint(store, await lease_one(store))
    del ran[:]
    await resend(store, event)
    assert ran == ["lock_address", "load_address", "save_address", "add"]
    del ran[:]
    await activate(store, event, b"wrong")
    assert ran == ["lock_address", "load_address", "save_address"]
    del ran[:]
    await activate(store, event)
    assert ran == ["lock_address", "load_address", "activate", "add"]
    del ran[:]
    await activate(store, event)
    assert ran == ["lock_address", "load_address"]  # refused: nothing differs, nothing is written
