"""Reaching a server: addresses, sockets, TLS, the startup exchange, and the CancelRequest.

asyncpg reads the DSN, the environment, the password and service files, and speaks the startup exchange; the sockets and
the order of the attempts are ours. Rules, as in libpq:

1. Hosts are tried in order. One that cannot be reached, is starting up or shutting down, or does not fit
   `target_session_attrs`, is passed over; any other refusal (a wrong password) ends the search.
2. `sslmode=allow` tries without TLS first, `prefer` with TLS first, and each then the other way; all others try once.
3. The timeout is for each host, so that a dead first one leaves time for the second.
"""

import inspect
import random
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import trio
from asyncpg import Record, TargetServerAttributeNotMatched, exceptions

from regsvc.trio_asyncpg import internals
from regsvc.trio_asyncpg.bridge import Future, Loop, Tasks
from regsvc.trio_asyncpg.connection import Connection
from regsvc.trio_asyncpg.errors import ConnectionLost
from regsvc.trio_asyncpg.internals import SSLMode, SSLNegotiation
from regsvc.trio_asyncpg.protocol import Protocol
from regsvc.trio_asyncpg.transport import Tls, Transport

Address: TypeAlias = str | tuple[str, int]  # the path of a unix socket, or host and port
CANCEL_REQUEST: Final = 80877102  # PostgreSQL protocol, message CancelRequest
SSL_REQUEST: Final = 80877103  # PostgreSQL protocol, message SSLRequest
KEEPALIVE: Final = [  # seconds, seconds, times: a dead path is noticed in a minute
    (getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)  # not on every system
]


@dataclass(frozen=True, slots=True)
class Target:
    """Where and how to connect, as read from a DSN and its environment."""

    addresses: tuple[Address, ...]
    parameters: Any
    configuration: Any
    timeout: float


class _OtherWayError(Exception):
    """The first of two ways (with and without TLS) failed, and the second is worth a try."""


class _NextHostError(Exception):
    """This host cannot serve now; its cause is what the host said."""


def read_target(
    dsn: str,
    *,
    timeout: float,
    command_timeout: float | None,
    statement_cache_size: int,
    server_settings: dict[str, str] | None,
    ssl_context: ssl.SSLContext | None,
) -> Target:
    """Read a DSN and the environment (PGPASSFILE, PGSSLMODE, …); raises ValueError or asyncpg's InterfaceError.

    Reads small files (password, service, certificates) and so blocks for a moment.
    """
    internals.let_wait()
    words = "host port user password passfile database direct_tls target_session_attrs krbsrvname gsslib"
    absent: dict[str, Any] = dict.fromkeys([*words.split(), "service", "servicefile"])  # the DSN says it, or nobody
    addresses, parameters, configuration = internals.parse_connect_arguments(
        dsn=dsn,
        command_timeout=command_timeout,
        statement_cache_size=statement_cache_size,
        max_cached_statement_lifetime=0,  # the cache is bounded by its size, and a connection by its own lifetime
        max_cacheable_statement_size=1024 * 15,
        ssl=ssl_context,
        server_settings=server_settings,
        **absent,
    )
    return Target(tuple(addresses), parameters, configuration, timeout)


async def connect(target: Target, tasks: Tasks) -> Connection:
    """Return a connection to the first host that will do.

    Errors: what the last host said: OSError (TimeoutError among them), or asyncpg's; TargetServerAttributeNotMatched
    when hosts were reached but none fits. Cancelled: nothing is left behind.
    """
    wanted = target.parameters.target_session_attrs
    spare: list[Connection] = []
    chosen: Connection | None = None
    failure: Exception | None = None
    try:
        for address in target.addresses:
            try:
                with trio.fail_after(target.timeout):
                    connection = await _connect_host(address, target, tasks)
                    spare.append(connection)
                    if await internals.can_use_connection(connection, wanted):
                        chosen = connection
                        break
            except trio.TooSlowError:
                failure = TimeoutError(f"{_name(address)} did not answer within {target.timeout} s")
            except _NextHostError as exc:
                failure = exc.__cause__ if isinstance(exc.__cause__, Exception) else exc
            except OSError as exc:
                failure = exc
        else:
            if wanted is internals.SessionAttribute.prefer_standby and spare:
                chosen = random.choice(spare)  # noqa: S311  # spreads load, guards nothing
    finally:
        for connection in spare:
            if connection is not chosen:
                connection.terminate()
    if chosen is None:
        raise failure or TargetServerAttributeNotMatched(f"none of the hosts is {wanted.value!r}")
    return chosen


