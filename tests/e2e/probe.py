"""Ask `/livez` over a new connection every 20 ms, in a process of its own, so that nothing but the service is measured.

`python -m tests.e2e.probe PORT` runs until its standard input ends, then writes how long each answer took, in seconds,
as a JSON array. A long wait counts as often as it is long, as if the clients were many.
"""

import json
import math
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

PAUSE = 0.02  # seconds
PATIENCE = 10.0  # seconds
GET = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def ask(port: int) -> float:
    """Return how long one answer took; `PATIENCE` for one that never came."""
    began = time.perf_counter()
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
            sock.sendall(GET)
            if not sock.recv(4096).startswith(b"HTTP/1.1 200"):
                return PATIENCE
    except OSError:
        return PATIENCE
    return time.perf_counter() - began


@contextmanager
def probing(port: int) -> Iterator[list[float]]:
    """Probe while the block runs; the list has the times, sorted, once it is over."""
    waits: list[float] = []
    command = [sys.executable, "-m", "tests.e2e.probe", str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield waits
        said, _ = process.communicate(timeout=30)
    waits.extend(sorted(json.loads(said)))


def percentile(waits: Sequence[float], share: float) -> float:
    """Return one of sorted times."""
    return waits[max(0, math.ceil(len(waits) * share) - 1)]


def _main(port: int) -> None:
    waits: list[float] = []
    while not select.select([sys.stdin], [], [], PAUSE)[0]:
        wait = ask(port)
        while wait > 0:  # those who would have asked meanwhile would have waited too
            waits.append(wait)
            wait -= PAUSE
    print(json.dumps(waits))  # noqa: T201 - what it is for


if __name__ == "__main__":
    _main(int(sys.argv[1]))
