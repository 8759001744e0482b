"""The ways between the service, its database and its relay, broken in every way a network knows.

Small here; `--rounds N`: so many faults. Each fault holds for a while and is then over; whoever asked meanwhile was
answered, and nothing acknowledged is lost.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice

import httpx
import pytest
import trio

from regsvc.store.embedded.server import SOCKET
from tests.chaos.fault_proxy import (
    Delay,
    Drip,
    Fault,
    FaultProxy,
    HalfClose,
    Pass,
    Refuse,
    Reset,
    Stall,
    open_fault_proxy,
)
from tests.chaos.invariants import hold
from tests.chaos.ledger import PLAIN, Ledger, clients, dsn, wait_carried
from tests.chaos.recording import Counted
from tests.postgres import temporary_cluster
from tests.service import Service
from tests.smtp_sink import Sink
from tests.waiting import until_asked, until_more

CONCURRENCY = 8  # conversations with the relay; MAIL_CONCURRENCY
DEADLINE = 20.0  # seconds in which everybody is answered; REQUEST_DEADLINE
MARGIN = 2.0  # seconds, for a busy machine
HEALED = 30.0  # seconds after the end of a fault within which people get their codes again (I1)
FEW = 6  # faults, one of each kind
Make = Callable[..., Service]
pytestmark = [
    # httpx leaves the body it was sending to the garbage collector when the test ends in the middle of it.
    pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object ByteStream:pytest.PytestWarning"),
]


def faults(dice: random.Random, octets: int) -> Iterator[Fault]:
    """Each kind in its turn, for ever; what counts octets does so up to `octets`."""
    for kind in cycle(range(6)):
        number = dice.randrange(octets)
        yield (Reset(number), Stall(), Refuse(), HalfClose(number), Drip(1.0), Delay(dice.uniform(0.05, 0.4)))[kind]


async def suffer(proxy: FaultProxy, rounds: int | None, octets: int, ledger: Ledger) -> Counter[str]:
    """Break the way again and again, each time until somebody is activated after it; return how often in which way."""
    number, longest = (FEW, 0.8) if rounds is None else (rounds, 2.0)
    dice, suffered = random.Random(number), Counter[str]()
    for fault in islice(faults(dice, octets), number):
        proxy.set(fault)
        suffered[type(fault).__name__] += 1
        await trio.sleep(dice.uniform(0.3, longest))
        proxy.set(Pass())
        await until_more(partial(len, ledger.activated), seconds=HEALED)
        await trio.sleep(dice.uniform(0.1, longest / 4))
    return suffered


@pytest.mark.timeout(0)
async def test_whatever_befalls_the_way_to_the_database_loses_nothing(
    service: Make, ledger: Ledger, sink: Sink, rounds: int | None, counted: Counted
) -> None:
    number = rounds or FEW
    with temporary_cluster() as cluster:
        connect = partial(trio.open_unix_socket, cluster.folder / SOCKET)
        async with open_fault_proxy(connect) as proxy:
            way = f"postgresql://regsvc@127.0.0.1:{proxy.port}/regsvc?sslmode=disable"
            one = service(DATABASE_URL=way, PROFILE="dev", DATABASE_TIMEOUT="1")
            await trio.to_thread.run_sync(one.start)
            async with clients(ledger, one):
                suffered = await suffer(proxy, rounds, 20_000, ledger)
            await _ready(one)
            await wait_carried(cluster.dsn)
            # What was sent is written down however long that takes, so nothing is carried twice.
            figures = await hold(ledger, sink.mails, cluster.dsn, one)
            assert ledger.slowest < DEADLINE + MARGIN
            assert figures["dead"] == 0
            told = {f"× {kind}": times for kind, times in suffered.items()}
            told["connections reset"] = proxy.statistics().reset
            counted(number, figures["acknowledged"] + figures["activated"], figures | told)
            assert await trio.to_thread.run_sync(one.terminate) == 0


@pytest.mark.timeout(0)
async def test_whatever_befalls_the_way_to_the_relay_loses_nothing(
    service: Make, ledger: Ledger, sink: Sink, rounds: int | None, counted: Counted
) -> None:
    if rounds is None:
        pytest.skip(
            "with --rounds, as `nox -s chaos` does; each fault at each stage is in adapters/test_smtp_faults.py"
        )
    number = rounds
    async with open_fault_proxy(partial(trio.open_tcp_stream, "127.0.0.1", sink.port)) as proxy:
        one = service(SMTP_PORT=str(proxy.port), MAIL_TIMEOUT="2", MAIL_CONCURRENCY=str(CONCURRENCY))
        await trio.to_thread.run_sync(one.start)
        async with clients(ledger, one):
            suffered = await suffer(proxy, rounds, 4_000, ledger)
        await wait_carried(dsn(one))
        # Nobody knows what became of a mail whose last dot was not answered: it is carried again (I5).
        figures = await hold(ledger, sink.mails, dsn(one), one, interruptions=number * CONCURRENCY)
        assert ledger.unavailable == 0, "nobody who registers waits for the relay"
        assert figures["dead"] == 0
        told = {f"× {kind}": times for kind, times in suffered.items()}
        told["connections reset"] = proxy.statistics().reset
        counted(number, figures["acknowledged"] + figures["activated"], figures | told)
        assert await trio.to_thread.run_sync(one.terminate) == 0


async def _ready(one: Service) -> None:
    async with httpx.AsyncClient(base_url=one.url, timeout=5, verify=PLAIN) as http:

        async def ready() -> bool:
            return (await http.get("/readyz")).status_code == 200

        await until_asked(ready, HEALED)
