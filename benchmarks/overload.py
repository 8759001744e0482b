"""What becomes of the service when more is asked than it can do: registrations of new addresses at 0.5 to 3 × capacity.

Open loop (`benchmarks/openloop.py`): who comes does not wait for who came before. Capacity is cores ÷ t_bcrypt of the
bcrypt package at 12 rounds, which the service hashes with here too, measured right before and after each step on the
idle machine. Meanwhile somebody who is logged in reads his profile, and a probe asks whether the worker lives. The
numbers are drawn in docs/overload.svg.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from benchmarks.light import access_token
from benchmarks.openloop import Seen, Stream
from benchmarks.registrations import ROUNDS, percentile, t_bcrypt
from tests.service import Service, running

FACTORS: Final = (0.5, 1.0, 1.5, 2.0, 3.0)  # × capacity
SECONDS: Final = 30.0  # of each step
WARM_UP: Final = 3.0  # seconds of each step that are not counted for goodput: until then the queue fills
DEADLINE: Final = 5.0  # REGSVC_HASH_DEADLINE
READS: Final = 40.0  # GET /v1/users/me a second
PROBES: Final = 20.0  # GET /livez a second
GOALS: Final = {
    "goodput at 3 × ÷ peak": (">=", 0.95),
    "accepted p99 s": ("<=", DEADLINE + 1),
    "refused p99 ms": ("<=", 50.0),
    "users/me p99 ms": ("<=", 50.0),
}


def measure(factors: tuple[float, ...] = FACTORS, seconds: float = SECONDS) -> dict[str, Any]:
    """Run all steps; return a row each, and what they come to beside what is to be reached."""
    cores = len(os.sched_getaffinity(0))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        settings = {"ENABLE_RATE_LIMITING": "false", "PASSWORD_ROUNDS": str(ROUNDS), "TRUSTED_PROXIES": "127.0.0.1/32"}
        with running(Path(folder), HASH_DEADLINE=str(DEADLINE), HASH_LANES="0", **settings) as service:
            token = access_token(service.url)
            idle = t_bcrypt()
            for factor in factors:
                before, load = idle, os.getloadavg()[0]
                seen = _step(service, token, factor, cores / before, seconds)
                idle = t_bcrypt()
                capacity = cores / statistics.mean([before, idle])
                rows.append({"asked": factor, "capacity": capacity, "load": load, **_row(seen, seconds, capacity)})
    return {"cores": cores, "seconds": seconds, "deadline_s": DEADLINE, "rows": rows, "summary": _summary(rows)}


def _step(service: Service, token: str, factor: float, capacity: float, seconds: float) -> list[Seen]:
    streams = [
        Stream("register", factor * capacity, "POST", "/v1/users/register", people=f"at-{factor:g}"),
        Stream("me", READS, "GET", "/v1/users/me", token=token),
        Stream("livez", PROBES, "GET", "/livez"),
    ]
    plan = {"port": service.port, "seconds": seconds, "streams": [asdict(stream) for stream in streams]}
    command = [sys.executable, "-m", "benchmarks.openloop"]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, input=json.dumps(plan), cwd=root, capture_output=True, text=True, check=True)
    return [Seen(**one) for one in json.loads(done.stdout)]


def _row(seen: list[Seen], seconds: float, capacity: float) -> dict[str, float]:
    """What one step comes to; times are in milliseconds, from when each request was due."""
    people = [one for one in seen if one.kind == "register"]
    accepted = [one for one in people if one.status == 201]
    refused = [one for one in people if one.status == 503]
    others = [one for one in seen if one.kind != "register" and one.status != 200]
    counted = sum(WARM_UP <= one.due + one.took < seconds for one in accepted)
    late = [1e3 * one.late for one in seen]

    def took(some: list[Seen], share: float) -> float:
        return 1e3 * percentile([one.took for one in some], share)

    def of(kind: str) -> list[Seen]:
        return [one for one in seen if one.kind == kind]

    return {
        "offered_per_s": len(people) / seconds,
        "offered": len(people) / seconds / capacity,
        "goodput_per_s": counted / (seconds - WARM_UP),
        "refused_per_s": len(refused) / seconds,
        "accepted_p50_ms": took(accepted, 0.5),
        "accepted_p99_ms": took(accepted, 0.99),
        "refused_p50_ms": took(refused, 0.5),
        "refused_p99_ms": took(refused, 0.99),
        "retry_after_p50_s": percentile([one.retry_after or 0 for one in refused], 0.5),
        "me_p50_ms": took(of("me"), 0.5),
        "me_p99_ms": took(of("me"), 0.99),
        "livez_p99_ms": took(of("livez"), 0.99),
        "other": len(people) - len(accepted) - len(refused) + len(others),
        "late_p99_ms": percentile(late, 0.99),
        "late_max_ms": max(late),
    }


def _summary(rows: list[dict[str, float]]) -> dict[str, float]:
    """The figures that are to be reached, of all steps."""
    peak = max(row["goodput_per_s"] / row["capacity"] for row in rows)

    def worst(name: str) -> float:
        return max((row[name] for row in rows if row[name] == row[name]), default=0.0)  # NaN: there were none

    return {
        "goodput at 3 × ÷ peak": rows[-1]["goodput_per_s"] / rows[-1]["capacity"] / peak,
        "accepted p99 s": worst("accepted_p99_ms") / 1e3,
        "refused p99 ms": worst("refused_p99_ms"),
        "users/me p99 ms": worst("me_p99_ms"),
    }


def table(result: dict[str, Any]) -> str:
    """Return the result as two Markdown tables."""
    names = list(result["rows"][0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---:|" * len(names)]
    lines += ["| " + " | ".join(f"{row[name]:.4g}" for name in names) + " |" for row in result["rows"]]
    lines += ["", "| figure | measured | to reach |", "|---|---:|---:|"]
    for name, value in result["summary"].items():
        sign, goal = GOALS[name]
        reached = value >= goal if sign == ">=" else value <= goal
        lines.append(f"| {name} | {value:.3g}{'' if reached else ' (missed)'} | {sign} {goal:g} |")
    return "\n".join(lines)
