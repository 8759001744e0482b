"""Ways to a server: hosts, sockets, passwords, TLS."""

import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import trio

from regsvc import trio_asyncpg
from regsvc.store.embedded import Cluster
from regsvc.trio_asyncpg import hosts
from tests.postgres import psql
from tests.trio_asyncpg.conftest import open_tasks, relay

WHO = "SELECT current_user"


def socket_of(server: Cluster) -> Path:
    return server.folder / ".s.PGSQL.5432"


def over(server: Cluster, *ports: int, user: str = "regsvc", **query: str) -> str:
    """A DSN that leads to `server` by TCP `ports` of this machine."""
    words = "&".join(f"{name}={value}" for name, value in ({"sslmode": "disable"} | query).items())
    return f"postgresql://{user}@{','.join(f'127.0.0.1:{port}' for port in ports)}/regsvc?{words}"


async def ask(dsn: str, query: str = WHO, **knobs: Any) -> Any:
    async with trio_asyncpg.open_connection(dsn, **knobs) as connection:
        return await connection.fetchval(query)


@asynccontextmanager
async def closed_port() -> AsyncIterator[int]:
    """A port that nobody listens to, held for the block."""
    with trio.socket.socket() as sock:
        await sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@asynccontextmanager
async def silent_port() -> AsyncIterator[int]:
    """A port that takes connections and says nothing."""
    with trio.socket.socket() as sock:
        await sock.bind(("127.0.0.1", 0))
        sock.listen(16)
        yield sock.getsockname()[1]


async def test_by_unix_socket_and_by_tcp(server: Cluster) -> None:
    assert await ask(server.dsn) == "regsvc"
    async with relay(socket_of(server)) as port:
        assert await ask(over(server, port)) == "regsvc"


@pytest.mark.parametrize("kind", ["md5", "scram", "password"])
async def test_a_password_of_each_kind(server: Cluster, kind: str) -> None:
    async with relay(socket_of(server)) as port:
        assert await ask(over(server, port, user=f"wants_{kind}:correct")) == f"wants_{kind}"
        with pytest.raises(asyncpg.InvalidPasswordError):
            await ask(over(server, port, user=f"wants_{kind}:wrong"))


async def test_a_password_file(server: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passfile = tmp_path / "pgpass"
    passfile.write_text("*:*:*:wants_scram:correct\n", "utf-8")
    passfile.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(passfile))
    async with relay(socket_of(server)) as port:
        assert await ask(over(server, port, user="wants_scram")) == "wants_scram"


async def test_the_servers_refusal_is_said_as_it_is(server: Cluster) -> None:
    async with relay(socket_of(server)) as port:
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await ask(over(server, port, user="nobody_gets_in"))
        with pytest.raises(asyncpg.InvalidCatalogNameError):
            await ask(over(server, port).replace("/regsvc?", "/nowhere?"))


async def test_a_dsn_that_makes_no_sense_is_refused() -> None:
    for dsn in ("mysql://localhost/x", "postgresql://localhost/x?sslmode=sometimes"):
        with pytest.raises((asyncpg.InterfaceError, ValueError)):
            await ask(dsn)


async def test_hosts_are_tried_in_order_past_those_that_are_down_or_silent(server: Cluster) -> None:
    async with relay(socket_of(server)) as port, closed_port() as closed, silent_port() as silent:
        assert await ask(over(server, closed, silent, port), connect_timeout=1.0) == "regsvc"
        with pytest.raises(ConnectionRefusedError, match=f"127.0.0.1:{closed}: "):
            await ask(over(server, closed, closed))
        with pytest.raises(TimeoutError, match=f"127.0.0.1:{silent} did not answer within 0.1 s"):
            await ask(over(server, closed, silent), connect_timeout=0.1)
        with pytest.raises(asyncpg.InvalidPasswordError):  # a wrong password is not for the next host to judge
            await ask(over(server, port, port, user="wants_scram:wrong"))


