"""How long a registration takes among 10^6 users and 10^6 registrations, beside an empty database.

Two databases of one PostgreSQL on disk, a service on each, one client that registers, turn by turn. bcrypt takes 4
rounds, so that the database is what shows; no mailer runs. The rows come from `INSERT … SELECT generate_series`.
"""

import contextlib
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import trio

from benchmarks.client import Client
from benchmarks.figures import Found, Spread, percentile, progress, ratios, rotated
from regsvc.domain.values import Secret
from regsvc.store.embedded import Cluster, open_embedded
from regsvc.store.migrations import migrate
from tests.postgres import temporary_database, temporary_folder
from tests.service import running

ROWS: Final = 1_000_000
ROUNDS: Final = 4
REGISTRATIONS: Final = 250  # of a turn
WARM_UP: Final = 30  # registrations
FILL_SECONDS: Final = 240.0
FULL, EMPTY = "crowded", "empty"
USERS: Final = """
    INSERT INTO users (id, email, email_key, password_hash, created_at, activated_at, updated_at)
    SELECT lpad(to_hex(n), 32, '0')::uuid, email, email,
        '$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW', now(), now(), now()
    FROM (SELECT n, 'user.' || n || '@example' || n % 500 || '.org' AS email FROM generate_series(1, {rows}) AS n) AS u
"""
REGISTERED: Final = """
    INSERT INTO registrations (id, email, email_key, password_hash, created_at, live_until, expires_at)
    SELECT lpad(to_hex(n), 32, '0')::uuid, email, email,
        '$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW', now(), now() + interval '1 minute',
        now() + interval '1 day'
    FROM (SELECT n, 'person.' || n || '@example' || n % 500 || '.org' AS email FROM generate_series(1, {rows}) n) AS r
"""
ADDRESSES: Final = """
    INSERT INTO addresses (email_key)
    SELECT 'person.' || n || '@example' || n % 500 || '.org' FROM generate_series(1, {rows}) AS n
"""


def _say(cluster: Cluster, database: str, *statements: str) -> None:
    words = [f"--command={statement}" for statement in statements]
    dsn = cluster.dsn.replace("@/regsvc?", f"@/{database}?")
    command: list[str | Path] = [cluster.binaries / "psql", "-Xqv", "ON_ERROR_STOP=1", "-d", dsn, *words]
    subprocess.run(command, check=True, capture_output=True, timeout=FILL_SECONDS)


def _fill(cluster: Cluster, database: str, rows: int) -> None:
    """Fill it, on two cores, and leave nothing for the database to tidy up meanwhile."""
    with ThreadPoolExecutor(2) as pool:
        users = pool.submit(_say, cluster, database, USERS.format(rows=rows))
        others = pool.submit(_say, cluster, database, REGISTERED.format(rows=rows), ADDRESSES.format(rows=rows))
        users.result()
        others.result()
    _say(cluster, database, "VACUUM ANALYZE", "CHECKPOINT")


@contextlib.contextmanager
def _services(rows: int, *, quick: bool = False) -> Iterator[dict[str, int]]:
    """Run one on the full database and one on the empty one; yield their ports."""
    with contextlib.ExitStack() as open_:
        if quick:
            folder = open_.enter_context(temporary_folder("regsvc-bench-"))
        else:
            folder = Path(open_.enter_context(tempfile.TemporaryDirectory(prefix="regsvc-bench-")))
        cluster = open_.enter_context(open_embedded(folder / "data"))
        ports = {}
        settings = {"PROFILE": "dev", "PASSWORD_ROUNDS": "4", "ENABLE_RATE_LIMITING": "false", "ROLES": "http"}
        for name in (FULL, EMPTY):
            dsn = open_.enter_context(temporary_database(cluster, name))
            trio.run(migrate, Secret(dsn))
            if name == FULL:
                progress(f"filling it with {rows:,} users and {rows:,} registrations")
                _fill(cluster, name, rows)
            told = {**settings, "DATABASE_URL": dsn, "LOG_LEVEL": "info"}
            ports[name] = open_.enter_context(running(folder / name, **told)).port
        yield ports


async def _register(port: int, name: str, number: int) -> list[float]:
    """Register so many, one after the other; return the seconds each took."""
    http, times = Client(port), []
    for n in range(number):
        form = {"email": f"{name}.{n}@example.org", "password": "analytical engine"}
        began = trio.current_time()
        answer = await http.ask("POST", "/v1/users/register", form)
        times.append(trio.current_time() - began)
        assert answer.status == 201, answer
    await http.close()
    return times


def measure(*, quick: bool = False) -> dict[str, Any]:
    """Let both take turns; return milliseconds, round by round."""
    rows, rounds, number, warm_up = (1_000, 1, 5, 1) if quick else (ROWS, ROUNDS, REGISTRATIONS, WARM_UP)
    with _services(rows, quick=quick) as ports:
        times: dict[str, list[list[float]]] = {name: [] for name in ports}
        for port in ports.values():
            trio.run(_register, port, "warm", warm_up)
        for turn in range(rounds):
            progress(f"round {turn + 1} of {rounds}: {number} registrations each")
            for name in rotated([*ports], turn):
                times[name].append(trio.run(_register, ports[name], f"new.{turn}", number))
    seen = {
        name: {f"p{share}_ms": [1e3 * percentile(some, share / 100) for some in turns] for share in (50, 90, 99)}
        for name, turns in times.items()
    }
    return {"rows": rows, "registrations": number, "seen": seen}


def found(numbers: dict[str, Any]) -> dict[str, Found]:
    """Return the row of the table."""
    full, empty = (numbers["seen"][name]["p99_ms"] for name in (FULL, EMPTY))
    return {"full.register": Found(Spread.of(full), {"empty": Spread.of(empty)}, ratios(full, empty))}


def table(numbers: dict[str, Any]) -> str:
    """Return the medians as a Markdown table."""
    how = f"{numbers['registrations']} registrations a round, medians of the rounds, {numbers['rows']:,} rows a table:"
    lines = [how, "", "| database | p50 ms | p90 ms | p99 ms |", "|---|---:|---:|---:|"]
    for name, seen in numbers["seen"].items():
        lines.append(f"| {name} | " + " | ".join(f"{statistics.median(values):.2f}" for values in seen.values()) + " |")
    return "\n".join(lines)
