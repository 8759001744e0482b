"""What becomes of a service when more is asked than it can do: registrations of new addresses at 0.5 to 3 × capacity.

Open loop (`benchmarks/openloop.py`): who comes does not wait for who came before. Capacity is cores ÷ t_bcrypt of the
bcrypt package at 12 rounds, which the service hashes with here too, measured right before and after each step on the
idle machine. Goodput counts who was registered within `USEFUL` of coming: later, people have gone. Meanwhile somebody
who is logged in reads his profile, and a probe asks whether the worker lives. The peer, FastAPI with bcrypt in threads,
is started anew for each step, for its queue outlives it. Drawn in docs/overload.svg.
"""

import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, Final

from benchmarks import beside
from benchmarks.beside import ROOT
from benchmarks.crowd import ROUNDS, t_bcrypt
from benchmarks.figures import Found, Spread, percentile, progress, short
from benchmarks.light import access_token
from benchmarks.openloop import Seen, Stream
from benchmarks.registrations import THREADS, peer
from benchmarks.wanted import DEADLINE
from tests.postgres import temporary_folder
from tests.service import Service, running

FACTORS: Final = ((0.5, 1.0, 1.5, 2.0, 3.0), (3.0, 2.0, 1.0), (3.0,))  # × capacity, of each round
PEER_FACTORS: Final = ((1.0, 3.0), (), ())
SECONDS: Final = 10.0  # of each step
WARM_UP: Final = 3.0  # seconds of each step that are not counted for goodput: until then the queue fills
USEFUL: Final = DEADLINE + 1  # seconds
READS: Final = 40.0  # GET /v1/users/me a second
PROBES: Final = 20.0  # GET /livez a second
OURS: Final = "regsvc"


def measure(*, quick: bool = False) -> dict[str, Any]:
    """Run all steps; return a row each."""
    plan = list(zip(((0.5, 1.0),), ((1.0,),), strict=True)) if quick else list(zip(FACTORS, PEER_FACTORS, strict=True))
    rounds = 8 if quick else ROUNDS
    steps = _Steps(rounds, 0.3, 0.1, 2.0) if quick else _Steps(rounds, SECONDS, WARM_UP, USEFUL + 1)
    absent = beside.missing("fastapi", "uvicorn")
    settings = {"ENABLE_RATE_LIMITING": "false", "PASSWORD_ROUNDS": str(rounds), "TRUSTED_PROXIES": "127.0.0.1/32"}
    settings |= {"LOG_LEVEL": "info", "HASH_DEADLINE": str(DEADLINE), "HASH_LANES": "0"}
    with (
        temporary_folder("regsvc-bench-") as folder,
        running(folder / "service", **settings) as service,
    ):
        token = access_token(service.url)
        for number, (factors, peers) in enumerate(plan):
            for factor in factors:
                progress(f"round {number + 1} of {len(plan)}: {OURS}, {factor:g} × capacity")
                steps.run(OURS, factor, number, partial(_ours, service, token, factor))
            for factor in () if absent else peers:
                progress(f"round {number + 1} of {len(plan)}: {THREADS}, {factor:g} × capacity")
                with peer("threads", rounds) as port:
                    steps.run(THREADS, factor, number, partial(_theirs, port, factor))
    return {"seconds": steps.seconds, "deadline_s": DEADLINE, "absent": absent, "rows": steps.rows}


class _Steps:
    """One after the other, the yardstick between them."""

    def __init__(self, rounds: int, seconds: float, warm_up: float, patience: float) -> None:
        self.rounds = rounds
        self.seconds, self.warm_up, self.patience = seconds, warm_up, patience
        self.rows: list[dict[str, Any]] = []

    def run(self, who: str, factor: float, number: int, planned: Callable[[float], dict[str, Any]]) -> None:
        cores, before = len(os.sched_getaffinity(0)), t_bcrypt(2, self.rounds)
        seen = self._seen({"seconds": self.seconds, "patience": self.patience, **planned(cores / before)})
        # The peer still computes what nobody waits for any more.
        idle = [before, t_bcrypt(2, self.rounds)] if who == OURS else [before]
        capacity = cores / statistics.mean(idle)
        row = _row(seen, self.seconds, self.warm_up, capacity)
        self.rows.append({"who": who, "asked": factor, "round": number, "capacity": capacity, **row})

    def _seen(self, plan: dict[str, Any]) -> list[Seen]:
        command = [sys.executable, "-m", "benchmarks.openloop"]
        limit = self.seconds + USEFUL + 60
        done = subprocess.run(
            command, input=json.dumps(plan), cwd=ROOT, capture_output=True, text=True, check=True, timeout=limit
        )
        return [Seen(**one) for one in json.loads(done.stdout)]


