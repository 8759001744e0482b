"""One connection: the guard around it, its deadlines, its limits."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, pairwise
from typing import Any

import pytest
import trio
from quart import Response
from quart_trio import QuartTrio

import regsvc.http.server
from regsvc.http.door import Door
from regsvc.http.guard import Connection
from regsvc.http.http11 import Http11
from regsvc.http.server import Cut, Limits, plain_refusal
from tests.http.tiny import Told, calling, serving, tiny_app, until

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: x\r\n"

FAULTS = [
    ValueError("in the protocol"),
    ExceptionGroup("in a nursery of the protocol", [ValueError(), KeyError()]),
    BaseExceptionGroup("with something that is no Exception", [GeneratorExit()]),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
async def test_an_error_ends_its_connection_only(fault: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = Http11.handle

    async def faulty(self: Http11, event: Any) -> None:
        if b"poison" in event.data:
            raise fault
        await handle(self, event)

    monkeypatch.setattr(Http11, "handle", faulty)
    async with serving() as house, calling(house.port) as one, calling(house.port) as other:
        await one.say(b"poison")
        assert await one.rest() == b""
        await other.say(GET)
        assert (await other.answer()).status == 200
        assert house.told.contained == [fault]
        assert house.server.statistics().contained == 1


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
async def test_what_ends_the_process_is_let_through(end: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted(_: Connection) -> None:
        await trio.lowlevel.checkpoint()
        raise BaseExceptionGroup("from a nursery", [ValueError(), end()])

    monkeypatch.setattr(Connection, "_converse", interrupted)
    told = Told()
    with pytest.RaisesGroup(end), _lone_connection(told) as connection:
        await connection.run()
    assert len(told.contained) == 1


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
async def test_what_ends_the_process_alone_is_not_told(
    end: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def interrupted(_: Connection) -> None:
        await trio.lowlevel.checkpoint()
        raise end

    monkeypatch.setattr(Connection, "_converse", interrupted)
    told = Told()
    with pytest.raises(end), _lone_connection(told) as connection:
        await connection.run()
    assert told.contained == []


@pytest.mark.parametrize(
    ("fault", "told_of"), [(SystemExit(), 0), (BaseExceptionGroup("from a nursery", [SystemExit(), ValueError()]), 1)]
)
async def test_what_ends_the_process_passes_the_app_too(
    fault: BaseException, told_of: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, told = tiny_app(), Told()

    async def interrupted(*_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise fault

    monkeypatch.setattr(app, "asgi_app", interrupted)

    async def ask() -> None:
        async with serving(app, observe=told) as house, calling(house.port) as caller:
            await caller.say(GET)
            await caller.rest()

    with pytest.RaisesGroup(SystemExit, flatten_subgroups=True):
        await ask()
    assert len(told.failures) == told_of


@contextmanager
def _lone_connection(told: Told, limits: Limits | None = None) -> Iterator[Connection]:
    """A connection that no server has accepted yet."""
    config = regsvc.http.server._config(1.0)
    door = Door(app=tiny_app(), config=config, limits=limits or Limits(), refuse=plain_refusal, observe=told)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        yield Connection(door, stream)


async def test_a_client_that_is_gone_before_it_is_met_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(_: Connection) -> None:
        await trio.lowlevel.checkpoint()
        raise OSError(107, "Transport endpoint is not connected")

    monkeypatch.setattr(Connection, "_converse", gone)
    told = Told()
    with _lone_connection(told) as connection:
        await connection.run()
    assert told.contained == []


async def test_an_idle_connection_is_closed_before_and_after_a_request() -> None:
    async with serving(limits=Limits(idle=0.3)) as house, calling(house.port) as fresh, calling(house.port) as used:
        await used.say(GET)
        assert (await used.answer()).status == 200
        assert await used.rest() == b""
        assert await fresh.rest() == b""
        await until(lambda: house.server.statistics().connections == 0)
        assert house.told.cuts == []


async def test_a_connection_that_is_used_now_and_then_is_kept() -> None:
    async with serving(limits=Limits(idle=2.0)) as house, calling(house.port) as caller:
        for _ in range(4):
            await caller.say(GET)
            assert (await caller.answer()).status == 200
            await trio.sleep(0.7)  # the idle time begins anew with each answer
        assert house.server.statistics().accepted == 1


async def test_a_head_that_trickles_is_cut_at_its_deadline() -> None:
    async with serving(limits=Limits(idle=5, head=0.1)) as house, calling(house.port) as caller:
        await caller.say(GET)
        assert (await caller.answer()).status == 200
        await _trickle(caller, b"GET / HTTP/1.1\r\nX: " + b"y" * 10_000)
        assert (await caller.answer()).status == 408
        assert await caller.rest() == b""
        assert house.told.cuts == [Cut.SLOW_HEAD]


async def test_a_body_that_trickles_is_cut_at_its_deadline() -> None:
    async with serving(limits=Limits(body_arrives=0.1)) as house, calling(house.port) as caller:
        await caller.say(POST + b"Content-Length: 10000\r\n\r\n")
        await _trickle(caller, b"y" * 10_000)
        answer = await caller.answer()
        assert (answer.status, json.loads(answer.body)["error"]) == (408, "RequestTimeout")
        assert house.told.cuts == [Cut.SLOW_BODY]


async def _trickle(caller: Any, data: bytes) -> None:
    """Send byte by byte until the server says something."""
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            for byte in data:
                await caller.say(bytes([byte]))
                await trio.sleep(0.005)

        nursery.start_soon(send)
        await trio.lowlevel.wait_readable(caller.stream.socket)
        nursery.cancel_scope.cancel(reason="the server has spoken")


async def test_a_client_that_does_not_read_is_cut() -> None:
    app = tiny_app()

    @app.get("/much")
    async def much() -> bytes:
        await trio.lowlevel.checkpoint()
        return b"x" * 30_000_000

    async with serving(app, limits=Limits(send_stalls=0.1)) as house, calling(house.port) as caller:
        await caller.say(b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: house.told.cuts)
        assert house.told.cuts == [Cut.SLOW_READER]
        await until(lambda: house.server.statistics().connections == 0)


async def test_a_client_that_reads_slowly_is_served() -> None:
    app = tiny_app()

    @app.get("/much")
    async def much() -> bytes:
        await trio.lowlevel.checkpoint()
        return b"x" * 10_000_000

    async with serving(app, limits=Limits(send_stalls=1.0)) as house, calling(house.port) as caller:
        began = trio.current_time()
        await caller.say(b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n")
        while len(caller.heard) < 10_000_000:
            caller.heard += await caller.stream.receive_some(500_000)
            await trio.sleep(0.06)
        assert trio.current_time() - began > 1.0
        assert house.told.cuts == []


async def test_beyond_the_cap_of_connections_one_is_told_so_and_closed() -> None:
    async with serving(limits=Limits(connections=2, linger=0.05)) as house, calling(house.port) as one:
        async with calling(house.port), calling(house.port) as third:
            await one.say(GET)
            assert (await one.answer()).status == 200
            answer = await third.answer()
            assert (answer.status, json.loads(answer.body)["error"]) == (503, "Overloaded")
            assert await third.rest() == b""
            assert house.server.statistics().connections == 2
        await until(lambda: house.server.statistics().connections == 1)
        async with calling(house.port) as late:
            await late.say(GET)
            assert (await late.answer()).status == 200


async def test_a_connection_met_after_the_drain_began_gets_its_chance_and_no_more() -> None:
    with _lone_connection(Told(), Limits(idle=30, fresh=0.02)) as connection:
        await connection._door.context.terminated.set()
        with trio.fail_after(10):
            await connection.run()


async def test_others_run_between_the_answers_to_pipelined_requests() -> None:
    app, steps, seen = QuartTrio("busy"), count(), list[int]()

    @app.get("/")
    async def busy() -> Response:  # noqa: ASYNC124 - it waits for nothing, which is the point
        seen.append(next(steps))
        return Response("")

    async def live() -> None:
        while True:
            next(steps)
            await trio.lowlevel.checkpoint()

    async with serving(app) as house, calling(house.port) as caller, trio.open_nursery() as nursery:
        nursery.start_soon(live, name="others")
        await caller.say(20 * GET)
        for _ in range(20):
            assert (await caller.answer()).status == 200
        nursery.cancel_scope.cancel(reason="it was seen")
    # Of two tasks that are ready either may be first, so now and then two answers follow each other all the same.
    alone = sum(later == earlier + 1 for earlier, later in pairwise(seen))
    assert alone < 15, f"answered without a pause: {seen}"
