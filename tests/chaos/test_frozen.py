"""A database that answers nobody, though it is there: who asks is told so in time, and all is whole afterwards.

`--rounds 30`: frozen for 30 s.
"""

import math
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import trio

from tests.chaos.invariants import hold
from tests.chaos.ledger import PLAIN, Ledger, dsn, wait_carried
from tests.chaos.recording import Counted
from tests.service import Service
from tests.smtp_sink import Sink
from tests.waiting import until

SECONDS = 5
CLIENTS = 8
PATIENCE = 1.0  # seconds; http.ops.PATIENCE and a busy machine
NOTICED = 3.5  # seconds after which nobody is told any more that the service is ready; 2 on a machine of its own
COUNTED = 8.0  # seconds after which the metrics know; actors.gauger.CENSUS_EVERY and two questions
TIMEOUT = 5.0  # seconds, for a statement; DATABASE_TIMEOUT
DEADLINE = 20.0  # seconds; REQUEST_DEADLINE
MARGIN = 4.0  # seconds, for a busy machine
Make = Callable[..., Service]
pytestmark = [
    # httpx leaves the body it was sending to the garbage collector when the test ends in the middle of it.
    pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object ByteStream:pytest.PytestWarning"),
]


@contextmanager
def frozen(service: Service) -> Iterator[None]:
    """Have PostgreSQL do nothing at all while the block runs: every process of it is stopped, none is ended."""
    [line] = service.lines("embedded_database_started")
    postmaster = int(str(line["pid"]))
    os.kill(postmaster, signal.SIGSTOP)  # first: it makes no more of them
    stopped = [*_children(postmaster), postmaster]
    try:
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


def _children(parent: int) -> Iterator[int]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            words = stat.read_text().rpartition(")")[2].split()  # state, parent; see proc(5)
            if int(words[1]) == parent:
                yield int(stat.parent.name)


@dataclass(frozen=True)
class Heard:
    """An answer: when it was asked for, how long it took, what it said."""

    asked: float
    took: float
    status: int
    text: str


@dataclass
class Watch:
    """Somebody who asks one path again and again."""

    path: str
    heard: list[Heard] = field(default_factory=list)

    async def run(self, service: Service) -> None:
        """Ask ten times a second, until cancelled."""
        async with httpx.AsyncClient(base_url=service.url, timeout=10, verify=PLAIN) as http:
            while True:
                asked = trio.current_time()
                answer = await http.get(self.path)
                took = trio.current_time() - asked
                self.heard.append(Heard(asked, took, answer.status_code, answer.text))
                await trio.sleep(0.1)

    def between(self, first: float = -math.inf, last: float = math.inf) -> list[Heard]:
        """Return what was asked for and answered in this time."""
        return [one for one in self.heard if first <= one.asked and one.asked + one.took <= last]

    @property
    def slowest(self) -> float:
        return max(one.took for one in self.heard)


@pytest.mark.timeout(0)
async def test_while_the_database_is_frozen_everybody_is_answered_and_all_is_whole_afterwards(
    service: Make, ledger: Ledger, sink: Sink, rounds: int | None, counted: Counted
) -> None:
    seconds = rounds or SECONDS
    knobs = {"DATABASE_TIMEOUT": "1"} if seconds <= SECONDS else {}
    one = service(**knobs)
    await trio.to_thread.run_sync(one.start)
    livez, readyz, health, metrics = watches = [Watch(path) for path in ("/livez", "/readyz", "/v1/health", "/metrics")]
    async with trio.open_nursery() as nursery:
        for number in range(CLIENTS):
            nursery.start_soon(ledger.client, one, f"c{number}", name=f"client {number}")
        for watch in watches:
            nursery.start_soon(watch.run, one, name=watch.path)
        await until(lambda: len(ledger.activated) >= CLIENTS)
        stopped = datetime.now(UTC)
        with frozen(one):
            began = trio.current_time()
            await trio.sleep(seconds)
            await until(lambda: "regsvc_database_up 0" in metrics.heard[-1].text)
            ended, woken = trio.current_time(), datetime.now(UTC)
        await until(lambda: readyz.heard[-1].status == 200)
        await until(lambda: "regsvc_database_up 1" in metrics.heard[-1].text)
        before = len(ledger.activated)
        await until(lambda: len(ledger.activated) >= before + 3 * CLIENTS, 30)
        nursery.cancel_scope.cancel(reason="all is whole")
    await wait_carried(dsn(one))
    figures = await hold(ledger, sink.mails, dsn(one), one, interruptions=CLIENTS)

    assert {heard.status for heard in livez.heard} == {200}
    assert {heard.status for heard in health.heard} == {200}
    assert '"down"' in health.between(began + NOTICED, ended)[0].text
    assert {heard.status for heard in readyz.between(began + NOTICED, ended)} == {503}
    noticed = next(heard for heard in readyz.between(began) if heard.status == 503)
    assert noticed.asked + noticed.took - began <= NOTICED
    assert max(livez.slowest, readyz.slowest, health.slowest) < PATIENCE + MARGIN
    assert {heard.status for heard in metrics.heard} == {200}
    told = [heard.text for heard in metrics.between(began + COUNTED, ended)]
    assert all("regsvc_database_up 0" in text for text in told)

    # Each with its Retry-After: the ledger heeds it. Who waited for a code when it froze asked nothing.
    assert figures["refused with 503"] > 0
    assert ledger.slowest < DEADLINE + MARGIN
    # Told once, however many notice it. (A busy machine may time out at other times too.)
    [_] = within(one.lines("database_unavailable"), stopped, woken)
    back = within(one.lines("database_recovered"), woken)[0]
    assert not within(one.lines("database_recovered"), stopped, woken)
    assert ended - began - TIMEOUT - MARGIN < float(str(back["away_s"])) < ended - began + DEADLINE
    assert not [line["event"] for line in one.lines() if line.get("level") == "error"]
    slow = max(livez.slowest, readyz.slowest, health.slowest)
    figures |= {
        "ms until not ready": round(1000 * (noticed.asked + noticed.took - began)),
        "slowest probe ms": round(slow * 1000),
    }
    counted(seconds, figures["acknowledged"] + figures["activated"], figures)
    assert one.terminate() == 0


def within(lines: list[dict[str, object]], first: datetime, last: datetime | None = None) -> list[dict[str, object]]:
    """Return those of this time."""
    times = [(datetime.fromisoformat(str(line["ts"])), line) for line in lines]
    return [line for at, line in times if first <= at and (last is None or at <= last)]