def _ours(service: Service, token: str, factor: float, capacity: float) -> dict[str, Any]:
    return _plan(service.port, factor, capacity, Stream("me", READS, "GET", "/v1/users/me", token=token))


def _theirs(port: int, factor: float, capacity: float) -> dict[str, Any]:
    return _plan(port, factor, capacity)


def _plan(port: int, factor: float, capacity: float, *more: Stream) -> dict[str, Any]:
    name = f"at-{factor:g}-{os.urandom(3).hex()}"  # people who did not come before
    people = Stream("register", factor * capacity, "POST", "/v1/users/register", people=name)
    streams = [people, Stream("livez", PROBES, "GET", "/livez"), *more]
    return {"port": port, "streams": [asdict(stream) for stream in streams]}


def _row(seen: list[Seen], seconds: float, warm_up: float, capacity: float) -> dict[str, float]:
    """What one step comes to; times are in milliseconds, from when each request was due."""
    people = [one for one in seen if one.kind == "register"]
    accepted = [one for one in people if one.status == 201]
    refused = [one for one in people if one.status == 503]
    others = [one for one in seen if one.kind != "register" and one.status != 200]
    counted = sum(warm_up <= one.due + one.took < seconds and one.took <= USEFUL for one in accepted)
    late = [1e3 * one.late for one in seen]

    def took(some: list[Seen], share: float) -> float:
        return 1e3 * percentile([one.took for one in some], share)

    def of(kind: str) -> list[Seen]:
        return [one for one in seen if one.kind == kind]

    return {
        "offered": len(people) / seconds / capacity,
        "goodput": counted / (seconds - warm_up) / capacity,
        "refused": len(refused) / seconds / capacity,
        "accepted_p50_ms": took(accepted, 0.5),
        "accepted_p99_ms": took(accepted, 0.99),
        "refused_p50_ms": took(refused, 0.5),
        "refused_p99_ms": took(refused, 0.99),
        "retry_after_p50_s": percentile([one.retry_after or 0 for one in refused], 0.5),
        "me_p50_ms": took(of("me"), 0.5),
        "me_p99_ms": took(of("me"), 0.99),
        "livez_p99_ms": took(of("livez"), 0.99),
        "given_up": float(sum(one.status == 0 for one in people)),
        "other": float(sum(one.status not in (0, 201, 503) for one in people) + len(others)),
        "late_p99_ms": percentile(late, 0.99),
    }


def found(numbers: dict[str, Any]) -> dict[str, Found]:
    """Return the rows of the table."""
    ours = [row for row in numbers["rows"] if row["who"] == OURS]
    theirs = [row for row in numbers["rows"] if row["who"] == THREADS]
    worst = {
        "overload.accepted": ("accepted_p99_ms", 1e-3),
        "overload.refused": ("refused_p99_ms", 1.0),
        "overload.livez": ("livez_p99_ms", 1.0),
        "overload.me": ("me_p99_ms", 1.0),
    }
    goodput = Found(_sustained(ours), {THREADS: _sustained(theirs)} if theirs else {}, note=numbers["absent"])
    rows = {"overload.goodput": goodput}
    for key, (name, scale) in worst.items():
        seen = _worst(ours, name, scale)
        peers = {THREADS: _worst(theirs, name, scale)} if theirs and name in ("accepted_p99_ms", "livez_p99_ms") else {}
        rows[key] = Found(seen, peers, note="" if seen else "there was none")
    return rows


def _sustained(rows: list[dict[str, Any]]) -> Spread | None:
    """Goodput at the most that was asked ÷ the best median of any load."""
    most = max((row["asked"] for row in rows), default=0.0)
    loads = {row["asked"] for row in rows}
    peak = max((statistics.median(_all(rows, load, "goodput")) for load in loads), default=math.nan)
    return Spread.of(done / peak for done in _all(rows, most, "goodput")) if peak > 0 else None


def _all(rows: list[dict[str, Any]], load: float, name: str) -> list[float]:
    return [row[name] for row in rows if row["asked"] == load]


def _worst(rows: list[dict[str, Any]], name: str, scale: float) -> Spread | None:
    """The load at which it is worst: the median of its rounds."""
    spreads = [Spread.of(scale * value for value in _all(rows, load, name)) for load in {row["asked"] for row in rows}]
    return max((some for some in spreads if some), key=lambda some: some.median, default=None)


def table(numbers: dict[str, Any]) -> str:
    """Return all steps as a Markdown table."""
    names = list(numbers["rows"][0])
    lines = [f"Each step took {numbers['seconds']:g} s; rates are ÷ capacity:", ""]
    lines += ["| " + " | ".join(names) + " |", "|---|" + "---:|" * (len(names) - 1)]
    for row in numbers["rows"]:
        cells = (value if isinstance(value, str) else short(value) for value in row.values())
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
