"""What an account and a request cost: octets of the database, processor seconds of a worker and of PostgreSQL.

`python -m benchmarks.capacity` prints the figures that docs/capacity.md reckons with. Processor time is not time: it is
about the same on a busy machine, and says how many of a kind one core does in a second.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import bcrypt
import trio

from benchmarks.client import Client
from regsvc.store.embedded import running_dsn
from regsvc.store.embedded.binaries import find
from tests.service import Service, running

ACCOUNTS: Final = 100_000
PEOPLE: Final = 2_000  # who log in, or register, for the size of their rows
LIGHT: Final = 5_000  # requests for the cost of one
HASHED: Final = 40
PASSWORD: Final = "analytical engine"
AGENT: Final = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
TICKS: Final = os.sysconf("SC_CLK_TCK")
SIZES: Final = """
SELECT json_object_agg(relname, pg_total_relation_size(oid)) FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
"""


@dataclass(frozen=True, slots=True)
class Spent:
    """Processor seconds."""

    workers: float
    postgres: float


def spent(service: Service) -> Spent:
    """Return what its workers and its PostgreSQL have used until now."""
    parents, seconds, postgres = {}, {}, set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = stat.read_text("utf-8").partition(" (")[2].rpartition(") ")
            fields, pid = rest.split(), int(stat.parent.name)
            parents[pid], seconds[pid] = int(fields[1]), (int(fields[11]) + int(fields[12])) / TICKS
            postgres |= {pid} if name == "postgres" else set()
    assert service.process is not None
    ours = {service.process.pid}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return Spent(sum(seconds[pid] for pid in ours - postgres), sum(seconds[pid] for pid in ours & postgres))


def address(number: int) -> str:
    """Return an address as people have them."""
    return f"somebody.number{number}@example{number % 500}.org"


def sizes(service: Service) -> dict[str, int]:
    """Return the octets of each table, with its indexes, tidied."""
    data = service.folder / "data"
    psql = find(None, major=None, account=None, cache=service.folder, report=lambda _: None).folder / "psql"
    words = [str(psql), "-XqAt", "-d", running_dsn(data), "-c", "VACUUM", "-c", SIZES]
    answer = subprocess.run(words, capture_output=True, check=True, text=True)
    found: dict[str, int] = json.loads(answer.stdout)
    return found


def grown(title: str, number: int, before: dict[str, int], after: dict[str, int]) -> None:
    """Print how many octets each of `number` took, by table."""
    each = {name: (octets - before.get(name, 0)) / number for name, octets in after.items()}
    parts = ", ".join(f"{name} {octets:.0f}" for name, octets in sorted(each.items()) if octets >= 1)
    print(f"{title}: {sum(each.values()):.0f} octets ({parts})")


async def each(number: int, ask: Callable[[Client, int], Awaitable[None]], port: int, at_once: int) -> None:
    """Have `ask` done for every number below `number`, over so many connections."""

    async def some(first: int) -> None:
        door = Client(port)
        for one in range(first, number, at_once):
            await ask(door, one)
        await door.close()

    async with trio.open_nursery() as nursery:
        for first in range(at_once):
            nursery.start_soon(some, first, name="asks")


def cost(title: str, number: int, service: Service, ask: Callable[[Client, int], Awaitable[None]]) -> None:
    """Print the processor time of one request, out of `number`."""
    before = spent(service)
    trio.run(each, number, ask, service.port, 8)
    after = spent(service)
    worker = 1000 * (after.workers - before.workers) / number
    postgres = 1000 * (after.postgres - before.postgres) / number
    rate = 1000 / worker
    print(f"{title}: {worker:.3g} ms of a worker, {postgres:.2g} ms of PostgreSQL: {rate:,.0f}/s and core")


async def log_in(door: Client, number: int) -> str:
    """Log in; return the access token."""
    form = {"email": address(number), "password": PASSWORD}
    answer = await door.ask("POST", "/v1/auth/login", form, AGENT)
    assert answer.status == 200, answer.body
    token: str = json.loads(answer.body)["access_token"]
    return token


async def register(door: Client, number: int) -> None:
    """Register somebody new."""
    form = {"email": f"new.{time.monotonic_ns()}.{number}@example.org", "password": PASSWORD}
    answer = await door.ask("POST", "/v1/users/register", form)
    assert answer.status == 201, answer.body


async def comes_in(door: Client, number: int) -> None:
    """Log in, and no more."""
    await log_in(door, number)


def import_accounts(service: Service) -> None:
    """Import ACCOUNTS people, who all have one password."""
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    people = service.folder / "people.ndjson"
    with people.open("w") as file:
        file.writelines(
            json.dumps({"email": address(number), "password_hash": hashed}) + "\n" for number in range(ACCOUNTS)
        )
    environ = {**os.environ, "REGSVC_DATA_DIR": str(service.folder / "data")}
    words = [sys.executable, "-m", "regsvc", "user", "import", str(people)]
    subprocess.run(words, env=environ, check=True, capture_output=True)


def main() -> None:
    """Measure rows with cheap hashes, then requests with real ones."""
    lifted = {"MAIL_CHANNEL": "mailbox", "LOG_LEVEL": "info", "HASH_QUEUE": "1000", "RATE_LIMIT_STORE": "postgres"}
    with tempfile.TemporaryDirectory(prefix="regsvc ") as folder:
        with running(Path(folder, "rows"), PASSWORD_ROUNDS="4", **lifted) as service:
            before = sizes(service)
            import_accounts(service)
            imported = sizes(service)
            grown("an account", ACCOUNTS, before, imported)
            trio.run(each, PEOPLE, comes_in, service.port, 8)
            logged_in = sizes(service)
            grown("a session", PEOPLE, imported, logged_in)
            trio.run(each, PEOPLE, register, service.port, 8)
            grown("a registration, its mail in the mailbox", PEOPLE, logged_in, sizes(service))
            token = trio.run(log_in, Client(service.port), 1)

            async def look(door: Client, _number: int) -> None:
                answer = await door.ask("GET", "/v1/users/me", headers=f"Authorization: Bearer {token}\r\n")
                assert answer.status == 200, answer.body

            trio.run(each, LIGHT // 5, look, service.port, 8)
            cost("GET /v1/users/me", LIGHT, service, look)
            cost("a log-in without the cost of its hash", PEOPLE, service, comes_in)
        with running(Path(folder, "hashes"), **lifted) as service:
            trio.run(each, 8, register, service.port, 8)
            cost("a registration, bcrypt 12, its mail", HASHED, service, register)


if __name__ == "__main__":
    main()
