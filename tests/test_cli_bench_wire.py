"""`regsvc bench`: what it reads as HTTP, how it shares connections, and whom it puts load on."""

import os
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from regsvc.cli.bench import wire
from regsvc.cli.bench.lines import Lines
from regsvc.cli.bench.record import Recorder
from regsvc.cli.bench.target import Cannot, Target, target
from regsvc.cli.bench.wire import HungUp, NotHttp, connect, request
from tests.smtp_sink import tls_pair

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
Says = Callable[[trio.abc.Stream, bytes], object]


def at(port: int) -> Target:
    return Target(f"http://127.0.0.1:{port}", f"127.0.0.1:{port}", "", socket.AF_INET, ("127.0.0.1", port))


class Script:
    """A server: of its n-th connection it says the n-th list, a piece for each request; then it hangs up."""

    def __init__(self, *connections: Sequence[bytes]) -> None:
        self.left = [*connections]
        self.heard: list[bytes] = []
        self.closed = trio.Event()

    async def serve(self, stream: trio.abc.Stream) -> None:
        async with stream:
            for said in self.left.pop(0) if self.left else ():
                if not (heard := await stream.receive_some()):
                    return
                self.heard.append(bytes(heard))
                for piece in said.split(b"|"):
                    await stream.send_all(piece)
                    await trio.testing.wait_all_tasks_blocked(0.002)
        self.closed.set()


@asynccontextmanager
async def serving(*connections: Sequence[bytes]) -> AsyncIterator[tuple[Script, Target]]:
    script = Script(*connections)
    async with trio.open_nursery() as nursery:
        listen = partial(trio.serve_tcp, script.serve, 0, host="127.0.0.1")
        listener = (await nursery.start(listen))[0]
        yield script, at(listener.socket.getsockname()[1])
        nursery.cancel_scope.cancel(reason="the test is over")


# ------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("said", "status", "body"),
    [
        (OK, 200, b"hi"),
        (b"HTTP/1.1 200 OK\r\nConte|nt-Length: 4\r\n\r|\n1|23|4", 200, b"1234"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nab|c\r\n2\r\nde\r\n0\r|\n\r\n", 200, b"abcde"),
        (b"HTTP/1.1 429 No\r\ncontent-length: 0\r\nretry-after: 7\r\n\r\n", 429, b""),
    ],
)
async def test_an_answer_is_read_to_its_end(said: bytes, status: int, body: bytes) -> None:
    async with serving([said, OK]) as (_, to):
        line = await connect(to)
        found = await line.ask(GET)
        assert (found.status, found.body, line.open) == (status, body, True)
        assert found.retry_after == (7 if status == 429 else None)
        assert (await line.ask(GET)).body == b"hi"  # nothing was left over
        line.close()


@pytest.mark.parametrize(
    ("said", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi", b"hi"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
        (b"HTTP/1.1 200 OK\r\n\r\nto the |end", b"to the end"),
    ],
)
async def test_a_connection_that_ends_is_used_no_more(said: bytes, body: bytes) -> None:
    async with serving([said]) as (_, to):
        line = await connect(to)
        assert (await line.ask(GET)).body == body
        assert not line.open
        line.close()


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"", HungUp),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", HungUp),
        (b"220 mail.example ESMTP\r\n\r\n", NotHttp),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", NotHttp),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno\r\n", NotHttp),
        (b"x" * 70_000, NotHttp),
    ],
)
async def test_what_is_no_answer_is_an_error(said: bytes, error: type[Exception]) -> None:
    async with serving([said]) as (_, to):
        line = await connect(to)
        with pytest.raises(error):
            await line.ask(GET)
        line.close()


