"""What a machine runs out of: disk, file descriptors, names. It is said, nothing is lost, and no restart is needed."""

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio

from tests.chaos import name_server
from tests.chaos.invariants import hold
from tests.chaos.ledger import CLIENTS, PLAIN, Ledger, clients, dsn, wait_carried
from tests.chaos.recording import Counted
from tests.service import Service
from tests.smtp_sink import Sink
from tests.waiting import until_asked, until_more

DISK = 160  # MiB: a new cluster, its log, and some room
FULL = 60.0  # seconds until a disk without room is noticed: until pages and log that are there are full
RECOVERED = 30.0  # seconds after there is room again
PROMPT = 5.0  # seconds that somebody who registers waits at most while names cannot be looked up
CROWD = 60  # connections, of which few find a descriptor
ROOM = 6  # descriptors that are left
STARVED = 2.0  # seconds without any: what looks for one each second meets it
Make = Callable[..., Service]
pytestmark = [
    pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object ByteStream:pytest.PytestWarning"),
]


async def goes_on(ledger: Ledger, seconds: float = RECOVERED) -> None:
    """Wait until everybody has been activated once more, on average."""
    await until_more(partial(len, ledger.activated), CLIENTS, seconds)


@contextmanager
def small_disk(place: Path) -> Iterator[None]:
    """A disk of DISK MiB mounted there while the block runs."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root and mount, for a disk that may be filled")
    place.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}m,mode=0700", "regsvc-test", place],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill(path: Path) -> None:
    """Write until there is no room for another octet."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while file.write(bytes(size)):
                    pass


@pytest.mark.timeout(180)
async def test_a_full_disk_is_said_and_recovered_from_without_a_restart(
    service: Make, ledger: Ledger, sink: Sink, rounds: int | None, counted: Counted
) -> None:
    number = rounds or 1
    one = service()
    ballast = one.folder / "data" / "ballast"
    with small_disk(ballast.parent):
        try:
            await trio.to_thread.run_sync(one.start)
            async with clients(ledger, one):
                for _ in range(number):
                    await trio.to_thread.run_sync(fill, ballast)
                    await until_more(lambda: ledger.unavailable, CLIENTS, FULL)
                    ballast.unlink()
                    await goes_on(ledger)
            await wait_carried(dsn(one))
            figures = await hold(ledger, sink.mails, dsn(one), one, interruptions=number * CLIENTS)
            said = [str(line["reason"]) for line in one.lines("database_unavailable")]
            assert any("No space left" in reason or "could not" in reason for reason in said), said
            assert one.lines("database_recovered")
            counted(number, figures["acknowledged"] + figures["activated"], figures)
            assert await trio.to_thread.run_sync(one.terminate) == 0
        finally:
            one.end()


@pytest.mark.timeout(180)
async def test_without_file_descriptors_it_refuses_and_recovers(
    service: Make, ledger: Ledger, sink: Sink, rounds: int | None, counted: Counted
) -> None:
    number, waited = rounds or 1, 0
    one = service()
    await trio.to_thread.run_sync(one.start)
    worker = int(str(one.lines("worker_started")[-1]["pid"]))
    before = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    async with clients(ledger, one):
        for _ in range(number):
            resource.prlimit(worker, resource.RLIMIT_NOFILE, (_highest(worker) + 1 + ROOM, before[1]))
            async with AsyncExitStack() as stack:
                streams = [
                    await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", one.port))
                    for _ in range(CROWD)
                ]
                answered = [await _asks(stream) for stream in streams]
                waited += answered.count(False)
                await trio.sleep(STARVED)
            await goes_on(ledger)  # still under the limit: those of the crowd have gone
            resource.prlimit(worker, resource.RLIMIT_NOFILE, before)
            await goes_on(ledger)
    assert waited, "there were descriptors for everybody"
    async with httpx.AsyncClient(base_url=one.url, timeout=5, verify=PLAIN) as http:
        await until_asked(partial(_healthy, http))
    await wait_carried(dsn(one))
    figures = await hold(ledger, sink.mails, dsn(one), one, interruptions=number * CLIENTS)
    assert one.process is not None
    assert one.process.poll() is None
    counted(number, ledger.asked, figures | {"connections that found no descriptor": waited})
    assert await trio.to_thread.run_sync(one.terminate) == 0


def _highest(process: int) -> int:
    return max(int(path.name) for path in Path(f"/proc/{process}/fd").iterdir())


async def _asks(stream: trio.SocketStream) -> bool:
    """Ask whether it lives; say whether there was an answer soon."""
    await stream.send_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    with trio.move_on_after(0.05), suppress(trio.BrokenResourceError):
        return (await stream.receive_some()).startswith(b"HTTP/1.1 200")
    return False


async def _healthy(http: httpx.AsyncClient) -> bool:
    return (await http.get("/readyz")).status_code == 200


@pytest.mark.timeout(240)
async def test_a_name_server_that_fails_delays_mail_and_nothing_else(
    service: Make, ledger: Ledger, sink: Sink, rounds: int | None, counted: Counted, tmp_path: Path
) -> None:
    if rounds is None:
        pytest.skip("with --rounds, as `nox -s chaos` does: a name server's silence takes its seconds")
    if (why := name_server.missing()) is not None:
        pytest.skip(why)
    number = rounds
    one = service(SMTP_HOST="relay.regsvc.test")
    one.before = name_server.asking(tmp_path)
    await trio.to_thread.run_sync(one.start)
    async with name_server.open_name_server() as names:
        for turn in range(number):
            enough, mails = trio.Event(), len(sink.mails)
            names.mood = "silent"
            async with trio.open_nursery() as nursery:
                for client in range(CLIENTS):
                    crowd = partial(ledger.crowd, one, f"t{turn}-c{client}", every=0.3, enough=enough)
                    nursery.start_soon(crowd, name=f"client {client}")
                await until_more(lambda: names.asked)
                await trio.sleep(1)
                names.mood = "failing"
                await until_more(lambda: names.asked)
                assert len(sink.mails) == mails
                names.mood = "right"
                enough.set()
    await wait_carried(dsn(one))
    figures = await hold(ledger, sink.mails, dsn(one), one)
    assert figures["activated"] == figures["acknowledged"] > CLIENTS
    assert ledger.slowest < PROMPT, "nobody who registers waits for a name"
    assert figures["dead"] == 0
    counted(number, figures["acknowledged"], figures, questions=names.asked)
    assert await trio.to_thread.run_sync(one.terminate) == 0
