"""A connected socket as asyncpg's protocol wants it: `write` at once, `data_received` as bytes come.

Written by hand because a `trio.abc.Stream` cannot do it: the protocol writes from synchronous code and never waits. So
`write` sends what the kernel takes and queues the rest, for a task to send; who can wait waits for `drained`.
"""

import socket
import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, Protocol

import trio

from regsvc.trio_asyncpg.bridge import LOG, Tasks

CHUNK: Final = (
    65536  # octets asked of the kernel at once; below malloc's mmap threshold, as a bytes object is made of it
)
HIGH_WATER: Final = 65536  # octets queued above which who can wait should; asyncio's default


class Receiver(Protocol):
    """The protocol's side of a transport."""

    def data_received(self, data: bytes) -> None:
        """Take what the server sent."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Learn that no more will come."""


class Tls:
    """TLS over memory buffers: a `trio.SSLStream` cannot write from synchronous code."""

    __slots__ = ("_incoming", "_outgoing", "object")

    def __init__(self, context: ssl.SSLContext, hostname: str) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname)

    async def handshake(self, sock: trio.socket.SocketType) -> None:
        """Shake hands over `sock`; raises ssl.SSLError, or ConnectionError when the server hangs up."""
        while self._hears_more():
            await _send_all(sock, self._outgoing.read())
            data = await sock.recv(CHUNK)
            if not data:
                raise ConnectionError("the server closed the connection during the TLS handshake")
            self._incoming.write(data)
        await _send_all(sock, self._outgoing.read())

    def _hears_more(self) -> bool:
        """Go on with the handshake; whether it needs more from the server."""
        try:
            self.object.do_handshake()
        except ssl.SSLWantReadError:
            return True
        return False

    def encrypt(self, data: bytes | memoryview) -> bytes:
        """Return the records to send for `data`, and whatever TLS itself has to say."""
        if data:
            self.object.write(data)
        return self._outgoing.read()

    def decrypt(self, data: bytes) -> tuple[list[bytes], bool]:
        """Return what `data` says, and whether that was the end."""
        self._incoming.write(data)
        plain = []
        try:
            while chunk := self.object.read(CHUNK):
                plain.append(chunk)
        except ssl.SSLWantReadError:
            return plain, False
        return plain, True


async def _send_all(sock: trio.socket.SocketType, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[await sock.send(rest) :]


class Transport:
    """One connection's socket; what asyncpg takes for an `asyncio.Transport`.

    `pump` reads until the end and has to run in a task of the loop. `abort` ends everything, at once and from anywhere.
    """

    __slots__ = ("_closed", "_drained", "_error", "_queue", "_resumed", "_socket", "_tasks", "name", "tls")

    def __init__(self, sock: socket.socket, tasks: Tasks, *, name: str, tls: Tls | None = None) -> None:
        self._socket = sock
        self._tasks = tasks
        self.name = name
        self.tls = tls
        self._queue = bytearray()
        self._closed = False
        self._error: OSError | None = None
        self._resumed: trio.Event | None = None
        self._drained: trio.Event | None = None

    # What the protocol calls.

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the socket or the TLS object; asyncpg asks for no more."""
        if name == "socket":
            return self._socket
        if name == "ssl_object" and self.tls is not None:
            return self.tls.object
        return default

    def write(self, data: bytes | memoryview) -> None:
        """Send what the kernel takes now, queue the rest. A closed transport takes it and forgets it."""
        if self._closed:
            return
        if self.tls is not None:
            data = self.tls.encrypt(data)
            if not data:
                return
        if self._queue:
            self._queue += data
            return
        sent = self._send(data)
        if sent < len(data):
            self._queue += data[sent:]
            self._tasks.spawn(self._flush, name=f"trio_asyncpg writer {self.name}")

    def writelines(self, buffers: Iterable[bytes | memoryview]) -> None:
        """Send several buffers as one."""
        self.write(b"".join(buffers))

    def pause_reading(self) -> None:
        """Let the server wait: its rows go to a sink that is slower."""
        if self._resumed is None:
            self._resumed = trio.Event()

    def resume_reading(self) -> None:
        """Read on."""
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None

    def is_closing(self) -> bool:
        """Whether the transport is of no more use."""
        return self._closed

    def abort(self) -> None:
        """Close the socket; what the kernel has taken is still delivered. The reader and the writer end."""
        if not self._closed:
            self._closed = True
            self._queue.clear()
            self.resume_reading()
            self._set_drained()
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    close = abort

    # What our own side calls.

    def looks_alive(self) -> bool:
        """Say whether the socket is still open and silent, with one system call: for a connection that lay idle."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        return False

    def is_full(self) -> bool:
        """Whether more is queued than who can wait should add to."""
        return len(self._queue) > HIGH_WATER

    async def drained(self) -> None:
        """Wait until the queue is below its mark, or the transport closed."""
        while self.is_full() and not self._closed:
            if self._drained is None:
                self._drained = trio.Event()
            await self._drained.wait()

    async def pump(self, receiver: Receiver) -> None:
        """Hand over what comes until the end, then tell why; cancellation closes the socket."""
        error: Exception | None = None
        try:
            await self._read(receiver.data_received)
        except trio.ClosedResourceError:
            error = self._error
        except OSError as exc:
            error = self._error or exc
        except Exception as exc:  # noqa: BLE001  # of the protocol: it is logged, and ends this connection only
            LOG.exception("asyncpg could not read what the server sent")
            error = exc
        finally:
            self.abort()
            receiver.connection_lost(error)

    async def _read(self, data_received: Callable[[bytes], None]) -> None:
        sock = self._socket
        wait_readable = trio.lowlevel.wait_readable
        while True:
            if self._resumed is not None:
                await self._resumed.wait()
            if self._closed:  # by what was just received, or while paused
                raise trio.ClosedResourceError
            await wait_readable(sock)
            if self._resumed is not None:
                continue
            try:
                data = sock.recv(CHUNK)
            except (BlockingIOError, InterruptedError):
                continue
            if not data:
                return
            if self.tls is None:
                data_received(data)
            elif self._decrypt(data, data_received):
                return

    def _decrypt(self, data: bytes, data_received: Callable[[bytes], None]) -> bool:
        assert self.tls is not None  # noqa: S101  # for the type checker; asked by the caller
        plain, ended = self.tls.decrypt(data)
        for chunk in plain:
            data_received(chunk)
        if not ended:
            self.write(b"")  # TLS itself may have an answer to what came
        return ended

    def _send(self, data: bytes | bytearray | memoryview) -> int:
        """Give the kernel what it takes; all is as good as taken once sending fails."""
        try:
            return self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as exc:
            self._error = exc  # the reader is about to see the end too, after the server's last words
            return len(data)

    async def _flush(self) -> None:
        with suppress(trio.ClosedResourceError):
            while self._queue:
                await trio.lowlevel.wait_writable(self._socket)
                del self._queue[: self._send(self._queue)]
                if not self.is_full():
                    self._set_drained()

    def _set_drained(self) -> None:
        if self._drained is not None:
            self._drained.set()
            self._drained = None
