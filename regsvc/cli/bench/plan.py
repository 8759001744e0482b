"""What load there is to be, and when each of it is due: known before the first request, whatever becomes of those."""

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

SCENARIOS: Final = ("register", "activate", "login", "light", "mixed")
INTERVALS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)  # seconds
POINTS: Final = 120  # of a curve over time, at most


@dataclass(frozen=True, slots=True)
class Plan:
    """A run. `rate`: arrivals a second, None: as fast as they are answered; all times in seconds."""

    scenario: str
    rate: float | None
    duration: float
    warm_up: float
    connections: int
    seed: int
    arrivals: str = "even"  # or "random"
    path: str = "/livez"
    timeout: float = 30.0
    accounts: int = 8
    forwarded: bool = False

    @property
    def interval(self) -> float:
        """How long a point of a curve over time is."""
        return float(next((it for it in INTERVALS if self.duration <= it * POINTS), INTERVALS[-1]))

    def times(self) -> Iterator[float]:
        """Yield when each arrival is due, in seconds from the beginning of the warm-up; nothing without a rate.

        `random`: as people come who know nothing of each other (exponential gaps), the same with the same seed.
        """
        if self.rate is None:
            return
        end, number, now = self.warm_up + self.duration, 0, 0.0
        dice = random.Random(f"arrivals {self.seed}")  # noqa: S311 - nothing secret
        while now < end:
            yield now
            number += 1
            now = number / self.rate if self.arrivals == "even" else now + dice.expovariate(self.rate)

    def as_json(self) -> dict[str, Any]:
        """Return all of it."""
        return asdict(self)
