"""The machine that measures: what it is, and whether it is calm."""

import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from benchmarks.crowd import t_bcrypt
from regsvc.store.embedded.binaries import find

CALM_LOAD: Final = 0.7  # runnable processes, mean of the last minute
CALM_WAIT: Final = 60.0  # seconds; what has just installed this counts there for a while
CALM_DRIFT: Final = 0.1  # of the time of a bcrypt, from before a part to after it
PACKAGES: Final = (
    "asyncpg", "bcrypt", "celery", "fastapi", "hypercorn", "quart", "quart-trio", "trio", "trio-asyncio",
    "uvicorn", "uvloop",
)  # fmt: skip


def describe() -> dict[str, str]:
    """Return what the machine is: processor, cores, memory, kernel, Python, PostgreSQL, libraries."""
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "PostgreSQL": _postgres(),
        "libraries": ", ".join(f"{name} {number}" for name in PACKAGES if (number := _version(name))),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _postgres() -> str:
    return find(None, major=None, account=None, cache=Path(".regsvc")).version


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def wait_calm(seconds: float = CALM_WAIT) -> float:
    """Wait until the load average is low, `seconds` at most; return what it is then."""
    until = time.monotonic() + seconds
    said = False
    while (load := os.getloadavg()[0]) > CALM_LOAD and time.monotonic() < until:
        if not said:
            print(f"waiting until the machine is calm: load {load:.2f}, {seconds:g} s at most", file=sys.stderr)
            said = True
        time.sleep(2.0)
    if load > CALM_LOAD:
        print(f"this machine is not calm: load {load:.2f}; every row will say so", file=sys.stderr, flush=True)
    return load


class Calm:
    """Whether the machine kept its pace during a block: a bcrypt takes as long after it as before."""

    def __init__(self, load: float, *, quick: bool) -> None:
        self._load = load
        self._hash = {"times": 1, "rounds": 6} if quick else {"times": 3, "rounds": 12}
        self._before = t_bcrypt(**self._hash)

    def disturbed(self) -> str:
        """Return why the figures may be wrong, at the end of the block; empty where nothing speaks for it."""
        after = t_bcrypt(**self._hash)
        why = [f"load {self._load:.2f} before the start"] if self._load > CALM_LOAD else []
        if abs(after / self._before - 1) > CALM_DRIFT:
            why.append(f"a bcrypt took {1e3 * self._before:.0f} ms before and {1e3 * after:.0f} ms after")
        return ", ".join(why)
