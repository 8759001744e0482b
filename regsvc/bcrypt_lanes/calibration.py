"""How many lanes pay on this CPU: more of them fill a core better until its registers and its cache are full."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from regsvc.bcrypt_lanes.engine import PASSWORD_MAX, SALT_SIZE, Engine

COST: Final = 4  # the least: two milliseconds for all lanes, and the same loop as any other cost
ENOUGH: Final = 0.97  # of the best: fewer lanes that come so near are better, each hash is done sooner


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

    The clock is the thread's own: what else runs on the machine at its start is not what will run on it later.
    """
    password, salt = secrets.token_bytes(PASSWORD_MAX), secrets.token_bytes(SALT_SIZE)
    paces = []
    for lanes in range(1, engine.lanes + 1):
        passwords, salts = (password,) * lanes, (salt,) * lanes
        least, until = float("inf"), clock() + seconds / engine.lanes
        while (began := clock()) < until or least == float("inf"):
            engine.digest(COST, passwords, salts)
            least = min(least, clock() - began)
        paces.append(Pace(lanes, max(least, 1e-9)))
    best = max(pace.per_second for pace in paces)
    return next(pace.lanes for pace in paces if pace.per_second >= best * ENOUGH), paces
