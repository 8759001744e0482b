"""Light requests a second and worker: `GET /v1/users/me` and `/livez`, ours beside FastAPI + uvicorn + asyncpg.

One database, one user, one access token; one worker each. They take turns, several rounds, each round beginning with
another one; a ratio is the median of the rounds' own ratios. The peer logs its requests by default, as ours does; it
verifies the token's signature at each request, as PyJWT does, where ours remembers tokens whose signature was right.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.hammer import CONNECTIONS, Blow, hammer, request
from benchmarks.registrations import percentile
from docs.client import Client
from tests.letters import code_for
from tests.postgres import temporary_cluster
from tests.service import STOP_SECONDS, free_port, running

ROOT: Final = Path(__file__).parent.parent
ROUNDS: Final = 5
SECONDS: Final = 3.0  # of each turn
WARM_UP: Final = 1.0
OURS: Final = "regsvc"
PEER: Final = "FastAPI + uvicorn + asyncpg"
SILENT: Final = f"{PEER}, --no-access-log"
PATHS: Final = ("/v1/users/me", "/livez")
GOALS: Final = {("/v1/users/me", PEER): 0.4}  # 90-performance: ours ÷ theirs, at least
EMAIL, PASSWORD = "ada@example.org", "analytical engine"
TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs: its port, and the process that it was started as."""

    port: int
    pid: int

    def cpu(self) -> float:
        """Return the processor seconds that it and its children have used."""
        parents, spent = {}, {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text("utf-8").rpartition(")")[2].split()
                pid = int(stat.parent.name)
                parents[pid], spent[pid] = int(fields[1]), int(fields[11]) + int(fields[12])
        ours = {self.pid}
        while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
            ours |= more
        return sum(spent.get(pid, 0) for pid in ours) / TICKS


@contextlib.contextmanager
def peer(folder: Path, dsn: str, ours: str, *words: str) -> Iterator[Server]:
    """Run FastAPI's version of it under uvicorn, on the same database."""
    port = free_port()
    environ = {"PEER_DATABASE_URL": dsn, "PEER_JWKS_URL": f"{ours}/.well-known/jwks.json", "PEER_ISSUER": ours}
    command = [sys.executable, "-m", "uvicorn", "benchmarks.peers.fastapi_me:app", "--port", str(port), *words]
    with (folder / f"peer-{port}.log").open("wb") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | environ, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _wait_ready(process, port, Path(out.name))
            yield Server(port, process.pid)
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)


def _wait_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + STOP_SECONDS
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}/livez").status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError(log.read_text("utf-8"))


def access_token(url: str) -> str:
    """Make an account and log in, as a client does; the code is read in the mailbox."""
    with Client(url) as client:
        client.register(EMAIL, PASSWORD)
        client.activate(EMAIL, PASSWORD, code_for(url, EMAIL))
        client.login(EMAIL, PASSWORD)
        assert client.bearer is not None
        token: str = client.bearer.tokens["access_token"]
    return token


def measure(rounds: int = ROUNDS, seconds: float = SECONDS) -> dict[str, Any]:
    """Let all take turns; return what each turn saw, medians, and ours ÷ theirs."""
    with contextlib.ExitStack() as open_:
        folder = Path(open_.enter_context(tempfile.TemporaryDirectory()))
        cluster = open_.enter_context(temporary_cluster())
        settings = {"DATABASE_URL": cluster.dsn, "PROFILE": "dev", "WORKERS": "1", "PASSWORD_ROUNDS": "4"}
        settings["ENABLE_RATE_LIMITING"] = "false"  # one client asks as fast as it can
        service = open_.enter_context(running(folder, **settings))
        assert service.process is not None
        token = access_token(service.url)
        servers = {
            OURS: Server(service.port, service.process.pid),
            PEER: open_.enter_context(peer(folder, cluster.dsn, service.url)),
            SILENT: open_.enter_context(peer(folder, cluster.dsn, service.url, "--no-access-log")),
        }
        turns = [(path, who) for path in PATHS for who in servers]
        runs: dict[tuple[str, str], list[dict[str, float]]] = {turn: [] for turn in turns}
        for number in range(rounds):
            first = number % len(servers)
            for path in PATHS:
                said = set()
                for who in [*servers][first:] + [*servers][:first]:
                    seen, row = _turn(servers[who], path, token, seconds)
                    runs[path, who].append(row)
                    said.add(_same(seen.body))
                assert len(said) == 1, said
    return {"connections": CONNECTIONS, "seconds": seconds, "rounds": rounds, "rows": _rows(runs)}


def _turn(server: Server, path: str, token: str, seconds: float) -> tuple[Blow, dict[str, float]]:
    asked = request(path, token=token)
    hammer(server.port, asked, WARM_UP)
    spent = server.cpu()
    seen = hammer(server.port, asked, seconds)
    spent = server.cpu() - spent
    return seen, {
        "rate": seen.rate,
        "p50_ms": 1e3 * percentile(seen.times, 0.5),
        "p99_ms": 1e3 * percentile(seen.times, 0.99),
        "cpu_us": 1e6 * spent / len(seen.times),
        "client_busy": seen.busy,
    }


def _same(body: bytes) -> str:
    """What is said, however it is written: the peer writes microseconds where we write milliseconds."""

    def plain(value: object) -> object:
        with contextlib.suppress(TypeError, ValueError):
            return datetime.fromisoformat(str(value)).isoformat(timespec="milliseconds")
        return value

    return json.dumps({name: plain(value) for name, value in json.loads(body).items()}, sort_keys=True)


def _rows(runs: dict[tuple[str, str], list[dict[str, float]]]) -> list[dict[str, Any]]:
    rows = []
    for (path, who), turns in runs.items():
        ratios = [ours["rate"] / turn["rate"] for ours, turn in zip(runs[path, OURS], turns, strict=True)]
        medians = {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
        rates = [turn["rate"] for turn in turns]
        spread = {"rate_least": min(rates), "rate_most": max(rates)}
        ratio = {"ratio": statistics.median(ratios), "ratio_least": min(ratios), "ratio_most": max(ratios)}
        rows.append({"path": path, "who": who, **medians, **spread, **ratio, "goal": GOALS.get((path, who))})
    return rows


def table(result: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    how = f"{result['connections']} keep-alive connections of our own client (`benchmarks/hammer.py`)"
    names = ("request", "server", "requests/s (least–most)", "p50 ms", "p99 ms", "CPU µs each", "client busy")
    lines = [
        f"One worker, {how}, medians of {result['rounds']} rounds of {result['seconds']:g} s:",
        "",
        f"| {' | '.join(names)} | ours ÷ this | goal |",
        "|---|---|" + "---:|" * len(names),
    ]
    for row in result["rows"]:
        goal = f"≥ {row['goal']}" if row["goal"] else "–"
        ratio = f"{row['ratio']:.2f} ({row['ratio_least']:.2f}–{row['ratio_most']:.2f})"
        rate = f"{row['rate']:.0f} ({row['rate_least']:.0f}–{row['rate_most']:.0f})"
        times = f"{row['p50_ms']:.1f} | {row['p99_ms']:.1f} | {row['cpu_us']:.0f} | {row['client_busy']:.2f}"
        lines.append(f"| `{row['path']}` | {row['who']} | {rate} | {times} | {ratio} | {goal} |")
    return "\n".join(lines)
