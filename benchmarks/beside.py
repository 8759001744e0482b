"""Peers: whether their packages are here, and how they are run: uvicorn, as its documentation has it."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import httpx

from tests.service import STOP_SECONDS, free_port

ROOT: Final = Path(__file__).parent.parent
GRACE: Final = 3.0  # seconds until a peer that was told to stop is killed: it may have minutes of queue
TICKS: Final = os.sysconf("SC_CLK_TCK")


def missing(*modules: str) -> str:
    """Return what is to be said of a peer whose packages are not here; empty where all are."""
    absent = [name for name in modules if find_spec(name) is None]
    return f"not installed: {', '.join(absent)} (the extra `bench`)" if absent else ""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs: its port, and the process that it was started as."""

    port: int
    pid: int

    def cpu(self) -> float:
        """Return the processor seconds that it and its children have used."""
        parents, spent = {}, {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text("utf-8").rpartition(")")[2].split()
                pid = int(stat.parent.name)
                parents[pid], spent[pid] = int(fields[1]), int(fields[11]) + int(fields[12])
        ours = {self.pid}
        while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
            ours |= more
        return sum(spent.get(pid, 0) for pid in ours) / TICKS


@contextlib.contextmanager
def uvicorn(app: str, *words: str, **environ: str) -> Iterator[Server]:
    """Run `benchmarks.peers.APP` until the end of the block; `environ` are its variables.

    Raises AssertionError with what it said if it does not answer /livez in time.
    """
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", f"benchmarks.peers.{app}", "--port", str(port), *words]
    with program(command, environ) as (process, log):
        _wait_ready(process, port, log)
        yield Server(port, process.pid)


@contextlib.contextmanager
def program(command: list[str], environ: dict[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run a program in a group of its own until the end of the block; yield it and the file with what it says."""
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("wb") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | environ, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield process, Path(out.name)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + STOP_SECONDS
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}/livez").status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"the peer does not come up: {log.read_text('utf-8')[-2000:]}")
