"""How many hashes a second a machine makes, by threads and lanes; for people, so by the clock on the wall."""

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from regsvc.bcrypt_lanes.engine import PASSWORD_MAX, SALT_SIZE, Engine

COST: Final = 8  # 15 ms a hash: long beside the start of a call, short beside a heat


@dataclass(frozen=True, slots=True)
class Heat:
    """What `threads` threads of `lanes` lanes each did: batches, in so many seconds, at cost `cost`."""

    engine: str
    threads: int
    lanes: int
    batches: int
    seconds: float
    cost: int

    def per_second(self, cost: int) -> float:
        """Hashes of `cost` a second; twice as dear, half as many."""
        return self.batches * self.lanes / self.seconds / 2.0 ** (cost - self.cost)

    def each(self, cost: int) -> float:
        """Seconds that one hash of `cost` takes there, together with those beside it."""
        return self.threads * self.seconds / self.batches * 2.0 ** (cost - self.cost)


def run_heat(engine: Engine, threads: int, lanes: int, *, seconds: float, cost: int = COST) -> Heat:
    """Have `threads` threads hash for about `seconds`, `lanes` at once each."""
    counts, over = [0] * threads, threading.Event()
    passwords, salts = (secrets.token_bytes(PASSWORD_MAX),) * lanes, (secrets.token_bytes(SALT_SIZE),) * lanes

    def hashing(number: int) -> None:
        while not over.is_set():
            engine.digest(cost, passwords, salts)
            counts[number] += 1

    runners = [threading.Thread(target=hashing, args=(n,), name=f"heat {n}", daemon=True) for n in range(threads)]
    began = time.perf_counter()
    for runner in runners:
        runner.start()
    over.wait(seconds)
    over.set()
    for runner in runners:
        runner.join()
    return Heat(engine.name, threads, lanes, sum(counts), time.perf_counter() - began, cost)


def race(
    engines: tuple[Engine, ...], threads: int, *, seconds: float, report: Callable[[str], None] = lambda _: None
) -> Iterator[Heat]:
    """Run a heat for each engine and number of lanes, with one thread, and with `threads` if that is more."""
    for engine in engines:
        for lanes in range(1, engine.lanes + 1):
            for several in sorted({1, threads}):
                report(f"{engine.name}, {lanes} at once, {several} threads")
                yield run_heat(engine, several, lanes, seconds=seconds)


def rounds_within(heat: Heat, target: float) -> int:
    """Return the highest cost at which a hash takes no more than `target` seconds there; 4 at the least."""
    return max((cost for cost in range(4, 32) if heat.each(cost) <= target), default=4)
