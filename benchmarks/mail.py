"""The way of a mail: from the 201 to the relay's 250 on an idle service, and mails a second, beside Celery + Redis.

Each uses the same relay, `benchmarks/sink.py`, in a process of its own. One registration at a time, the next once its
mail was there: the time is from the answer's arrival at the client to the 250, 0 where the mail was quicker. Then
`BATCH` mails at once wait for one mailer: the rate is from the first 250 to the last. Ours has them from one statement
in PostgreSQL, Celery's are queued before its worker starts. Both hand over `AT_ONCE` at a time. The peer is FastAPI
with a Celery task, Redis as its broker, and smtplib; its letter is plain text, ours has a HTML part, a code and a link.
"""

import contextlib
import math
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from benchmarks import beside
from benchmarks.beside import ROOT
from benchmarks.client import Client
from benchmarks.figures import Found, Spread, percentile, progress, ratios
from regsvc.store.embedded import Cluster
from tests import redis
from tests.postgres import dsn_of, psql, temporary_cluster, temporary_database, temporary_folder
from tests.service import running

ROUNDS: Final = 3
IDLE: Final = 60  # mails of a round, one at a time
BATCH: Final = 1_200  # mails of a round, all at once
AT_ONCE: Final = 8  # REGSVC_MAIL_CONCURRENCY as it comes
PATIENCE: Final = 60.0  # seconds
PAUSE: Final = 0.01  # seconds between a mail and the next registration: the service is idle again
PEER: Final = "FastAPI + Celery + Redis"
WAITING: Final = """
    WITH person AS MATERIALIZED (
        SELECT gen_random_uuid() AS id, '{name}-' || n || '@example.test' AS email
        FROM generate_series(1, {batch}) AS n
    ), claim AS (
        INSERT INTO registrations (id, email, email_key, password_hash, created_at, live_until, expires_at)
        SELECT id, email, email, 'nobody logs in', now(), now() + interval '1 hour', now() + interval '1 day'
        FROM person
    ), address AS (
        INSERT INTO addresses (email_key) SELECT email FROM person
    ), parcel AS (
        INSERT INTO outbox (id, kind, topic, subject_id, created_at, not_before, not_after)
        SELECT gen_random_uuid(), 'mail', 'activation', id, now(), now(), now() + interval '10 minutes' FROM person
    )
    SELECT pg_notify('regsvc_outbox', '')
"""


@dataclass
class Sink:
    """The relay, and when each recipient's 250 was said, on this machine's monotonic clock."""

    port: int
    said: dict[str, float] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self, line: str) -> None:
        """A mail came."""
        to, at = line.split()
        with self._changed:
            self.said[to] = float(at)
            self._changed.notify_all()

    def wait(self, name: str, number: int) -> list[float]:
        """Wait until `number` recipients that begin with `name` have their mail; return when each had it, in order."""
        found: list[float] = []

        def enough() -> bool:
            found[:] = [at for to, at in self.said.copy().items() if to.startswith(name)]
            return len(found) >= number

        with self._changed:
            if number == 1:  # by its whole name: looking through all would take time from what is measured
                assert self._changed.wait_for(lambda: name in self.said, PATIENCE), f"no mail for {name}"
                return [self.said[name]]
        until = time.monotonic() + PATIENCE
        while not enough():
            assert time.monotonic() < until, f"{len(found)} of {number} mails came"
            time.sleep(0.05)
        return sorted(found)


