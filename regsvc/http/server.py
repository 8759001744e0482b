"""The HTTP server: guarded Hypercorn in our own nursery, from a listening socket to a drain that counts.

Hypercorn's `serve` is not used, only its classes (see `guard`): it would start its own unguarded connections, leaves
idle ones open while it drains, and does not say what it cut. TLS, HTTP/2 and websockets belong to the proxy in front.
"""

import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import orjson
import trio
from hypercorn.config import Config
from quart_trio import QuartTrio

from regsvc.http.connection import LeanConnection
from regsvc.http.door import Cut, Door, Headers, Limits, Refuse, ServerEvents
from regsvc.http.guard import LEANED_ON, Connection

__all__ = [
    "HYPERCORN",
    "LEANED_ON",
    "Cut",
    "Drained",
    "Limits",
    "Refuse",
    "Server",
    "ServerEvents",
    "Statistics",
    "serve",
]

HYPERCORN = "0.18.0"  # the release whose internals are guarded; another one is refused at start
BACKLOG = 2048  # connections the kernel holds while we are busy
DEFAULT_LIMITS = Limits()
HEAD_MAX = 16 * 1024  # bytes of a request's head


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a server is doing (`connections`, `in_flight`) and has done since its start."""

    connections: int
    in_flight: int
    accepted: int
    answered: int
    refused: int
    contained: int
    cut: int
    lost: int


@dataclass(frozen=True, slots=True)
class Drained:
    """How a server ended: requests in flight when it stopped accepting, answered since, cut when grace was over.

    `lost`: those cut, and those of accepted connections that were on their way and got no answer.
    """

    in_flight: int
    finished: int
    cut: int
    lost: int


class Server:
    """A running server, as `serve` hands it to its caller through `task_status`."""

    def __init__(self, door: Door, addresses: tuple[str, ...]) -> None:
        self._door = door
        self.addresses = addresses

    def statistics(self) -> Statistics:
        """Count; cheap enough for a metrics scrape, not for every request."""
        door = self._door
        return Statistics(
            connections=len(door.crowd.seated),
            in_flight=door.in_flight(),
            accepted=door.accepted,
            answered=door.answered,
            refused=door.refused,
            contained=door.contained,
            cut=door.cut,
            lost=door.lost,
        )

    def part(self, *, patient: bool) -> None:
        """Serve on, but have each answer be the last one on its connection, so that clients go elsewhere.

        `patient`: another server goes on at the same socket, so nobody hears that this one ends, and a connection may
        be asked again at any moment: in the drain idle ones are left to their usual deadline. Told once more, without
        patience, it has none any more.
        """
        self._door.parting, self._door.patient = True, patient
        if self._door.draining and not patient:
            _hurry(self._door)


def plain_refusal(
    status: int, name: str, detail: str, _path: str, _origins: Sequence[bytes], /
) -> tuple[Headers, bytes]:
    """A minimal RFC 9457 problem, for apps which bring no words of their own."""
    problem = {"type": "about:blank", "status": status, "error": name, "detail": detail}
    return [(b"content-type", b"application/problem+json"), (b"cache-control", b"no-store")], orjson.dumps(problem)


async def serve(
    app: QuartTrio,
    sockets: Sequence[int],
    *,
    shutdown: Callable[[], Awaitable[None]],
    observe: ServerEvents,
    refuse: Refuse = plain_refusal,
    limits: Limits = DEFAULT_LIMITS,
    probes: frozenset[bytes] = frozenset(),
    grace: float = 30.0,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> Drained:
    """Serve `app` on listening `sockets` (file descriptors, ours from now on) until `shutdown` returns, then drain.

    `probes`: the paths that are answered even when there are more connections than `limits` allow.
    Draining: those on their way are let in for a moment (`Limits.fresh`), with them all that the kernel holds, then
    nobody is; idle connections close at once, unless `Server.part` was told of patience; streams and long polls are
    told to end, requests in flight have `grace` seconds. The app's connection class is replaced by the lean one.
    Cancellation: everything is cut at once. Errors: those of the app's start-up and of the sockets; no client's.
    """
    with ExitStack() as owned:
        listening = [owned.enter_context(socket.socket(fileno=fd)) for fd in sockets]
        listeners = [_Listener(each) for each in listening]
        door = Door(app=app, config=_config(grace), limits=limits, refuse=refuse, observe=observe, probes=probes)
        accept = partial(trio.serve_listeners, partial(_welcome, door), listeners)
        app.asgi_http_class = LeanConnection
        async with trio.open_nursery() as background:
            app.nursery = background  # Quart's own background tasks; our actors are siblings of this server instead
            await app.startup()
            async with trio.open_nursery() as connections:
                async with trio.open_nursery() as accepting:
                    await accepting.start(partial(accept, handler_nursery=connections), name="accept")
                    task_status.started(Server(door, tuple(_address(each) for each in listening)))
                    await shutdown()
                    in_flight, answered = door.in_flight(), door.answered
                    await _drain(door)
                    connections.cancel_scope.deadline = trio.current_time() + grace
                    if not door.patient:
                        await trio.sleep(limits.fresh)
                    accepting.cancel_scope.cancel(reason="the server drains")
                for each in listening:
                    if not door.patient:
                        _take_the_rest(each, door, connections)
                    each.close()  # at once: who comes between the two is reset where no other process has the socket
            await app.shutdown()
        return Drained(in_flight, finished=door.answered - answered, cut=door.grace_over, lost=door.lost)


async def _drain(door: Door) -> None:
    door.parting = True
    await door.context.terminated.set()
    _hurry(door)


def _hurry(door: Door) -> None:
    for connection in list(door.crowd.everybody()):
        connection.hurry()


def _take_the_rest(listening: socket.socket, door: Door, connections: trio.Nursery) -> None:
    """Take the connections that the kernel has made and holds: it resets them when the socket is closed."""
    with suppress(OSError):  # there are no more of them, or no more files: that is all we can do
        while True:
            accepted, _ = listening.accept()
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(accepted))
            connections.start_soon(_welcome, door, stream, name="a late connection")


async def _welcome(door: Door, stream: trio.SocketStream) -> None:
    await Connection(door, stream).run()


class Dated(Config):
    """Hypercorn's configuration, writing the date once a second rather than once an answer."""

    _date: tuple[int, list[tuple[bytes, bytes]]] = (0, [])

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        """Return what every answer has."""
        now = int(time.time())
        if now != self._date[0]:
            self._date = now, super().response_headers(protocol)
        return self._date[1]


def _config(grace: float) -> Config:
    if (found := version("hypercorn")) != HYPERCORN:
        raise RuntimeError(f"hypercorn {found} is installed, the guard was written for {HYPERCORN}")
    config = Dated()
    config.accesslog = None  # it can be forged by %0d%0a; the app logs its requests itself
    config.errorlog = None  # errors go to `observe`
    config.include_server_header = False
    config.h11_max_incomplete_size = HEAD_MAX
    config.graceful_timeout = grace
    return config


class _Listener(trio.abc.Listener[trio.SocketStream]):
    """Trio's, but it does not close the socket when the accepting ends: there is more to take."""

    def __init__(self, listening: socket.socket) -> None:
        if listening.family in {socket.AF_INET, socket.AF_INET6}:  # accepted sockets inherit it
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listening.listen(BACKLOG)
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))

    async def accept(self) -> trio.SocketStream:
        return await self._listener.accept()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def _address(listening: socket.socket) -> str:
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return f"unix:{name}"
    host = f"[{name[0]}]" if listening.family == socket.AF_INET6 else name[0]
    return f"http://{host}:{name[1]}"
