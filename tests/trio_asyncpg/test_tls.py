"""TLS by sslmode. The wheel's PostgreSQL has none, so a relay of ours speaks it in front of one."""

import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
import trio
import trustme

from regsvc import trio_asyncpg
from regsvc.store.embedded import Cluster
from tests.trio_asyncpg.conftest import until
from tests.trio_asyncpg.test_connect import ask, over, serving, socket_of

AUTHORITY = trustme.CA()
STRANGER = trustme.CA()


def identity(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


class TlsRelay:
    """Answers SSLRequest as PostgreSQL does, and speaks to `server` for who got through.

    Without `context` it refuses TLS; without `plain` it takes nothing else, as `hostssl` does; `broken` is its TLS.
    """

    def __init__(
        self, server: Cluster, context: ssl.SSLContext | None, *, plain: bool, direct: bool, broken: bool
    ) -> None:
        self.server, self.context, self.plain, self.direct, self.broken = server, context, plain, direct, broken
        self.used: list[bool] = []  # for each session, whether it was over TLS

    async def serve(self, client: trio.SocketStream) -> None:
        try:
            stream, first = await self.negotiated(client)
            if stream is None:
                return
            first += await stream.receive_some()
            self.used.append(isinstance(stream, trio.SSLStream))
            if self.used[-1] or self.plain:
                await self.speak(stream, first)
            else:
                said = b"SFATAL\0C28000\0Mno pg_hba.conf entry, no encryption\0\0"
                await stream.send_all(b"E" + struct.pack("!i", len(said) + 4) + said)
                await stream.aclose()
        except (trio.BrokenResourceError, ssl.SSLError):
            pass

    async def negotiated(self, client: trio.SocketStream) -> tuple[trio.abc.Stream | None, bytes]:
        """The stream to speak by, and what was read from it already; None when it broke off."""
        first = b"" if self.direct else await client.receive_some(8)
        if not self.direct:
            if first != struct.pack("!ll", 8, 80877103):
                return client, first
            await client.send_all(b"N" if self.context is None else b"S")
        if self.broken:
            await client.send_all(b"no TLS at all")
            return None, b""
        return client if self.context is None else trio.SSLStream(client, self.context, server_side=True), b""

    async def speak(self, stream: trio.abc.Stream, first: bytes) -> None:
        async with await trio.open_unix_socket(socket_of(self.server)) as inner, trio.open_nursery() as nursery:
            await inner.send_all(first)
            nursery.start_soon(carry, stream, inner, name="to the server")
            nursery.start_soon(carry, inner, stream, name="to the client")


async def carry(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
    try:
        while data := await source.receive_some(65536):
            await sink.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    await trio.aclose_forcefully(sink)


@asynccontextmanager
async def tls_relay(
    server: Cluster,
    context: ssl.SSLContext | None,
    *,
    plain: bool = True,
    direct: bool = False,
    broken: bool = False,
) -> AsyncIterator[tuple[int, list[bool]]]:
    """The port of a TlsRelay, and for each session whether it was over TLS."""
    relay = TlsRelay(server, context, plain=plain, direct=direct, broken=broken)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, relay.serve, 0)
        yield listeners[0].socket.getsockname()[1], relay.used
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
    offers: bool,  # noqa: FBT001  # pytest's way
    plain: bool,  # noqa: FBT001  # pytest's way
    outcome: Any,  # pytest's way
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
            await until(lambda: not pool.statistics().recovering)
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


async def test_prefer_goes_without_a_tls_that_is_broken_and_require_does_not(server: Cluster) -> None:
    async with tls_relay(server, identity(STRANGER, "elsewhere.test"), broken=True) as (port, used):
        assert await ask(over(server, port, sslmode="prefer")) == "regsvc"
        assert used == [False]
        with pytest.raises(ssl.SSLError):
            await ask(over(server, port, sslmode="require"))
