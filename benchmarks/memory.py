"""What memory a worker takes: idle, and for a thousand idle keep-alive connections; beside FastAPI + uvicorn.

Two workers each, which have registered some people and answered some thousand requests, and have nothing to do any
more: PSS counts a page that several processes share in equal parts, RSS counts it whole in each. Then a service of one
worker, and as many connections that were each asked once, all within the time that an idle one is kept. New processes
each round, for what was once taken is seldom given back.
"""

import contextlib
import resource
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import trio

from benchmarks import beside
from benchmarks.client import Client
from benchmarks.figures import Found, Spread, progress, ratios
from benchmarks.hammer import hammer, request
from regsvc.store.embedded import Cluster
from tests.postgres import psql, temporary_cluster, temporary_database, temporary_folder
from tests.service import running

ROUNDS: Final = 3
CROWD: Final = 1_000  # connections
REGISTRATIONS: Final = 10
BUSY: Final = 0.5  # seconds of light requests
SETTLED: Final = 1.0  # seconds of nothing before it is looked at
LEAST: Final = 20e6  # octets; what is smaller is no worker, but a helper of the peer's
MB: Final = 1e6
PEER: Final = "FastAPI + uvicorn"


def taken(pid: int) -> tuple[float, float]:
    """Return PSS and RSS of a process, in octets."""
    lines = [line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()[1:]]
    sizes = {words[0]: int(words[1]) * 1024.0 for words in lines}
    return sizes["Pss:"], sizes["Rss:"]


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    return [int(child) for child in found if taken(int(child))[1] > LEAST]


@contextlib.contextmanager
def _ours(cluster: Cluster, workers: int) -> Iterator[tuple[int, list[int]]]:
    """Run a service; yield its port and its workers."""
    settings = {"DATABASE_URL": cluster.dsn, "PROFILE": "dev", "WORKERS": str(workers), "PASSWORD_ROUNDS": "4"}
    with (
        temporary_folder("regsvc-bench-") as folder,
        running(folder / "service", **settings, ENABLE_RATE_LIMITING="false", LOG_LEVEL="info") as service,
    ):
        yield service.port, [int(str(line["pid"])) for line in service.lines("worker_started")]


@contextlib.contextmanager
def _theirs(dsn: str, workers: int) -> Iterator[tuple[int, list[int]]]:
    told = {"PEER_DATABASE_URL": dsn, "PEER_HASHING": "threads", "PEER_ROUNDS": "4"}
    words = ("--workers", str(workers)) if workers > 1 else ()
    with beside.uvicorn("fastapi_register:app", *words, **told) as server:
        yield server.port, _children(server.pid) if workers > 1 else [server.pid]


async def _use(port: int) -> None:
    """Have everything used once that a worker has."""
    async with trio.open_nursery() as nursery:
        for _ in range(4):  # several connections, so that no worker is left out
            nursery.start_soon(_register, port, name="register")


async def _register(port: int) -> None:
    http = Client(port)
    for _ in range(REGISTRATIONS):
        form = {"email": f"{id(http)}.{time.monotonic_ns()}@example.org", "password": "analytical engine"}
        assert (await http.ask("POST", "/v1/users/register", form)).status == 201
    await http.close()


def _warm(port: int, *, quick: bool) -> None:
    trio.run(_use, port)
    hammer(port, request("/livez"), 0.1 if quick else BUSY)
    time.sleep(0.0 if quick else SETTLED)


def _per_thousand(port: int, pid: int, crowd: int) -> float:
    """Return the octets that a thousand idle connections take of a worker."""
    before, files = taken(pid)[0], _files(pid)
    with contextlib.ExitStack() as held:
        for _ in range(crowd):
            sock = held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            sock.sendall(request("/livez"))
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        open_ = _files(pid) - files
        after = taken(pid)[0]
    assert open_ > crowd / 2, f"{open_} of {crowd} connections are open"
    return (after - before) / open_ * 1000


def _files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def measure(*, quick: bool = False) -> dict[str, Any]:
    """Look at both, round by round; return octets."""
    rounds, crowd, workers = (1, 50, 1) if quick else (ROUNDS, CROWD, 2)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    absent = beside.missing("fastapi", "uvicorn")
    seen: dict[str, dict[str, list[float]]] = {}
    with temporary_cluster() as cluster, temporary_database(cluster, "peer") as dsn:
        if not absent:
            from benchmarks.peers import fastapi_register  # noqa: PLC0415 - it may not be installed

            psql(cluster, fastapi_register.TABLES, database="peer")
        for turn in range(rounds):
            for name in ("regsvc",) if absent else ("regsvc", PEER):
                progress(f"round {turn + 1} of {rounds}: {name}")
                of = seen.setdefault(name, {"pss": [], "rss": [], "connections": []})
                with _ours(cluster, workers) if name == "regsvc" else _theirs(dsn, workers) as (port, pids):
                    _warm(port, quick=quick)
                    sizes = [taken(pid) for pid in pids]
                    of["pss"].append(max(pss for pss, _ in sizes))
                    of["rss"].append(max(rss for _, rss in sizes))
                    if quick:  # the same worker will do
                        of["connections"].append(_per_thousand(port, pids[0], crowd))
                        continue
                with _ours(cluster, 1) if name == "regsvc" else _theirs(dsn, 1) as (port, pids):
                    _warm(port, quick=quick)
                    of["connections"].append(_per_thousand(port, pids[0], crowd))
    return {"absent": absent, "seen": seen}


def found(numbers: dict[str, Any]) -> dict[str, Found]:
    """Return the rows of the table."""
    rows = {}
    for name in ("pss", "rss", "connections"):
        of = {who: [octets / MB for octets in seen[name]] for who, seen in numbers["seen"].items()}
        theirs = of.get(PEER, [])
        peers = {PEER: Spread.of(theirs)} if theirs else {}
        ratio = ratios(of["regsvc"], theirs) if theirs and min(theirs) > 0 else None
        rows[f"memory.{name}"] = Found(Spread.of(of["regsvc"]), peers, ratio, numbers["absent"])
    return rows


def table(numbers: dict[str, Any]) -> str:
    """Return the medians as a Markdown table."""
    lines = ["| who | PSS MB | RSS MB | 1,000 connections MB |", "|---|---:|---:|---:|"]
    for who, seen in numbers["seen"].items():
        lines.append(f"| {who} | " + " | ".join(f"{statistics.median(some) / MB:.1f}" for some in seen.values()) + " |")
    return "\n".join(lines)