async def _connect_host(address: Address, target: Target, tasks: Tasks) -> Connection:
    parameters = target.parameters
    if callable(parameters.password):
        password = parameters.password()
        parameters = parameters._replace(password=await password if inspect.isawaitable(password) else password)
    plain = parameters._replace(ssl=None)
    ways = [parameters]
    if isinstance(address, tuple) and parameters.sslmode is SSLMode.allow:
        ways = [plain, parameters]
    elif isinstance(address, tuple) and parameters.sslmode is SSLMode.prefer:
        ways = [parameters, plain]
    first: BaseException | None = None
    for way in ways[:-1]:
        try:
            return await _start(address, way, target, tasks, last=False)
        except _OtherWayError as exc:
            first = exc.__cause__
    try:
        return await _start(address, ways[-1], target, tasks, last=True)
    except exceptions.InvalidAuthorizationSpecificationError as exc:
        # "no pg_hba.conf entry" of the second way must not hide the wrong password of the first.
        if isinstance(first, exceptions.InvalidPasswordError) and type(exc) is not exceptions.InvalidPasswordError:
            raise first from None
        raise exc from first


async def _start(address: Address, parameters: Any, target: Target, tasks: Tasks, *, last: bool) -> Connection:
    """Open the socket, shake hands, and run the startup exchange up to ReadyForQuery."""
    try:
        sock, tls = await _open_socket(address, parameters)
    except ssl.SSLError as exc:
        if last or parameters.sslmode is not SSLMode.prefer:
            raise
        raise _OtherWayError from exc
    name = _name(address)
    transport = Transport(sock, tasks, name=name, tls=tls)
    connected = Future()
    loop = Loop(tasks)
    protocol = Protocol(address, connected, parameters, Record, loop)
    protocol.wire = transport
    try:
        tasks.spawn(transport.pump, protocol, name=f"trio_asyncpg reader {name}")
        protocol.connection_made(transport)
        protocol.is_ssl = tls is not None
        await connected
    except (exceptions.PostgresError, ConnectionLost) as exc:
        transport.abort()
        if not protocol._auth_received:  # noqa: SLF001  # listed in internals
            if isinstance(exc, exceptions.CannotConnectNowError):
                raise _NextHostError from exc
            if not last:
                raise _OtherWayError from exc
        raise
    except BaseException:
        transport.abort()
        raise
    connection = Connection(protocol, transport, loop, address, target.configuration, parameters)
    protocol.set_connection(connection)
    connection.cancel_request = _cancel_request(address, parameters, connection)
    return connection


async def _open_socket(address: Address, parameters: Any) -> tuple[socket.socket, Tls | None]:
    sock = await _open_plain(address)
    try:
        tls = await _negotiate(sock, address, parameters) if isinstance(address, tuple) and parameters.ssl else None
    except BaseException:
        sock.close()
        raise
    plain = socket.socket(fileno=sock.detach())
    plain.setblocking(False)  # noqa: FBT003  # its only form
    return plain, tls


async def _open_plain(address: Address) -> trio.socket.SocketType:
    if isinstance(address, tuple):
        try:
            sock = (await trio.open_tcp_stream(*address)).socket
        except OSError as exc:
            raise _plainly(exc, address) from exc.__cause__
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        return sock
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        await sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _plainly(error: OSError, address: Address) -> OSError:
    """Say what kept us from `address` by its own kind, where Trio says that all attempts failed."""
    cause: BaseException | None = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if isinstance(cause, OSError) and cause.errno is not None:
        return OSError(cause.errno, f"{_name(address)}: {cause.strerror}")
    return error


async def _negotiate(sock: trio.socket.SocketType, address: tuple[str, int], parameters: Any) -> Tls | None:
    """Ask for TLS and start it; None where the server has none and `sslmode` can do without."""
    if parameters.ssl_negotiation is not SSLNegotiation.direct:
        await sock.send(struct.pack("!ll", 8, SSL_REQUEST))
        # One octet and no more: what else lies in the buffer was sent before TLS, by anyone (CVE-2021-23222).
        answer = await sock.recv(1)
        if answer == b"N" and parameters.sslmode is SSLMode.prefer:
            return None
        if answer != b"S":
            # An error text of this moment is not authenticated either (CVE-2024-10977), so it is not shown.
            raise ConnectionError(f"the server at {_name(address)} refuses TLS")
    tls = Tls(parameters.ssl, address[0])
    await tls.handshake(sock)
    return tls


def _cancel_request(address: Address, parameters: Any, connection: Connection) -> Callable[[], Any]:
    key = struct.pack("!llll", 16, CANCEL_REQUEST, *connection.backend_key())

    async def send() -> None:
        """Ask the server to cancel what the connection runs; it has been asked when this returns."""
        sock, tls = await _open_socket(address, parameters)
        with trio.socket.from_stdlib_socket(sock) as wire:
            await wire.send(tls.encrypt(key) if tls is not None else key)
            # The server signals the backend, then hangs up: with a reset, at times.
            with suppress(ConnectionResetError):
                await wire.recv(1)

    return send


def _name(address: Address) -> str:
    return address if isinstance(address, str) else f"{address[0]}:{address[1]}"
