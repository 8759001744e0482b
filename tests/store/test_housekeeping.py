"""What the sweeper takes, what it leaves, and that it waits for nobody."""

from dataclasses import replace
from datetime import timedelta

import pytest
import trio

from regsvc.domain.account import DAY, Claim
from regsvc.domain.profile import EmailChange
from regsvc.domain.quota import HOUR, Limit, Policy, Take
from regsvc.domain.values import Secret
from regsvc.ports import Heap, Swept
from regsvc.store import Store, housekeeping, open_store
from regsvc.trio_asyncpg import Connection
from tests.store.scenes import (
    LIFETIME,
    MAC,
    activate,
    blocked,
    digest,
    email,
    form,
    lease_one,
    log_in,
    look,
    new_id,
    refresh,
    register,
    registered_with_code,
    resend,
    rows,
    sizes,
    together,
    user,
)
from tests.waiting import until_asked

NOTHING = Swept()
HEAPS = {"rate_limits": Heap.LIMITS, "idempotency_keys": Heap.ANSWERS}
TAKE = Take(Policy(Limit.LOGIN, 2, HOUR), "192.0.2.1")
KEPT = """
    INSERT INTO idempotency_keys (slot, body_mac, holder, lease_until, answer, expires_at)
    SELECT 'slot', 'mac', gen_random_uuid(), now(), 'answer', clock_timestamp() - $1::interval
"""
OLD = "UPDATE addresses SET touched_at = touched_at - interval '25 hours'"


async def test_what_is_young_stays(store: Store, raw: Connection) -> None:
    await activate(store, await registered_with_code(store, form("bob")))
    await resend(store, await registered_with_code(store, form()))
    before = await sizes(raw)
    await raw.execute("UPDATE registrations SET expires_at = clock_timestamp() - interval '50 seconds'")
    assert await store.housekeeping.sweep(100) == NOTHING
    assert await sizes(raw) == before


async def test_an_expired_registration_goes_with_code_and_unsent_mail(store: Store, raw: Connection) -> None:
    await registered_with_code(store, form("bob"))
    event = await registered_with_code(store, form())
    await resend(store, event)
    await raw.execute("UPDATE registrations SET expires_at = now() - interval '2 minutes' WHERE id = $1", event.id)
    assert await store.housekeeping.sweep(100) == Swept(registrations=1)
    assert (await look(store))[0].claims == ()
    counted = await sizes(raw)
    assert (counted["registrations"], counted["codes"]) == (1, 1)
    # What was sent is kept for its day; what was not is gone.
    assert await rows(raw, "SELECT state FROM outbox") == [("sent",), ("sent",)]


async def test_codes_go_an_hour_after_their_end(store: Store, raw: Connection) -> None:
    await registered_with_code(store, form())
    await registered_with_code(store, form("bob"))
    await raw.execute("UPDATE codes SET expires_at = clock_timestamp() - interval '59 minutes'")
    assert await store.housekeeping.sweep(100) == NOTHING
    await raw.execute("UPDATE codes SET expires_at = clock_timestamp() - interval '61 minutes'")
    assert await store.housekeeping.sweep(1) == Swept(codes=1, more=frozenset({Heap.CODES}))
    assert await store.housekeeping.sweep(2) == Swept(codes=1)


@pytest.mark.parametrize(
    ("kept", "left"),
    [
        ("SELECT 1", 0),
        ("UPDATE addresses SET touched_at = clock_timestamp()", 1),
        ("UPDATE addresses SET failures = 1, failures_since = clock_timestamp() - interval '23 hours'", 1),
        ("UPDATE addresses SET failures = 1, failures_since = clock_timestamp() - interval '25 hours'", 0),
        ("UPDATE addresses SET mails = 1, mails_since = clock_timestamp() - interval '59 minutes'", 1),
        ("UPDATE addresses SET mails = 1, mails_since = clock_timestamp() - interval '61 minutes'", 0),
        ("UPDATE addresses SET verify_failures_since = clock_timestamp() - interval '23 hours'", 1),
        ("UPDATE addresses SET verify_failures_since = clock_timestamp() - interval '25 hours'", 0),
        ("UPDATE addresses SET asked_since = clock_timestamp() - interval '59 minutes'", 1),
        ("UPDATE addresses SET asked_since = clock_timestamp() - interval '61 minutes'", 0),
    ],
)
async def test_an_address_goes_when_nothing_of_it_counts(store: Store, raw: Connection, kept: str, left: int) -> None:
    async with store.begin() as unit:
        await unit.accounts.load(email().key)
    await raw.execute(OLD)
    await raw.execute(kept)
    assert await store.housekeeping.sweep(100) == Swept(addresses=1 - left)