@contextlib.contextmanager
def open_sink() -> Iterator[Sink]:
    """Run the relay until the end of the block."""
    command = [sys.executable, "-m", "benchmarks.sink"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        sink = Sink(int(process.stdout.readline()))
        lines = process.stdout

        def read() -> None:
            for line in lines:
                sink.take(line)

        reader = threading.Thread(target=read, name="sink lines")
        reader.start()
        try:
            yield sink
        finally:
            process.stdin.close()
            reader.join(PATIENCE)
            process.terminate()


async def _one_by_one(port: int, sink: Sink, number: int) -> list[float]:
    """Register so many, each alone; return the seconds from the 201 to the 250 of each."""
    http, name, times = Client(port), f"one-{secrets.token_hex(4)}", []
    for n in range(number):
        to = f"{name}-{n}@example.test"
        answer = await http.ask("POST", "/v1/users/register", {"email": to, "password": "analytical engine"})
        accepted = time.monotonic()
        assert answer.status == 201, answer
        [at] = await trio.to_thread.run_sync(sink.wait, to, 1)
        times.append(max(0.0, at - accepted))
        await trio.sleep(PAUSE)
    await http.close()
    return times


class _Ours:
    """A service that mails to the sink."""

    def __init__(self, port: int, cluster: Cluster, sink: Sink) -> None:
        self._port, self._cluster, self._sink = port, cluster, sink

    def idle(self, number: int) -> list[float]:
        """Seconds from the 201 to the 250, of so many."""
        return trio.run(_one_by_one, self._port, self._sink, number)

    def rate(self, batch: int) -> float:
        """Mails a second, of so many that wait."""
        name = f"batch-{secrets.token_hex(4)}"
        psql(self._cluster, WAITING.format(name=name, batch=batch))
        return _rate(self._sink.wait(name, batch))


class _Theirs:
    """FastAPI with Celery, all of which mails to the sink; a worker lives as long as it is measured."""

    def __init__(self, dsn: str, broker: str, sink: Sink) -> None:
        self._sink = sink
        self._environ = {"PEER_DATABASE_URL": dsn, "PEER_BROKER": broker, "PEER_RELAY": str(sink.port)}
        self._environ |= {"PEER_ROUNDS": "4", "PEER_HASHING": "threads"}

    @contextlib.contextmanager
    def _worker(self) -> Iterator[None]:
        words = ["-A", "benchmarks.peers.celery_mail", "worker", "--loglevel", "INFO", "--concurrency", str(AT_ONCE)]
        with beside.program([sys.executable, "-m", "celery", *words], self._environ) as (process, log):
            until = time.monotonic() + PATIENCE
            while " ready." not in log.read_text("utf-8"):
                assert process.poll() is None, log.read_text("utf-8")[-2000:]
                assert time.monotonic() < until, "Celery's worker does not come up"
                time.sleep(0.05)
            yield

    def idle(self, number: int) -> list[float]:
        """Seconds from the 201 to the 250, of so many."""
        with self._worker(), beside.uvicorn("fastapi_register:app", **self._environ) as server:
            return trio.run(_one_by_one, server.port, self._sink, number)

    def rate(self, batch: int) -> float:
        """Mails a second, of so many that wait."""
        name = f"batch-{secrets.token_hex(4)}"
        words = [sys.executable, "-m", "benchmarks.mail", name, str(batch)]
        with beside.program(words, self._environ) as (process, log):
            assert process.wait(PATIENCE) == 0, log.read_text("utf-8")[-2000:]
        with self._worker():
            return _rate(self._sink.wait(name, batch))


def _rate(times: list[float]) -> float:
    return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else math.nan


def measure(*, quick: bool = False) -> dict[str, Any]:
    """Let both take turns; return milliseconds and rates, round by round."""
    rounds, idle, batch = (1, 2, 20) if quick else (ROUNDS, IDLE, BATCH)
    absent = beside.missing("fastapi", "uvicorn", "celery", "redis")
    absent = absent or ("" if redis.PROGRAM else redis.NO_PROGRAM)
    seen: dict[str, dict[str, list[float]]] = {}
    with _both(there=not absent) as ways:
        for turn in range(rounds):
            for name, way in ways.items():
                progress(f"round {turn + 1} of {rounds}: {name}")
                times = way.idle(idle)
                of = seen.setdefault(name, {"p50_ms": [], "p99_ms": [], "rate": []})
                of["p50_ms"].append(1e3 * percentile(times, 0.5))
                of["p99_ms"].append(1e3 * percentile(times, 0.99))
                of["rate"].append(way.rate(batch))
    return {"idle": idle, "batch": batch, "absent": absent, "seen": seen}


@contextlib.contextmanager
def _both(*, there: bool) -> Iterator[dict[str, _Ours | _Theirs]]:
    with contextlib.ExitStack() as open_:
        folder = open_.enter_context(temporary_folder("regsvc-bench-"))
        cluster = open_.enter_context(temporary_cluster())
        sink = open_.enter_context(open_sink())
        settings = {"DATABASE_URL": cluster.dsn, "PROFILE": "dev", "PASSWORD_ROUNDS": "4", "LOG_LEVEL": "info"}
        settings |= {"ENABLE_RATE_LIMITING": "false", "MAIL_CHANNEL": "smtp", "MAIL_CONCURRENCY": str(AT_ONCE)}
        settings |= {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(sink.port), "SMTP_TLS": "none"}
        settings |= {"MAIL_FROM": "no-reply@example.org"}
        service = open_.enter_context(running(folder / "service", **settings))
        ways: dict[str, _Ours | _Theirs] = {"regsvc": _Ours(service.port, cluster, sink)}
        if there:
            from benchmarks.peers import fastapi_register  # noqa: PLC0415 - it may not be installed

            dsn = open_.enter_context(temporary_database(cluster, "peer"))
            psql(cluster, fastapi_register.TABLES, database="peer")
            assert dsn == dsn_of(cluster, "peer")
            broker = open_.enter_context(redis.running())
            ways[PEER] = _Theirs(dsn, broker.url, sink)
        yield ways


def found(numbers: dict[str, Any]) -> dict[str, Found]:
    """Return the rows of the table."""
    ours, theirs = numbers["seen"]["regsvc"], numbers["seen"].get(PEER)
    rows = {}
    for key, name in (("mail.accept.p50", "p50_ms"), ("mail.accept.p99", "p99_ms"), ("mail.rate", "rate")):
        peers = {PEER: Spread.of(theirs[name])} if theirs else {}
        ratio = ratios(ours[name], theirs[name]) if theirs and min(theirs[name]) > 0 else None
        rows[key] = Found(Spread.of(ours[name]), peers, ratio, numbers["absent"])
    return rows


def table(numbers: dict[str, Any]) -> str:
    """Return the rounds as a Markdown table."""
    how = f"{numbers['idle']} mails one by one and {numbers['batch']:,} at once in each round:"
    lines = [how, "", "| who | round | p50 ms | p99 ms | mails/s |", "|---|---:|---:|---:|---:|"]
    for who, seen in numbers["seen"].items():
        for number, values in enumerate(zip(*seen.values(), strict=True), 1):
            lines.append(f"| {who} | {number} | " + " | ".join(f"{value:.4g}" for value in values) + " |")
    return "\n".join(lines)


def main(name: str, batch: str) -> None:
    """Queue so many letters for Celery's worker."""
    from benchmarks.peers.celery_mail import send_letter  # noqa: PLC0415 - it may not be installed

    for n in range(int(batch)):
        send_letter.delay(f"{name}-{n}@example.test", "Your code is 1234. It lives one minute.")


if __name__ == "__main__":
    main(*sys.argv[1:])
