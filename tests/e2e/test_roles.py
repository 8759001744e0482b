"""Instances with different roles on one database: what one takes in, another one sends, told of it or not."""

import os
import socket
import statistics
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trio

from tests.e2e.people import Person, client, new_email
from tests.e2e.test_serve import until
from tests.service import READY_SECONDS, Service
from tests.waiting import until as until_seen

pytestmark = pytest.mark.timeout(240)  # five services in two tests, on a machine that may be busy
MAILS = 7
TOLD = 2.0  # seconds, where a poll would take up to 5; 0.2 are promised where nobody else uses the machine
POLLED = 12.0  # seconds: a poll, and a machine that is busy
NOTICE = b"A"  # PostgreSQL's message that carries a notification (its manual, 55.7)
TELLS_ROLES = {"mailer": "handed_over", "http": "in_flight"}  # what the end of a worker tells of, by its role


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="regsvc ") as name:
        yield Path(name)


@contextmanager
def instance(folder: Path, dsn: str, roles: str) -> Iterator[Service]:
    """A service with these roles, once it says that it runs; at the end it has to leave well."""
    environ = {
        "DATABASE_URL": dsn,
        "PROFILE": "dev",
        "ROLES": roles,
        "SECRET": "one secret of all the services of a test",
        "PASSWORD_ROUNDS": "4",
        "MAIL_CHANNEL": "mailbox",
    }
    service = Service(folder / roles, {f"REGSVC_{name}": value for name, value in environ.items()})
    try:
        service.launch()
        until(lambda: service.lines("service_started"), READY_SECONDS)
        yield service
        assert service.terminate() == os.EX_OK
        [drained] = service.lines("drain_completed")
        assert {role for role, field in TELLS_ROLES.items() if field in drained} == TELLS_ROLES.keys() & set(
            roles.split(",")
        )
    finally:
        service.end()


@dataclass
class Deaf:
    """A way to PostgreSQL on which no notification comes through, as with a pooler that pools transactions."""

    dsn: str
    swallowed: int = 0


@asynccontextmanager
async def deaf(dsn: str) -> AsyncIterator[Deaf]:
    """A way to the database `dsn` that is deaf."""
    path = parse_qs(urlsplit(dsn).query)["host"][0] + "/.s.PGSQL.5432"
    way = Deaf("")

    async def there(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                await sink.send_all(data)
        await sink.aclose()

    async def back(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
        held = bytearray()
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                held += data
                while len(held) >= 5 and len(held) >= (end := 1 + int.from_bytes(held[1:5], "big")):
                    message = bytes(held[:end])
                    del held[:end]
                    if message.startswith(NOTICE):
                        way.swallowed += 1
                    else:
                        await sink.send_all(message)
        await sink.aclose()

    async def serve(one: trio.SocketStream) -> None:
        async with await trio.open_unix_socket(path) as server, trio.open_nursery() as nursery:
            nursery.start_soon(there, one, server, name="to the server")
            nursery.start_soon(back, server, one, name="to the client")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        port = listeners[0].socket.getsockname()[1]
        way.dsn = f"postgresql://regsvc@127.0.0.1:{port}{urlsplit(dsn).path}?sslmode=disable"
        yield way
        nursery.cancel_scope.cancel(reason="the test is over")


async def register(service: Service) -> str:
    """Register somebody; return the id."""
    async with client(service) as http:
        answer = await Person(http, new_email("roles")).register()
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def delay(taken: Service, sent: Service, seconds: float) -> float:
    """Register somebody at one service; return how long it took until the other one had sent the mail."""
    who = await register(taken)
    await until_seen(
        lambda: (
            line_of(sent, "mail_sent", "subject_id", who)
            and line_of(taken, "registration_created", "registration_id", who)
        ),
        seconds,
    )
    began, ended = (
        datetime.fromisoformat(str(line["ts"]))
        for line in (
            line_of(taken, "registration_created", "registration_id", who),
            line_of(sent, "mail_sent", "subject_id", who),
        )
        if line is not None
    )
    return (ended - began).total_seconds()


def line_of(service: Service, event: str, field: str, value: str) -> dict[str, Any] | None:
    return next((line for line in service.lines(event) if line[field] == value), None)


async def test_what_one_takes_in_another_one_sends_at_once(folder: Path, database: str) -> None:
    with (
        instance(folder, database, "http") as front,
        instance(folder, database, "mailer") as mailer,
        instance(folder, database, "sweeper") as sweeper,
    ):
        for service in (mailer, sweeper):
            [started] = service.lines("service_started")
            assert started["urls"] == []
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", service.port))
        took = [await delay(front, mailer, POLLED) for _ in range(MAILS)]
        print(f"\nmail of another instance, by notice: median {statistics.median(took):.3f} s of {sorted(took)}")  # noqa: T201 - it is the report
        assert statistics.median(took) < TOLD
        assert front.lines("mail_sent") == []
        assert sweeper.lines("mail_sent") == []


async def test_where_notices_are_cut_off_the_poll_finds_it(folder: Path, database: str) -> None:
    with instance(folder, database, "http,sweeper") as front:
        async with deaf(database) as way:
            mailing = instance(folder, way.dsn, "mailer")
            mailer = await trio.to_thread.run_sync(mailing.__enter__)
            try:
                took = [await delay(front, mailer, POLLED) for _ in range(2)]
                print(f"\nmail of another instance, by poll: {sorted(took)} s")  # noqa: T201 - it is the report
                assert mailer.lines("listener_lost") == [], "it thinks that it listens"
                await until_seen(lambda: way.swallowed >= 2)
            finally:
                with trio.move_on_after(30, shield=True):  # the way leads through this task's siblings
                    await trio.to_thread.run_sync(mailing.__exit__, None, None, None)
