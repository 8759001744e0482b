"""Owners of an embedded PostgreSQL in processes of their own, and what runs for them."""

import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from regsvc.store.embedded import process

ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="needs root: it changes accounts")
NOBODY = pwd.getpwnam("nobody")

# An owner in a process of its own. It becomes `uid` after its imports: the interpreter may lie where only root reaches.
OWNER = """
import importlib.metadata, os, sys
from pathlib import Path
from regsvc.store.embedded import EmbeddedError, open_embedded
folder, uid, gid, programs = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
if uid != os.geteuid():
    os.setgroups([]), os.setgid(gid), os.setuid(uid)
print("begin", flush=True)
try:
    with open_embedded(folder, binaries=programs) as cluster:
        print(cluster.pid, cluster.dsn, flush=True)
        sys.stdin.read()
except EmbeddedError as error:
    print("error", error, flush=True)
"""


@contextmanager
def owner(folder: Path, programs: Path, account: pwd.struct_passwd | None = None) -> Iterator[subprocess.Popen[str]]:
    uid, gid = (account.pw_uid, account.pw_gid) if account else (os.geteuid(), os.getegid())
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, folder, str(uid), str(gid), programs],
        env={name: value for name, value in os.environ.items() if not name.startswith("COV")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            assert said(running) == "begin"
            yield running
        finally:
            running.kill()
            wait(lambda: not workers_in(folder))


def said(running: subprocess.Popen[str]) -> str:
    assert running.stdout
    return running.stdout.readline().strip()


def cluster_of(running: subprocess.Popen[str]) -> tuple[int, str]:
    words = said(running).split()
    assert words[0].isdigit(), words
    return int(words[0]), words[1]


def workers_in(folder: Path) -> list[int]:
    """The processes other than owners that have their working folder or an open file below `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or entry.name == str(os.getpid()):
            continue
        with suppress(OSError):  # gone, or another account's
            links = [link.readlink() for link in (entry / "cwd", *(entry / "fd").iterdir())]
            if folder / "postgres.owner" not in links and any(link.is_relative_to(folder) for link in links):
                found.append(int(entry.name))
    return found


def wait(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    assert process.wait_until(condition, seconds), "it did not come to pass"


def select(programs: Path, dsn: str, statement: str = "SELECT 1") -> str:
    return subprocess.run(
        [programs / "psql", "-XqAt", "-d", dsn, "-c", statement], capture_output=True, check=True, text=True, timeout=10
    ).stdout.strip()
