"""From a listening socket to a drain that counts, over a Hypercorn that is still the one we know."""

import inspect
import os
import socket
import tomllib
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypercorn.config
import pytest
import trio

import regsvc.http.server
from regsvc.http.door import Door
from regsvc.http.server import (
    BACKLOG,
    HYPERCORN,
    LEANED_ON,
    Cut,
    Limits,
    Server,
    Statistics,
    serve,
)
from tests.http.tiny import House, Told, calling, listening_socket, serving, tiny_app, until
from tests.waiting import until_asked

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


def test_the_date_is_right_each_second(monkeypatch: pytest.MonkeyPatch) -> None:
    dated = regsvc.http.server._config(1.0).response_headers
    for now, date in ((1.0, b"00:00:01"), (1.9, b"00:00:01"), (2.0, b"00:00:02")):
        clock = partial(float, now)
        monkeypatch.setattr(regsvc.http.server, "time", SimpleNamespace(time=clock))
        monkeypatch.setattr(hypercorn.config, "time", clock)
        assert dated("h11") == [(b"date", b"Thu, 01 Jan 1970 " + date + b" GMT")]


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


# Drain


async def test_idle_connections_do_not_hold_up_a_drain() -> None:
    async with serving(grace=30) as house, trio.open_nursery() as nursery, calling(house.port) as fresh:
        for _ in range(10):
            nursery.start_soon(_ask_and_stay, house)
        await until(lambda: house.server.statistics().answered == 10)
        began = trio.current_time()
        drained = await house.drain()
        assert trio.current_time() - began < 10
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
        await until_asked(lambda: refused(house.port))
        go_on.set()
        await reading.say(b"llo")
        answer = await caller.answer()
        assert (answer.body, answer.headers["connection"]) == (b"done", "close")
        assert (await reading.answer()).body == b"hello"
        assert await caller.rest() == b"", "the pipelined one is not begun"
        drained = await house.drain()
        assert (drained.in_flight, drained.finished, drained.cut, drained.lost) == (2, 2, 0, 0)


async def refused(port: int) -> bool:
    try:
        await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
    except OSError:
        return True
    return False


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
        assert (drained.in_flight, drained.finished, drained.cut, drained.lost) == (1, 0, 1, 1)
        assert house.told.cuts == [Cut.GRACE_OVER]


async def test_a_request_that_meets_the_drain_on_its_way_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    drain = regsvc.http.server._drain

    async with serving(limits=Limits(fresh=10)) as house, calling(house.port) as fresh, calling(house.port) as used:

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
            connections=0, in_flight=0, accepted=1, answered=1, refused=1, contained=0, cut=0, lost=0
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
        connections=0, in_flight=0, accepted=1, answered=1, refused=0, contained=0, cut=0, lost=0
    )
