"""From the start of the process until `/readyz` says yes: bare, the first time, and warm.

Bare means an empty data folder on disk: PostgreSQL makes its cluster, all migrations run, the secret and the signing
key are made. Warm is the same folder again. The bytecode is there, as an installation has it: a checkout whose sources
are newer than theirs is compiled anew at each start where the environment says that none be written.
"""

import compileall
import tempfile
from pathlib import Path
from typing import Any, Final

import regsvc
from benchmarks.figures import Found, Spread, progress
from tests.service import Service

ROUNDS: Final = 4


def measure(*, quick: bool = False) -> dict[str, Any]:
    """Start it twice a round; return the seconds of each."""
    rounds = 1 if quick else ROUNDS
    compileall.compile_dir(Path(regsvc.__file__).parent, quiet=1)
    seen: dict[str, list[float]] = {"first": [], "warm": []}
    for turn in range(rounds):
        progress(f"round {turn + 1} of {rounds}")
        with tempfile.TemporaryDirectory(prefix="regsvc-bench-") as folder:
            service = Service(Path(folder, "service"), {"REGSVC_LOG_LEVEL": "info"})
            try:
                seen["first"].append(service.start())
                assert service.terminate() == 0, service.tail()
                seen["warm"].append(service.start())
            finally:
                service.end()
    return seen


def found(numbers: dict[str, Any]) -> dict[str, Found]:
    """Return the rows of the table."""
    return {f"starting.{name}": Found(Spread.of(numbers[name])) for name in ("first", "warm")}


def table(numbers: dict[str, Any]) -> str:
    """Return the rounds as a Markdown table."""
    lines = ["| round | first s | warm s |", "|---:|---:|---:|"]
    for number, (first, warm) in enumerate(zip(numbers["first"], numbers["warm"], strict=True), 1):
        lines.append(f"| {number} | {first:.2f} | {warm:.2f} |")
    return "\n".join(lines)
