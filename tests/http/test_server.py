"""From a listening socket to a drain that counts; deadlines, limits, and the guard itself."""

import inspect
import json
import os
import socket
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import trio

import regsvc.http.server
from regsvc.http.door import Door
from regsvc.http.guard import Connection
from regsvc.http.http11 import Http11
from regsvc.http.server import (
    BACKLOG,
    HYPERCORN,
    LEANED_ON,
    Cut,
    Limits,
    Server,
    Statistics,
    plain_refusal,
    serve,
)
from tests.http.tiny import House, Told, calling, listening_socket, serving, tiny_app, until

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
WAIT = b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: x\r\n"


# What of Hypercorn we lean on


@pytest.mark.parametrize("name", LEANED_ON)
def test_hypercorn_still_has(name: str) -> None:
    module, _, path = name.partition(":")
    thing: Any = import_module(module)
    for part in path.split("."):
        thing = getattr(thing, part)
    parameters = [each for each in inspect.signature(thing).parameters if each != "self"]
    assert parameters == LEANED_ON[name].split()


def test_hypercorn_is_pinned_to_the_release_that_is_guarded() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    assert f"hypercorn=={HYPERCORN}" in project["dependencies"]


async def test_another_hypercorn_is_refused_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regsvc.http.server, "version", lambda _: "0.19.0")
    with listening_socket() as listening, pytest.raises(RuntimeError, match=r"0\.19\.0 is installed.*0\.18\.0"):
        await serve(tiny_app(), [listening.detach()], shutdown=trio.sleep_forever, observe=Told())


# The guard


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


# Sockets


async def test_the_listening_socket_is_tuned() -> None:
    async with serving() as house:
        assert house.listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert house.server.addresses == (f"http://127.0.0.1:{house.port}",)
    assert BACKLOG == 2048


