"""What is asked on the wire, and what is answered: framing, refusals, and one write per answer."""

import json
from typing import Any

import h11
import pytest
import trio
from quart import Response
from quart_trio import QuartTrio

from regsvc.http.guard import LINGER_MAX, READ_MAX, Connection
from regsvc.http.server import Limits
from tests.http.tiny import Caller, calling, serving, tiny_app, until

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: x\r\n"


async def test_a_request_is_answered_and_the_connection_kept() -> None:
    async with serving() as house, calling(house.port) as caller:
        for _ in range(3):
            await caller.say(GET)
            answer = await caller.answer()
            assert (answer.status, json.loads(answer.body)) == (200, {"ok": True})
            assert "server" not in answer.headers
            assert "date" in answer.headers
        await until(lambda: house.server.statistics().answered == 3)
        assert house.server.statistics().accepted == 1


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\n", 400),  # before its head is whole
        (b"get / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET ? HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET file:///x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400),
        (POST + b"Content-Length: 5\r\ncontent-length: 5\r\n\r\nhello", 400),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (POST + b"Content-Length: 16385\r\n\r\n", 413),
        (POST + b"Expect: 100-continue\r\nContent-Length: 16385\r\n\r\n", 413),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n4001\r\n" + b"x" * 0x4001, 413),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 17_000, 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 16_345, 431),  # whole, and one byte too long
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else str(value),
)
async def test_a_bad_request_is_refused_as_a_problem_and_the_connection_closed(data: bytes, status: int) -> None:
    async with serving(limits=Limits(linger=0.05)) as house, calling(house.port) as caller:
        await caller.say(data + GET)
        answer = await caller.answer()
        assert (answer.status, json.loads(answer.body)["status"]) == (status, status)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["connection"] == "close"
        assert await caller.rest() == b"", "nothing that follows is answered"
        assert house.told.refusals == [(status, json.loads(answer.body)["error"])]
        assert house.server.statistics().answered == 0


async def test_the_longest_head_and_the_largest_body_pass() -> None:
    head = POST + b"Content-Length: 16384\r\nX: "
    async with serving() as house, calling(house.port) as caller:
        for _ in range(5):  # on one connection: each request is measured by itself
            await caller.say(head + b"y" * (16_384 - 4 - len(head)) + b"\r\n\r\n" + b"z" * 16_384)
            assert (await caller.answer()).body == b"z" * 16_384


