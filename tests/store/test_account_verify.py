"""The store of addresses: the code that comes without a password, and letters that anybody may ask for."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from regsvc.domain import account
from regsvc.domain.account import NO_PASSWORD, Address, Owner, Register, Tally, Way
from regsvc.domain.delivery import Letter, Mail
from regsvc.domain.refusals import Refusal, Refused
from regsvc.ports import MailState, Unavailable
from regsvc.store import Store
from regsvc.store.sql import Statement, Statements
from regsvc.trio_asyncpg import Connection
from tests.store.scenes import (
    CLAIMS,
    LIFETIME,
    LONGER,
    MAC,
    RULES,
    activate,
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
    verify,
)

KEY = email().key


async def with_both_codes(store: Store, event: Register, mac: bytes = LONGER) -> Register:
    """Register and have both codes minted and mailed; the MAC of the longer one is `mac`."""
    await registered_with_code(store, event, MAC, CLAIMS)
    await send(store, Mail(Letter.VERIFY, event.id))
    parcel = await lease_one(store)
    await mint(store, parcel, mac)
    await store.mailbag.done(parcel)
    return event


async def ask(store: Store, name: str, at_least: timedelta = timedelta(0)) -> bool:
    """Ask for a letter as anybody may; tell whether it is sent."""
    key = email(name).key
    async with store.begin() as unit:
        before, now = await unit.accounts.load(key)
        after, mails = account.ask(before, Letter.RESET, new_id(), now + at_least, account.Rules())
        await unit.accounts.save(key, before, after)
        await unit.outgoing.add(mails, trace=None)
    return bool(mails)


# ------------------------------------------------------------------------------------------------------ verify


async def test_both_codes_of_a_claim_come_back(store: Store) -> None:
    await with_both_codes(store, form())
    [claim] = (await look(store))[0].claims
    assert claim.code is not None
    assert claim.verify is not None
    assert (claim.code.mac, claim.verify.mac) == (MAC, LONGER)


async def test_a_wrong_code_is_counted_apart_from_those_with_a_password(store: Store) -> None:
    event = await with_both_codes(store, form())
    assert (await activate(store, event, b"wrong")).outcome == Refused(Refusal.INVALID_ACTIVATION_CODE, attempts_left=4)
    before, _ = await look(store)
    for guesses in (1, 2):
        step = await verify(store, event, b"wrong")
        assert step.outcome == Refused(Refusal.INVALID_ACTIVATION_CODE)
        after, _ = await look(store)
        assert after == step.state
        assert after.verify_failures.count == guesses
        assert after.failures == before.failures
        assert after.claims[0].verify is not None
        assert (after.claims[0].verify.failures, after.claims[0].code) == (guesses, before.claims[0].code)


@pytest.mark.parametrize("there", ["nothing", "a claim", "an account"])
async def test_a_guess_is_counted_for_every_address(store: Store, there: str) -> None:
    event = form()
    if there != "nothing":
        await registered_with_code(store, event)
    if there == "an account":
        await activate(store, event)
    assert (await verify(store, event)).outcome == Refused(Refusal.INVALID_ACTIVATION_CODE)
    state, now = await look(store)
    assert state.verify_failures.count == 1
    assert state.verify_failures.since is not None
    assert now - timedelta(seconds=5) < state.verify_failures.since <= now


async def test_the_longer_code_makes_an_account_without_a_password(store: Store, raw: Connection) -> None:
    rival = await with_both_codes(store, form(password_hash="rival"), b"r" * 32)
    winner = await with_both_codes(store, form(username="Ada", locale="de"))
    for event in (rival, winner):
        await send(store, Mail(Letter.ACTIVATION, event.id), Mail(Letter.VERIFY, event.id))
    step = await verify(store, winner)
    assert isinstance(step.outcome, Owner)
    state, _ = await look(store)
    assert (state.owner, state.claims) == (step.outcome, ())
    assert await rows(raw, "SELECT id, username, locale, password_hash, activated_at FROM users") == [
        (winner.id, "Ada", "de", NO_PASSWORD, step.outcome.activated_at)
    ]
    # The used code stays as a trace; all others are gone, and so is what was still to be mailed to either.
    used = await rows(raw, "SELECT subject_id, purpose, used_at FROM codes")
    assert used == [(winner.id, "verify", step.outcome.activated_at)]
    assert await raw.fetchval("SELECT count(*) FROM outbox WHERE state <> 'sent'") == 0
    assert (await verify(store, winner)).outcome == Refused(Refusal.INVALID_ACTIVATION_CODE)
    assert (await activate(store, winner)).outcome == Refused(Refusal.INVALID_CREDENTIALS)


async def test_activating_leaves_no_longer_code(store: Store, raw: Connection) -> None:
    event = await with_both_codes(store, form())
    assert isinstance((await activate(store, event)).outcome, Owner)
    assert await rows(raw, "SELECT purpose FROM codes") == [("activate",)]
    assert await raw.fetchval("SELECT password_hash FROM users") == event.password_hash


async def test_a_username_taken_meanwhile_is_left_out_and_no_password_is_put_in(store: Store, raw: Connection) -> None:
    first = await with_both_codes(store, form("ada", username="Same"))
    second = await with_both_codes(store, form("bob", username="same"))
    await verify(store, first)
    assert isinstance((await verify(store, second)).outcome, Owner)
    users = await rows(raw, "SELECT id, username, password_hash FROM users ORDER BY created_at")
    assert users == [(first.id, "Same", NO_PASSWORD), (second.id, None, NO_PASSWORD)]


async def take_over(store: Store, event: Register, meanwhile: Callable[[], Awaitable[object]]) -> None:
    """Save what a right code comes to, after something happened past the lock."""
    async with store.begin() as unit:
        before, now = await unit.accounts.load(KEY)
        await meanwhile()
        owner = Owner(event.id, event.email.address, NO_PASSWORD, now, Way.VERIFY)
        await unit.accounts.save(KEY, before, replace(before, owner=owner, claims=()))


@pytest.mark.parametrize(
    "around",
    [
        "DELETE FROM registrations",
        "UPDATE registrations SET password_hash = 'another'",
        "DELETE FROM codes WHERE purpose = 'verify'",
        "UPDATE codes SET used_at = clock_timestamp() WHERE purpose = 'verify'",
        "UPDATE codes SET mac = 'another' WHERE purpose = 'verify'",
        "UPDATE codes SET expires_at = minted_at WHERE purpose = 'verify'",
    ],
)
async def test_what_changed_around_the_lock_proves_nothing(store: Store, raw: Connection, around: str) -> None:
    event = await with_both_codes(store, form())
    with pytest.raises(Unavailable, match="changed around"):
        await take_over(store, event, lambda: raw.execute(around))
    assert await raw.fetchval("SELECT count(*) FROM users") == 0


async def test_the_short_code_alone_proves_nothing(store: Store, raw: Connection) -> None:
    event = await registered_with_code(store, form())

    async def nothing() -> None:
        assert await raw.fetchval("SELECT count(*) FROM users") == 0

    with pytest.raises(Unavailable, match="changed around"):
        await take_over(store, event, nothing)


async def test_of_fifty_proofs_of_both_kinds_at_once_one_wins(
    store: Store, raw: Connection, rounds: int | None
) -> None:
    async def race(number: int) -> None:
        prove = verify if number % 2 else activate
        outcomes.append((await prove(store, event)).outcome)

    for round_ in range(rounds or 2):
        event, outcomes = await with_both_codes(store, form(f"race{round_}")), list[Owner | Refused]()
        await together(50, race)
        [owner] = [outcome for outcome in outcomes if isinstance(outcome, Owner)]
        assert (await look(store, f"race{round_}"))[0].owner == owner
    assert await raw.fetchval("SELECT count(*) FROM events WHERE name = 'user.activated'") == (rounds or 2)


async def test_of_twenty_guesses_at_once_each_is_counted(store: Store) -> None:
    event, outcomes = await with_both_codes(store, form()), list[Refusal]()

    async def race(_: int) -> None:
        outcome = (await verify(store, event, b"wrong")).outcome
        assert isinstance(outcome, Refused)
        outcomes.append(outcome.why)

    await together(20, race)
    budget = RULES.code_failures_per_day
    assert outcomes.count(Refusal.INVALID_ACTIVATION_CODE) == budget
    assert outcomes.count(Refusal.TOO_MANY_ATTEMPTS) == 20 - budget
    state, _ = await look(store)
    assert (state.verify_failures.count, state.failures) == (budget, Tally())


async def test_the_mail_of_the_longer_code_says_nothing_of_the_registration_s_own(store: Store) -> None:
    event = await registered_with_code(store, form())
    before = await store.directory.mail_status(event.id)
    await send(store, Mail(Letter.VERIFY, event.id))
    assert await store.directory.mail_status(event.id) == before
    parcel = await lease_one(store)
    await store.mailbag.mint(parcel, LONGER, 10 * LIFETIME)
    await store.mailbag.dead(parcel, "550 no such user")
    assert await store.directory.mail_status(event.id) == before
    assert before.mail is MailState.SENT


# --------------------------------------------------------------------------------------------------------- ask


async def test_what_was_asked_for_is_counted_where_there_is_nobody_too(store: Store) -> None:
    assert await ask(store, "ada")
    state, now = await look(store)
    assert state == Address(asked=Tally(1, state.asked_at), asked_at=state.asked_at)
    assert state.asked_at is not None
    assert now - timedelta(seconds=5) < state.asked_at <= now
    assert not await ask(store, "ada")
    assert await ask(store, "ada", timedelta(minutes=1))
    assert (await look(store))[0].asked.count == 2


async def test_registering_changes_nothing_of_it(store: Store) -> None:
    await ask(store, "ada")
    await verify(store, form())
    before, _ = await look(store)
    step = await register(store, form())
    after, _ = await look(store)
    assert after == step.state
    assert (after.asked, after.asked_at) == (before.asked, before.asked_at)
    assert after.verify_failures == before.verify_failures


async def test_each_verb_costs_few_statements(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    event = await with_both_codes(store, form())
    ran: list[str] = []
    find = Statements._find

    def counted(self: Statements, name: str, result: str) -> Statement:
        ran.append(name)
        return find(self, name, result)

    monkeypatch.setattr(Statements, "_find", counted)
    await ask(store, "ada")
    assert ran == ["lock_address", "load_address", "save_address", "add"]
    del ran[:]
    await verify(store, event, b"wrong")
    assert ran == ["lock_address", "load_address", "save_address"]
    del ran[:]
    await verify(store, event)
    assert ran == ["lock_address", "load_address", "activate", "add"]
