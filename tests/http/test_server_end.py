"""A server that ends beside others: it serves on for a while, takes whom the kernel holds, and counts what it loses."""

import socket

import pytest
import trio

from regsvc.http.server import Limits
from tests.http.tiny import House, calling, serving, until

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HALF = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe"


async def test_a_parting_server_serves_on_and_sends_its_clients_elsewhere() -> None:
    async with serving() as house, calling(house.port) as known:
        await known.say(GET)
        assert "connection" not in (await known.answer()).headers
        house.server.part(patient=False)
        await known.say(GET)
        assert (await known.answer()).headers["connection"] == "close"
        assert await known.rest() == b""
        for _ in range(2):
            async with calling(house.port) as stranger:
                await stranger.say(GET)
                assert (await stranger.answer()).headers["connection"] == "close"
        drained = await house.drain()
        assert (drained.finished, drained.lost) == (0, 0)


async def test_whom_the_kernel_holds_when_the_door_is_closed_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The accepting stands still here, so that all of them are still with the kernel at the end."""
    going_on = trio.Event()
    accept = trio.SocketListener.accept

    async def wait_first(listener: trio.SocketListener) -> trio.SocketStream:
        await going_on.wait()
        return await accept(listener)

    monkeypatch.setattr(trio.SocketListener, "accept", wait_first)
    async with serving() as house:
        callers = [socket.create_connection(("127.0.0.1", house.port)) for _ in range(20)]
        for caller in callers:
            caller.sendall(GET)
        house.listening.close()
        drained = await house.drain()
        assert house.server.statistics().accepted == 20
        assert (drained.in_flight, drained.finished, drained.lost) == (0, 20, 0)
        for caller in callers:
            with caller:
                assert b"connection: close" in caller.recv(4096)


async def test_who_was_replaced_leaves_idle_connections_to_their_clients() -> None:
    async with serving(limits=Limits(fresh=0.05), grace=30) as house:
        async with calling(house.port) as used, calling(house.port) as fresh:
            await _used(house, used.stream)
            house.server.part(patient=True)
            house.stop.set()
            await trio.testing.wait_all_tasks_blocked(0.2)  # four times as long as it would wait without patience
            for caller in (used, fresh):
                await caller.say(GET)
                assert (await caller.answer()).headers["connection"] == "close"
        drained = await house.drain()
        assert (drained.finished, drained.cut, drained.lost) == (2, 0, 0)


async def test_patience_ends_with_the_service() -> None:
    async with serving(grace=30) as house, calling(house.port) as idle:
        await _used(house, idle.stream)
        house.server.part(patient=True)
        house.stop.set()
        await trio.testing.wait_all_tasks_blocked()
        assert not house.left.is_set()
        house.server.part(patient=False)
        assert await idle.rest() == b""
        assert (await house.drain()).lost == 0


async def _used(house: House, stream: trio.SocketStream) -> None:
    """Have a connection be one that was answered and waits for the next request."""
    await stream.send_all(GET)
    assert (await stream.receive_some(12)) == b"HTTP/1.1 200"
    await until(lambda: house.server.statistics().answered == 1)
    while not (await stream.receive_some(4096)).endswith(b"}\n"):
        pass


async def test_half_a_request_that_is_cut_is_lost_and_a_silent_client_is_not() -> None:
    async with serving(grace=0.4) as house, calling(house.port) as half, calling(house.port):
        await half.say(HALF)
        await until(lambda: house.server.statistics().in_flight == 1)
        drained = await house.drain()
        assert (drained.in_flight, drained.finished, drained.cut, drained.lost) == (1, 0, 1, 1)


async def test_half_a_head_that_is_cut_is_lost() -> None:
    async with serving(grace=0.4) as house, calling(house.port) as half:
        await half.say(GET[:10])
        await until(lambda: house.server.statistics().connections == 1)
        drained = await house.drain()
        assert (drained.in_flight, drained.cut, drained.lost) == (0, 0, 1)


async def test_what_comes_in_the_moment_that_is_too_late_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait for a client ends with its time; what the kernel holds by then is still read."""
    held = trio.Event()
    receive = trio.SocketStream.receive_some

    async def deaf(stream: trio.SocketStream, most: int | None = None) -> bytes | bytearray:
        if stream.socket.getsockname()[1] == house.port and not held.is_set():
            held.set()
            await trio.sleep_forever()
        return await receive(stream, most)

    async with serving(limits=Limits(idle=0.1)) as house:
        monkeypatch.setattr(trio.SocketStream, "receive_some", deaf)
        async with calling(house.port) as caller:
            await caller.say(GET)
            assert (await caller.answer()).status == 200
