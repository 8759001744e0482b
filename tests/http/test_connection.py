"""The lean connection class: no handler is cancelled from outside; who waits for long can watch the client."""

import json
import socket
import struct
from collections.abc import AsyncIterator

import pytest
import trio
from quart import Response, abort, request
from quart_trio import QuartTrio

from regsvc.http.connection import LeanConnection, wait_disconnect, while_connected
from regsvc.http.guard import PIPELINED_MAX, READ_MAX, Connection
from regsvc.http.server import Cut, Limits
from tests.http.tiny import calling, serving, tiny_app, until

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
WAIT = b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n"
STREAM = b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n"


class Slow:
    """An app whose handler waits for the test, and says how it ended."""

    def __init__(self) -> None:
        self.app = tiny_app()
        self.began, self.go_on, self.ended = trio.Event(), trio.Event(), trio.Event()

        @self.app.route("/wait")
        async def wait() -> str:
            self.began.set()
            await self.go_on.wait()
            self.ended.set()
            return "done"


async def test_a_half_closed_client_gets_its_answer() -> None:
    slow = Slow()
    async with serving(slow.app) as house, calling(house.port) as caller:
        await caller.say(WAIT)
        await slow.began.wait()
        await caller.stream.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        slow.go_on.set()
        assert (await caller.answer()).body == b"done"
        assert await caller.rest() == b""


async def test_a_client_that_hangs_up_cancels_nothing() -> None:
    slow = Slow()
    async with serving(slow.app) as house:
        async with calling(house.port) as caller:
            await caller.say(WAIT)
            await slow.began.wait()
        await trio.testing.wait_all_tasks_blocked()
        slow.go_on.set()
        with trio.fail_after(10):
            await slow.ended.wait()
        await until(lambda: house.server.statistics().connections == 0)
        assert house.told.failures == house.told.contained == []


class Watching:
    """An app with a long poll, which notes why it ended."""

    def __init__(self) -> None:
        self.app = tiny_app()
        self.began, self.news = trio.Event(), trio.Event()

        @self.app.route("/plain")
        async def plain() -> str:
            self.began.set()
            await wait_disconnect()
            return "gone"

        @self.app.route("/block")
        async def block() -> str:
            self.began.set()
            async with while_connected() as scope:
                await self.news.wait()
            return "gone" if scope.cancelled_caught else "news"


@pytest.mark.parametrize("path", [b"/plain", b"/block"])
async def test_a_long_poll_ends_when_its_client_does(path: bytes) -> None:
    poll = Watching()
    async with serving(poll.app) as house, calling(house.port) as caller:
        await caller.say(WAIT.replace(b"/wait", path))
        await poll.began.wait()
        await caller.stream.send_eof()
        assert (await caller.answer()).body == b"gone"


@pytest.mark.parametrize("path", [b"/plain", b"/block"])
async def test_a_long_poll_ends_when_the_server_drains(path: bytes) -> None:
    poll = Watching()
    async with serving(poll.app) as house, calling(house.port) as caller:
        await caller.say(WAIT.replace(b"/wait", path))
        await poll.began.wait()
        house.stop.set()
        answer = await caller.answer()
        assert (answer.body, answer.headers["connection"]) == (b"gone", "close")
        assert (await house.drain()).cut == 0


