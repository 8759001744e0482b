"""One connection of Hypercorn's Trio worker, guarded: one task, no error leaves it, every wait has an end.

Written over Hypercorn's own class (pinned, see `LEANED_ON`), because one cleartext connection can end a stock 0.18.0.

Rule 1. What a client sends ends at most its own connection: `Connection.run` contains every error but a cancellation.
Rule 2. HTTP/1.1 is never left (see `http11`); the proxy in front speaks the rest.
Rule 3. One connection is one task. It reads a whole request, runs the app, writes the answer, and reads on: nothing
        races, nothing needs a lock, and no handler is cancelled because its client hung up.
Rule 4. Each wait for a client has a deadline: idle, head, body, and an answer that makes no progress.
"""

import os
from contextlib import suppress
from typing import Any, cast

import h11
import trio
from hypercorn.events import Closed, Event, RawData
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from regsvc.http.crowd import Place
from regsvc.http.door import Cut, Door, Refused, escaping, full
from regsvc.http.http11 import Http11

LEANED_ON = {  # what we override or call of the pinned Hypercorn, and its parameters; a contract test names what moved
    "hypercorn.trio.tcp_server:TCPServer.__init__": "app config context state stream",
    "hypercorn.trio.tcp_server:TCPServer.run": "",
    "hypercorn.trio.tcp_server:TCPServer.protocol_send": "event",
    "hypercorn.trio.task_group:TaskGroup.spawn_app": "app config scope send",
    "hypercorn.trio.worker_context:WorkerContext.__init__": "max_requests",
    "hypercorn.protocol.h11:H11Protocol.__init__": (
        "app config context task_group connection_state ssl client server send"
    ),
    "hypercorn.protocol.h11:H11Protocol.handle": "event",
    "hypercorn.protocol.h11:H11Protocol.stream_send": "event",
    "hypercorn.protocol.h11:H11Protocol._handle_events": "",
    "hypercorn.protocol.h11:H11Protocol._create_stream": "request",
    "hypercorn.protocol.h11:H11Protocol._send_h11_event": "event",
    "hypercorn.protocol.h11:H11Protocol._maybe_recycle": "",
    "hypercorn.protocol.h11:H11Protocol._close_stream": "",
    "hypercorn.protocol.http_stream:HTTPStream.__init__": (
        "app config context task_group ssl client server send stream_id"
    ),
    "hypercorn.protocol.http_stream:HTTPStream.handle": "event",
    "hypercorn.protocol.http_stream:HTTPStream.app_send": "message",
    "hypercorn.protocol.http_stream:HTTPStream._send_error_response": "status_code",
    "hypercorn.config:Config.response_headers": "protocol",
    "hypercorn.utils:suppress_body": "method status_code",
}

READ_MAX = 16 * 1024  # bytes taken from the socket at once
PIPELINED_MAX = 64 * 1024  # bytes kept for later while a handler watches for the client's hang-up
LINGER_MAX = 64 * 1024  # bytes thrown away after the last answer, so that it outlives the reset
GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)  # how a client's absence shows


