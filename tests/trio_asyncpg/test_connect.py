"""Ways to a server: hosts, sockets, passwords, TLS."""

import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import trio
import trustme

from regsvc import trio_asyncpg
from regsvc.store.embedded import Cluster
from regsvc.trio_asyncpg import bridge, hosts
from tests.trio_asyncpg.conftest import relay

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
        assert await ask(over(server, closed, silent, port), connect_timeout=0.2) == "regsvc"
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


async def test_the_host_that_fits_is_taken(server: Cluster, postgres: Cluster) -> None:
    async with trio_asyncpg.open_connection(postgres.dsn) as connection:
        await connection.execute("CREATE ROLE reader LOGIN")
    where = "SELECT setting FROM pg_settings WHERE name = 'default_transaction_read_only'"
    try:
        async with relay(socket_of(server)) as locked, relay(socket_of(postgres)) as free:
            for wanted, shown in (("read-write", "off"), ("read-only", "on")):
                for ports in ((locked, free), (free, locked)):
                    dsn = over(server, *ports, user="reader", target_session_attrs=wanted)
                    assert await ask(dsn, where) == shown
    finally:
        async with trio_asyncpg.open_connection(postgres.dsn) as connection:
            await connection.execute("DROP ROLE reader")


# TLS: the wheel's PostgreSQL has none, so a relay of ours speaks it in front.

AUTHORITY = trustme.CA()
STRANGER = trustme.CA()


