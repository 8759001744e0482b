"""What is kept no longer than it should be, and that nobody notices while it goes; `--rounds 1000`: 10^6 claims."""

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
import trio

from regsvc.domain.values import Secret
from regsvc.store.migrations import migrate
from regsvc.trio_asyncpg import open_connection
from tests.chaos.ledger import PASSWORD
from tests.e2e.people import client, digits, mail_with, new_email, on_database
from tests.e2e.probe import percentile
from tests.postgres import temporary_cluster
from tests.service import Service
from tests.waiting import until

THOUSANDS = 5
RATE = 100.0  # registrations a second
CALM = 300  # registrations to compare with
PATIENCE = 900.0  # seconds, for the large form
HEAD = b"POST /v1/users/register HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
AGED = """
    UPDATE registrations SET created_at = created_at - $2::interval, live_until = live_until - $2::interval,
        expires_at = expires_at - $2::interval
    WHERE id = $1
"""
FILL = """
    CREATE TEMPORARY TABLE seeds AS
    SELECT gen_random_uuid() AS id, 'old' || n || '@example.com' AS email_key,
        clock_timestamp() - interval '3 days' - n * interval '1 ms' AS at
    FROM generate_series(1, 1000 * {thousands}) AS n;
    INSERT INTO addresses (email_key, touched_at) SELECT email_key, at FROM seeds;
    INSERT INTO registrations (id, email, email_key, password_hash, created_at, live_until, expires_at)
    SELECT id, email_key, email_key, 'hash', at, at + interval '60 s', at + interval '1 day' FROM seeds;
    INSERT INTO codes (subject_id, purpose, mac, minted_at, expires_at)
    SELECT id, 'activate', 'mac', at, at + interval '60 s' FROM seeds;
    INSERT INTO outbox (id, kind, topic, subject_id, state, not_before, not_after, created_at, sent_at)
    SELECT gen_random_uuid(), 'mail', 'activation', id, 'sent', at, at + interval '10 min', at, at FROM seeds;
    DROP TABLE seeds;
"""


@pytest.fixture
def dsn() -> Iterator[str]:
    with temporary_cluster() as cluster:
        yield cluster.dsn


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="regsvc-") as name:
        yield Path(name)


async def test_a_registration_is_kept_as_long_as_pending_ttl_says(dsn: str, folder: Path) -> None:
    with on_database(folder, dsn, PENDING_TTL="600") as [service]:
        async with client(service) as http, open_connection(dsn) as raw:
            ids, codes = [], []
            emails = new_email("ada"), new_email("bob")
            for email in emails:
                registered = await http.post("/v1/users/register", json={"email": email, "password": PASSWORD})
                ids.append(registered.json()["id"])
                codes.append(await mail_with(http, email, digits(4)))
            spans = await raw.fetch("SELECT DISTINCT expires_at - created_at FROM registrations")
            assert [tuple(span) for span in spans] == [(timedelta(minutes=10),)]
            statuses = []
            for minutes, email, id_, code in zip((10, 9), emails, ids, codes, strict=True):
                await raw.execute(AGED, id_, timedelta(minutes=minutes))
                tried = await http.post("/v1/users/activate", json={"code": code}, auth=(email, PASSWORD))
                statuses.append(tried.status_code)
            assert statuses == [401, 200]
            # Over, though nobody swept it, and no hindrance to the next.
            again = await http.post("/v1/users/register", json={"email": emails[0], "password": PASSWORD})
            assert again.status_code == 201, again.text
            assert await raw.fetchval("SELECT count(*) FROM registrations") == 2
            await raw.execute(AGED, ids[0], timedelta(minutes=2))
            await raw.execute("DELETE FROM turns")  # as if nobody had swept for a minute
            service.terminate()
            service.start()
            await until(lambda: any(line["registrations"] for line in service.lines("sweep_done")))
            assert [str(row[0]) for row in await raw.fetch("SELECT id FROM registrations")] == [again.json()["id"]]
        [line] = [line for line in service.lines("sweep_done") if line["registrations"]]
        assert line["registrations"] == 1
        assert 60 <= float(str(line["lag_s"])) < 120
        assert service.terminate() == 0


@dataclass
class Rush:
    """People who register, `RATE` of them a second whether those before them were answered or not."""

    port: int
    waits: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)

    async def run(self, enough: trio.Event, name: str) -> None:
        """Send them until `enough`, and return when all were answered."""
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in count():
                with trio.move_on_at(began + number / RATE):
                    await enough.wait()
                    break
                nursery.start_soon(self._register, f"{name}{number}@example.test", name="somebody")

    async def _register(self, email: str) -> None:
        began = trio.current_time()
        form = f'{{"email":"{email}","password":"{PASSWORD}"}}'
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            await stream.send_all(HEAD + f"Content-Length: {len(form)}\r\n\r\n{form}".encode())
            with suppress(trio.BrokenResourceError):  # one too many is told so, perhaps before all of it was read
                heard = b"".join([data async for data in stream])
                self.statuses[heard.split(b" ")[1].decode()] += 1
        self.waits.append(trio.current_time() - began)

    def taken(self) -> str:
        """Return the percentiles of those since the last time this was asked, in words."""
        waits, self.waits = sorted(self.waits), []
        p50, p99 = (round(1000 * percentile(waits, share)) for share in (0.5, 0.99))
        return f"p50 {p50} ms, p99 {p99} ms of {len(waits)} registrations"


@pytest.mark.timeout(0)
async def test_a_great_sweep_is_done_by_one_and_nobody_is_refused_meanwhile(
    dsn: str, folder: Path, rounds: int | None
) -> None:
    thousands = rounds or THOUSANDS
    await migrate(Secret(dsn))
    async with open_connection(dsn, command_timeout=None) as raw:
        await raw.execute(FILL.replace("{thousands}", str(thousands)))
        await raw.execute("VACUUM ANALYZE")
        with on_database(folder, dsn, 2) as services:
            rush, swept, calm = Rush(services[1].port), trio.Event(), trio.Event()
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(rush.run, swept, "busy", name="rush")
                await until(lambda: swept_of(services, "registrations") >= 1000 * thousands, PATIENCE)
                await until(lambda: swept_of(services, "mails") >= 1000 * thousands, PATIENCE)
                took = trio.current_time() - began
                swept.set()
            meanwhile = rush.taken()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(rush.run, calm, "calm", name="rush")
                await until(lambda: len(rush.waits) >= CALM)
                calm.set()
            assert rush.statuses.keys() <= {"201", "503"}, rush.statuses  # a busy machine may have no place for all
            kinds = "registrations", "addresses", "mails"
            assert [swept_of(services, kind) for kind in kinds] == [1000 * thousands] * 3
            # One does it all, unless the machine is so busy that the database is away for a moment.
            sweeps = [line for service in services for line in service.lines("sweep_done")]
            assert len(sweeps) == 1 or any(service.lines("database_unavailable") for service in services)
            seconds = sum(float(str(line["took_ms"])) for line in sweeps) / 1000
            print(  # noqa: T201 - it is the report
                f"\n{thousands},000 of each kind swept in {seconds:.1f} s ({3000 * thousands / seconds:.0f} rows/s, "
                f"watched for {took:.1f} s): {meanwhile}; afterwards {rush.taken()}; {dict(rush.statuses)}"
            )
            assert [service.terminate() for service in services] == [0, 0]


def swept_of(services: list[Service], kind: str) -> int:
    return sum(int(str(line[kind])) for service in services for line in service.lines("sweep_done"))
