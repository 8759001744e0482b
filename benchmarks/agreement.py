"""`regsvc bench` beside wrk, which it has to agree with: `/livez` of one worker over keep-alive connections.

In its closed loop (`--rate max`), for wrk has no other: each connection asks again as soon as it is answered. Both ask
at once, over as many connections each: one after the other they would be compared over two moods of the machine, which
are further apart than the two tools. What is compared is of the same seconds: of ours those whole seconds that lie
within wrk's time; the requests a second, and the median time. A percentile further out than that says more of the
machine than of either.
"""

import json
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import Found, Spread, progress
from tests.postgres import temporary_folder
from tests.service import running

ROUNDS: Final = 5
SECONDS: Final = 6  # that wrk asks
WARM_UP: Final = 1  # ours, alone
BEFORE: Final = 2.0  # seconds that ours has begun when wrk begins: its start, and its warm-up
AFTER: Final = 2  # seconds that ours goes on
MARGIN: Final = 0.3  # seconds: what begins as late as that in either, for all that is known from outside
CONNECTIONS: Final = 8  # of each
PATH: Final = "/livez"
WRK: Final = "wrk"
OURS: Final = "regsvc bench"
UNITS: Final = {"us": 1e-3, "ms": 1.0, "s": 1e3}  # in milliseconds
RATE: Final = re.compile(r"^Requests/sec: +([\d.]+)", re.MULTILINE)
MEDIAN: Final = re.compile(r"^ +50% +([\d.]+)(us|ms|s)$", re.MULTILINE)
FAILED: Final = re.compile(r"^ +(Socket errors|Non-2xx).*", re.MULTILINE)


def measure(*, quick: bool = False) -> dict[str, Any]:
    """Let both ask at once; return what each round saw, or why there is nothing to see."""
    if shutil.which(WRK) is None:
        return {"absent": f"{WRK} is not installed", "rounds": []}
    rounds, seconds = (1, 3) if quick else (ROUNDS, SECONDS)
    seen = []
    settings = {"WORKERS": "1", "ENABLE_RATE_LIMITING": "false", "LOG_LEVEL": "info"}
    with temporary_folder("regsvc-bench-") as folder, running(Path(folder, "service"), **settings) as service:
        for turn in range(rounds):
            progress(f"round {turn + 1} of {rounds}")
            seen.append(_both(service.url, seconds))
    return {"absent": "", "rounds": seen}


def _both(url: str, seconds: int) -> dict[str, dict[str, float]]:
    """Have both ask at once; return what each says of the seconds in which both did."""
    ours = [sys.executable, "-m", "regsvc", "bench", url, "--rate", "max", "--connections", str(CONNECTIONS)]
    ours += ["--path", PATH, "--warm-up", f"{WARM_UP}s", "--duration", f"{seconds + AFTER}s", "--json", "-"]
    theirs = [WRK, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}", "--latency", url + PATH]
    with subprocess.Popen(ours, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running_ours:
        try:
            time.sleep(BEFORE)
            began = time.time()
            said = subprocess.run(theirs, capture_output=True, text=True, timeout=60, check=True).stdout
            ended = time.time()
            run = json.loads(running_ours.communicate(timeout=60)[0])
        finally:
            running_ours.kill()
    return {WRK: read(said), OURS: shared(run, began, ended)}


def read(said: str) -> dict[str, float]:
    """Read requests a second and the median time, in ms, in what wrk says. Raises AssertionError for anything else."""
    rate, median = RATE.search(said), MEDIAN.search(said)
    assert rate, said
    assert median, said
    assert not FAILED.search(said), said
    return {"rate": float(rate[1]), "p50_ms": float(median[1]) * UNITS[median[2]]}


def shared(run: dict[str, Any], began: float, ended: float) -> dict[str, float]:
    """Return what ours says of its whole seconds between two times. Raises AssertionError where there are none."""
    [(step, outcomes)] = run["steps"].items()
    assert [*outcomes] == ["200"], outcomes
    line = run["timeline"]
    since = datetime.fromisoformat(run["began"]).timestamp() + WARM_UP
    whole = [
        at
        for at in range(int(run["seconds"] / line["interval"]))
        if since + at * line["interval"] >= began and since + (at + 1) * line["interval"] + MARGIN <= ended
    ]
    assert whole, f"they did not ask at once: ours from {since:.1f} on, wrk from {began:.1f} to {ended:.1f}"
    counts: Sequence[int] = line["answered"]["2xx"]
    times: Sequence[float] = line["steps"][step]["p50"]
    return {
        "rate": sum(counts[at] for at in whole) / (len(whole) * line["interval"]),
        "p50_ms": statistics.median(times[at] for at in whole),
        "busy": run["busy"],
        "seconds": len(whole) * line["interval"],
    }


def found(numbers: dict[str, Any]) -> dict[str, Found]:
    """Return the rows of the table: how far apart they are, in percent of what wrk says."""
    rows = {"agreement.rate": "rate", "agreement.time": "p50_ms"}
    if numbers["absent"]:
        return {key: Found(None, note=numbers["absent"]) for key in rows}
    return {key: _apart(numbers["rounds"], name) for key, name in rows.items()}


def _apart(rounds: list[dict[str, dict[str, float]]], name: str) -> Found:
    """Return how far the median of the rounds' own ratios is from one; the spread is that of the rounds."""
    ratios = [one[OURS][name] / one[WRK][name] for one in rounds]
    middle = statistics.median(ratios)
    away = [100 * abs(ratio - 1) for ratio in ratios]
    note = f"ours ÷ wrk's {middle:.3f} ({min(ratios):.3f}–{max(ratios):.3f})"
    return Found(Spread(100 * abs(middle - 1), min(away), max(away)), note=note)


def table(numbers: dict[str, Any]) -> str:
    """Return the rounds as a Markdown table."""
    if numbers["absent"]:
        return f"Nothing was measured:\n\n{numbers['absent']}.\n"
    lines = ["| round | wrk /s | ours /s | ÷ | wrk p50 ms | ours p50 ms | ÷ | our generator, of a core |"]
    lines.append("|---:" * 8 + "|")
    for number, one in enumerate(numbers["rounds"], 1):
        wrk, ours = one[WRK], one[OURS]
        rates = f"{wrk['rate']:.0f} | {ours['rate']:.0f} | {ours['rate'] / wrk['rate']:.3f}"
        times = f"{wrk['p50_ms']:.2f} | {ours['p50_ms']:.2f} | {ours['p50_ms'] / wrk['p50_ms']:.3f}"
        lines.append(f"| {number} | {rates} | {times} | {ours['busy']:.0%} |")
    return "\n".join(lines)
