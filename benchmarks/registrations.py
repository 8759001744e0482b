"""Registrations a second, bcrypt 12: by the package and with lanes, beside FastAPI on its loop and in threads.

HTTP, database and mail included. They take turns, several rounds, each on a database of its own in memory; with 64
clients all are saturated, and health probes ask meanwhile; with one client each registration is alone. The yardstick is
measured before and after each turn: cores ÷ t_bcrypt of the package on idle cores. Ours runs one worker, as it comes,
the peers a worker a core. Drawn in docs/lanes.svg.
"""

import contextlib
import os
import statistics
from collections.abc import Callable, Iterator
from typing import Any, Final

import trio

from benchmarks import beside
from benchmarks.crowd import ROUNDS, Seen, load, t_bcrypt
from benchmarks.figures import Found, Spread, middle, percentile, progress, ratios, rotated, short
from tests.postgres import psql, temporary_cluster, temporary_folder
from tests.service import running

TURNS: Final = 3
CROWD: Final = 64  # clients
SECONDS: Final = 12.0  # of each turn: some of FastAPI's take that long
ALONE: Final = 2.5  # seconds, of each turn with one client
LANES: Final = "regsvc, lanes"
PACKAGE: Final = "regsvc, bcrypt package"
THREADS: Final = "FastAPI, bcrypt in threads"
LOOP: Final = "FastAPI, bcrypt in async def"
OURS: Final = (LANES, PACKAGE)
PEERS: Final = (THREADS, LOOP)
SETTINGS: Final = {
    "ENABLE_RATE_LIMITING": "false", "MAIL_CHANNEL": "mailbox", "LOG_LEVEL": "info"
}  # fmt: skip


@contextlib.contextmanager
def _ours(lanes: str, rounds: int) -> Iterator[int]:
    with (
        temporary_folder("regsvc-bench-") as folder,
        running(folder / "service", **SETTINGS, HASH_LANES=lanes, PASSWORD_ROUNDS=str(rounds)) as here,
    ):
        yield here.port


@contextlib.contextmanager
def peer(hashing: str, rounds: int) -> Iterator[int]:
    """Run FastAPI's version of it on a database of its own; yield its port."""
    from benchmarks.peers import fastapi_register  # noqa: PLC0415 - it may not be installed

    workers = str(len(os.sched_getaffinity(0)))
    with temporary_cluster() as cluster:
        psql(cluster, fastapi_register.TABLES)
        told = {"PEER_DATABASE_URL": cluster.dsn, "PEER_HASHING": hashing, "PEER_ROUNDS": str(rounds)}
        with beside.uvicorn("fastapi_register:app", "--workers", workers, **told) as server:
            yield server.port


VARIANTS: Final[dict[str, Callable[[int], contextlib.AbstractContextManager[int]]]] = {
    LANES: lambda rounds: _ours("auto", rounds),
    PACKAGE: lambda rounds: _ours("0", rounds),
    THREADS: lambda rounds: peer("threads", rounds),
    LOOP: lambda rounds: peer("loop", rounds),
}


def measure(*, quick: bool = False) -> dict[str, Any]:
    """Let all take turns; return what each turn saw, by variant and number of clients."""
    turns, crowd, seconds, alone = (1, 4, 0.3, 0.2) if quick else (TURNS, CROWD, SECONDS, ALONE)
    rounds = 8 if quick else ROUNDS
    absent = beside.missing("fastapi", "uvicorn")
    names = [*OURS] if absent else [*VARIANTS]
    seen: dict[str, dict[str, list[dict[str, float]]]] = {name: {"crowd": [], "alone": []} for name in names}
    with contextlib.ExitStack() as open_:
        ports = {name: open_.enter_context(VARIANTS[name](rounds)) for name in names}
        idle = t_bcrypt(2, rounds)
        for turn in range(turns):
            for name in rotated(names, turn):
                progress(f"round {turn + 1} of {turns}: {name}, {crowd} clients")
                found = trio.run(load, ports[name], crowd, seconds, min(1.0, seconds))
                before, idle = idle, t_bcrypt(2, rounds)
                seen[name]["crowd"].append(_figures(found, seconds, statistics.mean([before, idle])))
                if name in OURS:
                    found = trio.run(load, ports[name], 1, alone, 0.0)
                    seen[name]["alone"].append(_figures(found, alone, idle))
    return {"clients": crowd, "seconds": seconds, "absent": absent, "seen": seen}


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
        "probe_p99_ms": 1e3 * max(percentile(times, 0.99) for times in seen.probes.values()),
        "other": float(len(seen.other)),
        "t_bcrypt_ms": 1e3 * t,
    }


def found(numbers: dict[str, Any]) -> dict[str, Found]:
    """Return the rows of the table."""
    rows = {
        f"registrations{key}.{hashing}": _row(numbers, name, figure, scale, best)
        for key, figure, scale, best in (
            ("", "ratio", 1.0, "most"),
            (".probe", "probe_p99_ms", 1.0, "least"),
            (".accepted", "accepted_p99_ms", 1e-3, "least"),
        )
        for hashing, name in (("package", PACKAGE), ("lanes", LANES))
    }
    alone = {name: [turn["accepted_p50_ms"] for turn in numbers["seen"][name]["alone"]] for name in OURS}
    rows["registrations.refused"] = _row(numbers, PACKAGE, "refused_p99_ms", 1.0, None)
    rows["registrations.lone"] = Found(
        Spread.of(alone[LANES]), {"the package": Spread.of(alone[PACKAGE])}, ratios(alone[LANES], alone[PACKAGE])
    )
    return rows


def _row(numbers: dict[str, Any], name: str, figure: str, scale: float, best: str | None) -> Found:
    seen = numbers["seen"]
    of = {who: [scale * turn[figure] for turn in some["crowd"]] for who, some in seen.items()}
    theirs = {who: Spread.of(of[who]) for who in PEERS if who in of and best}
    ratio = ratios(of[name], *(of[who] for who in theirs), best=best) if best else None
    ours = Spread.of(of[name])
    return Found(ours, theirs, ratio, numbers["absent"] if best else "" if ours else "none was refused")


def table(numbers: dict[str, Any]) -> str:
    """Return the medians of all variants as a Markdown table."""
    names = list(next(iter(numbers["seen"].values()))["crowd"][0])
    lines = [f"Medians of the rounds, {numbers['seconds']:g} s each:", ""]
    lines += ["| variant | clients | " + " | ".join(names) + " |", "|---|---:|" + "---:|" * len(names)]
    for variant, kinds in numbers["seen"].items():
        for kind, turns in kinds.items():
            if turns:
                clients = numbers["clients"] if kind == "crowd" else 1
                medians = (short(middle(turn[name] for turn in turns)) for name in names)
                lines.append(f"| {variant} | {clients} | " + " | ".join(medians) + " |")
    return "\n".join(lines)