async def test_an_address_with_a_registration_stays(store: Store, raw: Connection) -> None:
    await register(store, form())
    await raw.execute(OLD)
    await raw.execute("UPDATE addresses SET mails_since = NULL")
    assert await store.housekeeping.sweep(100) == NOTHING


async def test_locking_an_old_address_touches_it(store: Store, raw: Connection) -> None:
    async with store.begin() as unit:
        await unit.accounts.load(email().key)
    young = await raw.fetchval("SELECT touched_at FROM addresses")
    async with store.begin() as unit:
        await unit.accounts.load(email().key)
    assert await raw.fetchval("SELECT touched_at FROM addresses") == young  # hourly: most locks write no index
    await raw.execute(OLD)
    async with store.begin() as unit:
        await unit.accounts.load(email().key)
        assert await store.housekeeping.sweep(100) == NOTHING  # held
    assert await raw.fetchval("SELECT touched_at >= $1 FROM addresses", young)
    assert await store.housekeeping.sweep(100) == NOTHING


async def test_who_waits_for_an_address_being_swept_makes_it_anew(store: Store, raw: Connection) -> None:
    async with store.begin() as unit:
        await unit.accounts.load(email().key)
    outcomes: list[object] = []

    async def late() -> None:
        outcomes.append((await register(store, form())).outcome)

    async with trio.open_nursery() as nursery, raw.transaction():
        await raw.execute("DELETE FROM addresses")  # the sweeper, just before its commit
        nursery.start_soon(late, name="first")
        nursery.start_soon(late, name="second")
        await until_asked(lambda: blocked(raw, 2))
    # Deleted and made again, the row still serialises: one of the two won.
    assert sum(isinstance(outcome, Claim) for outcome in outcomes) == 1
    assert await raw.fetchval("SELECT count(*) FROM addresses") == 1


AGED = [
    ("sent", "sent_at = clock_timestamp() - interval '23 hours'", 0),
    ("sent", "sent_at = clock_timestamp() - interval '25 hours'", 1),
    ("dead", "created_at = clock_timestamp() - interval '29 days'", 0),
    ("dead", "created_at = clock_timestamp() - interval '31 days'", 1),
    ("ready", "created_at = clock_timestamp() - interval '31 days'", 0),
]


@pytest.mark.parametrize(("state", "age", "gone"), AGED)
async def test_settled_mails_go_by_their_age(store: Store, raw: Connection, state: str, age: str, gone: int) -> None:
    await register(store, form())
    if state != "ready":
        (parcel,) = await store.mailbag.lease(1, DAY)
        await (store.mailbag.done(parcel) if state == "sent" else store.mailbag.dead(parcel, "550"))
    await raw.execute(f"UPDATE outbox SET {age}")  # noqa: S608 - our own words
    assert await store.housekeeping.sweep(100) == Swept(mails=gone)


async def test_the_mailbox_keeps_the_newest(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "MAILBOX_KEPT", 3)
    for n in range(5):
        await store.mailbox.put(sender="a", to="b", subject=f"{n}", text="", html="", raw=b"")
    assert await store.housekeeping.sweep(100) == Swept(mails=2)
    _, mails = await store.mailbox.list(to=None, start=0, limit=10)
    assert [mail.subject for mail in mails] == ["4", "3", "2"]
    assert await store.housekeeping.sweep(100) == NOTHING


@pytest.mark.parametrize(
    ("age", "gone"),
    [
        ("ended_at = clock_timestamp() - interval '29 days', end_reason = 'logout'", 0),
        ("ended_at = clock_timestamp() - interval '31 days', end_reason = 'logout'", 1),
        ("expires_at = clock_timestamp() - interval '29 days'", 0),
        ("expires_at = clock_timestamp() - interval '31 days'", 1),
        ("last_used_at = clock_timestamp() - interval '31 days'", 0),
    ],
)
async def test_a_session_goes_a_month_after_it_was_over(store: Store, raw: Connection, age: str, gone: int) -> None:
    ada = await user(store)
    await log_in(store, ada, digest(1))
    await raw.execute(f"UPDATE sessions SET {age}")  # noqa: S608 - our own words
    await log_in(store, ada, digest(2))
    assert await store.housekeeping.sweep(100) == Swept(sessions=gone)
    counted = await sizes(raw)
    assert counted["sessions"] == counted["refresh_tokens"] == 2 - gone


@pytest.mark.parametrize(("seconds", "gone"), [(50, 0), (70, 2)])
async def test_links_go_when_their_session_is_over(store: Store, raw: Connection, seconds: int, gone: int) -> None:
    ada = await user(store)
    await log_in(store, ada, digest(1))
    await refresh(store, digest(1), digest(2))
    await log_in(store, ada, digest(3))
    kept = f"kept_until = clock_timestamp() - interval '{seconds} s'"
    await raw.execute(f"UPDATE refresh_tokens SET {kept} WHERE hash <> $1", digest(3))  # noqa: S608 - our own words
    assert await store.housekeeping.sweep(100) == Swept(sessions=gone)
    counted = await sizes(raw)
    assert (counted["sessions"], counted["refresh_tokens"]) == (2, 3 - gone)