async def test_a_large_body_is_refused_without_reading_on() -> None:
    async with serving() as house, calling(house.port) as caller:
        await caller.say(POST + b"Content-Length: 1000000000\r\n\r\n")
        assert (await caller.answer()).status == 413
        assert await caller.rest() == b""


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 1000000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n3b9aca00\r\n"]
)
async def test_of_a_body_without_an_end_little_is_read(framing: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    read = Connection._read

    async def watched(self: Connection) -> bytes:
        data = await read(self)
        taken.append(len(data))
        return data

    monkeypatch.setattr(Connection, "_read", watched)
    async with serving() as house, calling(house.port) as caller:
        await caller.say(POST + framing)
        with pytest.raises(trio.BrokenResourceError):
            await _say_for_ever(caller)
        assert b" 413 " in await caller.rest()
    assert sum(taken) <= 16 * 1024 + READ_MAX + LINGER_MAX + READ_MAX


async def _say_for_ever(caller: Caller) -> None:
    while True:
        await caller.say(b"x" * 65536)


async def test_a_client_that_says_too_much_is_not_reset_before_it_can_read_why() -> None:
    async with serving() as house, calling(house.port) as caller:
        await caller.say(POST + b"Content-Length: 50000\r\n\r\n" + b"x" * 50_000)
        assert (await caller.answer()).status == 413
        assert await caller.stream.receive_some() == b"", "an end, not a reset, over the bytes that nobody took"


async def test_a_body_that_is_mostly_chunking_is_refused() -> None:
    piece = b"1;" + b"e" * 8000 + b"\r\nx\r\n"
    async with serving() as house, calling(house.port) as caller:
        await caller.say(POST + b"Transfer-Encoding: chunked\r\n\r\n" + piece * 20)
        assert (await caller.answer()).status == 413


async def test_a_refused_head_request_has_no_body() -> None:
    async with serving() as house, calling(house.port) as caller:
        await caller.say(b"HEAD ? HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await caller.answer(body=False)
        assert (answer.status, int(answer.headers["content-length"]) > 0) == (400, True)
        assert await caller.rest() == b""


async def test_after_an_answered_head_request_a_refusal_has_its_body() -> None:
    async with serving() as house, calling(house.port) as caller:
        await caller.say(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n" + b"nonsense\r\n\r\n")
        assert (await caller.answer(body=False)).status == 200
        assert json.loads((await caller.answer()).body)["error"] == "MalformedRequest"


async def test_half_a_request_before_a_half_close_is_refused() -> None:
    async with serving() as house, calling(house.port) as caller:
        await caller.say(GET[:20])
        await caller.stream.send_eof()
        assert (await caller.answer()).status == 400


@pytest.mark.parametrize("target", [b"http://x/echo?a=b", b"https://x/echo?a=b", b"/echo?a=b"])
async def test_the_absolute_form_is_the_path_it_names(target: bytes) -> None:
    async with serving() as house, calling(house.port) as caller:
        await caller.say(
            b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n" + b"GET http://x HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        assert (await caller.answer()).body == b"a=b"
        assert (await caller.answer()).status == 200


async def test_pipelined_requests_are_answered_in_order() -> None:
    asks = [POST + b"Content-Length: %d\r\n\r\n%d" % (len(str(n)), n) for n in range(50)]
    data = b"".join(asks)
    async with serving() as house, calling(house.port) as caller:
        await caller.say(data[:1234])
        await caller.say(data[1234:])
        assert [(await caller.answer()).body for _ in asks] == [b"%d" % n for n in range(50)]


@pytest.mark.parametrize(
    "body", [b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"]
)
async def test_bodies_come_whole_however_they_are_framed_or_cut(body: bytes) -> None:
    async with serving() as house, calling(house.port) as caller:
        for end in range(1, len(body)):
            await caller.say(POST + body[:end])
            await trio.testing.wait_all_tasks_blocked()
            await caller.say(body[end:])
            assert (await caller.answer()).body == b"hello"


async def test_a_client_that_waits_to_continue_is_told_to() -> None:
    async with serving() as house, calling(house.port) as caller:
        await caller.say(POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert await caller.until(b"\r\n\r\n") == b"HTTP/1.1 100 \r\n\r\n"
        await caller.say(b"hello")
        assert (await caller.answer()).body == b"hello"


async def test_an_answer_of_known_length_is_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []
    write = Connection._write

    async def watched(self: Connection, data: bytes) -> None:
        writes.append(data)
        await write(self, data)

    monkeypatch.setattr(Connection, "_write", watched)
    async with serving() as house, calling(house.port) as caller:
        await caller.say(GET + b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n" + b"nonsense\r\n\r\n")
        await caller.rest()
    assert [data[:12] for data in writes] == [b"HTTP/1.1 200", b"HTTP/1.1 200", b"HTTP/1.1 400"]


async def test_empty_answers_end_at_their_head() -> None:
    app = tiny_app()

    @app.delete("/")
    async def delete() -> tuple[str, int]:
        await trio.lowlevel.checkpoint()
        return "", 204

    async with serving(app) as house, calling(house.port) as caller:
        for _ in range(2):
            await caller.say(b"DELETE / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await caller.answer()).status == 204


async def test_an_old_client_gets_an_answer_and_a_close() -> None:
    async with serving() as house, calling(house.port) as caller:
        await caller.say(b"GET / HTTP/1.0\r\n\r\n")
        assert (await caller.answer()).status == 200
        assert await caller.rest() == b""


async def test_an_app_that_fails_before_its_answer_is_told_and_answered_for(monkeypatch: pytest.MonkeyPatch) -> None:
    app = QuartTrio("broken")
    error = ZeroDivisionError("a bug")

    async def broken(*_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise error

    monkeypatch.setattr(app, "asgi_app", broken)  # beneath Quart's own handling of errors
    async with serving(app) as house, calling(house.port) as caller:
        for method in (b"HEAD", b"GET", b"GET"):
            await caller.say(GET.replace(b"GET", method))
            answer = await caller.answer(body=method == b"GET")
            assert (answer.status, answer.headers["content-type"]) == (500, "application/problem+json")
            assert method == b"HEAD" or json.loads(answer.body)["error"] == "InternalError"
        assert house.told.failures == [error, error, error]


async def test_an_app_that_fails_within_its_answer_ends_the_connection_unfinished() -> None:
    app = tiny_app()

    @app.get("/stream")
    async def stream() -> Response:
        await trio.lowlevel.checkpoint()

        async def pieces() -> Any:
            await trio.lowlevel.checkpoint()
            yield b"first"
            raise ZeroDivisionError

        return Response(pieces())

    async with serving(app) as house, calling(house.port) as caller:
        await caller.say(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        heard = await caller.rest()
        assert heard.endswith(b"5\r\nfirst\r\n"), f"no last chunk, so the client can tell: {heard!r}"
        assert [type(error) for error in house.told.failures] == [ExceptionGroup]


async def test_an_app_that_says_more_than_it_announced_is_told_and_cut_short() -> None:
    app = tiny_app()

    @app.get("/more")
    async def more() -> Response:
        await trio.lowlevel.checkpoint()
        response = Response("0123456789")
        response.headers["Content-Length"] = "5"
        return response

    async with serving(app) as house, calling(house.port) as caller:
        await caller.say(b"GET /more HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await caller.rest() == b""
        assert [type(error) for error in house.told.failures] == [h11.LocalProtocolError]
        assert house.told.contained == []
