"""`regsvc bench` beside wrk, which it has to agree with: `/livez` of one worker over 16 keep-alive connections.

In its closed loop (`--rate max`), for wrk has no other: each connection asks again as soon as it is answered. They take
turns, several rounds, each round beginning with the other one, and what is compared is of the same round: requests a
second, and the median time. A percentile further out than that says more of the machine than of either. wrk takes next
to nothing of the other core, `regsvc bench` a part of it, so both cores have to be free.
"""

import json
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import Found, Spread, progress, rotated
from tests.postgres import temporary_folder
from tests.service import running

ROUNDS: Final = 5
SECONDS: Final = 3
WARM_UP: Final = 1
CONNECTIONS: Final = 16
PATH: Final = "/livez"
WRK: Final = "wrk"
OURS: Final = "regsvc bench"
UNITS: Final = {"us": 1e-3, "ms": 1.0, "s": 1e3}  # in milliseconds
RATE: Final = re.compile(r"^Requests/sec: +([\d.]+)", re.MULTILINE)
MEDIAN: Final = re.compile(r"^ +50% +([\d.]+)(us|ms|s)$", re.MULTILINE)
FAILED: Final = re.compile(r"^ +(Socket errors|Non-2xx).*", re.MULTILINE)


def measure(*, quick: bool = False) -> dict[str, Any]:
    """Let both take turns; return what each round saw, or why there is nothing to see."""
    if shutil.which(WRK) is None:
        return {"absent": f"{WRK} is not installed", "rounds": []}
    rounds, seconds = (1, 1) if quick else (ROUNDS, SECONDS)
    seen = []
    settings = {"WORKERS": "1", "ENABLE_RATE_LIMITING": "false", "LOG_LEVEL": "info"}
    with temporary_folder("regsvc-bench-") as folder, running(Path(folder, "service"), **settings) as service:
        for turn in range(rounds):
            progress(f"round {turn + 1} of {rounds}")
            seen.append({who: _ask(who, service.url, seconds) for who in rotated([WRK, OURS], turn)})
    return {"absent": "", "rounds": seen}


def _ask(who: str, url: str, seconds: int) -> dict[str, float]:
    return _wrk(url, seconds) if who == WRK else _ours(url, seconds)


def _wrk(url: str, seconds: int) -> dict[str, float]:
    """Have wrk ask; return what it says."""

    def said(duration: int) -> str:
        command = [WRK, "-t1", f"-c{CONNECTIONS}", f"-d{duration}", "--latency", url + PATH]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    said(WARM_UP)
    return read(said(seconds))


def read(said: str) -> dict[str, float]:
    """Read requests a second and the median time, in ms, in what wrk says. Raises AssertionError for anything else."""
    rate, median = RATE.search(said), MEDIAN.search(said)
    assert rate, said
    assert median, said
    assert not FAILED.search(said), said
    return {"rate": float(rate[1]), "p50_ms": float(median[1]) * UNITS[median[2]]}


def _ours(url: str, seconds: int) -> dict[str, float]:
    words = ("--rate", "max", "--connections", str(CONNECTIONS), "--path", PATH)
    times = ("--warm-up", f"{WARM_UP}s", "--duration", f"{seconds}s")
    command = [sys.executable, "-m", "regsvc", "bench", url, *words, *times, "--json", "-"]
    run = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)
    [outcomes] = run["steps"].values()
    assert [*outcomes] == ["200"], outcomes
    return {"rate": run["answered_per_s"], "p50_ms": outcomes["200"]["p50_ms"], "busy": run["busy"]}


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
