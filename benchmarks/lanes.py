"""Registrations a second, bcrypt 12: FastAPI with the package, ours with the package, ours with lanes, side by side.

They take turns, `rounds` of them, each on a database of its own; the yardstick is measured before and after each turn:
cores / t_bcrypt of the package on idle cores. With 64 clients all are saturated; with one client each registration is
alone. Drawn in docs/lanes.svg.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import trio

from benchmarks.registrations import ROUNDS, Seen, load, percentile, t_bcrypt
from tests.postgres import psql, temporary_cluster
from tests.service import STOP_SECONDS, free_port, running

ROOT: Final = Path(__file__).parent.parent
TURNS: Final = 3
SECONDS: Final = {64: 15.0, 1: 4.0}  # of each turn, by clients
LANES: Final = "regsvc, lanes"
PACKAGE: Final = "regsvc, bcrypt package"
THREADS: Final = "FastAPI, bcrypt in threads"
LOOP: Final = "FastAPI, bcrypt in async def"
GOAL: Final = 2.4  # 90-performance: registrations a second ÷ (cores ÷ t_bcrypt)
SETTINGS: Final = {"ENABLE_RATE_LIMITING": "false", "PASSWORD_ROUNDS": str(ROUNDS), "MAIL_CHANNEL": "mailbox"}
Opened = contextlib.AbstractContextManager[int]


@contextlib.contextmanager
def _ours(lanes: str) -> Iterator[int]:
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), **SETTINGS, HASH_LANES=lanes) as service,
    ):
        yield service.port


@contextlib.contextmanager
def _peer(hashing: str) -> Iterator[int]:
    from benchmarks.peers import fastapi_register  # noqa: PLC0415 - only this needs it

    port, workers = free_port(), str(len(os.sched_getaffinity(0)))
    command = [sys.executable, "-m", "uvicorn", "benchmarks.peers.fastapi_register:app", "--port", str(port)]
    with tempfile.TemporaryDirectory() as folder, temporary_cluster() as cluster:
        psql(cluster, fastapi_register.TABLES)
        environ = {**os.environ, "PEER_DATABASE_URL": cluster.dsn, "PEER_HASHING": hashing}
        with Path(folder, "log").open("wb") as out:
            process = subprocess.Popen(
                [*command, "--workers", workers], cwd=ROOT, env=environ, stdout=out, stderr=subprocess.STDOUT
            )
            try:
                _wait_ready(process, port)
                yield port
            finally:
                process.terminate()
                process.wait(STOP_SECONDS)


def _wait_ready(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + STOP_SECONDS
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}/livez").status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"the peer is not ready: {process.poll()}")


VARIANTS: Final[dict[str, Callable[[], Opened]]] = {
    LANES: lambda: _ours("auto"),
    PACKAGE: lambda: _ours("0"),
    THREADS: lambda: _peer("threads"),
    LOOP: lambda: _peer("loop"),
}


def measure(turns: int = TURNS, seconds: dict[int, float] = SECONDS) -> dict[str, Any]:
    """Let all take turns; return a row for each variant and number of clients, and what is to be reached."""
    seen: dict[tuple[str, int], list[dict[str, float]]] = {}
    names = list(VARIANTS)
    for turn in range(turns):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            for clients, some in seconds.items():
                seen.setdefault((name, clients), []).append(_turn(VARIANTS[name], clients, some))
                print(f"turn {turn + 1} of {turns}: {name}, {clients} clients", file=sys.stderr, flush=True)
    middles = {key: _middle(found) for key, found in seen.items()}
    rows = [{"variant": name, "clients": clients, **row} for (name, clients), row in middles.items()]
    return {"rows": rows, "goals": _goals(middles)}


def _turn(open_: Callable[[], Opened], clients: int, seconds: float) -> dict[str, float]:
    before = t_bcrypt(2)
    with open_() as port:
        seen = trio.run(load, port, clients, seconds)
    return _figures(seen, seconds, statistics.mean([before, t_bcrypt(2)]))


def _figures(seen: Seen, seconds: float, t: float) -> dict[str, float]:
    rate = seen.counted / seconds
    return {
        "a_second": rate,
        "ratio": rate * t / len(os.sched_getaffinity(0)),
        "accepted_p50_ms": 1e3 * percentile(seen.accepted, 0.5),
        "accepted_p99_ms": 1e3 * percentile(seen.accepted, 0.99),
        "refused": float(len(seen.refused)),
        "refused_p99_ms": 1e3 * percentile(seen.refused, 0.99),
        "livez_p99_ms": 1e3 * percentile(seen.probes["/livez"], 0.99),
        "health_p99_ms": 1e3 * percentile(seen.probes["/v1/health"], 0.99),
        "other": float(len(seen.other)),
        "t_bcrypt_ms": 1e3 * t,
    }


def _middle(turns: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}


def _goals(rows: dict[tuple[str, int], dict[str, float]]) -> list[tuple[str, float, str]]:
    """Return what is to be reached: a figure's name, the figure, and its bound."""
    lanes, package = rows[LANES, 64], rows[PACKAGE, 64]
    return [
        ("registrations a second with lanes ÷ (cores ÷ t_bcrypt)", lanes["ratio"], f">= {GOAL}"),
        ("accepted p99 with lanes ÷ with the package", lanes["accepted_p99_ms"] / package["accepted_p99_ms"], "<= 1"),
        ("a lone one with lanes ÷ with the package, p50",
         rows[LANES, 1]["accepted_p50_ms"] / rows[PACKAGE, 1]["accepted_p50_ms"], "<= 1.05"),
        ("livez p99 ms meanwhile", lanes["livez_p99_ms"], "<= 50"),
        ("health p99 ms meanwhile", lanes["health_p99_ms"], "<= 50"),
    ]  # fmt: skip


def table(result: dict[str, Any]) -> str:
    """Return rows and goals as Markdown tables."""
    rows = result["rows"]
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|---|" + "---:|" * (len(names) - 1)]
    lines += ["| " + " | ".join(v if isinstance(v, str) else f"{v:.4g}" for v in row.values()) + " |" for row in rows]
    lines += ["", "| figure | measured | to reach |", "|---|---:|---:|"]
    lines += [f"| {name} | {found:.3g} | {bound} |" for name, found, bound in result["goals"]]
    return "\n".join(lines)
