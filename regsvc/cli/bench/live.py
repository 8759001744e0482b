"""How a run goes, told each second: on a terminal by a process of its own, elsewhere in a line now and then.

Drawing takes a few milliseconds, for which nobody could come; so what measures only writes some numbers into a pipe,
and does without where that is full.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

import trio

from regsvc.cli.bench.generator import Generator
from regsvc.cli.given import say

EVERY: Final = 5  # seconds between two lines where there is no terminal
STEPS: Final = 8  # shown at most
SCREEN: Final = (sys.executable, "-m", "regsvc.cli.bench.screen")
ENDING: Final = 2.0  # seconds that the screen has to clear itself


@contextmanager
def open_progress() -> Iterator[Callable[[Generator], None]]:
    """Yield what is to be called each second of a run."""
    if not sys.stderr.isatty():
        yield _say
        return
    with subprocess.Popen(SCREEN, stdin=subprocess.PIPE) as screen:  # noqa: S603 - our own words
        assert screen.stdin is not None  # noqa: S101 - it was asked for
        pipe = screen.stdin.fileno()
        os.set_blocking(pipe, False)
        try:
            yield lambda generator: _write(pipe, generator)
        finally:
            with suppress(BrokenPipeError):
                screen.stdin.close()
            try:
                screen.wait(ENDING)
            except subprocess.TimeoutExpired:
                screen.send_signal(signal.SIGKILL)


def _write(pipe: int, generator: Generator) -> None:
    with suppress(BlockingIOError, BrokenPipeError):
        os.write(pipe, json.dumps(state(generator)).encode() + b"\n")


def _say(generator: Generator) -> None:
    told = state(generator)
    if told["at"] > 0 and round(told["at"]) % EVERY == 0:
        say(line(told))


def line(told: Mapping[str, Any]) -> str:
    """Say how it goes in one line."""
    return (
        f"{told['phase']} {told['at']:.0f}/{told['of']:.0f} s: {told['offered']} arrivals, "
        f"{told['under_way']} under way, {told['good']} good of {told['answers']} answers, "
        f"started late p99 {told['late_ms']:.1f} ms"
    )


def state(generator: Generator) -> dict[str, Any]:
    """Return how it goes, in numbers: in time that is counted, below zero in the warm-up."""
    place = generator.place
    recorder, plan = place.recorder, place.plan
    at = trio.current_time() - recorder.since if generator.began is not None else -plan.warm_up
    phase = "warm-up" if at < 0 else "measuring" if at < plan.duration else "waiting for the last"
    return {
        "phase": phase,
        "at": at if at >= 0 else at + plan.warm_up,
        "of": plan.duration if at >= 0 else plan.warm_up,
        "what": f"{plan.scenario} at {place.to.url}",
        "offered": recorder.offered,
        "under_way": recorder.offered - recorder.finished,
        "answers": recorder.in_time,
        "good": recorder.good,
        "late_ms": recorder.late.quantile(0.99) * 1e3 if recorder.late.count else 0.0,
        "busy": generator.busy,
        "steps": recorder.latest(int(at / recorder.interval) - 1 if at > 0 else -1)[:STEPS],
    }
