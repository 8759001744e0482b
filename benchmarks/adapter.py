"""What a query costs through the pool: regsvc.trio_asyncpg beside asyncpg's own pool on its loops.

Every way runs in a process of its own (event loop policies clash), one after the other, several rounds in turn, against
one embedded PostgreSQL; the medians are compared. A query is a primary-key SELECT of one row, `TASKS` at once.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

TASKS: Final = 10
POOL: Final = 10
QUERIES: Final = 20_000  # in one run of one way
ROUNDS: Final = 5
ROWS: Final = 1_000  # as in SETUP
QUERY: Final = "SELECT id, email, state FROM bench_users WHERE id = $1"
SETUP: Final = """
    CREATE TABLE bench_users (id bigint PRIMARY KEY, email text NOT NULL, state text NOT NULL);
    INSERT INTO bench_users SELECT n, 'user' || n || '@example.test', 'active' FROM generate_series(1, 1000) AS n;
    ANALYZE bench_users;
"""
NATIVE: Final = "regsvc.trio_asyncpg"

Fetch = Callable[[str, int], Awaitable[Any]]


async def _trio_load(fetchrow: Fetch, queries: int) -> float:
    import trio  # noqa: PLC0415  # each way imports what it measures, and no more

    async def work(first: int) -> None:
        for n in range(queries // TASKS):
            await fetchrow(QUERY, (first + n) % ROWS + 1)

    async def together() -> None:
        async with trio.open_nursery() as nursery:
            for task in range(TASKS):
                nursery.start_soon(work, task * 97, name=f"load {task}")

    await together()  # connections open, statements prepared
    started = time.perf_counter()
    await together()
    return time.perf_counter() - started


async def _asyncio_load(fetchrow: Fetch, queries: int) -> float:
    async def work(first: int) -> None:
        for n in range(queries // TASKS):
            await fetchrow(QUERY, (first + n) % ROWS + 1)

    async def together() -> None:
        await asyncio.gather(*(work(task * 97) for task in range(TASKS)))

    await together()
    started = time.perf_counter()
    await together()
    return time.perf_counter() - started


async def _asyncpg(dsn: str, queries: int, *, reset: bool, load: Callable[[Fetch, int], Awaitable[float]]) -> float:
    import asyncpg  # noqa: PLC0415

    class Unreset(asyncpg.Connection):
        def get_reset_query(self) -> str:
            return ""

    kind: Any = asyncpg.Connection if reset else Unreset
    async with asyncpg.create_pool(dsn, min_size=POOL, max_size=POOL, connection_class=kind, command_timeout=5) as pool:
        return await load(pool.fetchrow, queries)


def _native(dsn: str, queries: int) -> float:
    import trio  # noqa: PLC0415

    from regsvc import trio_asyncpg  # noqa: PLC0415

    async def main() -> float:
        async with trio_asyncpg.open_pool(dsn, min_size=POOL, max_size=POOL, command_timeout=5) as pool:
            return await _trio_load(pool.fetchrow, queries)

    seconds: float = trio.run(main)
    return seconds


def _uvloop(dsn: str, queries: int) -> float:
    import uvloop  # noqa: PLC0415

    seconds: float = uvloop.run(_asyncpg(dsn, queries, reset=True, load=_asyncio_load))
    return seconds


def _uvloop_unreset(dsn: str, queries: int) -> float:
    import uvloop  # noqa: PLC0415

    seconds: float = uvloop.run(_asyncpg(dsn, queries, reset=False, load=_asyncio_load))
    return seconds


def _asyncio(dsn: str, queries: int) -> float:
    return asyncio.run(_asyncpg(dsn, queries, reset=True, load=_asyncio_load))


def _trio_asyncio(dsn: str, queries: int) -> float:
    import trio_asyncio  # noqa: PLC0415

    async def main() -> float:
        async def load(fetchrow: Fetch, queries: int) -> float:
            # Bridged once per query, as a Trio program has to.
            bridged = trio_asyncio.aio_as_trio(fetchrow)
            seconds: float = await trio_asyncio.trio_as_aio(_trio_load)(bridged, queries)
            return seconds

        seconds: float = await trio_asyncio.aio_as_trio(_asyncpg)(dsn, queries, reset=True, load=load)
        return seconds

    seconds: float = trio_asyncio.run(main)
    return seconds


WAYS: Final[dict[str, Callable[[str, int], float]]] = {
    NATIVE: _native,
    "asyncpg's pool on uvloop": _uvloop,
    "the same without its reset round trip": _uvloop_unreset,
    "asyncpg's pool on asyncio": _asyncio,
    "asyncpg's pool through trio-asyncio": _trio_asyncio,
}
GOALS: Final = {  # 90-performance: ours ÷ theirs, at most
    "asyncpg's pool on uvloop": 0.8,
    "the same without its reset round trip": 1.2,
    "asyncpg's pool through trio-asyncio": 0.25,
}


def measure(dsn: str, *, rounds: int = ROUNDS, queries: int = QUERIES) -> dict[str, Any]:
    """Return microseconds per query of each way, round by round and as a median, and ours ÷ theirs.

    The database of `dsn` needs the table of `SETUP`. Each ratio is the median of the rounds' own ratios.
    """
    runs: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(rounds):
        ways = list(WAYS)
        for way in ways[turn % len(ways) :] + ways[: turn % len(ways)]:
            runs[way].append(_run_apart(way, dsn, queries))
    return {
        "tasks": TASKS,
        "pool": POOL,
        "queries": queries,
        "runs_us": runs,
        "median_us": {way: statistics.median(times) for way, times in runs.items()},
        "ratio": {
            way: statistics.median(ours / theirs for ours, theirs in zip(runs[NATIVE], times, strict=True))
            for way, times in runs.items()
        },
        "goals": GOALS,
    }


def _run_apart(way: str, dsn: str, queries: int) -> float:
    """Run one way in a process of its own; return microseconds per query."""
    said = subprocess.run(
        [sys.executable, __file__, "--way", way, "--dsn", dsn, "--queries", str(queries)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    return float(said.stdout) / queries * 1e6


def table(result: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    rounds = len(result["runs_us"][NATIVE])
    lines = [
        f"One primary-key SELECT through the pool, {TASKS} tasks at once, {rounds} rounds, medians:",
        "",
        "| way | µs per query | ours ÷ this | goal |",
        "|---|---:|---:|---:|",
    ]
    for way, median in result["median_us"].items():
        goal = f"≤ {result['goals'][way]}" if way in result["goals"] else "–"
        lines.append(f"| {way} | {median:.1f} | {result['ratio'][way]:.2f} | {goal} |")
    return "\n".join(lines)


def measure_here(rounds: int = ROUNDS, queries: int = QUERIES) -> dict[str, Any]:
    """Measure against an embedded PostgreSQL made for it."""
    from regsvc.store.embedded import open_embedded  # noqa: PLC0415  # the measured processes must not pay for it

    with tempfile.TemporaryDirectory(prefix="regsvc-bench-") as folder, open_embedded(Path(folder)) as cluster:
        subprocess.run([cluster.binaries / "psql", "-Xq", "-d", cluster.dsn, "-c", SETUP], check=True)
        return measure(cluster.dsn, rounds=rounds, queries=queries)


def main(argv: list[str]) -> int:
    """Measure, print a Markdown table, and write the numbers where `--json` says."""
    parser = argparse.ArgumentParser(prog="adapter", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--json", type=Path, help="a file for the raw numbers")
    parser.add_argument("--way", choices=WAYS, help="run one way against --dsn and print its seconds")
    parser.add_argument("--dsn")
    knobs = parser.parse_args(argv)
    if knobs.way:
        print(WAYS[knobs.way](knobs.dsn, knobs.queries))
        return 0
    result = measure_here(knobs.rounds, knobs.queries)
    print(table(result))
    if knobs.json:
        knobs.json.write_text(json.dumps(result, indent=1), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
