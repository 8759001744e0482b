"""A way between two programs that can be broken: a TCP proxy on Trio that refuses, cuts, stalls, drips and delays.

Rule 1. A fault is set from outside and holds for all connections at once, old and new, until another is set.
Rule 2. Octets are passed on or not; none is changed, and none comes after one that did not.
Rule 3. Counting of octets (`Reset`, `HalfClose`) begins anew for each connection when the fault is set, or when the
connection is opened under it; both directions count together.
"""

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, assert_never

import trio

HOST: Final = "127.0.0.1"
PIECE: Final = 65536  # octets
AT_ONCE: Final = struct.pack("ii", 1, 0)  # linger: on, for no time: the other side hears a reset, no orderly end
GONE: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


@dataclass(frozen=True, slots=True)
class Pass:
    """Nothing is wrong."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Nobody listens; connections that were open are reset."""


@dataclass(frozen=True, slots=True)
class Reset:
    """A connection is reset once `after` octets have passed: the next one is not delivered."""

    after: int


@dataclass(frozen=True, slots=True)
class Stall:
    """Connections are accepted, and nothing is passed on; what waits is passed on when this ends."""


@dataclass(frozen=True, slots=True)
class Drip:
    """One octet each `pause` seconds."""

    pause: float = 1.0


@dataclass(frozen=True, slots=True)
class Delay:
    """Whatever comes is held for `seconds` before it is passed on."""

    seconds: float


@dataclass(frozen=True, slots=True)
class HalfClose:
    """Once `after` octets have passed, the client hears that no more will come; what it says is still passed on."""

    after: int


Fault = Pass | Refuse | Reset | Stall | Drip | Delay | HalfClose
Connect = Callable[[], Awaitable[trio.SocketStream]]


class _Cut(Exception):  # noqa: N818 - what happened
    """The connection is to be reset."""


@dataclass(frozen=True, slots=True)
class FaultProxyStatistics:
    """Connections accepted, open now, and reset by a fault; octets passed on."""

    accepted: int
    open: int
    reset: int
    octets: int


@dataclass(eq=False, slots=True)
class _Way:
    """A connection from a client to the server, as two streams."""

    client: trio.SocketStream
    server: trio.SocketStream
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    passed: int = 0
    deaf: bool = False  # the client was told that no more comes

    def reset(self) -> None:
        """End both sides as if the machine between them had gone."""
        for stream in (self.client, self.server):
            with suppress(OSError):
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
            stream.socket.close()


class FaultProxy:
    """The proxy; `open_fault_proxy` makes it."""

    def __init__(self, connect: Connect, nursery: trio.Nursery) -> None:
        self._connect = connect
        self._nursery = nursery
        self._fault: Fault = Pass()
        self._changed = trio.Event()
        self._door = trio.CancelScope()
        self._ways: set[_Way] = set()
        self._accepted = self._reset = self._octets = 0
        self.port = 0

    @property
    def fault(self) -> Fault:
        """What is wrong now."""
        return self._fault

    def set(self, fault: Fault) -> None:
        """Break the way so, from now on."""
        self._fault = fault
        for way in self._ways:
            way.passed = 0
        if isinstance(fault, Refuse):
            self._door.cancel(reason="nobody listens")
            for way in tuple(self._ways):
                self._cut(way)
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def statistics(self) -> FaultProxyStatistics:
        """Count."""
        return FaultProxyStatistics(self._accepted, len(self._ways), self._reset, self._octets)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept, unless that is refused, until cancelled."""
        while True:
            if isinstance(self._fault, Refuse):
                await self._changed.wait()
                continue
            listeners = await trio.open_tcp_listeners(self.port, host=HOST)
            self.port = listeners[0].socket.getsockname()[1]
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            with trio.CancelScope() as self._door:
                await trio.serve_listeners(self._serve, listeners, handler_nursery=self._nursery)

    async def _serve(self, client: trio.SocketStream) -> None:
        self._accepted += 1
        try:
            server = await self._connect()
        except OSError:
            client.socket.close()
            return
        way = _Way(client, server)
        self._ways.add(way)
        try:
            with way.scope:
                await self._carry(way)
        finally:
            self._ways.discard(way)
            client.socket.close()
            server.socket.close()

    async def _carry(self, way: _Way) -> None:
        """Pass on both ways until both have ended."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(self._pump, way, way.client, way.server), name="to the server")
            nursery.start_soon(partial(self._pump, way, way.server, way.client), name="to the client")

    async def _pump(self, way: _Way, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        try:
            while piece := await source.receive_some(PIECE):
                await self._pass(way, piece, sink)
            await sink.send_eof()
        except _Cut:
            self._cut(way)
        except GONE:
            way.scope.cancel(reason="one side is gone")

    async def _pass(self, way: _Way, piece: bytes, sink: trio.SocketStream) -> None:
        """Pass a piece on, bit by bit, as whatever fault there is then allows."""
        while piece:
            number = await self._allowed(way, piece, sink)
            allowed, piece = piece[:number], piece[number:]
            way.passed += number  # before it arrives: who hears it may set another fault at once
            self._octets += number
            if sink is not way.client or not way.deaf:
                await sink.send_all(allowed)

    async def _allowed(self, way: _Way, piece: bytes, sink: trio.SocketStream) -> int:
        """Wait as long as the fault says; return how many octets may go now, none if it is another fault by then."""
        match fault := self._fault:
            case Pass() | Refuse():
                return len(piece)
            case Stall():
                await self._changed.wait()
                return 0
            case Drip(pause):
                return 0 if await self._another(pause) else 1
            case Delay(seconds):
                return 0 if await self._another(seconds) else len(piece)
            case Reset(after) | HalfClose(after):
                room = after - way.passed
                if room > 0:
                    return min(room, len(piece))
                if isinstance(fault, Reset):
                    raise _Cut
                await self._half_close(way)
                return len(piece)
            case _:
                assert_never(fault)

    async def _half_close(self, way: _Way) -> None:
        if not way.deaf:
            way.deaf = True
            await way.client.send_eof()

    async def _another(self, seconds: float) -> bool:
        """Wait so long, or until the fault changes; say whether it did."""
        changed = self._changed
        with trio.move_on_after(seconds):
            await changed.wait()
        return changed.is_set()

    def _cut(self, way: _Way) -> None:
        self._reset += way in self._ways
        self._ways.discard(way)
        way.reset()
        way.scope.cancel(reason="reset by a fault")


@asynccontextmanager
async def open_fault_proxy(connect: Connect) -> AsyncIterator[FaultProxy]:
    """Stand before whatever `connect` reaches, on a free port of this machine, until the end of the block.

    For a TCP port: `partial(trio.open_tcp_stream, host, port)`; for a socket: `partial(trio.open_unix_socket, path)`.
    """
    async with trio.open_nursery() as nursery:
        proxy = FaultProxy(connect, nursery)
        await nursery.start(proxy.run, name="fault proxy")
        yield proxy
        nursery.cancel_scope.cancel(reason="the proxy is closed")
