"""The fault proxy does to a connection what it says, and nothing else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from tests.chaos.fault_proxy import Delay, Drip, FaultProxy, HalfClose, Pass, Refuse, Reset, Stall, open_fault_proxy
from tests.waiting import until

SOON = 0.1  # seconds in which whatever is passed on has come, on a machine with nothing else to do
IN_TIME = 10.0  # seconds in which it comes on a busy one


async def echo(stream: trio.SocketStream) -> None:
    try:
        async for piece in stream:
            await stream.send_all(piece)
        await stream.send_eof()
    except trio.BrokenResourceError:
        return


@asynccontextmanager
async def echoing() -> AsyncIterator[FaultProxy]:
    """A proxy before a server that says what it hears."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
        connect = partial(trio.open_tcp_stream, "127.0.0.1", listeners[0].socket.getsockname()[1])
        async with open_fault_proxy(connect) as proxy:
            yield proxy
        nursery.cancel_scope.cancel(reason="the test is over")


async def heard(stream: trio.SocketStream, number: int) -> bytes:
    """Read so many octets, or what comes before the end."""
    said = b""
    with trio.fail_after(IN_TIME):
        while len(said) < number and (piece := await stream.receive_some(number - len(said))):
            said += piece
    return said


async def open_to(proxy: FaultProxy) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", proxy.port)


async def test_without_a_fault_all_is_passed_on_and_ends_as_it_ends() -> None:
    async with echoing() as proxy, await open_to(proxy) as stream:
        long = bytes(range(256)) * 4000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, long)
            assert await heard(stream, len(long)) == long
        await stream.send_eof()
        assert await heard(stream, 1) == b""
        await until(lambda: proxy.statistics().open == 0)
        assert proxy.statistics().octets == 2 * len(long)


async def test_refused_nobody_listens_and_who_was_there_is_reset() -> None:
    async with echoing() as proxy, await open_to(proxy) as stream:
        await stream.send_all(b"x")
        assert await heard(stream, 1) == b"x"
        proxy.set(Refuse())
        with pytest.raises(trio.BrokenResourceError) as reset:
            await heard(stream, 1)
        assert isinstance(reset.value.__cause__, ConnectionResetError)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(OSError, match="all attempts to connect"):
            await open_to(proxy)
        port = proxy.port
        proxy.set(Pass())
        await trio.testing.wait_all_tasks_blocked()
        async with await open_to(proxy) as again:
            await again.send_all(b"y")
            assert await heard(again, 1) == b"y"
        assert proxy.port == port


@pytest.mark.parametrize("number", [0, 1, 5, 7])
async def test_reset_at_the_nth_octet(number: int) -> None:
    """Those of both directions count; here six come back of six."""
    async with echoing() as proxy:
        proxy.set(Reset(after=number))
        async with await open_to(proxy) as stream:
            await stream.send_all(b"abcdef")
            with pytest.raises(trio.BrokenResourceError):
                await heard(stream, number + 1)
        assert proxy.statistics().reset == 1
        assert proxy.statistics().octets == number


async def test_a_reset_counts_from_when_it_was_set() -> None:
    async with echoing() as proxy, await open_to(proxy) as stream:
        await stream.send_all(b"x" * 100)
        assert len(await heard(stream, 100)) == 100
        proxy.set(Reset(after=4))
        await stream.send_all(b"ab")
        assert await heard(stream, 2) == b"ab"
        await stream.send_all(b"c")
        with pytest.raises(trio.BrokenResourceError):
            await heard(stream, 1)


async def test_stalled_nothing_comes_until_it_ends_and_nothing_is_lost() -> None:
    async with echoing() as proxy:
        proxy.set(Stall())
        async with await open_to(proxy) as stream:
            await stream.send_all(b"later")
            with trio.move_on_after(SOON) as patience:
                await stream.receive_some()
            assert patience.cancelled_caught
            proxy.set(Pass())
            assert await heard(stream, 5) == b"later"


async def test_dripping_it_takes_its_time() -> None:
    async with echoing() as proxy, await open_to(proxy) as stream:
        proxy.set(Drip(0.01))
        began = trio.current_time()
        await stream.send_all(b"0123456789")
        assert await heard(stream, 10) == b"0123456789"
        assert trio.current_time() - began >= 0.1
        proxy.set(Drip(60))
        await stream.send_all(b"the rest")
        proxy.set(Pass())
        assert await heard(stream, 8) == b"the rest"


async def test_delayed_it_comes_later() -> None:
    async with echoing() as proxy, await open_to(proxy) as stream:
        proxy.set(Delay(0.05))
        began = trio.current_time()
        await stream.send_all(b"x")
        assert await heard(stream, 1) == b"x"
        assert trio.current_time() - began >= 0.1  # there and back


async def test_half_closed_the_client_hears_the_end_and_is_still_heard() -> None:
    async with echoing() as proxy, await open_to(proxy) as stream:
        proxy.set(HalfClose(after=3))
        await stream.send_all(b"ab")
        assert await heard(stream, 10) == b"a"
        before = proxy.statistics().octets
        await stream.send_all(b"cd")
        await until(lambda: proxy.statistics().octets > before)


async def test_where_nobody_is_behind_it_a_connection_ends_at_once() -> None:
    async def nobody() -> trio.SocketStream:
        await trio.lowlevel.checkpoint()
        raise OSError("there is nobody")

    async with open_fault_proxy(nobody) as proxy, await open_to(proxy) as stream:
        assert await heard(stream, 1) == b""
