"""How many lanes pay on this CPU: more of them fill a core better until its registers and its cache are full."""

import itertools
import secrets
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from regsvc.bcrypt_lanes.engine import PASSWORD_MAX, SALT_SIZE, Engine

COST: Final = 4  # the least: two milliseconds for all lanes, and the same loop as any other cost
# Of the best. The middle one of those that come so near is taken, the higher of two: fewer look as good while somebody
# keeps the core's other half busy, as at a start.
ENOUGH: Final = 0.95


@dataclass(frozen=True, slots=True)
class Pace:
    """What a number of lanes does: seconds of a core for one call at cost 4, and the hashes that is a second."""

    lanes: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Hashes of cost 4 a second, of one thread beside the others."""
        return self.lanes / self.seconds


def calibrate(
    engine: Engine, *, threads: int = 1, seconds: float = 0.2, clock: Callable[[], float] = time.thread_time
) -> tuple[int, list[Pace]]:
    """Return how many lanes to use at once, and what each number of them does; takes about `seconds` of each thread.

    `threads`: as many as will hash. They all measure at once, as cores share what a thread alone has for itself: two
    that are halves of one have one cache. The clock is a thread's own: what else runs on the machine at its start is
    not what will run on it later. All numbers of lanes take turns, and the least of each counts: what slows the core
    for a while slows all alike.
    """
    least: list[dict[int, float]] = [{} for _ in range(threads)]
    others = [
        threading.Thread(
            target=_measure, args=(engine, seconds, clock, found), name=f"calibration {number}", daemon=True
        )
        for number, found in enumerate(least[1:], 2)
    ]
    for other in others:
        other.start()
    _measure(engine, seconds, clock, least[0])
    for other in others:
        other.join()
    paces = [Pace(lanes, statistics.mean(found[lanes] for found in least)) for lanes in least[0]]
    best = max(pace.per_second for pace in paces)
    return statistics.median_high(pace.lanes for pace in paces if pace.per_second >= best * ENOUGH), paces


def _measure(engine: Engine, seconds: float, clock: Callable[[], float], least: dict[int, float]) -> None:
    """Note the least time of each number of lanes, all of which take turns for so long."""
    password, salt = secrets.token_bytes(PASSWORD_MAX), secrets.token_bytes(SALT_SIZE)
    until = clock() + seconds
    for lanes in itertools.cycle(range(1, engine.lanes + 1)):
        if len(least) == engine.lanes and clock() >= until:
            return
        began = clock()
        engine.digest(COST, (password,) * lanes, (salt,) * lanes)
        least[lanes] = max(1e-9, min(least.get(lanes, float("inf")), clock() - began))
