"""A real service under siege: attacks on its parser, clients that say nothing or take nothing, bodies without an end.

`--rounds 100000` is the large form: so many attacks, and a thousand slow ones of each kind.
"""

import os
import socket
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import pytest
import trio

from tests.e2e.probe import percentile, probing
from tests.http.hostile import Attack, corpus, storm
from tests.http.smuggling import READ, REFUSED
from tests.service import Service, running
from tests.waiting import until

LARGE = 100_000
HEAD, BODY, STALLED = 5.0, 10.0, 10.0  # seconds; http.door.Limits
GRACE = 8.0  # seconds; a busy machine is no failure
GROWTH_MAX = 100 * 1024 * 1024  # bytes
UNREAD_MAX = 16 * 1024 * 1024  # bytes that the kernels take of a body which nobody reads
ENDLESS = 64 * 1024 * 1024  # bytes of such a body
FEW = 20  # connections: a probe, those of a pool, some that are on their way; and more of them in a storm
APART = 0.01  # seconds between two of them: a thousand within ten seconds
DRIP = 1.0  # seconds between two bytes
ASSET = b"GET /assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n"
REGISTER = b"POST /v1/users/register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
OVERSIZE = (
    REGISTER + b"Content-Length: 1000000000\r\n\r\n",
    REGISTER + b"Expect: 100-continue\r\nContent-Length: 1000000000\r\n\r\n",
    REGISTER + b"Transfer-Encoding: chunked\r\n\r\n3b9aca00\r\n",
    REGISTER + b"Transfer-Encoding: chunked\r\n\r\n5;" + b"x" * 1000 + b"\r\n12345\r\n3b9aca00\r\n",
)