async def test_a_chain_is_kept_as_long_as_its_session_may_live(store: Store, raw: Connection) -> None:
    opened = await log_in(store, await user(store), digest(1))
    await refresh(store, digest(1), digest(2))
    assert await rows(raw, "SELECT DISTINCT kept_until FROM refresh_tokens") == [(opened.session.expires_at,)]
    await raw.execute("UPDATE refresh_tokens SET used_at = now() - interval '29 days', expires_at = now()")
    assert await store.housekeeping.sweep(100) == NOTHING


@pytest.mark.parametrize(("seconds", "gone"), [(50, 0), (70, 1)])
async def test_a_proposed_address_goes_when_it_is_over(store: Store, raw: Connection, seconds: int, gone: int) -> None:
    ada, bob = await user(store), await user(store, "bob")
    now = await raw.fetchval("SELECT clock_timestamp()")
    async with store.begin() as unit:
        await unit.people.propose(ada.id, EmailChange(email("new"), now - timedelta(seconds=seconds)), now)
        await unit.people.propose(bob.id, EmailChange(email("newer"), now), now)
    assert await store.housekeeping.sweep(100) == Swept(sessions=gone)
    assert (await sizes(raw))["email_changes"] == 2 - gone


@pytest.mark.parametrize(("seconds", "gone"), [(-60, 0), (1, 1)])
async def test_a_bucket_goes_when_it_is_whole(store: Store, raw: Connection, seconds: int, gone: int) -> None:
    await store.quotas.take([TAKE])
    await raw.execute("UPDATE rate_limits SET whole_at = asked_at - $1::bigint", seconds * 1_000_000)
    assert await store.housekeeping.sweep(100) == Swept(limits=gone)
    (level,) = await store.quotas.take([TAKE])
    assert level.remaining == gone


@pytest.mark.parametrize(("seconds", "gone"), [(-60, 0), (1, 1)])
async def test_an_answer_goes_when_it_is_kept_no_longer(store: Store, raw: Connection, seconds: int, gone: int) -> None:
    await raw.execute(KEPT, timedelta(seconds=seconds))
    assert await store.housekeeping.sweep(100) == Swept(answers=gone)
    assert await raw.fetchval("SELECT count(*) FROM idempotency_keys") == 1 - gone


@pytest.mark.parametrize("table", ["rate_limits", "idempotency_keys"])
async def test_buckets_and_answers_that_are_held_are_passed_over_and_looked_at_anew(
    store: Store, raw: Connection, table: str
) -> None:
    await store.quotas.take([TAKE])
    await raw.execute("UPDATE rate_limits SET whole_at = 0")
    await raw.execute(KEPT, timedelta(seconds=1))
    async with raw.transaction():
        await raw.execute(f"SELECT FROM {table} FOR UPDATE")
        with trio.fail_after(10):
            assert (await store.housekeeping.sweep(100)).total == 1
    heap = HEAPS[table]
    assert await store.housekeeping.sweep(1) == replace(NOTHING, more=frozenset({heap}), **{heap.value: 1})


@pytest.mark.parametrize("table", ["sessions", "refresh_tokens", "email_changes"])
async def test_what_is_over_of_an_account_and_held_is_passed_over(store: Store, raw: Connection, table: str) -> None:
    ada = await user(store)
    await log_in(store, ada, digest())
    async with store.begin() as unit:
        await unit.people.propose(ada.id, EmailChange(email("new"), ada.created_at), ada.created_at)
    await raw.execute(
        "UPDATE sessions SET expires_at = now() - interval '31 days';"
        "UPDATE refresh_tokens SET kept_until = now() - interval '31 days';"
        "UPDATE email_changes SET expires_at = now() - interval '31 days'"
    )
    if table == "refresh_tokens":  # with its session still young: its deletion would wait for it
        await raw.execute("UPDATE sessions SET expires_at = now()")
    async with raw.transaction():
        await raw.execute(f"SELECT FROM {table} FOR UPDATE")
        with trio.fail_after(10):
            await store.housekeeping.sweep(100)
    assert (await sizes(raw))[table] == 1
    await store.housekeeping.sweep(100)
    assert (await sizes(raw))[table] == 0


@pytest.mark.parametrize("table", ["registrations", "codes", "outbox"])
async def test_rows_that_somebody_holds_are_passed_over(store: Store, raw: Connection, table: str) -> None:
    await registered_with_code(store, form())
    await raw.execute(
        "UPDATE registrations SET expires_at = now() - interval '2 days';"
        "UPDATE codes SET expires_at = now() - interval '2 days';"
        "UPDATE outbox SET sent_at = now() - interval '2 days'"
    )
    async with raw.transaction():
        await raw.execute(f"SELECT FROM {table} FOR UPDATE")
        with trio.fail_after(10):
            await store.housekeeping.sweep(100)
    assert (await sizes(raw))[table] == 1
    await store.housekeeping.sweep(100)
    assert (await sizes(raw))[table] == 0


