"""HTTP/1.1 as a load generator speaks it: what it spends is taken from the service, where both share a machine.

By hand for that reason alone: httpx takes two milliseconds a request, as long as the service takes to answer, and even
Trio's own streams pass the scheduler twice where once will do. It sends what it was given, reads status, length and
body, and looks at nothing else.
"""

import errno
import os
import re
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import trio

from regsvc.cli.bench.target import Target

HEAD_MAX: Final = 1 << 16  # octets
BODY_MAX: Final = 1 << 24
READ: Final = 1 << 16  # octets at once
IDLE: Final = 1.0  # seconds after which a connection is looked at before it is used: servers close those
_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: *(\d{1,9}) *\r\n")
_CHUNKED: Final = re.compile(rb"(?i)\r\ntransfer-encoding: *chunked *\r\n")
_CLOSE: Final = re.compile(rb"(?i)\r\nconnection: *close *\r\n")
_RETRY_AFTER: Final = re.compile(rb"(?i)\r\nretry-after: *(\d{1,9}) *\r\n")
_NO_BODY: Final = frozenset((204, 304))


class NotHttp(Exception):  # noqa: N818 - it says what is the matter
    """What came is no answer in HTTP/1.1."""


class HungUp(ConnectionError):  # noqa: N818 - as above
    """The connection ended in the middle of an answer, or before it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, head and body."""

    status: int
    head: bytes
    body: bytes

    @property
    def retry_after(self) -> float | None:
        """Seconds after which to ask again, if the service says."""
        found = _RETRY_AFTER.search(self.head)
        return float(found[1]) if found else None


@dataclass(slots=True)
class Line:
    """A connection, for one request at a time. A request that was cancelled leaves it useless: `close` it."""

    sock: socket.socket
    tls: "trio.SSLStream[trio.SocketStream] | None" = None
    used: int = 0  # answers that came over it
    heard: bool = False  # something of the answer that is waited for
    idle_since: float = 0.0
    open: bool = True
    rest: bytes = field(default=b"", repr=False)

    async def ask(self, request: bytes) -> Answer:
        """Send a request and wait for its answer.

        Raises OSError (HungUp among them), trio.BrokenResourceError, NotHttp.
        """
        self.heard = False
        await self._send(request)
        data = self.rest or await self._some()
        self.heard = True
        while (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > HEAD_MAX:
                raise NotHttp("an answer that has no end of its head")
            data += await self._some()
        head = data[: end + 4]
        if not head.startswith(b"HTTP/1.") or not head[9:12].isdigit():
            raise NotHttp(f"this is no answer in HTTP/1.1: {head[:20]!r}")
        status = int(head[9:12])
        body, self.rest = await self._body(status, head, data[end + 4 :])
        self.used += 1
        if _CLOSE.search(head) or head.startswith(b"HTTP/1.0"):
            self.open = False
        return Answer(status, head, body)

    async def _body(self, status: int, head: bytes, data: bytes) -> tuple[bytes, bytes]:
        """Return the body, and what came after it."""
        if length := _LENGTH.search(head):
            whole = int(length[1])
            if whole > BODY_MAX:
                raise NotHttp(f"an answer of {whole} octets")
            while len(data) < whole:
                data += await self._some()
            return data[:whole], data[whole:]
        if _CHUNKED.search(head):
            return await self._chunks(data)
        if status in _NO_BODY:
            return b"", data
        return await self._to_the_end(data), b""

    async def _chunks(self, data: bytes) -> tuple[bytes, bytes]:
        body = b""
        while len(body) <= BODY_MAX:
            while (end := data.find(b"\r\n")) < 0:
                data += await self._some()
            try:
                size = int(data[:end].partition(b";")[0], 16)
            except ValueError:
                raise NotHttp("a chunk without a size") from None
            whole = end + 2 + size + 2
            while len(data) < whole:
                data += await self._some()
            body, data = body + data[end + 2 : whole - 2], data[whole:]
            if not size:
                return body, data
        raise NotHttp("an answer without an end")

    async def _to_the_end(self, data: bytes) -> bytes:
        self.open = False
        while len(data) <= BODY_MAX:
            try:
                data += await self._some()
            except HungUp:
                return data
        raise NotHttp("an answer without an end")

    async def _send(self, request: bytes) -> None:
        if self.tls is not None:
            return await self.tls.send_all(request)
        left = memoryview(request)
        while True:
            with suppress(BlockingIOError):
                left = left[self.sock.send(left) :]
            if not left:
                return None
            await trio.lowlevel.wait_writable(self.sock)

    async def _some(self) -> bytes:
        if self.tls is not None:
            data = bytes(await self.tls.receive_some(READ))
        else:
            await trio.lowlevel.wait_readable(self.sock)
            data = self.sock.recv(READ)
        if not data:
            raise HungUp("the server hung up")
        return data

    def is_stale(self) -> bool:
        """Tell whether the other side has closed it meanwhile, as far as this one heard; costs a system call."""
        if self.tls is not None:
            return False
        try:
            return not self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        """Hang up, without a word."""
        self.open = False
        self.sock.close()


async def connect(to: Target) -> Line:
    """Open a connection. Raises OSError, and trio.BrokenResourceError where TLS fails."""
    sock = socket.socket(to.family, socket.SOCK_STREAM)
    try:
        await _dial(sock, to)
        return Line(sock) if to.tls is None else await _over_tls(sock, to.tls, to.name)
    except BaseException:
        sock.close()
        raise


async def _dial(sock: socket.socket, to: Target) -> None:
    sock.settimeout(0)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    error = sock.connect_ex(to.address)
    if error == errno.EINPROGRESS:
        await trio.lowlevel.wait_writable(sock)
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))  # which makes a ConnectionRefusedError of it, and the like


async def _over_tls(sock: socket.socket, context: ssl.SSLContext, name: str) -> Line:
    stream = trio.SSLStream(
        trio.SocketStream(trio.socket.from_stdlib_socket(sock)), context, server_hostname=name, https_compatible=True
    )
    await stream.do_handshake()
    return Line(sock, stream)


def request(to: Target, method: str, path: str, form: bytes | None = None, *headers: tuple[str, str]) -> bytes:
    """Write a request; `form` is JSON."""
    lines = [f"{method} {to.base}{path} HTTP/1.1", f"Host: {to.host}", "User-Agent: regsvc-bench", "Accept: */*"]
    lines += [f"{name}: {value}" for name, value in headers]
    if form is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(form)}"]
    return "\r\n".join([*lines, "", ""]).encode() + (form or b"")
