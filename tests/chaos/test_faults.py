"""The service killed, its database restarted, its relay away, its clients gone: nothing acknowledged is lost.

Small here; `nox -s chaos` sets `--rounds` and runs the same tests for long. Each says what it counted.
"""

import contextlib
import json
import math
import random
import time
from collections.abc import Callable
from functools import partial

import httpx
import pytest
import trio

from regsvc import trio_asyncpg
from tests.chaos.evidence import Copy, windows
from tests.chaos.invariants import hold
from tests.chaos.ledger import PASSWORD, PLAIN, Ledger, dsn, wait_carried
from tests.chaos.recording import Counted
from tests.postgres import temporary_cluster
from tests.service import Service, lines_of
from tests.smtp_sink import Sink, open_sink
from tests.waiting import until, until_asked

CLIENTS = 8
TWICE = 0.05  # mails that come twice for each kill, at most on average
WINDOW = 2.0  # seconds before a kill in which a mail that is carried again may have been taken; a busy machine's
SPAN = 60  # milliseconds that a request takes with so many others beside it
STEP = 7  # milliseconds from one to the next, so that few of them are all over the span, and many are each one
pytestmark = [
    # httpx leaves the body it was sending to the garbage collector when the server dies in the middle of it.
    pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object ByteStream:pytest.PytestWarning"),
]
Make = Callable[..., Service]
QUIET = """
    SELECT count(*) = 0 FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' OR wait_event_type = 'Lock'"""


def done(figures: dict[str, int]) -> int:
    """Count what was acknowledged, and so could have been lost."""
    return figures["acknowledged"] + figures["activated"]


@pytest.mark.timeout(0)
async def test_killed_at_random_moments_it_loses_nothing(
    service: Make, ledger: Ledger, sink: Sink, rounds: int | None, counted: Counted
) -> None:
    """With the least bcrypt there is, so that as much as can be is under way at each moment."""
    await killed(service(), ledger, sink, counted, cycles=rounds or 2, within=(0.05, 1.2))


@pytest.mark.timeout(0)
async def test_killed_while_it_hashes_as_people_have_it_few_mails_come_twice(
    service: Make, ledger: Ledger, sink: Sink, rounds: int | None, counted: Counted
) -> None:
    """One comes twice when the kill falls between the relay's 250 and its note, soon where the loop is free."""
    cycles = rounds or 2
    one = service(PASSWORD_ROUNDS="12")
    figures = await killed(one, ledger, sink, counted, cycles=cycles, within=(1.0, 4.0))
    assert figures["duplicates"] <= most_of(TWICE * cycles)


async def killed(
    one: Service, ledger: Ledger, sink: Sink, counted: Counted, *, cycles: int, within: tuple[float, float]
) -> dict[str, int]:
    """Kill a service `within` so many seconds of a crowd's beginning, again and again; hold what became of it."""
    kills: list[float] = []
    for cycle in range(cycles):
        await trio.to_thread.run_sync(one.start)
        async with trio.open_nursery() as nursery:
            for number in range(CLIENTS):
                nursery.start_soon(ledger.client, one, f"c{cycle}-{number}", name=f"client {number}")
            await trio.sleep(random.uniform(*within))
            if cycle + 1 == cycles:  # where nothing was acknowledged, nothing can be lost
                await until(lambda: len(ledger.acknowledged) > cycles)
            kills.append(time.time())
            one.kill()
            nursery.cancel_scope.cancel(reason="the service was killed")
    await trio.to_thread.run_sync(one.start)
    await wait_carried(dsn(one))
    # Each kill may cut every conversation in flight, of which no one knows the end (I5).
    figures = await hold(ledger, sink.mails, dsn(one), one, interruptions=cycles * CLIENTS, told=cycles)
    assert figures["acknowledged"] > cycles
    # Each mail that came twice was taken when the kill came, and before that could be written down: no other does.
    open_for = [abs(gap) for gap in windows([Copy.of(mail) for mail in sink.mails], kills)]
    assert max(open_for, default=0) < WINDOW, "I5: carried twice, and no kill came between"
    widest = round(1000 * max(open_for, default=0))
    counted(cycles, done(figures), figures, **{"most ms between the first of two copies and a kill": widest})
    assert one.terminate() == 0
    return figures


def most_of(mean: float) -> int:
    """Return what a Poisson distribution of this mean exceeds once in ten thousand such tests."""
    number, term = 0, math.exp(-mean)
    up_to = term
    while up_to < 0.9999:
        number += 1
        term *= mean / number
        up_to += term
    return number


def test_the_bound_is_the_quantile_of_the_poisson_distribution() -> None:
    assert [most_of(mean) for mean in (0.1, 1, 10, 50)] == [3, 6, 24, 78]