async def test_an_error_within_a_long_poll_is_in_no_group() -> None:
    app = tiny_app()

    @app.errorhandler(ZeroDivisionError)
    async def handled(error: Exception) -> tuple[str, int]:
        await trio.lowlevel.checkpoint()
        return type(error).__name__, 503

    @app.route("/wait")
    async def wait() -> str:
        async with while_connected():
            await trio.lowlevel.checkpoint()
            return str(1 // 0)

    async with serving(app) as house, calling(house.port) as caller:
        await caller.say(WAIT + GET)
        answer = await caller.answer()
        assert (answer.status, answer.body) == (503, b"ZeroDivisionError")
        assert (await caller.answer()).status == 200


async def test_a_long_poll_ends_when_its_client_is_reset() -> None:
    poll = Watching()
    async with serving(poll.app) as house:
        async with calling(house.port) as caller:
            await caller.say(WAIT.replace(b"/wait", b"/plain"))
            await poll.began.wait()
            caller.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await until(lambda: house.server.statistics().connections == 0)
        assert house.told.contained == []


async def test_what_a_client_says_during_a_long_poll_is_its_next_request() -> None:
    poll = Watching()
    async with serving(poll.app) as house, calling(house.port) as caller:
        await caller.say(WAIT.replace(b"/wait", b"/block"))
        await poll.began.wait()
        await caller.say(GET)
        await trio.testing.wait_all_tasks_blocked()
        poll.news.set()
        assert (await caller.answer()).body == b"news"
        assert (await caller.answer()).status == 200


async def test_what_a_client_says_during_a_long_poll_is_kept_up_to_a_limit() -> None:
    poll = Watching()
    async with serving(poll.app) as house, calling(house.port) as caller:
        await caller.say(WAIT.replace(b"/wait", b"/block"))
        await poll.began.wait()
        (connection,) = house.server._door.crowd.seated
        assert isinstance(connection, Connection)

        async def pour() -> None:
            while True:
                await caller.say(GET * 500)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pour)
            await until(lambda: len(connection.protocol.unread) > PIPELINED_MAX)
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel(reason="it is full")
        assert PIPELINED_MAX < len(connection.protocol.unread) <= PIPELINED_MAX + READ_MAX
        poll.news.set()
        assert (await caller.answer()).body == b"news"
        for _ in range(500):
            assert (await caller.answer()).status == 200


class Streaming:
    """An app with a stream of news, for as long as the test sends some."""

    def __init__(self) -> None:
        self.app = tiny_app()
        self.app.config["RESPONSE_TIMEOUT"] = 0.05
        self.news, source = trio.open_memory_channel[str](10)
        self.ended = trio.Event()

        @self.app.route("/stream")
        async def stream() -> Response:
            await trio.lowlevel.checkpoint()

            async def pieces() -> AsyncIterator[str]:
                try:
                    async for piece in source:
                        yield f"data: {piece}\n\n"
                finally:
                    self.ended.set()

            return Response(pieces(), content_type="text/event-stream")


async def test_a_stream_sends_its_head_at_once_and_outlives_the_response_timeout() -> None:
    streaming = Streaming()
    async with serving(streaming.app) as house, calling(house.port) as caller:
        await caller.say(STREAM)
        assert b"text/event-stream" in await caller.until(b"\r\n\r\n")
        for piece in ("one", "two"):
            await trio.sleep(streaming.app.config["RESPONSE_TIMEOUT"] * 2)
            await streaming.news.send(piece)
            await caller.until(f"data: {piece}\n\n\r\n".encode())
        await streaming.news.aclose()
        assert await caller.until(b"0\r\n\r\n") == b"0\r\n\r\n"
        await caller.say(GET)
        assert (await caller.answer()).status == 200, "the connection is kept"


async def test_the_head_of_a_stream_can_be_asked_for_alone() -> None:
    async with serving(Streaming().app) as house, calling(house.port) as caller:
        await caller.say(STREAM.replace(b"GET", b"HEAD") + GET)
        assert (await caller.answer()).headers["content-type"] == "text/event-stream"
        assert (await caller.answer()).body == b'{"ok":true}\n'