def identity(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


@asynccontextmanager
async def tls_relay(
    server: Cluster, context: ssl.SSLContext | None, *, plain: bool = True, direct: bool = False, broken: bool = False
) -> AsyncIterator[tuple[int, list[bool]]]:
    """A port that answers SSLRequest as PostgreSQL does; the list says for each session whether TLS was used.

    Without `context` it refuses TLS; without `plain` it takes nothing else, as `hostssl` does.
    """
    used: list[bool] = []

    async def serve(client: trio.SocketStream) -> None:
        stream: trio.abc.Stream = client
        first = b""
        if not direct:
            first = await client.receive_some(8)
        if direct or first == struct.pack("!ll", 8, 80877103):
            if not direct:
                await client.send_all(b"N" if context is None else b"S")
            if broken:
                await client.send_all(b"no TLS at all")
                return
            if context is not None:
                stream = trio.SSLStream(client, context, server_side=True)
            first = b""
        over_tls = isinstance(stream, trio.SSLStream)
        try:
            first += await stream.receive_some()
            used.append(over_tls)
            if not over_tls and not plain:
                said = b"SFATAL\0C28000\0Mno pg_hba.conf entry, no encryption\0\0"
                await stream.send_all(b"E" + struct.pack("!i", len(said) + 4) + said)
                await stream.aclose()
                return
            async with await trio.open_unix_socket(socket_of(server)) as inner, trio.open_nursery() as nursery:
                await inner.send_all(first)
                nursery.start_soon(carry, stream, inner, name="to the server")
                nursery.start_soon(carry, inner, stream, name="to the client")
        except (trio.BrokenResourceError, ssl.SSLError):
            pass

    async def carry(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
        try:
            while data := await source.receive_some(65536):
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        await trio.aclose_forcefully(sink)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        yield listeners[0].socket.getsockname()[1], used
        nursery.cancel_scope.cancel(reason="the test is over")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("tls") / "root.pem"
    AUTHORITY.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.mark.parametrize(
    ("mode", "offers", "plain", "outcome"),
    [
        ("disable", True, True, False),
        ("disable", True, False, asyncpg.InvalidAuthorizationSpecificationError),
        ("allow", True, True, False),
        ("allow", True, False, True),
        ("allow", False, False, ConnectionError),
        ("prefer", True, True, True),
        ("prefer", False, True, False),
        ("require", True, True, True),
        ("require", False, True, ConnectionError),
    ],
)
async def test_sslmode_decides_whether_tls_is_used(
    server: Cluster,
    mode: str,
    offers: bool,
    plain: bool,
    outcome: Any,  # noqa: FBT001  # pytest's way
) -> None:
    context = identity(STRANGER, "elsewhere.test") if offers else None
    async with tls_relay(server, context, plain=plain) as (port, used):
        dsn = over(server, port, sslmode=mode)
        if isinstance(outcome, bool):
            assert await ask(dsn) == "regsvc"
            assert used[-1] is outcome
        else:
            with pytest.raises(outcome):
                await ask(dsn)


@pytest.mark.parametrize(
    ("mode", "authority", "name", "well"),
    [
        ("verify-ca", AUTHORITY, "elsewhere.test", True),
        ("verify-ca", STRANGER, "127.0.0.1", False),
        ("verify-full", AUTHORITY, "127.0.0.1", True),
        ("verify-full", AUTHORITY, "elsewhere.test", False),
        ("verify-full", STRANGER, "127.0.0.1", False),
    ],
)
async def test_sslmode_decides_what_is_verified(
    server: Cluster,
    root: str,
    mode: str,
    authority: trustme.CA,
    name: str,
    well: bool,  # noqa: FBT001  # pytest's way
) -> None:
    async with tls_relay(server, identity(authority, name)) as (port, used):
        dsn = over(server, port, sslmode=mode, sslrootcert=root)
        if well:
            assert await ask(dsn) == "regsvc"
            assert used == [True]
        else:
            with pytest.raises(ssl.SSLCertVerificationError):
                await ask(dsn)


async def test_over_tls_everything_works_as_without(server: Cluster, root: str) -> None:
    large = "x" * 3_000_000
    async with tls_relay(server, identity(AUTHORITY, "127.0.0.1")) as (port, used):
        dsn = over(server, port, sslmode="verify-full", sslrootcert=root)
        async with trio_asyncpg.open_pool(dsn, max_size=2) as pool:
            assert await pool.fetchval("SELECT $1::text", large) == large
            with trio.move_on_after(0.1) as scope:
                await pool.execute("SELECT pg_sleep(30)")
            assert scope.cancelled_caught
            with trio.fail_after(3):
                while pool.statistics().recovering:
                    await trio.sleep(0.005)
            assert pool.statistics().recovered == 1
        assert all(used)  # the CancelRequest too


async def test_tls_from_the_first_octet(server: Cluster, root: str) -> None:
    context = identity(AUTHORITY, "127.0.0.1")
    context.set_alpn_protocols(["postgresql"])
    async with tls_relay(server, context, direct=True) as (port, used):
        dsn = over(server, port, sslmode="verify-full", sslrootcert=root, sslnegotiation="direct")
        assert await ask(dsn) == "regsvc"
        assert used == [True]


async def test_a_context_of_ones_own(server: Cluster) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    AUTHORITY.configure_trust(context)
    async with tls_relay(server, identity(AUTHORITY, "127.0.0.1")) as (port, used):
        dsn = over(server, port).replace("?sslmode=disable", "")
        assert await ask(dsn, ssl_context=context) == "regsvc"
        assert used == [True]


@pytest.mark.parametrize(
    ("answer", "error"),
    [(b"E", "refuses TLS"), (b"", "refuses TLS"), (b"SSS", "."), (b"S", "closed the connection|reset by peer")],
    ids=["error", "hangs up", "speaks before the handshake", "hangs up in the handshake"],
)
async def test_a_server_that_answers_strangely_is_refused(server: Cluster, answer: bytes, error: str) -> None:
    async def strange(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)
        if answer == b"SSS":
            await stream.receive_some()

    async with serving(strange) as port:
        with pytest.raises(OSError, match=error):
            await ask(over(server, port, sslmode="require"), connect_timeout=1)


async def test_a_wrong_password_over_tls_is_not_hidden_by_the_second_way(server: Cluster) -> None:
    async with tls_relay(server, identity(STRANGER, "elsewhere.test"), plain=False) as (port, used):
        with pytest.raises(asyncpg.InvalidPasswordError):
            await ask(over(server, port, user="wants_scram:wrong", sslmode="prefer"))
        assert used == [True, False]


@asynccontextmanager
async def tasks_of_a_test() -> AsyncIterator[bridge.Tasks]:
    async with trio.open_nursery() as nursery:
        tasks = bridge.Tasks(nursery)
        try:
            yield tasks
        finally:
            tasks.close()


async def test_prefer_goes_without_a_tls_that_is_broken_and_require_does_not(server: Cluster) -> None:
    async with tls_relay(server, identity(STRANGER, "elsewhere.test"), broken=True) as (port, used):
        assert await ask(over(server, port, sslmode="prefer")) == "regsvc"
        assert used == [False]
        with pytest.raises(ssl.SSLError):
            await ask(over(server, port, sslmode="require"))


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

    async with relay(socket_of(server)) as port, tasks_of_a_test() as tasks:
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
