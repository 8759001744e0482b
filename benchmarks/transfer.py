"""How fast accounts go in and out by `regsvc user import` and `export`, beside PostgreSQL's own COPY of the same rows.

The verbs run as an operator runs them: in a process of their own, from its start to its end, on a file. COPY moves the
same rows into the same table with the same indices, and out of it, and does nothing else: no reading of lines, no
canonical addresses, no locks, no audit trail. So the ratio says what all of that costs.
"""

import json
import os
import random
import statistics
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import trio

from benchmarks.figures import Found, Spread, progress, ratios
from regsvc.domain.values import Secret
from regsvc.store.embedded import open_embedded
from regsvc.store.migrations import migrate
from regsvc.trio_asyncpg import open_connection
from tests.postgres import temporary_folder

USERS: Final = 50_000
ROUNDS: Final = 2
DIGITS: Final = "./" + string.ascii_letters + string.digits  # of bcrypt's base64
LIMIT: Final = 600.0  # seconds for one verb


def lines(users: int) -> Iterator[str]:
    """Yield accounts as another system exports them, with hashes that have the form of bcrypt's."""
    dice = random.Random(users)  # the same people each time
    for number in range(users):
        salt, made = "".join(dice.choices(DIGITS, k=21)), "".join(dice.choices(DIGITS, k=30))
        person = {
            "email": f"Person.{number}@mail{number % 50}.example.com",
            "password_hash": f"$2b$12${salt}O{made}C",
            "username": f"person{number}",
            "locale": "de-AT",
            "created_at": "2021-02-28T12:30:00.123456Z",
        }
        yield f"{json.dumps(person)}\n"


def _timed(dsn: str, folder: Path, *words: str) -> float:
    """Run a verb of `regsvc user`; return its seconds."""
    told = {"REGSVC_DATABASE_URL": dsn, "REGSVC_PROFILE": "dev", "REGSVC_SECRET": "s" * 40}
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "regsvc", "user", *words],
        check=True,
        cwd=folder,
        env={name: text for name, text in os.environ.items() if not name.startswith("REGSVC_")} | told,
        stderr=subprocess.PIPE,
        timeout=LIMIT,
    )
    return time.perf_counter() - began


async def _copies(dsn: str, folder: Path) -> tuple[float, float]:
    """Take all accounts out by COPY, then in again, in one transaction each; return the seconds of in and of out."""
    file = folder / "users.copy"
    async with open_connection(dsn, command_timeout=None) as connection:
        began = time.perf_counter()
        await connection.copy_from_table("users", output=file, format="binary")
        out = time.perf_counter() - began
        await connection.execute("TRUNCATE users CASCADE")
        began = time.perf_counter()
        await connection.copy_to_table("users", source=file, format="binary")
        return time.perf_counter() - began, out


def measure(*, quick: bool = False) -> dict[str, Any]:
    """Move the accounts in and out, each way once a round; return seconds, round by round."""
    users, rounds = (200, 1) if quick else (USERS, ROUNDS)
    seen: dict[str, list[float]] = {name: [] for name in ("import", "export", "again", "copy_in", "copy_out")}
    for turn in range(rounds):
        progress(f"round {turn + 1} of {rounds}: {users:,} people in and out")
        place = temporary_folder("regsvc-bench-") if quick else tempfile.TemporaryDirectory(prefix="regsvc-bench-")
        with place as name, open_embedded(Path(name, "data")) as cluster:
            folder = Path(name)
            trio.run(migrate, Secret(cluster.dsn))
            with (folder / "users.ndjson").open("w") as file:
                file.writelines(lines(users))
            seen["import"].append(_timed(cluster.dsn, folder, "import", "users.ndjson"))
            seen["export"].append(_timed(cluster.dsn, folder, "export", "--output", "out.ndjson"))
            seen["again"].append(_timed(cluster.dsn, folder, "import", "out.ndjson"))
            copy_in, copy_out = trio.run(_copies, cluster.dsn, folder)
            seen["copy_in"].append(copy_in)
            seen["copy_out"].append(copy_out)
    return {"users": users, "seconds": seen}


def found(numbers: dict[str, Any]) -> dict[str, Found]:
    """Return the rows of the table."""
    rates = {name: [numbers["users"] / taken for taken in some] for name, some in numbers["seconds"].items()}
    return {
        f"transfer.{verb}": Found(
            Spread.of(rates[verb]), {"COPY": Spread.of(rates[copy])}, ratios(rates[verb], rates[copy])
        )
        for verb, copy in (("import", "copy_in"), ("export", "copy_out"))
    }


def table(numbers: dict[str, Any]) -> str:
    """Return the medians as a Markdown table."""
    seconds = {name: statistics.median(some) for name, some in numbers["seconds"].items()}
    written = ["| verb | users | seconds | times as long as COPY |", "|---|---:|---:|---:|"]
    for verb, copy in (("import", "copy_in"), ("again", "copy_in"), ("export", "copy_out")):
        ratio = seconds[verb] / seconds[copy]
        title = "the same import again" if verb == "again" else verb
        written.append(f"| {title} | {numbers['users']:,} | {seconds[verb]:.1f} | {ratio:.1f} |")
    return "\n".join(written)
