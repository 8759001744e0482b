"""Quart's side of one request: it reads the whole body, dispatches, and answers, all in the task it was called in.

Written by hand because Quart-Trio's own class opens a nursery with two tasks for each request and cancels the handler
when the client hangs up or half-closes; here a transaction once begun is never cancelled from outside.
Who waits for long watches for the client itself: `wait_disconnect`, `while_connected`, and every streamed answer.
"""

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from quart import request
from quart.utils import encode_headers
from quart.wrappers import Response
from quart.wrappers.response import DataBody
from quart_trio.asgi import TrioASGIHTTPConnection
from werkzeug.wrappers import Response as WerkzeugResponse

from regsvc.http.http11 import WHOLE
from regsvc.http.streamed import Streamed

WATCH = "regsvc.wait_disconnect"  # where a request's scope keeps what `wait_disconnect` awaits


async def wait_disconnect() -> None:
    """Return when the client of the request at hand hangs up or half-closes, or the server drains.

    For handlers that wait for long. Cancellation: nothing is lost; what the client sent meanwhile is its next request.
    """
    watch: ASGIReceiveCallable = cast("Any", request.scope)["extensions"][WATCH]
    await watch()


@asynccontextmanager
async def while_connected() -> AsyncIterator[trio.CancelScope]:
    """Cancel the block when `wait_disconnect` returns; the scope's `cancelled_caught` tells. An answer may follow.

    Errors: the block's own, as they are and in no group, so that callers may tell them apart.
    """
    block = trio.CancelScope()
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_leave, block, name="watch the client of a long poll")
        try:
            with block:
                yield block
        except Exception as error:  # noqa: BLE001 – raised again when the nursery is closed
            failure = error
        nursery.cancel_scope.cancel(reason="the block is done")
    if failure is not None:
        raise failure


async def _leave(block: trio.CancelScope) -> None:
    await wait_disconnect()
    block.cancel(reason="the client hung up, or the server drains")


class LeanConnection(TrioASGIHTTPConnection):
    """`asgi_http_class` of an app: one request, no nursery, no cancellation from outside, no RESPONSE_TIMEOUT."""

    scope: HTTPScope

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Carry one request from its body to the end of its answer.

        Errors: what the app lets through. A client that hangs up before its body is whole is not dispatched.
        """
        body = await _whole_body(receive)
        if body is None:
            return
        self.scope["extensions"][WATCH] = cast("Any", receive)  # after a whole body comes nothing but http.disconnect
        asked = self._create_request_from_scope(send)
        asked.body.set_result(body)
        response = await self.app.handle_request(asked)
        head = [*encode_headers(response.headers), *getattr(asked, "lines", ())]
        whole = await _whole_answer(response)
        at_once = cast("Any", self.scope["extensions"]).get(WHOLE)  # our own server has it
        if whole is not None and at_once is not None:
            await at_once(response.status_code, head, whole)
            return
        start, stream = {"status": response.status_code, "headers": head}, _Stream(send, receive)
        try:
            await send(cast("Any", {"type": "http.response.start", **start}))
            if whole is None and self.scope["method"] != "HEAD":
                await stream.carry(cast("Response", response))
            await send({"type": "http.response.body", "body": whole or b"", "more_body": False})
        finally:
            if isinstance(response, Streamed):
                response.end(stream.sent)


@dataclass(eq=False, slots=True)
class _Stream:
    """An answer in pieces, until its source, its client or the server ends it."""

    send: ASGISendCallable
    watch: ASGIReceiveCallable
    over: bool = False
    sent: int = 0  # octets
    waiting: trio.CancelScope = field(default_factory=trio.CancelScope)

    async def carry(self, response: Response) -> None:
        """Send pieces as they come. Only the wait for the next piece is cancelled, never a piece on its way."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end, name="watch the client of a stream")
            async with cast("AbstractAsyncContextManager[AsyncIterable[str | bytes]]", response.response) as source:
                pieces = aiter(source)
                while (piece := await self._next(pieces)) is not None:
                    await self._say(piece)
            nursery.cancel_scope.cancel(reason="the stream has ended")
        if self.over and isinstance(response, Streamed):
            await self._say(await response.farewell())

    async def _say(self, piece: str | bytes) -> None:
        data = piece.encode() if isinstance(piece, str) else piece
        self.sent += len(data)
        await self.send({"type": "http.response.body", "body": data, "more_body": True})

    async def _next(self, pieces: AsyncIterator[str | bytes]) -> str | bytes | None:
        if self.over:
            return None
        with trio.CancelScope() as self.waiting:
            return await anext(pieces, None)
        return None

    async def _end(self) -> None:
        await self.watch()
        self.over = True
        self.waiting.cancel(reason="the client hung up, or the server drains")


async def _whole_body(receive: ASGIReceiveCallable) -> bytes | None:
    """The request's body; None if the client hung up before its end. How much and how long: the server's limits."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message["body"]
        if not message["more_body"]:
            return bytes(body)


async def _whole_answer(response: Response | WerkzeugResponse) -> bytes | None:
    """The answer's body where it is all there already; None for a stream."""
    if isinstance(response, WerkzeugResponse):
        return response.get_data()
    if isinstance(response.response, DataBody):
        async with response.response as pieces:
            return b"".join([piece async for piece in pieces])
    return None