@pytest.mark.parametrize("said", [b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n5\r\nabcde\r\n", b"\r\nabcdefgh"])
async def test_an_answer_without_an_end_is_given_up(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "BODY_MAX", 7)
    async with serving([b"HTTP/1.1 200 OK\r\n" + said]) as (_, to):
        line = await connect(to)
        with pytest.raises(NotHttp, match="without an end"):
            await line.ask(GET)
        line.close()


async def test_a_large_request_is_sent_whole() -> None:
    size = 8_000_000
    heard = 0

    async def swallow(stream: trio.SocketStream) -> None:
        nonlocal heard
        while heard < size:
            heard += len(await stream.receive_some())
        await stream.send_all(OK)

    async with trio.open_nursery() as nursery:
        listener = (await nursery.start(partial(trio.serve_tcp, swallow, 0, host="127.0.0.1")))[0]
        line = await connect(at(listener.socket.getsockname()[1]))
        assert (await line.ask(b"x" * size)).status == 200
        line.close()
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_over_tls() -> None:
    ours, theirs = tls_pair("localhost")
    script = Script([OK, OK])
    async with trio.open_nursery() as nursery:
        listen = partial(trio.serve_ssl_over_tcp, script.serve, 0, ours, host="127.0.0.1", https_compatible=True)
        listener = (await nursery.start(listen))[0]
        port = listener.transport_listener.socket.getsockname()[1]
        plain = at(port)
        to = Target(plain.url, plain.host, "", plain.family, plain.address, theirs, "localhost")
        line = await connect(to)
        assert [(await line.ask(GET)).body for _ in range(2)] == [b"hi", b"hi"]
        assert not line.is_stale()
        line.close()
        other = Target(plain.url, plain.host, "", plain.family, plain.address, theirs, "another.example")
        with pytest.raises(trio.BrokenResourceError):
            await connect(other)
        nursery.cancel_scope.cancel(reason="the test is over")


def test_a_request_is_written_as_it_should_be() -> None:
    to = target("http://127.0.0.1:1/base/", mine=False)
    assert request(to, "POST", "/x", b"{}", ("A", "b")) == (
        b"POST /base/x HTTP/1.1\r\nHost: 127.0.0.1:1\r\nUser-Agent: regsvc-bench\r\nAccept: */*\r\nA: b\r\n"
        b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )
    assert request(to, "GET", "/x").endswith(b"*/*\r\n\r\n")


# --------------------------------------------------------------------------------------------- connections


async def test_connections_are_kept_and_used_again() -> None:
    async with serving([OK, OK, OK]) as (script, to):
        lines = Lines(to, 4, Recorder(1.0))
        for _ in range(3):
            assert (await lines.ask(GET)).status == 200
        assert (lines.opened, len(script.heard)) == (1, 3)
        lines.close()


@pytest.mark.parametrize("idle", [0.0, 60.0])
async def test_a_connection_that_was_closed_meanwhile_is_no_error(idle: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regsvc.cli.bench.lines.IDLE", idle)  # looked at before, or found out by using it
    async with serving([OK], [OK]) as (script, to):
        lines = Lines(to, 4, Recorder(1.0))
        await lines.ask(GET)
        await script.closed.wait()
        assert (await lines.ask(GET)).status == 200
        assert lines.opened == 2
        lines.close()


async def test_a_connection_that_was_idle_for_long_is_used_if_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regsvc.cli.bench.lines.IDLE", 0.0)
    async with serving([OK, OK]) as (_, to):
        lines = Lines(to, 4, Recorder(1.0))
        for _ in range(2):
            assert (await lines.ask(GET)).status == 200
        assert lines.opened == 1
        lines.close()


async def test_a_connection_that_was_reset_is_stale() -> None:
    async with trio.open_nursery() as nursery:
        with socket.create_server(("127.0.0.1", 0)) as server:
            line = await connect(at(server.getsockname()[1]))
            other, _ = server.accept()
            assert not line.is_stale()
            other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            other.close()  # with a reset
            await trio.lowlevel.wait_readable(line.sock)
            assert line.is_stale()
            line.close()
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_request_that_was_not_answered_is_sent_once() -> None:
    async with serving([b""], [OK, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi"]) as (script, to):
        lines = Lines(to, 1, Recorder(1.0))
        with pytest.raises(HungUp):
            await lines.ask(GET)  # of a new connection
        await lines.ask(GET)
        with pytest.raises(HungUp):
            await lines.ask(GET)  # in the middle
        assert len(script.heard) == 3
        with pytest.raises(ConnectionError):
            await lines.ask(GET)  # the place is free again
        lines.close()


async def test_who_finds_no_connection_free_waits_in_turn() -> None:
    go = [trio.Event() for _ in range(3)]
    order: list[int] = []

    async def serve(stream: trio.SocketStream) -> None:
        while number := await stream.receive_some(1):
            await go[int(number)].wait()
            await stream.send_all(OK)

    async with trio.open_nursery() as nursery:
        listener = (await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1")))[0]
        recorder = Recorder(1.0)
        lines = Lines(at(listener.socket.getsockname()[1]), 1, recorder)

        async def ask(number: int) -> None:
            await lines.ask(b"%d" % number)
            order.append(number)

        async with trio.open_nursery() as people:
            people.start_soon(ask, 0, name="first")
            await trio.testing.wait_all_tasks_blocked(0.01)
            for number in (1, 2):
                people.start_soon(ask, number, name=f"waiting {number}")
                await trio.testing.wait_all_tasks_blocked(0.01)
            with trio.move_on_after(0.01):
                await lines.ask(b"9")  # gives up, and takes nobody's turn
            for event in go:
                event.set()
        assert order == [0, 1, 2]
        assert (lines.opened, recorder.waited.count) == (1, 2)
        lines.close()
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_nobody_there_is_told_as_such() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        lines = Lines(at(taken.getsockname()[1]), 1, Recorder(1.0))
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError):
                await lines.ask(GET)


# ----------------------------------------------------------------------------------------------- the target


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://127.8.9.1:1", "http://[::1]:80", "http://localhost"])
def test_this_machine_may_be_loaded(url: str) -> None:
    assert target(url, mine=False).url == url


@pytest.mark.parametrize("url", ["http://192.0.2.1", "http://10.0.0.1:8000", "http://[2001:db8::1]", "http://0.0.0.0"])
def test_another_may_not_unless_it_is_ones_own(url: str) -> None:
    with pytest.raises(Cannot, match="--i-own-this-host") as found:
        target(url, mine=False)
    assert found.value.status == 2
    assert target(url, mine=True).tls is None
    assert target(url.replace("http", "https"), mine=True).tls is not None


def test_what_a_name_stands_for_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolved(*addresses: str) -> None:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in addresses]
        monkeypatch.setattr("socket.getaddrinfo", lambda *_words, **_how: found)

    resolved("192.0.2.1", "127.0.0.1")
    with pytest.raises(Cannot, match=r"\(192\.0\.2\.1\) is not"):
        target("http://localhost", mine=False)
    resolved("127.0.0.1")
    assert target("http://anything.example", mine=False).address == ("127.0.0.1", 80)


def test_of_several_addresses_the_one_that_listens_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.2", 0)) as server:
        port = server.getsockname()[1]
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{n}", port)) for n in (1, 2)]
        monkeypatch.setattr("socket.getaddrinfo", lambda *_words, **_how: found)
        assert target("http://localhost", mine=False).address == ("127.0.0.2", port)


@pytest.mark.parametrize(
    "url",
    [
        *("", "127.0.0.1:8000", "ftp://127.0.0.1", "http://", "http://127.0.0.1:port", "http://u:p@127.0.0.1"),
        *("http://127.0.0.1/?q", "http://127.0.0.1/\u00e4", "http://127.0.0.1/a b", "http://[::1"),
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(Cannot) as found:
        target(url, mine=True)
    assert found.value.status == 2
    assert re.search("no web address|has not", str(found.value))


def test_a_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_words: object, **_how: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    with pytest.raises(Cannot, match="not known here") as found:
        target("http://nowhere.example", mine=True)
    assert found.value.status == os.EX_TEMPFAIL