async def test_a_host_that_starts_up_is_passed_over_and_one_that_hangs_up_is_told(server: Cluster) -> None:
    said = b"SFATAL\0C57P03\0Mthe database system is starting up\0\0"

    async def starting(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"E" + struct.pack("!i", len(said) + 4) + said)

    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.receive_some()

    async with relay(socket_of(server)) as port, serving(starting) as first, serving(hang_up) as second:
        assert await ask(over(server, first, second, port)) == "regsvc"
        with pytest.raises(asyncpg.CannotConnectNowError):
            await ask(over(server, first))
        with pytest.raises(trio_asyncpg.ConnectionLost):
            await ask(over(server, second))


@asynccontextmanager
async def serving(handler: Callable[[trio.SocketStream], Any]) -> AsyncIterator[int]:
    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await handler(stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel(reason="the test is over")


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ("any", "regsvc"),
        ("primary", "regsvc"),
        ("read-write", "regsvc"),
        ("prefer-standby", "regsvc"),
        ("standby", None),
        ("read-only", None),
    ],
)
async def test_a_primary_is_taken_or_left(server: Cluster, wanted: str, chosen: str | None) -> None:
    async with relay(socket_of(server)) as port:
        dsn = over(server, port, port, target_session_attrs=wanted)
        if chosen is not None:
            assert await ask(dsn) == chosen
        else:
            with pytest.raises(asyncpg.TargetServerAttributeNotMatched):
                await ask(dsn)


@pytest.fixture
def reader(postgres: Cluster) -> Iterator[str]:
    """A role that may write here, and whose transactions are read-only on `server`."""
    psql(postgres, "CREATE ROLE reader LOGIN")
    yield "reader"
    psql(postgres, "DROP ROLE reader")


async def test_the_host_that_fits_is_taken(server: Cluster, postgres: Cluster, reader: str) -> None:
    where = "SELECT setting FROM pg_settings WHERE name = 'default_transaction_read_only'"
    async with relay(socket_of(server)) as locked, relay(socket_of(postgres)) as free:
        for wanted, shown in (("read-write", "off"), ("read-only", "on")):
            for ports in ((locked, free), (free, locked)):
                dsn = over(server, *ports, user=reader, target_session_attrs=wanted)
                assert await ask(dsn, where) == shown


class NoNames(trio.abc.HostnameResolver):
    """Knows no name."""

    async def getaddrinfo(self, *_: object, **__: object) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    async def getnameinfo(self, *_: object) -> Any:
        raise AssertionError


async def test_a_host_without_an_address() -> None:
    trio.socket.set_custom_hostname_resolver(NoNames())
    with pytest.raises(socket.gaierror, match="no such name"):
        await ask("postgresql://x@nowhere.test/x?sslmode=disable")


async def test_a_host_that_refuses_at_each_of_its_addresses(server: Cluster) -> None:
    async with closed_port() as port:
        with pytest.raises(ConnectionRefusedError, match=f"localhost:{port}: "):
            await ask(over(server, port).replace("127.0.0.1", "localhost"))


async def test_init_prepares_a_single_connection_too(server: Cluster) -> None:
    async def init(connection: trio_asyncpg.Connection) -> None:
        await connection.execute("SET application_name = 'prepared'")

    assert await ask(server.dsn, "SHOW application_name", init=init) == "prepared"


async def test_a_password_from_a_function(server: Cluster) -> None:
    async def fetched() -> str:
        await trio.lowlevel.checkpoint()
        return "correct"

    async with relay(socket_of(server)) as port, open_tasks() as tasks:
        target = hosts.read_target(
            over(server, port, user="wants_scram"),
            timeout=2,
            command_timeout=None,
            statement_cache_size=0,
            server_settings={"application_name": "by function"},
            ssl_context=None,
        )
        for password in (fetched, lambda: "correct"):
            asking = replace(target, parameters=target.parameters._replace(password=password))
            connection = await hosts.connect(asking, tasks)
            assert await connection.fetchval("SHOW application_name") == "by function"
            connection.terminate()
