"""The contract with asyncpg's internals: when the pin moves, this names what changed."""

import asyncio

import asyncpg
import pytest
import trio
from asyncpg.connect_utils import SSLMode

from regsvc.store.embedded import Cluster
from regsvc.trio_asyncpg import internals


def test_nothing_that_is_leaned_on_has_changed() -> None:
    assert internals.changed() == []


def test_a_change_is_named() -> None:
    protocol, connect = "asyncpg.protocol.protocol:BaseProtocol.", "asyncpg.connect_utils:"
    expected = {
        protocol + "no_such_method": "self",
        protocol + "query": "self, query",
        connect + "SSLMode._member_names_": "disable",
        protocol + "backend_pid": "-",
    }
    assert internals.changed(expected) == [
        f"{protocol}no_such_method: expected (self), found (gone)",
        f"{protocol}query: expected (self, query), found (self, query, timeout)",
        f"{connect}SSLMode._member_names_: expected (disable), found ({' '.join(SSLMode._member_names_)})",
    ]


async def test_asyncpg_under_asyncio_does_not_notice_us(postgres: Cluster) -> None:
    internals.let_wait()

    async def main() -> None:
        connection = await asyncpg.connect(postgres.dsn)
        try:
            await connection.execute("CREATE TEMP TABLE t (a int)")
            await connection.executemany("INSERT INTO t VALUES ($1)", ((n,) for n in range(20_000)), timeout=20)

            async def stall(_: bytes) -> None:
                await asyncio.sleep(30)

            with pytest.raises(TimeoutError):
                await connection.copy_from_table("t", output=stall, timeout=0.05)
        finally:
            await connection.close()  # noqa: ASYNC102  # asyncio, where a cancellation comes once

    await trio.to_thread.run_sync(asyncio.run, main())