@pytest.mark.timeout(0)
async def test_a_database_that_crashes_and_comes_back_loses_nothing(
    service: Make, ledger: Ledger, sink: Sink, rounds: int | None, counted: Counted
) -> None:
    cycles, longest = rounds or 3, 0.0
    with temporary_cluster() as cluster:
        one = service(DATABASE_URL=cluster.dsn, PROFILE="dev")
        await trio.to_thread.run_sync(one.start)
        async with trio.open_nursery() as nursery:
            for number in range(CLIENTS):
                nursery.start_soon(ledger.client, one, f"c{number}", name=f"client {number}")
            for _ in range(cycles):
                await trio.sleep(random.uniform(0.3, 1.0))
                cluster.restart("immediate")  # blocks: it belongs to this thread
                back = trio.current_time()
                await _answers(one)
                longest = max(longest, trio.current_time() - back)
                assert trio.current_time() - back < 15
            await trio.sleep(0.5)
            nursery.cancel_scope.cancel(reason="enough was seen")
        await wait_carried(cluster.dsn)
        figures = await hold(ledger, sink.mails, cluster.dsn, one, interruptions=cycles * CLIENTS)
        assert figures["activated"] > cycles
        counted(cycles, done(figures), figures | {"most ms until it answered again": round(1000 * longest)})
        assert one.terminate() == 0


async def _answers(one: Service) -> None:
    async with httpx.AsyncClient(base_url=one.url, timeout=5, verify=PLAIN) as http:

        async def healthy() -> bool:
            return (await http.get("/v1/health/db")).status_code == 200

        await until_asked(healthy)


@pytest.mark.timeout(0)
async def test_while_the_relay_is_away_mail_waits_and_every_first_code_works(
    service: Make, ledger: Ledger, rounds: int | None, counted: Counted
) -> None:
    seconds = rounds or 3
    with open_sink() as placeholder:
        port = placeholder.port
    one = service(SMTP_PORT=str(port))
    await trio.to_thread.run_sync(one.start)
    enough, every = trio.Event(), max(0.5, seconds / 60)
    with contextlib.ExitStack() as stack:
        async with trio.open_nursery() as nursery:
            for number in range(CLIENTS):
                crowd = partial(ledger.crowd, one, f"c{number}", every=every, enough=enough)
                nursery.start_soon(crowd, name=f"client {number}")
            await trio.sleep(seconds)
            assert len(ledger.acknowledged) >= CLIENTS, "registering does not wait for the relay"
            assert not ledger.codes
            back = stack.enter_context(open_sink(port=port, told=ledger.take))
            enough.set()
            await wait_carried(dsn(one))
        figures = await hold(ledger, back.mails, dsn(one), one)
    assert figures["activated"] == figures["acknowledged"]
    assert figures["codes too late to try"] == 0
    counted(seconds, figures["acknowledged"], figures)
    assert one.terminate() == 0


@pytest.mark.timeout(0)
async def test_clients_that_hang_up_at_any_moment_leave_nothing_half_done(
    service: Make, ledger: Ledger, sink: Sink, rounds: int | None, counted: Counted
) -> None:
    aborts = rounds or 180
    one = service()
    await trio.to_thread.run_sync(one.start)
    limit = trio.CapacityLimiter(32)
    async with httpx.AsyncClient(timeout=20, verify=PLAIN, limits=lines_of()) as http, trio.open_nursery() as nursery:
        for number in range(aborts):
            nursery.start_soon(_abort, one, ledger, http, number, limit, name=f"abort {number}")
    async with trio_asyncpg.open_connection(dsn(one)) as connection:
        await until_asked(lambda: connection.fetchval(QUIET))
    before = len(ledger.activated)
    async with trio.open_nursery() as nursery:
        for number in range(CLIENTS):
            nursery.start_soon(ledger.client, one, f"after-{number}", name=f"client {number}")
        await until(lambda: len(ledger.activated) >= before + 2 * CLIENTS)
        nursery.cancel_scope.cancel(reason="the pool is whole")
    await wait_carried(dsn(one))
    figures = await hold(ledger, sink.mails, dsn(one), one)
    counted(aborts, aborts, figures)
    assert one.terminate() == 0


async def _abort(
    one: Service, ledger: Ledger, http: httpx.AsyncClient, number: int, limit: trio.CapacityLimiter
) -> None:
    """Register, or activate what is registered, and hang up at the millisecond whose turn it is.

    One number in two is an activation; then come the ways (closed, half closed, said in part), then the milliseconds.
    """
    email, way, milliseconds = f"gone-{number}@example.test", number // 2 % 3, number // 6 * STEP % SPAN
    async with limit:
        if number % 2 == 0:
            return await _hang_up(one, "register", {"email": email, "password": PASSWORD}, milliseconds, way)
        claim = await ledger.register(http, one, email)
        if claim is None:  # a quick 503: the next number has better luck
            return None
        await until(lambda: email in ledger.codes, 30)
        await _hang_up(one, "activate", {"code": ledger.codes[email][0]}, milliseconds, way, email)
        return await ledger.activate(http, one, claim, email)  # either it was activated, or it is now


async def _hang_up(one: Service, verb: str, form: dict[str, str], milliseconds: int, way: int, email: str = "") -> None:
    body = json.dumps(form)
    proof = f"Authorization: {httpx.BasicAuth(email, PASSWORD)._auth_header}\r\n" if email else ""
    head = f"POST /v1/users/{verb} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{proof}"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
    async with await trio.open_tcp_stream("127.0.0.1", one.port) as stream:
        await stream.send_all(request if way < 2 else request[: len(request) * milliseconds // SPAN])
        await trio.sleep(milliseconds / 1000)
        if way == 1:
            await stream.send_eof()
            await trio.sleep(random.uniform(0, 0.01))