async def test_an_unsent_mail_that_somebody_holds_outlives_its_registration(store: Store, raw: Connection) -> None:
    await register(store, form())
    await raw.execute("UPDATE registrations SET expires_at = now() - interval '2 days'")
    async with raw.transaction():
        await raw.execute("SELECT FROM outbox FOR UPDATE")  # the mailer
        with trio.fail_after(10):
            assert (await store.housekeeping.sweep(100)).registrations == 1
    parcel = await lease_one(store)
    assert await store.mailbag.mint(parcel, MAC, LIFETIME) is None
    assert await raw.fetchval("SELECT count(*) FROM outbox") == 0


async def test_sweepers_together_take_each_row_once(store: Store, raw: Connection) -> None:
    for n in range(30):
        await register(store, form(f"n{n}"))
    await raw.execute("UPDATE registrations SET expires_at = now() - interval '2 days'")
    swept: list[int] = []

    async def sweeper() -> None:
        while (result := await store.housekeeping.sweep(4)).more:
            swept.append(result.registrations)
        swept.append(result.registrations)

    async with trio.open_nursery() as nursery:
        for n in range(4):
            nursery.start_soon(sweeper, name=f"sweeper {n}")
    assert sum(swept) == 30
    assert await raw.fetchval("SELECT count(*) FROM outbox") == 0


async def test_one_of_all_gets_the_turn_and_the_next_when_nobody_took_it_for_so_long(
    store: Store, raw: Connection
) -> None:
    minute, got = timedelta(minutes=1), list[bool]()

    async def ask(_: int) -> None:
        got.append(await store.housekeeping.turn(minute))

    await together(8, ask)
    assert sorted(got) == [False] * 7 + [True]
    await raw.execute("UPDATE turns SET taken_at = taken_at - interval '50 s'")
    assert not await store.housekeeping.turn(minute)
    assert await store.housekeeping.turn(timedelta(0))  # who has it says that it goes on
    await raw.execute("UPDATE turns SET taken_at = taken_at - interval '50 s'")
    assert not await store.housekeeping.turn(minute)
    await raw.execute("UPDATE turns SET taken_at = taken_at - interval '20 s'")
    assert await store.housekeeping.turn(minute)


LATE = [  # each for 100 s
    "registrations SET expires_at = clock_timestamp() - interval '160 s'",
    "codes SET expires_at = clock_timestamp() - interval '1 hour 100 s'",
    "outbox SET sent_at = clock_timestamp() - interval '1 day 100 s'",
    "outbox SET state = 'dead', sent_at = NULL, created_at = clock_timestamp() - interval '30 days 100 s'",
    "refresh_tokens SET kept_until = clock_timestamp() - interval '160 s'",
    "sessions SET expires_at = clock_timestamp() - interval '30 days 100 s'",
    "email_changes SET expires_at = clock_timestamp() - interval '160 s'",
    "idempotency_keys SET expires_at = clock_timestamp() - interval '100 s'",
]


@pytest.mark.parametrize("late", LATE)
async def test_the_lag_is_how_long_the_oldest_has_been_due(store: Store, raw: Connection, late: str) -> None:
    assert await store.housekeeping.lag() == timedelta(0)
    ada = await user(store)
    await log_in(store, ada, digest(1))
    async with store.begin() as unit:
        await unit.people.propose(ada.id, EmailChange(email("new"), ada.created_at + DAY), ada.created_at)
    await registered_with_code(store, form("bob"))
    await raw.execute(KEPT, timedelta(seconds=-60))
    assert await store.housekeeping.lag() == timedelta(0)
    await raw.execute(f"UPDATE {late}")
    found = await store.housekeeping.lag()
    assert timedelta(seconds=100) <= found < timedelta(seconds=120)
    while (await store.housekeeping.sweep(100)).total:
        pass
    assert await store.housekeeping.lag() == timedelta(0)


async def test_a_month_that_could_not_be_dropped_lags_too(migrated: str, raw: Connection) -> None:
    await raw.execute("SELECT make_events_partition('2020-01-01Z', 1)")
    kept = await raw.fetchval("SELECT clock_timestamp() - timestamptz '2020-02-01Z'")
    for late in (-100, 100):
        async with open_store(Secret(migrated), new_id=new_id, events_kept=kept - timedelta(seconds=late)) as store:
            lag = await store.housekeeping.lag()
            assert max(late, 0) <= lag.total_seconds() < max(late, 0) + 20
