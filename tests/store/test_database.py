"""The boundary: what is the database's state becomes Unavailable, what is ours goes through."""

import traceback
from collections.abc import Awaitable, Callable
from datetime import timedelta

import asyncpg
import pytest
import trio
from asyncpg import exceptions

from regsvc.domain.values import Secret
from regsvc.ports import Unavailable
from regsvc.store import Store, open_store
from regsvc.store.database import OUTAGES, outages
from regsvc.store.embedded import Cluster
from regsvc.trio_asyncpg import Connection, ConnectionLost, open_connection
from tests.store.scenes import activate, form, hang_up_on_all, look, new_id, register, registered_with_code, together
from tests.waiting import until_asked

WORLD = [
    exceptions.AdminShutdownError,
    exceptions.CannotConnectNowError,
    exceptions.CrashShutdownError,
    exceptions.DeadlockDetectedError,
    exceptions.DiskFullError,
    exceptions.InvalidPasswordError,
    exceptions.QueryCanceledError,
    exceptions.ReadOnlySQLTransactionError,
    exceptions.SerializationError,
    exceptions.TooManyConnectionsError,
    ConnectionLost,
    ConnectionRefusedError,
    TimeoutError,
]
OURS = [
    exceptions.CheckViolationError,
    exceptions.DataError,
    exceptions.InFailedSQLTransactionError,
    exceptions.NotNullViolationError,
    exceptions.PostgresSyntaxError,
    exceptions.UndefinedTableError,
    exceptions.UniqueViolationError,
    asyncpg.InterfaceError,
    RuntimeError,
]


@pytest.mark.parametrize("kind", WORLD, ids=lambda kind: kind.__name__)
def test_a_state_of_the_world_is_unavailable(kind: type[Exception]) -> None:
    with pytest.raises(Unavailable) as caught, outages():
        raise kind("in a word\nDETAIL:  Key (email)=(ada@example.com)")
    assert caught.value.what == "database"
    assert caught.value.why == f"{kind.__name__}: in a word"
    assert isinstance(caught.value.__cause__, kind)


async def test_a_bug_says_nothing_of_rows(database: str) -> None:
    address = "ada@example.com"
    async with open_connection(database) as connection:
        await connection.execute("CREATE TABLE people (email text CHECK (false))")
        with pytest.raises(exceptions.CheckViolationError) as caught, outages():
            await connection.execute("INSERT INTO people VALUES ($1)", address)
    told = "".join(traceback.format_exception(caught.value))
    assert "people_check" in told
    assert address not in told


def test_a_state_without_words_has_a_name() -> None:
    with pytest.raises(Unavailable, match=r"^database: TimeoutError$"), outages():
        raise TimeoutError


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_a_bug_goes_through(kind: type[Exception]) -> None:
    assert not issubclass(kind, OUTAGES)
    with pytest.raises(kind), outages():
        raise kind("as it is")


async def test_an_error_of_the_flow_goes_through_and_rolls_back(store: Store, raw: Connection) -> None:
    async def flow(error: Exception) -> None:
        async with store.begin() as unit:
            await unit.accounts.load(form().email.key)
            raise error

    for error in (BlockingIOError("a file, not the database"), TimeoutError("somebody else's"), KeyError("a bug")):
        with pytest.raises(type(error)) as caught:
            await flow(error)
        assert caught.value is error
    assert await raw.fetchval("SELECT count(*) FROM addresses") == 0


@pytest.mark.parametrize("text", ["\0", "\ud800"], ids=["NUL", "lone surrogate"])
async def test_what_is_no_text_is_a_bug_and_changes_nothing(store: Store, raw: Connection, text: str) -> None:
    with pytest.raises((exceptions.CharacterNotInRepertoireError, exceptions.DataError, UnicodeError)):
        await register(store, form(password_hash=f"a{text}b"))
    assert await raw.fetchval("SELECT count(*) FROM registrations") == 0
    await register(store, form())
    assert len((await look(store))[0].claims) == 1


async def test_odd_text_comes_back_as_it_was(store: Store) -> None:
    odd = "'; DROP TABLE users; -- \\ \x01 ￿ \U0001f600 $1 %s"
    await register(store, form(password_hash=odd))
    assert (await look(store))[0].claims[0].password_hash == odd


async def test_a_full_pool_is_unavailable_in_time(migrated: str) -> None:
    short = timedelta(seconds=1)
    async with open_store(Secret(migrated), new_id=new_id, pool_max=2, timeout=short) as store:
        await look(store)
        async with store.begin(), store.begin():
            with pytest.raises(Unavailable, match="no connection within"):
                await look(store)
        await look(store)


async def test_waiting_for_a_lock_too_long_is_unavailable(migrated: str) -> None:
    short = timedelta(seconds=1)
    async with open_store(Secret(migrated), new_id=new_id, timeout=short) as store:
        async with store.begin() as unit:
            await unit.accounts.load(form().email.key)
            with pytest.raises(Unavailable, match="TimeoutError"):
                await register(store, form())
        await register(store, form())


async def lock_and(store: Store, meanwhile: Callable[[], Awaitable[object]]) -> None:
    """A transaction, and something else before its end."""
    async with store.begin() as unit:
        await unit.accounts.load(form("held").email.key)
        await meanwhile()


async def restart(postgres: Cluster) -> None:
    await trio.lowlevel.checkpoint()
    postgres.restart("immediate")  # it blocks; the supervisor does this where no loop runs


async def test_a_restart_is_an_outage_and_then_over(postgres: Cluster, store: Store) -> None:
    event = await registered_with_code(store, form())
    seen: list[Exception] = []

    async def client(number: int) -> None:
        try:
            await register(store, form(f"n{number}"))
        except Unavailable as exc:
            seen.append(exc)

    with pytest.raises(Unavailable):
        await lock_and(store, lambda: restart(postgres))
    await together(8, client)
    await until_asked(lambda: _there(store))
    await activate(store, event)
    assert (await look(store))[0].owner is not None
    kept = sum([bool((await look(store, f"n{number}"))[0].claims) for number in range(8)])
    assert kept + len(seen) >= 8  # what was acknowledged is there


async def _there(store: Store) -> bool:
    try:
        await store.probe.ping()
    except Unavailable:
        return False
    return True


async def test_a_server_in_recovery_or_a_standby_is_unavailable(store: Store, raw: Connection) -> None:
    await raw.execute(
        "DO $$ BEGIN EXECUTE format("
        "'ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$"
    )
    await hang_up_on_all(raw)
    await until_asked(lambda: _there(store))
    with pytest.raises(Unavailable, match="ReadOnly"):
        await register(store, form())


async def test_a_failed_commit_is_unavailable(store: Store, raw: Connection) -> None:
    with pytest.raises(Unavailable):
        await lock_and(store, lambda: hang_up_on_all(raw))
    assert await raw.fetchval("SELECT count(*) FROM addresses") == 0
