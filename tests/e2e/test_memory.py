"""What memory a worker takes: when it has nothing to do, for each connection, and after a long time.

`--rounds 100`: 100,000 requests and 20,000 connections, and four workers instead of two.
"""

import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import trio

from tests.chaos.ledger import PASSWORD, PLAIN
from tests.e2e.people import new_email
from tests.service import Service, running
from tests.waiting import until

MB = 1 << 20  # bytes
WORKER_MAX = 80 * MB
CROWD = 2_000  # connections that are kept
CROWD_MAX = 60 * MB
CREEP_MAX = 20 * MB
REQUESTS = 1_000
CALLERS = 16
KEPT = 500  # requests on a connection; the server answers a thousand, then it wants a new one
LIGHT = b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n"
LIVE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Memory:
    """Bytes of a process: `rss` with all that it shares with others, `pss` with its part of that."""

    rss: int
    pss: int

    @classmethod
    def of(cls, pid: int) -> "Memory":
        words = [line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()[1:]]
        sizes = {word[0]: int(word[1]) * 1024 for word in words}
        return cls(sizes["Rss:"], sizes["Pss:"])

    def __str__(self) -> str:
        return f"{self.rss / MB:.1f} MB resident ({self.pss / MB:.1f} with its share of what is shared)"


def worker_pids(service: Service) -> list[int]:
    return [int(str(line["pid"])) for line in service.lines("worker_started")]


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="regsvc-") as name:
        yield Path(name)


async def ask(service: Service, number: int) -> None:
    """Ask so often, on a few connections that are kept."""

    async def caller(times: int) -> None:
        for first in range(0, times, KEPT):
            async with await trio.open_tcp_stream("127.0.0.1", service.port) as stream:
                for _ in range(first, min(first + KEPT, times)):
                    await answered(stream, LIGHT)

    async with trio.open_nursery() as nursery:
        for _ in range(CALLERS):
            nursery.start_soon(caller, number // CALLERS, name="caller")


async def come_and_go(service: Service, number: int) -> None:
    """Open so many connections, and close each after a request."""

    async def visitor(times: int) -> None:
        for _ in range(times):
            async with await trio.open_tcp_stream("127.0.0.1", service.port) as stream:
                await answered(stream, LAST)

    async with trio.open_nursery() as nursery:
        for _ in range(CALLERS):
            nursery.start_soon(visitor, number // CALLERS, name="visitor")


async def answered(stream: trio.SocketStream, request: bytes) -> None:
    await stream.send_all(request)
    heard = b""
    while not heard.endswith(b"}"):
        more = await stream.receive_some(65536)
        assert more, heard
        heard += more
    assert heard.startswith(b"HTTP/1.1 200"), heard


async def sign_up(service: Service, number: int) -> None:
    """Have everything used once that a worker has: passwords, mails, the pool."""
    async with httpx.AsyncClient(base_url=service.url, timeout=20, verify=PLAIN) as http:
        for _ in range(number):
            form = {"email": new_email(), "password": PASSWORD}
            assert (await http.post("/v1/users/register", json=form)).status_code == 201
            assert (await http.post("/v1/auth/login", json=form)).status_code == 403
    await until(lambda: len(service.lines("mail_sent")) >= number)


@pytest.mark.timeout(180)  # a few seconds where nobody else is at work, as below
async def test_a_worker_with_nothing_to_do_is_small(folder: Path, rounds: int | None) -> None:
    number = 4 if rounds else 2
    with running(folder, WORKERS=str(number), PASSWORD_ROUNDS="4", LOG_LEVEL="info") as service:
        await sign_up(service, 20)
        await ask(service, REQUESTS)
        found = [Memory.of(pid) for pid in worker_pids(service)]
        print(f"\n{number} workers:", *found, sep="\n  ")  # noqa: T201 - it is the report
        assert len(found) == number
        # What each costs the machine. Libraries that all have mapped count once, to all of them together.
        assert max(memory.pss for memory in found) <= WORKER_MAX


def files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def hold(service: Service, held: AsyncExitStack, number: int) -> None:
    """Open so many connections, ask once on each, and keep them: all within the time that an idle one is kept."""

    async def visitors(times: int) -> None:
        for _ in range(times):
            stream = await trio.open_tcp_stream("127.0.0.1", service.port)
            held.push_async_exit(stream)
            await answered(stream, LIVE)

    async with trio.open_nursery() as nursery:
        for _ in range(CALLERS):
            nursery.start_soon(visitors, number // CALLERS, name="visitors")


@pytest.mark.timeout(180)
async def test_an_idle_connection_takes_little(folder: Path) -> None:
    with running(folder, PASSWORD_ROUNDS="4", LOG_LEVEL="info") as service:
        [pid] = worker_pids(service)
        await ask(service, REQUESTS)
        before, files_before = Memory.of(pid), files(pid)
        async with AsyncExitStack() as held:
            await hold(service, held, CROWD)
            crowd, now = files(pid) - files_before, Memory.of(pid)
        # A busy machine takes longer than idle connections are kept, and the first have gone again.
        assert crowd > CROWD / 10
        each = (now.rss - before.rss) / crowd
        print(f"\n{crowd} connections: {before} before, {now} with them, {each / 1024:.1f} kB each")  # noqa: T201 - it is the report
        assert each * CROWD <= CROWD_MAX


@pytest.mark.timeout(0)
async def test_memory_does_not_creep(folder: Path, rounds: int | None) -> None:
    requests, visits = 1000 * (rounds or 5), 200 * (rounds or 5)
    with running(folder, PASSWORD_ROUNDS="4", LOG_LEVEL="info") as service:
        [pid] = worker_pids(service)
        await ask(service, requests // 10)
        await come_and_go(service, visits // 10)
        early = Memory.of(pid)
        await ask(service, requests - requests // 10)
        asked = Memory.of(pid)
        await come_and_go(service, visits - visits // 10)
        late = Memory.of(pid)
        print(f"\n{early}; after {requests} requests {asked}; after {visits} connections {late}")  # noqa: T201 - it is the report
        assert late.rss - early.rss <= CREEP_MAX
