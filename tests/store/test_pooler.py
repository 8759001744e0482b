"""The store behind a pgbouncer that pools transactions: no statement leans on a session."""

import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import trio

from regsvc.domain.account import DAY, Claim, Owner
from regsvc.domain.quota import Level, Limit, Policy, Take
from regsvc.domain.values import Secret
from regsvc.store import Store, open_store, quota
from regsvc.store.migrations import migrate, pending
from tests.postgres import temporary_folder
from tests.store.scenes import activate, form, look, new_id, register, together
from tests.store.test_delivery_settling import mailer
from tests.trio_asyncpg.conftest import relay
from tests.waiting import until_asked

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
CONFIGURATION = """\
[databases]
* = host=127.0.0.1 port={server} user=regsvc
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
"""


@asynccontextmanager
async def pooled(database: str, folder: Path) -> AsyncIterator[str]:
    """The DSN of a database by way of a pgbouncer with three connections to it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # PostgreSQL's socket is for its owner and for us; pgbouncer refuses to be root, and reaches it through us.
    path = parse_qs(urlsplit(database).query)["host"][0] + "/.s.PGSQL.5432"
    async with relay(path) as server:
        with running(folder, CONFIGURATION.format(server=server, port=port)):
            await until_asked(lambda: listening(port))
            yield f"postgresql://regsvc@127.0.0.1:{port}{urlsplit(database).path}"


@contextmanager
def running(folder: Path, configuration: str) -> Iterator[None]:
    """A pgbouncer for the time of the block."""
    (folder / "ini").write_text(configuration, "utf-8")
    folder.chmod(0o755)
    process = subprocess.Popen([PROGRAM or "", "-q", folder / "ini"], user="nobody" if os.getuid() == 0 else None)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


async def listening(port: int) -> bool:
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return False
    await stream.aclose()
    return True


@pytest.mark.skipif(PROGRAM is None, reason="there is no pgbouncer on this machine")
async def test_everything_works_behind_a_pooler_of_transactions(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "PATIENCE", 10)  # a busy machine is not what this is about
    with temporary_folder() as folder:
        async with pooled(database, folder) as dsn:
            await everything(Secret(dsn))


async def everything(dsn: Secret) -> None:
    async with trio.open_nursery() as nursery:
        for n in range(4):
            nursery.start_soon(migrate, dsn, name=f"migrating {n}")
    assert await pending(dsn) == []
    async with open_store(dsn, new_id=new_id, pool_max=8, statement_cache=0) as store:
        events = [form(f"n{n}") for n in range(24)]
        outcomes: list[object] = []

        async def person(number: int) -> None:
            outcomes.append((await register(store, events[number % 24])).outcome)

        await together(24, person)
        assert all(isinstance(outcome, Claim) for outcome in outcomes)
        async with trio.open_nursery() as nursery:
            for n in range(3):
                nursery.start_soon(mailer, store, name=f"mailer {n}")
        for number, event in enumerate(events):
            assert isinstance((await activate(store, event)).outcome, Owner)
            assert (await look(store, f"n{number}"))[0].owner is not None
        await limits(store)
        await store.housekeeping.sweep(100)
        assert await store.probe.migrated()
        assert (await store.mailbag.counts()).ready == 0


async def limits(store: Store) -> None:
    """Of takes at once as many are allowed as there is room for, whichever connections they get."""
    takes = [Take(Policy(Limit.LOGIN, most, DAY), f"{most}") for most in (5, 7)]
    levels: list[Level] = []

    async def job(_: int) -> None:
        levels.extend(await store.quotas.take(takes))

    await together(12, job)
    assert sum(level.allowed for level in levels) == 12
    await store.quotas.give_back(takes)
    assert [level.allowed for level in await store.quotas.take(takes)] == [True, True]
