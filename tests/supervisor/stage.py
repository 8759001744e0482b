"""A supervisor whose workers are a few lines of Python, and somebody who watches it and acts."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regsvc import observe
from regsvc.settings import Settings, load_settings
from regsvc.supervisor import supervise
from tests.lines import Lines

WORKER = """
import argparse, json, os, signal, sys, time
options = argparse.ArgumentParser()
for name in ("number", "parent", "lifeline", "ready", "socket"):
    options.add_argument("--" + name, type=int)
me = options.parse_args()
folder = os.environ["FOLDER"]
def ready(on_term=lambda *_: sys.exit(0)):
    settings = json.loads(os.read(me.lifeline, 65536))
    signal.signal(signal.SIGTERM, on_term)
    with open(f"{folder}/{me.number}.{os.getpid()}", "w") as file:
        json.dump(settings, file)
    os.write(me.ready, b"!")
def times():
    return len([name for name in os.listdir(folder) if name.startswith(f"{me.number}.")])
def wait():
    while True:
        time.sleep(60)
"""
QUICK = 5.0  # seconds, for what takes milliseconds


@dataclass
class Scene:
    """A supervisor on the main thread, and somebody on another who watches and acts."""

    folder: Path
    lines: Lines = field(default_factory=Lines)
    told: list[str] = field(default_factory=list)

    def settings(self, **changed: str) -> Settings:
        given = {"REGSVC_DATABASE_URL": "postgresql://db/x", "REGSVC_PROFILE": "dev", "REGSVC_PORT": "0"}
        return load_settings({**given, **{f"REGSVC_{name}": value for name, value in changed.items()}})

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
            with observe.open_log(self.lines):
                return supervise(self.settings(**changed), database, tell=self.told.append, command=command)
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
