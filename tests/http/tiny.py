"""A tiny app behind the server, in this process or another one, and a client that speaks bytes.

`python -m tests.http.tiny guarded|stock FD`: serve on an inherited listening socket until SIGTERM.
"""

import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import hypercorn.trio
import trio
from hypercorn.config import Config
from quart import Response, request
from quart_trio import QuartTrio

from regsvc.http.server import Cut, Drained, Limits, Server, serve


@dataclass(eq=False, slots=True)
class Told:
    """Keeps what the server tells."""

    contained: list[BaseException] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)
    refusals: list[tuple[int, str]] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)

    def connection_contained(self, error: BaseException, /) -> None:
        self.contained.append(error)

    def connection_cut(self, why: Cut, /) -> None:
        self.cuts.append(why)

    def request_refused(self, status: int, name: str, _detail: str, /) -> None:
        self.refusals.append((status, name))

    def handler_failed(self, error: BaseException, /) -> None:
        self.failures.append(error)


def tiny_app() -> QuartTrio:
    app = QuartTrio("tiny")

    @app.get("/")
    async def root() -> dict[str, bool]:
        await trio.lowlevel.checkpoint()
        return {"ok": True}

    @app.route("/echo", methods=["GET", "POST"])
    async def echo() -> Response:
        return Response(await request.get_data() or request.query_string)

    return app


def listening_socket(family: int = socket.AF_INET, address: Any = ("127.0.0.1", 0)) -> socket.socket:
    listening = socket.socket(family)
    listening.bind(address)
    listening.listen()
    return listening


@dataclass(eq=False, slots=True)
class House:
    """A server under test, in this process."""

    port: int
    listening: socket.socket  # a second handle of the server's socket
    server: Server
    told: Told
    stop: trio.Event = field(default_factory=trio.Event)
    left: trio.Event = field(default_factory=trio.Event)
    drained: Drained | None = None

    async def drain(self) -> Drained:
        """Ask the server to stop, and wait until it has."""
        self.stop.set()
        with trio.fail_after(20):
            await self.left.wait()
        assert self.drained is not None
        return self.drained


@asynccontextmanager
async def serving(app: QuartTrio | None = None, limits: Limits | None = None, **knobs: Any) -> AsyncIterator[House]:
    """A server in this process, gone when the block ends."""
    listening = listening_socket()
    stop, told = trio.Event(), Told()
    knobs = {"shutdown": stop.wait, "observe": told, "limits": limits or Limits(), "grace": 2.0, **knobs}
    run = partial(serve, app or tiny_app(), [listening.dup().detach()], **knobs)

    async def live(task_status: trio.TaskStatus[Server]) -> None:  # noqa: ASYNC114, ASYNC128 – `serve` calls it
        drained = await run(task_status=task_status)
        house.drained = drained
        house.left.set()

    with listening:
        async with trio.open_nursery() as nursery:
            server: Server = await nursery.start(live, name="server under test")
            house = House(listening.getsockname()[1], listening, server, told, stop)
            yield house
            house.stop.set()


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Caller:
    """A client that speaks bytes and reads answers one by one."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.heard = bytearray()

    async def say(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def until(self, mark: bytes) -> bytes:
        """Read up to and with `mark`."""
        with trio.fail_after(20):
            while mark not in self.heard:
                data = await self.stream.receive_some(65536)
                assert data, f"closed before {mark!r}, heard {bytes(self.heard)!r}"
                self.heard += data
        end = self.heard.index(mark) + len(mark)
        taken = bytes(self.heard[:end])
        del self.heard[:end]
        return taken

    async def answer(self, *, body: bool = True) -> Answer:
        """Read one answer of known length."""
        line, *fields = (await self.until(b"\r\n\r\n")).decode().rstrip().split("\r\n")
        headers = dict(field.split(": ", 1) for field in fields)
        length = int(headers.get("content-length", "0")) if body else 0
        with trio.fail_after(20):
            while len(self.heard) < length:
                data = await self.stream.receive_some(65536)
                assert data, "closed within a body"
                self.heard += data
        whole = bytes(self.heard[:length])
        del self.heard[:length]
        return Answer(int(line.split(" ")[1]), headers, whole)

    async def rest(self) -> bytes:
        """Read until the server closes; a reset counts as that."""
        with trio.fail_after(20):
            try:
                while data := await self.stream.receive_some(65536):
                    self.heard += data
            except trio.BrokenResourceError:
                pass
        return bytes(self.heard)


@asynccontextmanager
async def calling(port: int) -> AsyncIterator[Caller]:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        yield Caller(stream)


async def until(condition: Callable[[], object]) -> None:
    """Wait for what another task brings about."""
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110 – what brings it about has no event to wait for
            await trio.sleep(0.001)


@contextmanager
def other_process(kind: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server in a process of its own, and its port."""
    with listening_socket() as listening:
        command = [sys.executable, "-m", "tests.http.tiny", kind, str(listening.fileno())]
        process = subprocess.Popen(command, pass_fds=[listening.fileno()], stderr=subprocess.DEVNULL)
        port = listening.getsockname()[1]
    try:
        yield process, port
    finally:
        process.kill()
        process.wait()


async def _main(kind: str, fd: int) -> None:
    if kind == "stock":
        config = Config()
        config.bind = [f"fd://{fd}"]
        await hypercorn.trio.serve(tiny_app(), config, mode="asgi")
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        await serve(tiny_app(), [fd], shutdown=partial(anext, signals), observe=Told())


if __name__ == "__main__":
    trio.run(_main, sys.argv[1], int(sys.argv[2]))
