"""The transport: what the kernel refuses is queued, what the server says arrives, the end is told once."""

import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio
import trustme

from regsvc.trio_asyncpg.transport import HIGH_WATER, Tls, Transport
from tests.trio_asyncpg.conftest import open_tasks, until


class Receiver:
    def __init__(self) -> None:
        self.data = bytearray()
        self.lost: list[Exception | None] = []
        self.broken = False
        self.then: Callable[[], object] = lambda: None

    def data_received(self, data: bytes) -> None:
        if self.broken:
            raise ValueError("not understood")
        self.data += data
        self.then()

    def has(self, data: bytes) -> bool:
        return self.data == data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Transport, Receiver, trio.SocketStream]]:
    """A transport that is being pumped, and the other end of its socket."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)  # noqa: FBT003  # its only form
    receiver = Receiver()
    async with open_tasks() as tasks, trio.SocketStream(trio.socket.from_stdlib_socket(theirs)) as peer:
        transport = Transport(ours, tasks, name="a test")
        tasks.spawn(transport.pump, receiver, name="reader of a test")
        yield transport, receiver, peer
        transport.abort()
        await until(lambda: receiver.lost)
    assert len(receiver.lost) == 1


async def test_what_the_kernel_refuses_is_queued_in_order() -> None:
    sent = bytes(n % 251 for n in range(3_000_000))
    async with pair() as (transport, _, peer):
        for n in range(0, len(sent), 100_000):
            transport.writelines([sent[n : n + 1], memoryview(sent)[n + 1 : n + 100_000]])
        assert transport.is_full()
        got = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.drained, name="waits for the queue")
            nursery.start_soon(transport.drained, name="so does this")
            while len(got) < len(sent):
                got += await peer.receive_some()
        assert not transport.is_full()
        assert got == sent
        transport.write(b"more")
        assert await peer.receive_some() == b"more"


async def test_who_waits_for_the_queue_is_released_when_the_transport_ends() -> None:
    async with pair() as (transport, receiver, _), trio.open_nursery() as nursery:
        transport.write(bytes(HIGH_WATER * 50))
        nursery.start_soon(transport.drained, name="waits for the queue")
        await trio.testing.wait_all_tasks_blocked(0.01)
        transport.abort()
        transport.abort()
        transport.write(b"to nobody")
        assert transport.is_closing()
        await until(lambda: receiver.lost == [None])


async def test_a_peer_that_vanishes_with_a_queue_before_it() -> None:
    async with pair() as (transport, receiver, peer):
        transport.write(bytes(HIGH_WATER * 50))
        await peer.aclose()
        await until(lambda: receiver.lost)
        transport.write(b"to nobody")
    assert isinstance(receiver.lost[0], OSError | None)


async def test_last_words_are_read_though_writing_fails() -> None:
    async with pair() as (transport, receiver, peer):
        await peer.send_all(b"FATAL: going down")
        await peer.aclose()
        transport.write(b"a question")
        await until(lambda: receiver.lost)
        assert receiver.data == b"FATAL: going down"


async def test_a_paused_transport_reads_on_when_told() -> None:
    async with pair() as (transport, receiver, peer):
        await trio.testing.wait_all_tasks_blocked()
        for word in (b"one", b"two"):  # paused first while the reader waits for data, then before it does
            receiver.data.clear()
            transport.pause_reading()
            transport.pause_reading()
            await peer.send_all(word)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert not receiver.data
            transport.resume_reading()
            transport.resume_reading()
            await until(partial(receiver.has, word))


async def test_a_transport_ended_by_what_it_received() -> None:
    async with pair() as (transport, receiver, peer):
        receiver.then = transport.abort
        await peer.send_all(b"FATAL")
        await until(lambda: receiver.lost == [None])


class Thief(trio.abc.Instrument):
    """Reads the data away between the kernel's word that it is there and the reader's call."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.stolen = b""

    def after_io_wait(self, timeout: float) -> None:
        if not self.stolen:
            with suppress(BlockingIOError):
                self.stolen = self.sock.recv(100)


async def test_data_that_is_not_there_after_all() -> None:
    async with pair() as (transport, receiver, peer):
        await trio.testing.wait_all_tasks_blocked()
        with transport.get_extra_info("socket").dup() as other:
            thief = Thief(other)
            trio.lowlevel.add_instrument(thief)
            await peer.send_all(b"stolen")
            await until(lambda: thief.stolen == b"stolen")
            trio.lowlevel.remove_instrument(thief)
        await peer.send_all(b"kept")
        await until(lambda: receiver.data == b"kept")


async def test_what_the_protocol_does_not_understand_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    async with pair() as (_, receiver, peer):
        receiver.broken = True
        await peer.send_all(b"?")
        await until(lambda: receiver.lost)
        assert await peer.receive_some() == b""
    assert isinstance(receiver.lost[0], ValueError)
    assert "could not read" in caplog.text


async def test_what_asyncpg_asks_a_transport() -> None:
    async with pair() as (transport, _, peer):
        assert transport.get_extra_info("socket").family == socket.AF_UNIX
        assert transport.get_extra_info("ssl_object") is None
        assert transport.get_extra_info("peername", "nobody") == "nobody"
        assert transport.looks_alive()
        await peer.send_all(b"x")
        await trio.testing.wait_all_tasks_blocked(0.01)
        transport.abort()
        assert not transport.looks_alive()


async def test_tls_ends_with_its_closing_word() -> None:
    authority = trustme.CA()
    server_side, client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("here.test").configure_cert(server_side)
    authority.configure_trust(client_side)
    ours, theirs = socket.socketpair()
    receiver = Receiver()
    async with open_tasks() as tasks, trio.open_nursery() as nursery:
        peer = trio.SSLStream(trio.SocketStream(trio.socket.from_stdlib_socket(theirs)), server_side, server_side=True)
        nursery.start_soon(peer.do_handshake, name="server's handshake")
        tls, sock = Tls(client_side, "here.test"), trio.socket.from_stdlib_socket(ours)
        await tls.handshake(sock)
        plain = socket.socket(fileno=sock.detach())
        plain.setblocking(False)  # noqa: FBT003  # its only form
        transport = Transport(plain, tasks, name="a test", tls=tls)
        tasks.spawn(transport.pump, receiver, name="reader of a test")
        transport.write(b"question")
        assert await peer.receive_some() == b"question"
        await peer.send_all(b"answer")
        await until(lambda: receiver.data == b"answer")
        await peer.aclose()
        await until(lambda: receiver.lost == [None])