class Connection(TCPServer):
    """One client, from accept to close, in one task."""

    protocol: Http11  # type: ignore[assignment]  # never Hypercorn's wrapper: that one changes to HTTP/2

    def __init__(self, door: Door, stream: trio.SocketStream) -> None:
        super().__init__(
            cast("Any", door.app),
            door.config,
            door.context,
            ConnectionState({}),
            cast("trio.SSLStream[trio.SocketStream]", stream),
        )
        self._door = door
        self._socket = stream.socket
        self._closing = False  # nothing more is read or answered
        self._ended = False  # the client says no more
        self._answers = 0
        self._since = self._met = trio.current_time()
        self._phase: Cut = Cut.IDLE
        self._taken = 0  # bytes read for the request at hand
        self._waiting = trio.CancelScope()
        self._watching = trio.CancelScope()
        self._lingering = trio.CancelScope()
        self._listening = trio.Lock()
        self._guest = False  # no place was free
        self._left = False  # it gave way to another
        self._quick = False  # something was written since the last read without letting others run
        self._told = False  # the client knows that nothing more is answered

    @property
    def busy(self) -> bool:
        """Whether a request is being read, handled or answered."""
        return hasattr(self, "protocol") and self.protocol.stream is not None

    async def run(self) -> None:
        """Serve this client until either side has enough.

        Errors: none but Cancelled, KeyboardInterrupt and SystemExit (alone or in a group); the rest is told.
        """
        self._door.accepted += 1
        try:
            await self._converse()
        except GONE:
            pass
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 – the guard: a client never ends the process
            self._door.contained += 1
            self._door.observe.connection_contained(error)
            if (rest := escaping(error)) is not None:
                raise rest from None
        except trio.Cancelled:
            if self.busy:
                self._door.grace_over += 1
                self._cut(Cut.GRACE_OVER)
            raise
        finally:
            self._door.lost += self._owes()
            self._door.crowd.leave(self)
            self._socket.close()

    async def protocol_send(self, event: Event) -> None:
        """Write, or note what the protocol says about the connection."""
        if isinstance(event, RawData):
            await self._write(event.data)
        elif isinstance(event, Closed):
            self._closing = self._told = True
        else:  # Updated: an answer has gone, and the connection may carry another
            self._answers += 1
            self._taken = 0
            self._since = trio.current_time()

    async def hung_up(self) -> None:
        """Return when the client has hung up or half-closed, or the server drains; what it sends meanwhile is kept."""
        async with self._listening:
            while not (self._ended or self._closing or self._door.draining):
                with trio.CancelScope() as self._watching:
                    if len(self.protocol.unread) > PIPELINED_MAX:
                        await trio.sleep_forever()
                    self.protocol.connection.receive_data(await self._read())

    def hurry(self) -> None:
        """Stop waiting for what may never come; called when the server begins to drain, or loses its patience."""
        self._watching.cancel(reason="the server drains")
        if self._phase is not Cut.IDLE or self._door.patient:
            return
        if not self._answers:  # accepted just now, and perhaps asking at this very moment
            self._waiting.deadline = min(self._waiting.deadline, trio.current_time() + self._door.limits.fresh)
        elif self._closing or not self._socket.is_readable():
            self._waiting.cancel(reason="the server drains")

    def give_way(self) -> bool:
        """Leave at once for somebody else; False: the client has begun to speak."""
        if self._socket.is_readable() and not self._guest:
            return False
        self._left = True
        self._waiting.cancel(reason="somebody else needs the place")
        self._lingering.cancel(reason="somebody else needs the place")
        return True

    async def _converse(self) -> None:
        family = self._socket.family
        client = parse_socket_addr(family, cast("Any", self._socket.getpeername()))
        server = parse_socket_addr(family, cast("Any", self._socket.getsockname()))
        self.protocol = Http11(self._door, self.protocol_send, self.hung_up, client, server)
        try:
            self._enter()
            while not (self._closing or self._ended):
                await self.protocol.handle(RawData(await self._next()))
        except Refused as refused:
            self._door.refused += 1
            self._door.observe.request_refused(refused.status, refused.name, refused.detail)
            await self.protocol.answer(refused)
            self._told = True
        if not (self._ended or self._left):
            await self._linger()

    def _enter(self) -> None:
        place = self._door.crowd.enter(self)
        self._guest = self.protocol.guest = place is Place.GUEST
        if place is Place.NONE:
            self._left = True
            raise full()

    async def _next(self) -> bytes:
        """The client's next bytes; none when it has no more to say, or said nothing in time."""
        deadline = self._deadline()
        if self._phase is Cut.IDLE:
            self._door.crowd.falls_silent(self, self._since)
        with trio.CancelScope(deadline=deadline) as self._waiting:
            return self._heard(await self._read())
        if self._guest:
            raise full()
        if self._phase is Cut.IDLE:
            if not self._left and self._socket.is_readable():  # it came in the very moment that was too late
                return self._heard(await self._read())
            self._ended = True
            return b""
        self._cut(self._phase)
        raise Refused(408, "RequestTimeout", "The request did not arrive in time.")

    def _heard(self, data: bytes) -> bytes:
        self._door.crowd.speaks(self)
        self._taken += len(data)
        if self._taken > 4 * self._door.limits.body + PIPELINED_MAX:
            raise Refused(413, "PayloadTooLarge", "The body is wrapped in too much chunking.")
        return data

    def _deadline(self) -> float:
        """When the wait for the client ends. Trickling bytes do not move it."""
        limits = self._door.limits
        if self.protocol.connection.their_state is h11.SEND_BODY:
            phase, seconds = Cut.SLOW_BODY, limits.body_arrives
        elif self.protocol.unread:
            phase, seconds = Cut.SLOW_HEAD, limits.head
        else:
            phase, seconds = Cut.IDLE, limits.idle
        if phase is not self._phase:
            self._phase, self._since = phase, trio.current_time()
        if self._door.draining and not self._door.patient and phase is Cut.IDLE:
            seconds = min(seconds, limits.fresh)
        return min(self._since + seconds, self._met + limits.guest_asks) if self._guest else self._since + seconds

    async def _read(self) -> bytes:
        try:
            data = bytes(await self.stream.receive_some(READ_MAX))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        self._ended = not data
        self._quick = False
        return data

    async def _write(self, data: bytes) -> None:
        """Send all of `data`; a client that takes none of it for a while is cut."""
        view, stalls = memoryview(data), self._door.limits.send_stalls
        if self._socket.fileno() < 0:  # nobody hears it; whoever speaks on and on must let others run all the same
            await trio.lowlevel.checkpoint()
            return
        view = view[self._write_at_once(view) :]
        if not view:
            return
        with trio.CancelScope(deadline=trio.current_time() + stalls) as patience, suppress(*GONE):
            while view:
                view = view[await self._socket.send(view) :]
                patience.deadline = trio.current_time() + stalls
            return
        if patience.cancelled_caught:
            self._cut(Cut.SLOW_READER)
        self._hang_up()

    def _write_at_once(self, data: memoryview) -> int:
        """Write what the kernel takes now, without waiting; once between two reads, which let others run."""
        if self._quick:
            return 0
        self._quick = True
        try:
            return os.write(self._socket.fileno(), data)
        except OSError:  # it takes nothing now, or the client is gone: whoever waits for it finds out
            return 0

    def _owes(self) -> bool:
        """Whether the server ends while the client has asked something, and was not told to ask elsewhere."""
        if not self._door.parting or self._told or self._left:
            return False
        if self.busy or (self._taken and not self._ended):
            return True
        try:
            return bool(os.read(self._socket.fileno(), 1))
        except OSError:  # nothing is there, or nobody
            return False

    def _hang_up(self) -> None:
        """Close at once, which also wakes whoever reads."""
        self._closing = True
        self._socket.close()

    def _cut(self, why: Cut) -> None:
        self._door.cut += 1
        self._door.observe.connection_cut(why)

    async def _linger(self) -> None:
        """Let the client take our answer: closing over unread bytes sends a reset, and that overtakes it."""
        left = LINGER_MAX
        with trio.move_on_after(self._door.limits.linger) as self._lingering, suppress(*GONE):
            await self.stream.send_eof()
            while left > 0 and (data := await self._read()):
                left -= len(data)
