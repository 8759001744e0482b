"""How fast accounts go in and out by `regsvc user import` and `export`, beside PostgreSQL's own COPY of the same rows.

The verbs run as an operator runs them: in a process of their own, from its start to its end, on a file. COPY moves the
same rows into the same table with the same indices, and out of it, and does nothing else: no reading of lines, no
canonical addresses, no locks, no audit trail. So the ratio says what all of that costs.
"""

import json
import os
import random
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import trio

from regsvc.domain.values import Secret
from regsvc.store.embedded import open_embedded
from regsvc.store.migrations import migrate
from regsvc.trio_asyncpg import open_connection

USERS: Final = 100_000
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


def measure(users: int = USERS) -> list[dict[str, float | str]]:
    """Move `users` accounts in and out, each way once; return a row a direction."""
    with tempfile.TemporaryDirectory(prefix="regsvc-bench-") as name, open_embedded(Path(name, "data")) as cluster:
        folder = Path(name)
        trio.run(migrate, Secret(cluster.dsn))
        with (folder / "users.ndjson").open("w") as file:
            file.writelines(lines(users))
        into = _timed(cluster.dsn, folder, "import", "users.ndjson")
        out = _timed(cluster.dsn, folder, "export", "--output", "out.ndjson")
        again = _timed(cluster.dsn, folder, "import", "out.ndjson")
        copy_in, copy_out = trio.run(_copies, cluster.dsn, folder)
    verbs = (("import", into, copy_in), ("the same again", again, copy_in), ("export", out, copy_out))
    return [
        {"verb": verb, "users": users, "seconds": ours, "users_per_s": users / ours, "ratio": ours / theirs}
        for verb, ours, theirs in verbs
    ]


def table(rows: list[dict[str, float | str]]) -> str:
    """Return the rows as a Markdown table."""
    written = ["| verb | users | seconds | users/s | times as long as COPY |", "|---|---:|---:|---:|---:|"]
    written += [
        f"| {row['verb']} | {row['users']:,} | {row['seconds']:.1f} | {row['users_per_s']:,.0f} | {row['ratio']:.1f} |"
        for row in rows
    ]
    return "\n".join(written)


def main(argv: list[str]) -> int:
    """Print the table for 100,000 users, or for the number given."""
    print(table(measure(int(argv[0]) if argv else USERS)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
