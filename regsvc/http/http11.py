"""HTTP/1.1 as Hypercorn speaks it, unable to become anything else, stricter, and with answers in one write.

Rule 1. No upgrade, no prior knowledge, no websocket: a request is an HTTP exchange, or is refused.
Rule 2. What two servers might read differently is refused (see `framing`).
Rule 3. The app runs once the whole body is here, in the task that read it: no task, channel or nursery per request.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import h11
from hypercorn.config import Config
from hypercorn.events import Event, RawData
from hypercorn.protocol.events import Body, EndBody, Request, Response, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.typing import ASGIReceiveEvent, ASGISendEvent, ConnectionState, H11SendableEvent
from hypercorn.utils import suppress_body

from regsvc.http import framing
from regsvc.http.door import Door, Refused, escaping, full

WHOLE = "regsvc.whole"  # where a request's scope keeps what sends a whole answer at once
AT_ONCE_MAX = 64 * 1024  # bytes of a body that are copied to leave in one write with its head

SAFE = frozenset({b"GET", b"HEAD"})

Address = tuple[str, int] | None


class Http11(H11Protocol):
    """Hypercorn's HTTP/1.1, made unable to become anything else, with answers in one write."""

    connection: h11.Connection  # never Hypercorn's websocket stand-in
    stream: HTTPStream | None

    def __init__(
        self,
        door: Door,
        send: Callable[[Event], Awaitable[None]],
        hung_up: Callable[[], Awaitable[None]],
        client: Address,
        server: Address,
    ) -> None:
        tasks = cast("Any", _SameTask(door, hung_up))
        app, state = cast("Any", door.app), ConnectionState({})
        super().__init__(
            app, door.config, door.context, tasks, state, ssl=False, client=client, server=server, send=send
        )
        self._door = door
        self.guest = False  # it is there for a probe only
        self._held = b""
        self._method = b""  # of the request at hand
        self._target = b""
        self._origins: Sequence[bytes] = ()
        self._chunked = False

    @property
    def unread(self) -> bytes:
        """What was received and not yet made sense of."""
        return bytes(self.connection.trailing_data[0])

    @property
    def _is_last(self) -> bool:
        return self._door.parting or self.guest

    async def stream_send(self, event: StreamEvent) -> None:
        """Pass an answer's part on; a draining server says that it is the last one."""
        if isinstance(event, Response) and self._is_last:
            event = replace(event, headers=[*event.headers, (b"connection", b"close")])
        elif isinstance(event, StreamClosed):
            self._door.answered += 1
            self._method = self._target = b""
            self._origins = ()
        await super().stream_send(event)

    async def answer(self, refused: Refused) -> None:
        """Refuse the request at hand, if it can still be answered. The connection is of no more use then."""
        self.stream = None
        if self.connection.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        path = self._target.decode("ascii", "replace")
        headers, body = self._door.refuse(refused.status, refused.name, refused.detail, path, self._origins)
        ends = [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        head = [*headers, *ends, *self.config.response_headers("h11")]
        await self._send_h11_event(h11.Response(status_code=refused.status, headers=head))
        if self._method != b"HEAD":
            await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())

    async def _handle_events(self) -> None:
        """Take what has arrived, request by request, until more is needed."""
        while True:
            if self.connection.they_are_waiting_for_100_continue:
                await self._send_h11_event(h11.InformationalResponse(status_code=100, headers=[]))
            event = self._next_event()
            if isinstance(event, h11.Request):
                await self._create_stream(event)
            elif isinstance(event, h11.Data) and self.stream is not None:
                await self.stream.handle(Body(stream_id=STREAM_ID, data=event.data))
            elif isinstance(event, h11.EndOfMessage) and self.stream is not None:
                await self.stream.handle(EndBody(stream_id=STREAM_ID))
            else:  # more is needed, or the connection has seen its last request
                break

    def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        state = self.connection.their_state
        if state is h11.IDLE:
            framing.check_head(self.unread, self.config.h11_max_incomplete_size)
        before = self.unread if self._chunked and state is h11.SEND_BODY else None
        try:
            event = self.connection.next_event()
        except h11.RemoteProtocolError as error:
            raise framing.not_http(error) from error
        if before is not None:
            framing.check_chunk(before[: len(before) - len(self.unread)], event)
        return event

    async def _create_stream(self, request: h11.Request) -> None:
        """Begin an exchange. Whatever `Upgrade` says, it is an HTTP one."""
        self._method, self._target = request.method, request.target
        self._origins = _origins(request.headers)
        self._chunked = any(name == b"transfer-encoding" for name, _ in request.headers)
        self._target = target = framing.check_request(request, self._door.limits.body)
        if self.guest and not (request.method in SAFE and target.partition(b"?")[0] in self._door.probes):
            raise full()
        send = self.stream_send
        self.stream = Exchange(
            self.app, self.config, self.context, self.task_group, self.ssl, self.client, self.server, send, STREAM_ID
        )
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method=request.method.decode(),
                raw_path=target,
                state=self.connection_state,
            )
        )
        self.stream.scope["extensions"][WHOLE] = cast("Any", self.whole)
        self.keep_alive_requests += 1

    async def whole(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        """Answer the request at hand at once: one write, instead of the six events that it is to Hypercorn."""
        exchange = cast("Exchange", self.stream)
        head = [*headers, *self.config.response_headers("h11")]
        if self._is_last or self.keep_alive_requests >= self.config.keep_alive_max_requests:
            head.append((b"connection", b"close"))
        data = self.connection.send(h11.Response(status_code=status, headers=head)) or b""
        exchange.state = ASGIHTTPState.RESPONSE
        if body and not suppress_body(exchange.scope["method"], status):
            piece = self.connection.send(h11.Data(data=body)) or b""
            if len(body) > AT_ONCE_MAX:  # which many may be slow to read: they all read the same bytes
                await self.send(RawData(data))
                data = piece
            else:
                data += piece
        data += self.connection.send(h11.EndOfMessage()) or b""
        exchange.state = ASGIHTTPState.CLOSED
        await self.send(RawData(data))
        await self.stream_send(StreamClosed(stream_id=STREAM_ID))

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        """Write an event; a head of known length waits for what follows it, so that both leave in one segment."""
        self._held += self.connection.send(event)
        if isinstance(event, h11.Response) and any(name == b"content-length" for name, _ in event.headers):
            return
        held, self._held = self._held, b""
        if held:
            await self.send(RawData(held))


class Exchange(HTTPStream):
    """One request and its answer."""

    async def _send_error_response(self, status_code: int) -> None:
        """Answer for an app that failed before it said anything."""
        refuse = cast("_SameTask", self.task_group).door.refuse
        why, origins = "Something went wrong on our side.", _origins(self.scope["headers"])
        headers, body = refuse(status_code, "InternalError", why, self.scope["path"], origins)
        head = [*headers, (b"content-length", b"%d" % len(body))]
        await self.send(Response(stream_id=STREAM_ID, headers=head, status_code=status_code))
        if self.scope["method"] != "HEAD":
            await self.send(Body(stream_id=STREAM_ID, data=body))
        await self.send(EndBody(stream_id=STREAM_ID))
        self.state = ASGIHTTPState.CLOSED


@dataclass(eq=False, slots=True)
class _Call:
    """The app's side of an exchange: gathers the body, then runs the app where the last of it arrived."""

    door: Door
    hung_up: Callable[[], Awaitable[None]]
    scope: dict[str, Any]
    send: Callable[[ASGISendEvent | None], Awaitable[None]]
    body: bytearray = field(default_factory=bytearray)
    told: bool = False

    async def put(self, message: ASGIReceiveEvent) -> None:
        """Take a piece of the body; the last one runs the app to its end."""
        if message["type"] != "http.request":
            return  # the exchange is over; who wants to know about the client asks `receive`
        self.body += message["body"]
        if len(self.body) > self.door.limits.body:
            raise framing.too_large(self.door.limits.body)
        if not message["more_body"]:
            await self._run()

    async def receive(self) -> ASGIReceiveEvent:
        """The whole body first; after that, wait for the client to hang up or the server to drain."""
        if not self.told:
            self.told = True
            return {"type": "http.request", "body": bytes(self.body), "more_body": False}
        await self.hung_up()
        return {"type": "http.disconnect"}

    async def _run(self) -> None:
        try:
            await self.door.app(cast("Any", self.scope), self.receive, cast("Any", self.send))
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 – an app's error ends its request only
            self.door.observe.handler_failed(error)
            if (rest := escaping(error)) is not None:
                raise rest from None
        await self.send(None)


@dataclass(frozen=True, slots=True)
class _SameTask:
    """Stands where Hypercorn expects a task group, and spawns nothing."""

    door: Door
    hung_up: Callable[[], Awaitable[None]]

    async def spawn_app(
        self,
        _app: object,
        _config: Config,
        scope: dict[str, Any],
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        return _Call(self.door, self.hung_up, scope, send).put


def _origins(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    return [value for name, value in headers if name == b"origin"]
