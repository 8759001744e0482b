"""How many lanes pay on this CPU: more of them fill a core better until its registers and its cache are full."""

import secrets
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from regsvc.bcrypt_lanes.engine import PASSWORD_MAX, SALT_SIZE, Engine

COST: Final = 4  # the least: two milliseconds for all lanes, and the same loop as any other cost
# Of the best. The middle one of those that come so near is taken, the higher of two: fewer look as good while somebody
# keeps the core's other half busy, as at a start, and the most fill its cache once other threads hash beside this one.
ENOUGH: Final = 0.95


@dataclass(frozen=True, slots=True)
class Pace:
    """What a number of lanes does: seconds of a core for one call at cost 4, and the hashes that is a second."""

    lanes: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Hashes of cost 4 a second."""
        return self.lanes / self.seconds


def calibrate(
    engine: Engine, *, seconds: float = 0.2, clock: Callable[[], float] = time.thread_time
) -> tuple[int, list[Pace]]:
    """Return how many lanes to use at once, and what each number of them does; takes about `seconds` of this thread.

    The clock is the thread's own: what else runs on the machine at its start is not what will run on it later. All
    numbers of lanes take turns, and the least of each counts: what slows the core for a while slows all alike.
    """
    password, salt = secrets.token_bytes(PASSWORD_MAX), secrets.token_bytes(SALT_SIZE)
    least, until = dict.fromkeys(range(1, engine.lanes + 1), float("inf")), clock() + seconds
    while clock() < until or float("inf") in least.values():
        for lanes in least:
            began = clock()
            engine.digest(COST, (password,) * lanes, (salt,) * lanes)
            least[lanes] = min(least[lanes], clock() - began)
    paces = [Pace(lanes, max(one, 1e-9)) for lanes, one in least.items()]
    best = max(pace.per_second for pace in paces)
    return statistics.median_high(pace.lanes for pace in paces if pace.per_second >= best * ENOUGH), paces
