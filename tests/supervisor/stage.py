"""A supervisor whose workers are a few lines of Python, and somebody who watches it and acts."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regsvc import observe
from regsvc.observe.shared import Shared
from regsvc.settings import Settings, load_settings
from regsvc.supervisor import supervise
from tests.lines import Lines

WORKER = """
import argparse, json, os, signal, sys, time
options = argparse.ArgumentParser()
for name in ("parent", "lifeline", "ready", "shared", "slab", "socket"):
    options.add_argument("--" + name, type=int)
me = options.parse_args()
folder = os.environ["FOLDER"]
me.orders = os.read(me.lifeline, 65536)
if not me.orders:
    sys.exit()  # it waited for a place, and never got one
me.orders = json.loads(me.orders)
me.number = me.orders["number"]
def ready(on_term=lambda *_: sys.exit(0)):
    signal.signal(signal.SIGTERM, on_term)
    signal.signal(signal.SIGUSR1, on_term)
    with open(f"{folder}/.{os.getpid()}", "w") as file:
        json.dump(me.orders["settings"], file)
    os.rename(f"{folder}/.{os.getpid()}", f"{folder}/{me.number}.{os.getpid()}")  # whole, when it is seen
    os.write(me.ready, b"!")
def times():
    return len([name for name in os.listdir(folder) if name.startswith(f"{me.number}.")])
def wait():
    while True:
        time.sleep(60)
"""
QUICK = 20.0  # seconds, for what takes milliseconds; a busy machine is no failure


@dataclass
class Scene:
    """A supervisor on the main thread, and somebody on another who watches and acts."""

    folder: Path
    lines: Lines = field(default_factory=Lines)
    told: list[str] = field(default_factory=list)
    given: dict[str, str] = field(default_factory=dict)
    changed: dict[str, str] = field(default_factory=dict)

    def settings(self, **changed: str) -> Settings:
        given = {"REGSVC_DATABASE_URL": "postgresql://db/x", "REGSVC_PROFILE": "dev", "REGSVC_PORT": "0"}
        self.given = {**given, **{f"REGSVC_{name}": value for name, value in changed.items()}}
        return load_settings(self.given)

    def read(self, before: Mapping[str, str], without: Collection[str]) -> Settings:
        """Read the settings once more: what the test `changed` since the start, and what may not be."""
        return load_settings({**self.given, **self.changed, **before}, without=without)

    def run(
        self,
        worker: str,
        actor: Callable[[], None] = lambda: None,
        *,
        database: Any = None,  # a callable, as supervise takes it
        **changed: str,
    ) -> int:
        """Supervise until it ends; `actor` acts on a thread of its own."""
        acting = threading.Thread(target=actor, name="actor")
        acting.start()
        command = (sys.executable, "-S", "-c", WORKER + worker)
        try:
            told = self.settings(**changed)
            shared = Shared.create(1 + 2 * told.workers)
            with observe.open_log(self.lines, slab=shared.slabs[0]):
                return supervise(told, database, shared=shared, read=self.read, tell=self.told.append, command=command)
        finally:
            acting.join()

    def pids(self, number: int = 1) -> list[int]:
        """The processes that were ready as worker `number`, in no order."""
        return [int(path.name.partition(".")[2]) for path in self.folder.glob(f"{number}.*")]


UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def can_unshare() -> bool:
    try:
        return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def until(condition: Callable[[], object], seconds: float = QUICK) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


def tell(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False