async def test_several_sockets_of_several_families(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    sockets = [listening_socket(socket.AF_INET6, ("::1", 0)), listening_socket(socket.AF_UNIX, path)]
    port = sockets[0].getsockname()[1]
    stop = trio.Event()
    run = partial(serve, tiny_app(), [each.detach() for each in sockets], shutdown=stop.wait, observe=Told())
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(run)
        assert server.addresses == (f"http://[::1]:{port}", f"unix:{path}")
        for stream in (await trio.open_tcp_stream("::1", port), await trio.open_unix_socket(path)):
            async with stream:
                await stream.send_all(GET)
                assert (await stream.receive_some(12)) == b"HTTP/1.1 200"
        stop.set()


async def test_an_app_that_cannot_start_is_not_served() -> None:
    app = tiny_app()

    @app.before_serving
    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    with listening_socket() as listening, pytest.RaisesGroup(ZeroDivisionError):
        await serve(app, [listening.dup().detach()], shutdown=trio.sleep_forever, observe=Told())


# Deadlines and limits


async def test_an_idle_connection_is_closed_before_and_after_a_request() -> None:
    async with serving(limits=Limits(idle=0.3)) as house, calling(house.port) as fresh, calling(house.port) as used:
        await used.say(GET)
        assert (await used.answer()).status == 200
        assert await used.rest() == b""
        assert await fresh.rest() == b""
        await until(lambda: house.server.statistics().connections == 0)
        assert house.told.cuts == []


async def test_a_connection_that_is_used_now_and_then_is_kept() -> None:
    async with serving(limits=Limits(idle=0.4)) as house, calling(house.port) as caller:
        for _ in range(4):
            await caller.say(GET)
            assert (await caller.answer()).status == 200
            await trio.sleep(0.2)  # the idle time begins anew with each answer
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

    async with serving(app, limits=Limits(send_stalls=0.2)) as house, calling(house.port) as caller:
        began = trio.current_time()
        await caller.say(b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n")
        while len(caller.heard) < 10_000_000:
            caller.heard += await caller.stream.receive_some(500_000)
            await trio.sleep(0.02)
        assert trio.current_time() - began > 0.2
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


# Drain


async def test_idle_connections_do_not_hold_up_a_drain() -> None:
    async with serving(grace=30) as house, trio.open_nursery() as nursery, calling(house.port) as fresh:
        for _ in range(10):
            nursery.start_soon(_ask_and_stay, house)
        await until(lambda: house.server.statistics().answered == 10)
        began = trio.current_time()
        drained = await house.drain()
        assert trio.current_time() - began < 1
        assert (drained.in_flight, drained.finished, drained.cut) == (0, 0, 0)
        assert await fresh.rest() == b""


async def _ask_and_stay(house: House) -> None:
    async with calling(house.port) as caller:
        await caller.say(GET)
        assert (await caller.answer()).status == 200
        assert await caller.rest() == b""


async def test_what_is_in_flight_is_finished_and_nothing_more_accepted() -> None:
    app, began, go_on = tiny_app(), trio.Event(), trio.Event()

    @app.get("/wait")
    async def wait() -> str:
        began.set()
        await go_on.wait()
        return "done"

    async with serving(app) as house, calling(house.port) as caller, calling(house.port) as reading:
        await caller.say(WAIT + GET)
        await reading.say(POST + b"Content-Length: 5\r\n\r\nhe")
        await began.wait()
        await until(lambda: house.server.statistics().in_flight == 2)
        house.stop.set()
        house.listening.close()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream("127.0.0.1", house.port)
        go_on.set()
        await reading.say(b"llo")
        answer = await caller.answer()
        assert (answer.body, answer.headers["connection"]) == (b"done", "close")
        assert (await reading.answer()).body == b"hello"
        assert await caller.rest() == b"", "the pipelined one is not begun"
        drained = await house.drain()
        assert (drained.in_flight, drained.finished, drained.cut) == (2, 2, 0)


async def test_what_outlasts_the_grace_is_cut_and_counted() -> None:
    app, began = tiny_app(), trio.Event()

    @app.get("/wait")
    async def wait() -> str:
        began.set()
        await trio.Event().wait()
        return "never"

    async with serving(app, grace=0.05) as house, calling(house.port) as caller:
        await caller.say(WAIT)
        await began.wait()
        drained = await house.drain()
        assert (drained.in_flight, drained.finished, drained.cut) == (1, 0, 1)
        assert house.told.cuts == [Cut.GRACE_OVER]


async def test_a_request_that_meets_the_drain_on_its_way_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    drain = regsvc.http.server._drain

    async with serving(limits=Limits(fresh=1)) as house, calling(house.port) as fresh, calling(house.port) as used:

        async def drain_while_asked(door: Door) -> None:
            with socket.socket(fileno=os.dup(used.stream.socket.fileno())) as asking:
                asking.send(GET)  # in the kernel, and the server has not seen it yet
            await drain(door)

        monkeypatch.setattr(regsvc.http.server, "_drain", drain_while_asked)
        await used.say(GET)
        assert (await used.answer()).status == 200
        await until(lambda: house.server.statistics().connections == 2)
        house.stop.set()
        assert (await used.answer()).headers["connection"] == "close"
        await fresh.say(GET)
        assert (await fresh.answer()).headers["connection"] == "close"
        await used.stream.aclose()
        await fresh.stream.aclose()
        drained = await house.drain()
        assert (drained.in_flight, drained.finished, drained.cut) == (0, 2, 0)


async def test_statistics_say_what_is_and_what_was() -> None:
    async with serving() as house, calling(house.port) as caller:
        await caller.say(GET + b"nonsense\r\n\r\n")
        assert (await caller.answer()).status == 200
        assert (await caller.answer()).status == 400
        await caller.stream.aclose()
        await until(lambda: house.server.statistics().connections == 0)
        assert house.server.statistics() == Statistics(
            connections=0, in_flight=0, accepted=1, answered=1, refused=1, contained=0, cut=0
        )


async def test_an_outer_cancellation_ends_everything_at_once() -> None:
    run = partial(serve, tiny_app(), shutdown=trio.sleep_forever, observe=Told())
    with listening_socket() as listening:
        port, fd = listening.getsockname()[1], listening.dup().detach()
        async with trio.open_nursery() as nursery:
            server: Server = await nursery.start(run, [fd])
            async with calling(port) as idle:
                await idle.say(GET)
                assert (await idle.answer()).status == 200
                nursery.cancel_scope.cancel(reason="the test is over")
                with trio.CancelScope(shield=True):
                    assert await idle.rest() == b""
    assert server.statistics() == Statistics(
        connections=0, in_flight=0, accepted=1, answered=1, refused=0, contained=0, cut=0
    )


async def test_a_connection_met_after_the_drain_began_gets_its_chance_and_no_more() -> None:
    with _lone_connection(Told(), Limits(idle=30, fresh=0.02)) as connection:
        await connection._door.context.terminated.set()
        with trio.fail_after(1):
            await connection.run()
