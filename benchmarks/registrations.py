"""Registrations a second at bcrypt 12 beside what the cores can hash, and how health probes fare meanwhile.

The service hashes with the bcrypt package here; `benchmarks/lanes.py` has the lanes. The yardstick is measured in the
same run, before and after: cores / t_bcrypt, the package's own hash on idle cores.
Clients do as the service asks: a 503 is retried after its Retry-After.
"""

import math
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import bcrypt
import trio

from benchmarks.client import Client
from tests.service import running

ROUNDS = 12
PROBES = ("/livez", "/v1/health")
WARM_UP = 1.0  # seconds before the rate is counted: until the first hashes are done nothing can be
PROBE_EVERY = 0.05  # seconds


@dataclass
class Seen:
    """What the clients saw: seconds each."""

    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    other: list[tuple[int, float]] = field(default_factory=list)
    probes: dict[str, list[float]] = field(default_factory=lambda: {path: [] for path in PROBES})
    counted: int = 0  # accepted between the warm-up and the end


def t_bcrypt(times: int = 4) -> float:
    """Return the median seconds of one hash of the bcrypt package, alone on a core."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        bcrypt.hashpw(b"a password of some length", bcrypt.gensalt(ROUNDS))
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


async def _client(http: Client, name: str, since: float, until: float, seen: Seen) -> None:
    number = 0
    while trio.current_time() < until:
        number += 1
        form = {"email": f"{name}-{number}@example.test", "password": "a password of some length"}
        began = trio.current_time()
        answer = await http.ask("POST", "/v1/users/register", form)
        taken = trio.current_time() - began
        if answer.status == 201:
            seen.accepted.append(taken)
            seen.counted += since < trio.current_time() <= until
        elif answer.status == 503:
            seen.refused.append(taken)
            await trio.sleep(float(answer.headers["retry-after"]))
        else:
            seen.other.append((answer.status, taken))


async def _probe(http: Client, path: str, until: float, seen: Seen) -> None:
    while trio.current_time() < until:
        began = trio.current_time()
        answer = await http.ask("GET", path)
        seen.probes[path].append(trio.current_time() - began)
        if answer.status != 200:
            seen.other.append((answer.status, trio.current_time() - began))
        await trio.sleep(PROBE_EVERY)


async def load(port: int, clients: int, seconds: float) -> Seen:
    """Have so many clients register as fast as they are answered, and the probes asked beside them."""
    seen = Seen()
    since = trio.current_time() + WARM_UP
    until = since + seconds
    async with trio.open_nursery() as nursery:
        for number in range(clients):
            name = f"client-{clients}-{number}"
            nursery.start_soon(_client, Client(port), name, since, until, seen, name=name)
        for path in PROBES:
            nursery.start_soon(_probe, Client(port), path, until, seen, name=f"probe {path}")
    return seen


def percentile(values: list[float], share: float) -> float:
    """Return the value that `share` of `values` do not exceed; NaN where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def measure(clients: int = 64, seconds: float = 20.0) -> dict[str, float]:
    """Run the load once; rates a second, times in milliseconds, `ratio` to cores / t_bcrypt."""
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        before = t_bcrypt()
        with running(
            Path(folder), ENABLE_RATE_LIMITING="false", PASSWORD_ROUNDS=str(ROUNDS), HASH_LANES="0"
        ) as service:
            seen = trio.run(load, service.port, clients, seconds)
        after = t_bcrypt()
    yardstick = cores / statistics.mean([before, after])
    rate = seen.counted / seconds
    return {
        "clients": clients,
        "seconds": seconds,
        "cores": cores,
        "t_bcrypt_ms": 1e3 * cores / yardstick,
        "registrations_per_s": rate,
        "ratio": rate / yardstick,
        "accepted_p99_ms": 1e3 * percentile(seen.accepted, 0.99),
        "refused": len(seen.refused),
        "refused_p99_ms": 1e3 * percentile(seen.refused, 0.99),
        "livez_p99_ms": 1e3 * percentile(seen.probes["/livez"], 0.99),
        "health_p99_ms": 1e3 * percentile(seen.probes["/v1/health"], 0.99),
        "other": len(seen.other),
    }


def table(rows: list[dict[str, float]]) -> str:
    """Return rows as a Markdown table."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---:|" * len(names)]
    lines += ["| " + " | ".join(f"{row[name]:.4g}" for name in names) + " |" for row in rows]
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Print the table for 1 and 64 clients, or for the numbers given."""
    clients = [int(word) for word in argv] or [2, 64]
    print(table([measure(number) for number in clients]))
    return 0
