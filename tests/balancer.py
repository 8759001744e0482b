"""What a reverse proxy does with the servers behind it, as nginx and HAProxy do it, and a crowd that asks through it.

It asks each server's /readyz every 0.1 s and sends requests to those that said yes; it keeps connections open and uses
them again unless it sees that they ended; and it asks another server only when a connection was refused, which is
before anything was sent. All else that goes wrong is a failed request. What a proxy does towards its clients is left
out: a request is asked of it in this process.
"""

import itertools
import json
import socket
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import h11
import trio

from tests.chaos.ledger import PASSWORD
from tests.waiting import until

CHECK_EVERY = 0.1  # seconds
CHECK_TIME = 2.0  # seconds; a busy machine is no reason to send everybody away
KEPT = 0.5  # seconds that an idle connection is used again: less than the 5 s after which the server closes it
PATIENCE = 20.0  # seconds for an answer
GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError)


class Refused(Exception):  # noqa: N818 - it is what happened
    """Nobody listens there; nothing was sent."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said."""

    status: int
    body: bytes


@dataclass(eq=False, slots=True)
class Line:
    """A connection to a server."""

    stream: trio.SocketStream
    idle_since: float = 0.0
    spoken: h11.Connection = field(default_factory=lambda: h11.Connection(h11.CLIENT))

    def usable(self) -> bool:
        """Whether it may be asked again, as far as one can see from here."""
        young = trio.current_time() - self.idle_since < KEPT
        return young and self.spoken.our_state is h11.IDLE and not self.stream.socket.is_readable()

    async def ask(self, method: str, target: str, body: bytes, headers: Sequence[tuple[str, str]]) -> Answer:
        """Ask, and wait for all of the answer. Raises GONE."""
        head = [("Host", "accounts.example.test"), ("Content-Length", str(len(body))), *headers]
        asked = [h11.Request(method=method, target=target, headers=head), h11.Data(data=body), h11.EndOfMessage()]
        await self.stream.send_all(b"".join(self.spoken.send(event) or b"" for event in asked))
        status, heard = 0, bytearray()
        while not isinstance(event := await self._next(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                heard += event.data
            elif isinstance(event, h11.ConnectionClosed):
                raise trio.BrokenResourceError("it ended before its answer")
        if self.spoken.our_state is h11.DONE and self.spoken.their_state is h11.DONE:
            self.spoken.start_next_cycle()
        self.idle_since = trio.current_time()
        return Answer(status, bytes(heard))

    async def _next(self) -> object:
        while (event := self.spoken.next_event()) is h11.NEED_DATA:
            self.spoken.receive_data(await self.stream.receive_some(65536))
        return event


@dataclass(eq=False, slots=True)
class Server:
    """A server behind the proxy."""

    port: int
    up: bool = False
    went_down: int = 0
    idle: deque[Line] = field(default_factory=deque)

    async def ask(self, method: str, target: str, body: bytes, headers: Sequence[tuple[str, str]]) -> Answer:
        """Ask it on a connection that is open, or on a new one. Raises Refused, GONE, trio.TooSlowError."""
        line = await self._line()
        try:
            with trio.fail_after(PATIENCE):
                answer = await line.ask(method, target, body, headers)
        except BaseException:
            line.stream.socket.close()
            raise
        if line.spoken.our_state is h11.IDLE:
            self.idle.append(line)
        else:
            line.stream.socket.close()
        return answer

    async def _line(self) -> Line:
        while self.idle:  # the one that was used last, as pools do: the others get old
            line = self.idle.pop()
            if line.usable():
                return line
            line.stream.socket.close()
        return await self.connect()

    async def connect(self) -> Line:
        """Open a connection. Raises Refused."""
        sock = trio.socket.socket()
        try:
            with trio.fail_after(PATIENCE):
                await sock.connect(("127.0.0.1", self.port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except ConnectionRefusedError as error:
            sock.close()
            raise Refused from error
        except BaseException:
            sock.close()
            raise
        return Line(trio.SocketStream(sock))

    async def watch(self) -> None:
        """Ask for its health, again and again; its idle connections go when they are old."""
        while True:
            up = await self._is_well() or await self._is_well()  # one that broke off says nothing of other workers
            self.went_down += self.up and not up
            self.up = up
            while self.idle and trio.current_time() - self.idle[0].idle_since > KEPT:
                self.idle.popleft().stream.socket.close()
            await trio.sleep(CHECK_EVERY)

    async def _is_well(self) -> bool:
        with suppress(Refused, *GONE), trio.move_on_after(CHECK_TIME):
            line = await self.connect()
            async with line.stream:
                return (await line.ask("GET", "/readyz", b"", [("Connection", "close")])).status == 200
        return False


@dataclass(eq=False)
class Balancer:
    """Sends each request to the next server that is up."""

    servers: list[Server]
    turn: "itertools.count[int]" = field(default_factory=itertools.count)

    async def ask(self, method: str, target: str, body: bytes = b"", headers: Sequence[tuple[str, str]] = ()) -> Answer:
        """Ask one of them. Raises Refused when none takes it, GONE, trio.TooSlowError."""
        turn = next(self.turn)
        up = [server for server in self.servers if server.up]
        for server in up[turn % len(up) :] + up[: turn % len(up)] if up else []:
            with suppress(Refused):
                return await server.ask(method, target, body, headers)
        raise Refused


@asynccontextmanager
async def balancing(*ports: int) -> AsyncIterator[Balancer]:
    """A proxy in front of servers on these ports of this machine; it begins when all of them are up."""
    proxy = Balancer([Server(port) for port in ports])
    try:
        async with trio.open_nursery() as nursery:
            for server in proxy.servers:
                nursery.start_soon(server.watch, name=f"health of {server.port}")
            await until(lambda: all(server.up for server in proxy.servers), PATIENCE)
            yield proxy
            nursery.cancel_scope.cancel(reason="the test is over")
    finally:
        for line in itertools.chain.from_iterable(server.idle for server in proxy.servers):
            line.stream.socket.close()


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that failed: when it began, when that was known, and how."""

    began: float
    ended: float
    what: str


@dataclass(eq=False)
class Crowd:
    """Clients that ask about a hundred times a second, a third of it to write."""

    proxy: Balancer
    bearer: str = ""
    done: Counter[str] = field(default_factory=Counter)
    failed: list[Failure] = field(default_factory=list)
    number: "itertools.count[int]" = field(default_factory=itertools.count)

    async def live(self, clients: int, each: float) -> None:
        """Have so many clients ask every `each` seconds, until cancelled: a request that has begun is finished."""
        async with trio.open_nursery() as nursery:
            for number in range(clients):
                nursery.start_soon(self._client, number * each / clients, each, name=f"client {number}")

    async def _client(self, first: float, each: float) -> None:
        await trio.sleep(first)
        due = trio.current_time()
        while True:
            with trio.CancelScope(shield=True):  # Server.ask has a deadline
                await self._ask(next(self.number))
            due = max(due + each, trio.current_time())
            await trio.sleep_until(due)

    async def _ask(self, number: int) -> None:
        method, target, body, good = self._request(number)
        headers = [("Authorization", f"Bearer {self.bearer}")] if self.bearer else []
        headers += [("Content-Type", "application/json")] if body else []
        began = trio.current_time()
        fail = partial(self._fail, began, f"{method} {target}")
        try:
            answer = await self.proxy.ask(method, target, body, headers)
        except (Refused, *GONE, trio.TooSlowError) as error:
            fail(repr(error))
        else:
            self.done[method] += 1
            if answer.status != good:
                fail(f"{answer.status} {answer.body[:300]!r}")

    def _fail(self, began: float, what: str, why: str) -> None:
        self.failed.append(Failure(began, trio.current_time(), f"{what}: {why}"))

    def _request(self, number: int) -> tuple[str, str, bytes, int]:
        if number % 3 == 0:
            form = {"email": f"crowd-{id(self):x}-{number}@example.test", "password": PASSWORD}
            return "POST", "/v1/users/register", json.dumps(form).encode(), 201
        if number % 3 == 1 and self.bearer:
            return "GET", "/v1/users/me", b"", 200
        return "GET", "/.well-known/jwks.json", b"", 200


@asynccontextmanager
async def crowd(proxy: Balancer, bearer: str = "", *, clients: int = 10, each: float = 0.1) -> AsyncIterator[Crowd]:
    """A crowd that asks through `proxy` while the block runs; what it has asked by then is answered at the end."""
    people = Crowd(proxy, bearer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(people.live, clients, each, name="crowd")
        yield people
        nursery.cancel_scope.cancel(reason="enough was asked")
