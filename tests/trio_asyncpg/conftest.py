"""A PostgreSQL of this folder's own: it is restarted, frozen, and asks for passwords."""

import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio

from regsvc import trio_asyncpg
from regsvc.store.embedded import Cluster
from regsvc.trio_asyncpg.bridge import Tasks
from tests.postgres import psql, temporary_cluster

PASSWORDS = """\
local all wants_md5 md5
local all wants_scram scram-sha-256
local all wants_password password
local all nobody_gets_in reject
"""
ROLES = """
    SET password_encryption = 'md5'; CREATE ROLE wants_md5 LOGIN PASSWORD 'correct'; RESET password_encryption;
    CREATE ROLE wants_scram LOGIN PASSWORD 'correct';
    CREATE ROLE wants_password LOGIN PASSWORD 'correct';
    CREATE ROLE nobody_gets_in LOGIN;
    CREATE ROLE reader LOGIN;
    ALTER ROLE reader SET default_transaction_read_only = on;
    DO $$ BEGIN PERFORM pg_reload_conf(); END $$;
"""


@pytest.fixture(scope="session")
def server() -> Iterator[Cluster]:
    """A cluster whose roles want passwords of each kind, and which tests may restart and freeze."""
    with temporary_cluster(first=True) as cluster:
        access = cluster.folder / "pg_hba.conf"
        access.write_text(PASSWORDS + access.read_text("utf-8"), "utf-8")
        psql(cluster, ROLES)
        yield cluster


@pytest.fixture
async def pool(database: str) -> AsyncIterator[trio_asyncpg.Pool]:
    """A pool of up to four connections to a database of the test's own."""
    async with trio_asyncpg.open_pool(database, min_size=1, max_size=4) as pool:
        yield pool


@pytest.fixture
async def connection(postgres: Cluster) -> AsyncIterator[trio_asyncpg.Connection]:
    """A connection, for tests that leave nothing behind."""
    async with trio_asyncpg.open_connection(postgres.dsn) as connection:
        yield connection


@contextmanager
def frozen(cluster: Cluster) -> Iterator[None]:
    """Stop every process of `cluster` for the block, as a hung disk would."""
    family = [cluster.pid, *children(cluster.pid)]
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in family:
            os.kill(pid, signal.SIGCONT)


def children(pid: int) -> list[int]:
    """The processes that `pid` started and that still run."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]


async def until(condition: Callable[[], object], *, seconds: float = 20.0) -> None:
    """Wait until `condition()` holds; fail the test when it takes longer."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110  # what is waited for happens in another process
            await trio.sleep(0.005)


@asynccontextmanager
async def relay(path: Path | str) -> AsyncIterator[int]:
    """A TCP port of this machine that leads to the unix socket at `path`."""

    async def carry(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
        try:
            async for data in source:
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        await sink.aclose()

    async def serve(client: trio.SocketStream) -> None:
        async with await trio.open_unix_socket(path) as server, trio.open_nursery() as nursery:
            nursery.start_soon(carry, client, server, name="to the server")
            nursery.start_soon(carry, server, client, name="to the client")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel(reason="the test is over")


@asynccontextmanager
async def open_tasks() -> AsyncIterator[Tasks]:
    """The tasks that serve connections, for tests below the public API."""
    async with trio.open_nursery() as nursery:
        tasks = Tasks(nursery)
        try:
            yield tasks
        finally:
            tasks.close()