@dataclass
class Worker:
    """The process that is attacked."""

    pid: int
    rss_before: int = 0
    rss_most: int = 0

    @classmethod
    def of(cls, service: Service) -> "Worker":
        [started] = service.lines("worker_started")
        worker = cls(int(str(started["pid"])))
        worker.rss_before = worker.rss_most = worker.rss()
        return worker

    def rss(self) -> int:
        """Return the bytes of memory it holds."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text("ascii").split()[1])
        return pages * 4096

    def sockets(self) -> int:
        """Return how many it has open."""
        return sum(_is_socket(one) for one in Path(f"/proc/{self.pid}/fd").iterdir())

    async def watch(self) -> None:
        """Note how much memory it comes to hold, until cancelled."""
        while True:
            self.rss_most = max(self.rss_most, self.rss())
            await trio.sleep(0.1)


def _is_socket(fd: Path) -> bool:
    try:
        return str(fd.readlink()).startswith("socket:")
    except FileNotFoundError:  # it was closed while we looked
        return False


@dataclass
class Siege:
    """What the slow ones came to see."""

    port: int
    held: dict[str, list[float]] = field(default_factory=dict)  # seconds until each was cut
    said: Counter[tuple[str, bytes]] = field(default_factory=Counter)
    taken: list[int] = field(default_factory=list)  # bytes of each oversize body
    over: trio.Event = field(default_factory=trio.Event)

    async def drip(self, kind: str, opening: bytes) -> None:
        """Send a little, then a byte now and then, until the server has enough."""
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream, trio.open_nursery() as nursery:
            await stream.send_all(opening)
            began = trio.current_time()
            nursery.start_soon(_drip, stream, name="drip")
            heard = await _rest(stream)
            self.held.setdefault(kind, []).append(trio.current_time() - began)
            self.said[kind, heard[:12]] += 1
            nursery.cancel_scope.cancel(reason="the server had enough")

    async def take_nothing(self) -> None:
        """Ask for much, and read none of it."""
        with trio.socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await sock.connect(("127.0.0.1", self.port))
            await sock.send(ASSET)
            await self.over.wait()

    async def send_slow(self, slow: int, oversize: int, worker: Worker, few: int) -> None:
        """Send them all, some after others, and wait until they are cut."""
        body = REGISTER + b"Content-Length: 9999\r\n\r\n"
        async with trio.open_nursery() as nursery:
            for number in range(slow):
                nursery.start_soon(self.drip, "head", b"GET / HTTP/1.1\r\nX: ", name=f"head {number}")
                nursery.start_soon(self.drip, "body", body, name=f"body {number}")
                nursery.start_soon(self.take_nothing, name=f"reader {number}")
                if number < oversize:
                    nursery.start_soon(self.never_end, OVERSIZE[number % len(OVERSIZE)], name=f"oversize {number}")
                await trio.sleep(APART)
            await until(lambda: worker.sockets() > few)
            await self._wait_cut(worker, few)

    async def _wait_cut(self, worker: Worker, few: int) -> None:
        """Wait until those who take nothing are cut, which nobody but the worker can see."""
        began = trio.current_time()
        await until(lambda: worker.sockets() <= few, STALLED + 2 * GRACE)
        self.held["reader"] = [trio.current_time() - began]
        self.over.set()

    async def never_end(self, opening: bytes) -> None:
        """Send a body of which there is always more."""
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            sent, piece = 0, b"x" * 65536
            try:
                await stream.send_all(opening)
                while sent < ENDLESS:
                    await stream.send_all(piece)
                    sent += len(piece)
            except trio.BrokenResourceError:
                pass
            self.taken.append(sent)
            self.said["oversize", (await _rest(stream))[:12]] += 1


async def _drip(stream: trio.SocketStream) -> None:
    try:
        while True:
            await trio.sleep(DRIP)
            await stream.send_all(b"x")
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


async def _rest(stream: trio.SocketStream) -> bytes:
    heard = bytearray()
    try:
        while data := await stream.receive_some(65536):
            heard += data
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    return bytes(heard)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with (
        tempfile.TemporaryDirectory(prefix="regsvc ") as folder,
        running(Path(folder), PASSWORD_ROUNDS="4", MAIL_CHANNEL="mailbox") as service,
    ):
        yield service


def attacks(rounds: int) -> Iterator[Attack]:
    """Return so many attacks on the parser."""
    more = {f"smuggled: {name}": one.data for name, one in {**REFUSED, **READ}.items()}
    return islice(corpus(seed=12, more=more), rounds)


@pytest.mark.timeout(240)
async def test_a_siege_ends_nothing_and_delays_nobody(service: Service, rounds: int | None) -> None:
    large = (rounds or 0) >= LARGE
    slow, oversize = (1000, 200) if large else (20, 8)
    siege, worker = Siege(service.port), Worker.of(service)
    sockets, began = worker.sockets(), trio.current_time()
    with probing(service.port) as waits:
        async with trio.open_nursery() as watching:
            watching.start_soon(worker.watch, name="watch")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    siege.send_slow, slow, oversize, worker, sockets + FEW + slow // 10, name="the slow ones"
                )
                bad = await storm(service.port, attacks(rounds or 600))
            await until(lambda: worker.sockets() <= sockets + FEW)
            watching.cancel_scope.cancel(reason="the siege is over")
    took = trio.current_time() - began
    report(siege, worker, waits, took, rounds or 600)
    assert bad == []
    assert_cut(siege, slow, oversize)
    assert_alive(service, worker)
    if large:
        assert percentile(waits, 0.99) <= 0.1


def report(siege: Siege, worker: Worker, waits: list[float], took: float, rounds: int) -> None:
    grown = (worker.rss_most - worker.rss_before) / 1024 / 1024
    middle, high = percentile(waits, 0.5) * 1e3, percentile(waits, 0.99) * 1e3
    print(  # noqa: T201 - `pytest -s`
        f"{rounds} attacks, {len(siege.held['head'])} slow ones of each kind, {len(siege.taken)} oversize in "
        f"{took:.0f} s: {len(waits)} probes, p50 {middle:.1f} ms, p99 {high:.1f} ms, longest {waits[-1] * 1e3:.0f} ms; "
        f"memory at most +{grown:.1f} MiB, now +{(worker.rss() - worker.rss_before) / 1024 / 1024:.1f} MiB; "
        f"cut: heads {max(siege.held['head']):.1f} s, bodies {max(siege.held['body']):.1f} s, "
        f"readers {siege.held['reader'][0]:.1f} s; load {os.getloadavg()[0]:.1f}; "
        f"oversize taken at most {max(siege.taken) / 1024:.0f} KiB; {dict(siege.said)}"
    )


def assert_cut(siege: Siege, slow: int, oversize: int) -> None:
    """Check that each was cut, in time, and told why where it could be."""
    for kind, limit in (("head", HEAD), ("body", BODY)):
        assert len(siege.held[kind]) == slow
        assert limit - 0.5 <= min(siege.held[kind])
        assert max(siege.held[kind]) <= limit + GRACE
        assert siege.said[kind, b"HTTP/1.1 408"] == slow
    assert siege.held["reader"][0] <= STALLED + GRACE
    assert len(siege.taken) == oversize
    assert max(siege.taken) <= UNREAD_MAX
    assert siege.said["oversize", b"HTTP/1.1 413"] >= oversize / 2, "the others were cut while they spoke"


def assert_alive(service: Service, worker: Worker) -> None:
    """Check that the same process is there, that nothing broke in it, and that it holds no more than it may."""
    assert [line["pid"] for line in service.lines("worker_started")] == [worker.pid]
    broken = {"http_bug", "connection_contained", "actor_crashed", "worker_exited", "log_lines_dropped"}
    assert [line for line in service.lines() if line["event"] in broken] == []
    assert worker.rss_most - worker.rss_before <= GROWTH_MAX
