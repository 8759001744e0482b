"""Histories of the whole service on the command line: one to read, or many to find one that breaks an invariant.

`python -m tests.simulation --seed 17` prints the history of a seed, the same each time.
`python -m tests.simulation --seeds 100000` runs so many, and names those that break something.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from tests.simulation.batch import run_batch
from tests.simulation.town import History, simulate

TOGETHER = 25  # seeds that a process runs between two words of progress
EVERY = 2.0  # seconds between those


def main(argv: list[str] | None = None) -> int:
    """Run; return 1 when an invariant did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seed", type=int, metavar="N", help="print the history of a seed")
    what.add_argument("--seeds", type=int, metavar="N", help="run so many seeds")
    parser.add_argument("--from", type=int, default=0, metavar="M", dest="first", help="the first of them (0)")
    parser.add_argument("--processes", default="auto", metavar="K", help="at once; auto (the default): one a core")
    parser.add_argument("--until-broken", action="store_true", help="stop at the first that breaks something")
    asked = parser.parse_args(argv)
    if asked.seed is not None:
        history = simulate(asked.seed)
        sys.stdout.write(history.text())
        return 1 if history.broken else 0
    processes = (os.cpu_count() or 1) if asked.processes == "auto" else int(asked.processes)
    return _many(asked.first, asked.seeds, processes, patient=not asked.until_broken)


def _many(first: int, seeds: int, processes: int, *, patient: bool) -> int:
    began = said = time.monotonic()
    done, broken = 0, list[History]()
    for found, ran in _histories(first, seeds, processes):
        done += ran
        broken += found
        for history in found:
            sys.stdout.write(f"seed {history.seed}: {history.broken[0]}\n")
        if time.monotonic() - said > EVERY:
            said = time.monotonic()
            sys.stderr.write(f"{done} of {seeds} seeds, {len(broken)} broken, {_pace(done, began)}\n")
        if broken and not patient:
            break
    sys.stdout.write(
        f"{done} seeds from {first}: {len(broken)} break an invariant; {_pace(done, began)}, {processes} processes\n"
    )
    if broken:
        named = " ".join(str(history.seed) for history in broken[:20])
        sys.stdout.write(f"Replay one with `python -m tests.simulation --seed N`: {named}\n")
    return 1 if broken else 0


def _histories(first: int, seeds: int, processes: int) -> Iterator[tuple[list[History], int]]:
    """Run all; give, a batch at a time, the broken ones and how many there were."""
    batches = [range(start, min(start + TOGETHER, first + seeds)) for start in range(first, first + seeds, TOGETHER)]
    if processes == 1:
        yield from map(run_batch, batches)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(run_batch, batches)
        finally:
            pool.shutdown(cancel_futures=True)


def _pace(done: int, began: float) -> str:
    return f"{60 * done / max(time.monotonic() - began, 0.001):,.0f} a minute"


if __name__ == "__main__":
    sys.exit(main())
