"""What a query costs through the pool: regsvc.trio_asyncpg beside asyncpg's own pool on its loops.

Every way runs in a process of its own (event loop policies clash), one after the other, several rounds in turn, against
one embedded PostgreSQL; the medians are compared. A query is a primary-key SELECT of one row, `TASKS` at once.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from benchmarks.figures import Found

TASKS: Final = 10
POOL: Final = 10
QUERIES: Final = 6_000  # in one run of one way
WARM_UP: Final = 500  # queries: connections open, statements prepared
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

    async def work(first: int, queries: int) -> None:
        for n in range(queries // TASKS):
            await fetchrow(QUERY, (first + n) % ROWS + 1)

    async def together(queries: int) -> None:
        async with trio.open_nursery() as nursery:
            for task in range(TASKS):
                nursery.start_soon(work, task * 97, queries, name=f"load {task}")

    await together(min(queries, WARM_UP))
    started = time.perf_counter()
    await together(queries)
    return time.perf_counter() - started


async def _asyncio_load(fetchrow: Fetch, queries: int) -> float:
    async def work(first: int, queries: int) -> None:
        for n in range(queries // TASKS):
            await fetchrow(QUERY, (first + n) % ROWS + 1)

    async def together(queries: int) -> None:
        await asyncio.gather(*(work(task * 97, queries) for task in range(TASKS)))

    await together(min(queries, WARM_UP))
    started = time.perf_counter()
    await together(queries)
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


UVLOOP: Final = "asyncpg's pool on uvloop"
UNRESET: Final = "the same without its reset round trip"
ASYNCIO: Final = "asyncpg's pool on asyncio"
TRIO_ASYNCIO: Final = "asyncpg's pool through trio-asyncio"
WAYS: Final[dict[str, Callable[[str, int], float]]] = {
    NATIVE: _native,
    UVLOOP: _uvloop,
    UNRESET: _uvloop_unreset,
    ASYNCIO: _asyncio,
    TRIO_ASYNCIO: _trio_asyncio,
}
NEEDS: Final = {UVLOOP: "uvloop", UNRESET: "uvloop", ASYNCIO: "asyncio", TRIO_ASYNCIO: "trio_asyncio"}
KEYS: Final = {
    "adapter.uvloop": UVLOOP,
    "adapter.unreset": UNRESET,
    "adapter.asyncio": ASYNCIO,
    "adapter.trio_asyncio": TRIO_ASYNCIO,
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


def measure(*, quick: bool = False) -> dict[str, Any]:
    """Return microseconds per query of each way, round by round and as a median, against a PostgreSQL made for it."""
    from benchmarks.beside import missing  # noqa: PLC0415  # the measured processes must not pay for it
    from benchmarks.figures import progress, rotated  # noqa: PLC0415
    from tests.postgres import psql, temporary_cluster  # noqa: PLC0415

    rounds, queries = (1, 100) if quick else (ROUNDS, QUERIES)
    absent = {way: why for way in NEEDS if (why := missing(NEEDS[way]))}
    ways = [way for way in WAYS if way not in absent]
    runs: dict[str, list[float]] = {way: [] for way in ways}
    with temporary_cluster() as cluster:
        psql(cluster, SETUP)
        for turn in range(rounds):
            progress(f"round {turn + 1} of {rounds}: {len(ways)} ways")
            for way in rotated(ways, turn):
                runs[way].append(_run_apart(way, cluster.dsn, queries))
    medians = {way: statistics.median(times) for way, times in runs.items()}
    return {"tasks": TASKS, "pool": POOL, "queries": queries, "absent": absent, "runs_us": runs, "median_us": medians}


def found(numbers: dict[str, Any]) -> dict[str, "Found"]:
    """Return the rows of the table."""
    from benchmarks.figures import Found, Spread, ratios  # noqa: PLC0415  # as above

    runs, rows = numbers["runs_us"], {}
    for key, way in KEYS.items():
        theirs = runs.get(way, [])
        peers = {way: Spread.of(theirs)} if theirs else {}
        note = numbers["absent"].get(way, "")
        rows[key] = Found(Spread.of(runs[NATIVE]), peers, ratios(runs[NATIVE], theirs, best="least"), note)
    return rows


def table(numbers: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    runs = numbers["runs_us"]
    lines = [
        f"One primary-key SELECT through the pool, {TASKS} tasks at once, {len(runs[NATIVE])} rounds, medians:",
        "",
        "| way | µs per query | ours ÷ this |",
        "|---|---:|---:|",
    ]
    for way, median in numbers["median_us"].items():
        ratio = statistics.median(ours / theirs for ours, theirs in zip(runs[NATIVE], runs[way], strict=True))
        lines.append(f"| {way} | {median:.1f} | {ratio:.2f} |")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Run one way, and print its seconds."""
    parser = argparse.ArgumentParser(prog="adapter", description=__doc__)
    parser.add_argument("--queries", type=int, required=True)
    parser.add_argument("--way", choices=WAYS, required=True)
    parser.add_argument("--dsn", required=True)
    knobs = parser.parse_args(argv)
    print(WAYS[knobs.way](knobs.dsn, knobs.queries))


if __name__ == "__main__":
    main(sys.argv[1:])