async def test_a_stream_ends_in_order_when_the_server_drains() -> None:
    streaming = Streaming()
    async with serving(streaming.app) as house, calling(house.port) as caller:
        await caller.say(STREAM)
        await caller.until(b"\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        drained = await house.drain()
        assert (drained.in_flight, drained.finished, drained.cut) == (1, 1, 0)
        assert await caller.rest() == b"0\r\n\r\n"
        assert streaming.ended.is_set()


async def test_a_stream_ends_when_its_client_hangs_up() -> None:
    streaming = Streaming()
    async with serving(streaming.app) as house:
        async with calling(house.port) as caller:
            await caller.say(STREAM)
            await caller.until(b"\r\n\r\n")
        with trio.fail_after(10):
            await streaming.ended.wait()
        await until(lambda: house.server.statistics().connections == 0)
        assert house.told.failures == []


class Flood:
    """An app with a stream that never waits."""

    def __init__(self) -> None:
        self.app = tiny_app()
        self.ended = trio.Event()

        @self.app.route("/stream")
        async def stream() -> Response:
            await trio.lowlevel.checkpoint()

            async def pieces() -> AsyncIterator[bytes]:  # noqa: ASYNC124 – it never waits
                try:
                    while True:
                        yield b"x" * 100
                finally:
                    self.ended.set()

            return Response(pieces())


async def test_a_stream_that_never_waits_ends_with_its_client() -> None:
    flood = Flood()
    async with serving(flood.app) as house, calling(house.port) as caller:
        await caller.say(STREAM)
        await caller.until(b"x" * 100)
        await caller.stream.aclose()
        with trio.fail_after(10):
            await flood.ended.wait()
        await until(lambda: house.server.statistics().connections == 0)
        assert house.told.failures == []


async def test_a_stream_that_never_waits_ends_with_the_server() -> None:
    flood = Flood()
    async with serving(flood.app) as house, calling(house.port) as caller:
        await caller.say(STREAM)
        await caller.until(b"x" * 100)
        house.stop.set()
        assert (await caller.rest()).endswith(b"\r\n0\r\n\r\n")
        assert flood.ended.is_set()
        assert house.told.failures == []


async def test_a_stream_whose_client_does_not_read_is_cut() -> None:
    flood = Flood()
    async with serving(flood.app, limits=Limits(send_stalls=0.1)) as house, calling(house.port) as caller:
        await caller.say(STREAM)
        with trio.fail_after(20):
            await flood.ended.wait()
        await until(lambda: house.server.statistics().connections == 0)
        assert house.told.failures == []
        assert house.told.cuts == [Cut.SLOW_READER]


async def test_quarts_own_answers_pass() -> None:
    app = tiny_app()
    app.config["PROPAGATE_EXCEPTIONS"] = False

    @app.route("/teapot")
    async def teapot() -> str:
        await trio.lowlevel.checkpoint()
        return abort(418)

    @app.route("/bug")
    async def bug() -> str:
        await trio.lowlevel.checkpoint()
        return str(1 // 0)

    async with serving(app) as house, calling(house.port) as caller:
        for path, status in ((b"/teapot", 418), (b"/bug", 500), (b"/nowhere", 404)):
            await caller.say(WAIT.replace(b"/wait", path))
            assert (await caller.answer()).status == status


async def test_the_class_serves_quarts_test_client_too() -> None:
    app = tiny_app()
    app.asgi_http_class = LeanConnection
    client = app.test_client()
    assert await (await client.post("/echo", data=b"hello")).get_data() == b"hello"


@pytest.mark.parametrize("messages", [[], [{"type": "http.request", "body": b"half", "more_body": True}]])
async def test_a_client_that_leaves_within_its_body_is_not_dispatched(messages: list[dict[str, object]]) -> None:
    said = iter([*messages, {"type": "http.disconnect"}])
    sent: list[object] = []

    async def receive() -> object:
        await trio.lowlevel.checkpoint()
        return next(said)

    async def send(message: object) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)

    app = QuartTrio("unasked")
    await LeanConnection(app, {"type": "http", "extensions": {}})(receive, send)  # type: ignore[typeddict-item, arg-type]
    assert sent == []


async def test_handlers_see_the_request_as_it_was() -> None:
    app = tiny_app()

    @app.post("/mirror")
    async def mirror() -> dict[str, object]:
        return {"json": await request.get_json(), "agent": request.headers["User-Agent"], "query": request.args["q"]}

    async with serving(app) as house, calling(house.port) as caller:
        head = b"POST /mirror?q=%C3%A9 HTTP/1.1\r\nHost: x\r\nUser-Agent: me\r\nContent-Type: application/json\r\n"
        await caller.say(head + b"Content-Length: 7\r\n\r\n" + b'{"a":1}')
        seen = json.loads((await caller.answer()).body)
        assert seen == {"agent": "me", "json": {"a": 1}, "query": "é"}
