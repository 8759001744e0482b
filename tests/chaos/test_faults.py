"""The service killed, its database restarted, its relay away, its clients gone: nothing acknowledged is lost.

Small here; `nox -s chaos` sets `--rounds` and runs the same tests for long. Each prints its counts.
"""

import contextlib
import random
from collections.abc import Callable
from functools import partial

import httpx
import pytest
import trio

from regsvc import trio_asyncpg
from tests.chaos.ledger import PASSWORD, PLAIN, Ledger, check, dsn, wait_carried
from tests.postgres import temporary_cluster
from tests.service import Service
from tests.smtp_sink import Sink, open_sink
from tests.waiting import until, until_asked

CLIENTS = 8
pytestmark = [
    # httpx leaves the body it was sending to the garbage collector when the server dies in the middle of it.
    pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object ByteStream:pytest.PytestWarning"),
]
Make = Callable[..., Service]
QUIET = """
    SELECT count(*) = 0 FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' OR wait_event_type = 'Lock'"""


def report(name: str, rounds: int, figures: dict[str, int]) -> None:
    """Print what a run counted."""
    counts = ", ".join(f"{count} {what}" for what, count in figures.items())
    print(f"\n{name}, {rounds} rounds: {counts}")  # noqa: T201 - it is the report


@pytest.mark.timeout(0)
async def test_killed_at_random_moments_it_loses_nothing(
    service: Make, ledger: Ledger, sink: Sink, rounds: int | None
) -> None:
    cycles = rounds or 3
    one = service()
    for cycle in range(cycles):
        await trio.to_thread.run_sync(one.start)
        async with trio.open_nursery() as nursery:
            for number in range(CLIENTS):
                nursery.start_soon(ledger.client, one, f"c{cycle}-{number}", name=f"client {number}")
            await trio.sleep(random.uniform(0.05, 1.2))
            one.kill()
            nursery.cancel_scope.cancel(reason="the service was killed")
    await trio.to_thread.run_sync(one.start)
    await wait_carried(dsn(one))
    # Each kill may cut every conversation in flight, of which no one knows the end (I5).
    figures = await check(ledger, sink, dsn(one), interruptions=cycles * CLIENTS, said=one.said())
    assert figures["acknowledged"] > cycles
    report("kill -9 of the service", cycles, figures)
    assert one.terminate() == 0


@pytest.mark.timeout(0)
async def test_a_database_that_crashes_and_comes_back_loses_nothing(
    service: Make, ledger: Ledger, sink: Sink, rounds: int | None
) -> None:
    cycles = rounds or 3
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
                assert trio.current_time() - back < 5
            await trio.sleep(0.5)
            nursery.cancel_scope.cancel(reason="enough was seen")
        await wait_carried(cluster.dsn)
        figures = await check(ledger, sink, cluster.dsn, interruptions=cycles * CLIENTS, said=one.said())
        assert len(one.lines("worker_started")) == 1, "no worker died of it"
        assert figures["activated"] > cycles
        report("restart -m immediate of PostgreSQL", cycles, figures)
        assert one.terminate() == 0


async def _answers(one: Service) -> None:
    async with httpx.AsyncClient(base_url=one.url, timeout=5, verify=PLAIN) as http:

        async def healthy() -> bool:
            return (await http.get("/v1/health/db")).status_code == 200

        await until_asked(healthy)


@pytest.mark.timeout(0)
async def test_while_the_relay_is_away_mail_waits_and_every_first_code_works(
    service: Make, ledger: Ledger, rounds: int | None
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
            assert len(ledger.acknowledged) >= CLIENTS * seconds / every / 2, "registering does not wait for the relay"
            assert not ledger.codes
            back = stack.enter_context(open_sink(port=port, told=ledger.take))
            enough.set()
            await wait_carried(dsn(one))
        figures = await check(ledger, back, dsn(one), interruptions=0, said=one.said())
    assert figures["activated"] == figures["acknowledged"]
    assert figures["codes too late to try"] == 0
    report("relay away, seconds for", seconds, figures)
    assert one.terminate() == 0


@pytest.mark.timeout(0)
async def test_clients_that_hang_up_at_any_moment_leave_nothing_half_done(
    service: Make, ledger: Ledger, sink: Sink, rounds: int | None
) -> None:
    aborts = rounds or 300
    one = service()
    await trio.to_thread.run_sync(one.start)
    limit = trio.CapacityLimiter(32)
    async with trio.open_nursery() as nursery:
        for number in range(aborts):
            nursery.start_soon(_abort, one, number, limit, name=f"abort {number}")
    async with trio_asyncpg.open_connection(dsn(one)) as connection:
        await until_asked(lambda: connection.fetchval(QUIET))
    async with trio.open_nursery() as nursery:
        for number in range(CLIENTS):
            nursery.start_soon(ledger.client, one, f"after-{number}", name=f"client {number}")
        await until(lambda: len(ledger.activated) >= 2 * CLIENTS)
        nursery.cancel_scope.cancel(reason="the pool is whole")
    await wait_carried(dsn(one))
    figures = await check(ledger, sink, dsn(one), interruptions=0, said=one.said())
    assert len(one.lines("worker_started")) == 1
    assert one.lines("http_bug") == []
    report("clients that hang up", aborts, figures)
    assert one.terminate() == 0


async def _abort(one: Service, number: int, limit: trio.CapacityLimiter) -> None:
    """Send a registration or a wrong activation, and hang up somewhere in it."""
    email = f"gone-{number // 2}@example.test"
    body = f'{{"email": "{email}", "password": "{PASSWORD}"}}' if number % 2 == 0 else '{"code": "0000"}'
    verb = "register" if number % 2 == 0 else "activate"
    head = f"POST /v1/users/{verb} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    basic = httpx.BasicAuth(email, PASSWORD)._auth_header
    request = f"{head}Authorization: {basic}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    async with limit, await trio.open_tcp_stream("127.0.0.1", one.port) as stream:
        cut = random.choice([len(request), len(request), random.randrange(len(request))])
        await stream.send_all(request[:cut])
        await trio.sleep(random.uniform(0, 0.06))
        if random.random() < 0.3:
            await stream.send_eof()
            await trio.sleep(random.uniform(0, 0.01))
