"""What the store's tests do again and again: register, log in, carry a mail, look behind the store's back."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import trio
import uuid_utils.compat

from regsvc.domain import account, session
from regsvc.domain.account import Activate, Address, Claim, Owner, Proof, Register, Resend, Rules, Step, Verify
from regsvc.domain.delivery import Effect, Parcel
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.session import Login, Opened, Person, Repeated, Reused, Rotated, User
from regsvc.domain.values import Email, Locale, Username
from regsvc.ports import Minted
from regsvc.store import Store
from regsvc.trio_asyncpg import Connection

RULES = Rules(limit_mails=False)
CLAIMS = replace(RULES, duplicates=account.DuplicatePolicy.CLAIMS)
UNIFORM = replace(RULES, duplicates=account.DuplicatePolicy.UNIFORM)
SESSION_RULES = session.Rules()
LEASE = timedelta(seconds=30)
LIFETIME = timedelta(seconds=60)
MAC = b"m" * 32
LONGER = b"v" * 32  # of the code that comes without a password


def new_id() -> UUID:
    return uuid_utils.compat.uuid7()


def email(name: str = "ada") -> Email:
    parsed = Email.parse(f"{name}@example.com")
    assert isinstance(parsed, Email)
    return parsed


def form(
    name: str = "ada",
    *,
    password_hash: str = "hash",  # noqa: S107 - it stands for one
    username: str | None = None,
    locale: str | None = None,
) -> Register:
    return Register(
        id=new_id(),
        email=email(name),
        password_hash=password_hash,
        username=Username(username, username.casefold()) if username else None,
        locale=Locale(locale) if locale else None,
        client="192.0.2.7",
    )


async def register(store: Store, event: Register, rules: Rules = RULES, *, trace: str | None = None) -> Step[Claim]:
    """What the flow does: one transaction."""
    key = event.email.key
    async with store.begin() as unit:
        before, now = await unit.accounts.load(key)
        step = account.register(before, event, now, rules)
        await unit.accounts.save(key, before, step.state)
        await unit.outgoing.add(step.effects, trace=trace)
    return step


async def resend(store: Store, event: Register, rules: Rules = RULES) -> Step[Claim]:
    key = event.email.key
    async with store.begin() as unit:
        before, now = await unit.accounts.load(key)
        step = account.resend(before, Resend(Proof({event.id: event.password_hash})), now, rules)
        await unit.accounts.save(key, before, step.state)
        await unit.outgoing.add(step.effects, trace=None)
    return step


async def activate(store: Store, event: Register, mac: bytes = MAC, rules: Rules = RULES) -> Step[Owner]:
    key = event.email.key
    async with store.begin() as unit:
        before, now = await unit.accounts.load(key)
        shown = Activate(Proof({event.id: event.password_hash}), {event.id: (mac,)})
        step = account.activate(before, shown, now, rules)
        await unit.accounts.save(key, before, step.state)
        await unit.outgoing.add(step.effects, trace=None)
    return step


async def verify(store: Store, event: Register, mac: bytes = LONGER, rules: Rules = RULES) -> Step[Owner]:
    """What the flow does with the code that comes without a password."""
    key = event.email.key
    async with store.begin() as unit:
        before, now = await unit.accounts.load(key)
        step = account.verify(before, Verify({event.id: (mac,)}), now, rules)
        await unit.accounts.save(key, before, step.state)
        await unit.outgoing.add(step.effects, trace=None)
    return step


async def send(store: Store, *effects: Effect) -> None:
    """Have this leave, as a flow that committed nothing else would."""
    async with store.begin() as unit:
        await unit.outgoing.add(effects, trace=None)


async def user(store: Store, name: str = "ada", **columns: Any) -> User:
    """Make an account with these columns otherwise than as an activation leaves them."""
    event = await registered_with_code(store, form(name))
    await activate(store, event)
    async with store.begin() as unit:
        locked = await unit.people.lock(event.id)
        assert locked is not None
        made: User = replace(locked[0], **columns)
        assert await unit.people.change(locked[0], made) is None
    return made


def digest(n: int = 1) -> bytes:
    """The digest of the n-th token."""
    return n.to_bytes(32, "big")


async def log_in(store: Store, who: User, token: bytes, device: str = "curl") -> Opened:
    """What the flow does, the user locked."""
    opened = await try_to_log_in(store, who, token, device)
    assert isinstance(opened, Opened)
    return opened


async def try_to_log_in(
    store: Store, who: User, token: bytes, device: str = "curl", rules: session.Rules = SESSION_RULES
) -> Opened | Refused:
    async with store.begin() as unit:
        locked = await unit.people.lock(who.id)
        if locked is None:
            return Refused(Refusal.INVALID_CREDENTIALS)
        person = Person(locked[0], await unit.sessions.devices(who.id, locked[1]))
        event = Login(new_id(), token, device, "192.0.2.7", who.password_hash)
        opened, _ = session.login(person, event, locked[1], rules)
        if isinstance(opened, Opened):
            if opened.surplus:
                await unit.sessions.end_oldest(who.id, opened.surplus, session.Ending.SUPERSEDED, locked[1])
            await unit.sessions.open(opened)
    return opened


async def refresh(store: Store, token: bytes, successor: bytes) -> Rotated | Repeated | Reused | Refused | None:
    """What the flow does; None for an unknown token."""
    async with store.begin() as unit:
        loaded = await unit.sessions.load(token)
        if loaded is None:
            return None
        family, now = loaded
        step = session.refresh(family, successor, now, SESSION_RULES)
        if isinstance(step, Rotated):
            await unit.sessions.rotate(step)
        if isinstance(step, Reused):
            await unit.sessions.end(step.session.user_id, session.Ending.REUSED, now, only=step.session.id)
    return step


async def look(store: Store, name: str = "ada") -> tuple[Address, datetime]:
    return await store.directory.look(email(name).key)


async def lease_one(store: Store) -> Parcel:
    (parcel,) = await store.mailbag.lease(10, LEASE)
    return parcel


async def mint(store: Store, parcel: Parcel, mac: bytes = MAC) -> Minted:
    minted = await store.mailbag.mint(parcel, mac, LIFETIME)
    assert minted is not None
    return minted


async def registered_with_code(store: Store, event: Register, mac: bytes = MAC, rules: Rules = RULES) -> Register:
    """Register and have the code minted and its mail sent."""
    await register(store, event, rules)
    parcel = await lease_one(store)
    await mint(store, parcel, mac)
    await store.mailbag.done(parcel)
    return event


async def blocked(raw: Connection, tasks: int = 1) -> bool:
    """Tell whether so many wait for a lock. By pg_locks: a transaction sees pg_stat_activity as it first saw it."""
    return bool(await raw.fetchval("SELECT count(*) >= $1 FROM pg_locks WHERE NOT granted", tasks))


async def hang_up_on_all(raw: Connection) -> None:
    """End every other connection to this database, as a shutdown would."""
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    await raw.execute(f"{query} AND pid <> pg_backend_pid()")


async def rows(raw: Connection, query: str) -> list[tuple[object, ...]]:
    """What a query brings, as plain tuples."""
    return [tuple(row) for row in await raw.fetch(query)]


async def sizes(raw: Connection) -> dict[str, int]:
    """How many rows each table has."""
    tables = (
        *("addresses", "registrations", "users", "codes", "outbox", "events"),
        *("sessions", "refresh_tokens", "email_changes"),
    )
    return {table: await raw.fetchval(f"SELECT count(*) FROM {table}") for table in tables}  # noqa: S608 - our names


async def together(n: int, work: Callable[[int], Awaitable[None]]) -> None:
    """Start `work` in `n` tasks, and let all go at once."""
    gate, ready = trio.Event(), 0

    async def one(number: int) -> None:
        nonlocal ready
        ready += 1
        if ready == n:
            gate.set()
        await gate.wait()
        await work(number)

    async with trio.open_nursery() as nursery:
        for number in range(n):
            nursery.start_soon(one, number, name=f"racer {number}")
