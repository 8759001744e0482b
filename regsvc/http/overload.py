"""What a worker takes on: so many requests at once, and each for so long. What is beyond gets a quick 503.

Rule 1. Probes are always answered: being busy is a way to be alive.
Rule 2. Who waits as he asked to (a long poll) is in nobody's way: he gives his place back, and has that much longer.
Rule 3. A request that takes too long is cancelled where it waits. A transaction once begun is shielded, with a deadline
        of its own (flows.transaction): all of it happens, or nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import TracebackType
from typing import Final

import trio

from regsvc.http import kinds
from regsvc.http.kinds import Kind
from regsvc.http.problems import Told, tell
from regsvc.http.routes import Route

PROBES: Final = frozenset({"livez", "readyz", "health", "metrics", "metrics_report"})  # routes by name
RETRY_LEAST: Final = timedelta(seconds=1)
SMOOTH: Final = 16  # a mean follows what is within so many requests


def probe_paths(table: Sequence[Route]) -> frozenset[bytes]:
    """Return the paths of the probes, which the server answers even when it has too many connections."""
    return frozenset(path.encode() for route in table if route.name in PROBES for path in route.paths)


@dataclass(eq=False, slots=True)
class Workload:
    """The requests of one worker: `most` at once, `deadline` for each beside what it asked to wait."""

    most: int = 512
    deadline: timedelta = timedelta(seconds=20)
    in_hand: int = 0
    _begun: float = 0.0  # the sum of when those in hand began
    _mean: float = 0.0  # seconds that one took lately

    def enter(self, route: str | None) -> "Hold | Told":
        """Take on a request to a route, by its name (None: to no route); it is in hand while the hold is held."""
        now = trio.current_time()
        scope = trio.CancelScope(deadline=now + self.deadline.total_seconds())
        if route in PROBES:
            return Hold(self, scope, now, placed=False)
        if self.in_hand >= self.most:
            return self.refusal(kinds.OVERLOADED)
        self.in_hand += 1
        self._begun += now
        return Hold(self, scope, now)

    def leave(self, began: float, *, took: float | None) -> None:
        """Have one less in hand; `took`: None where it says nothing of how long a request takes."""
        self.in_hand -= 1
        self._begun = self._begun - began if self.in_hand else 0.0
        if took is not None:
            self._mean += (took - self._mean) / SMOOTH

    def refusal(self, kind: Kind) -> Told:
        """Word a refusal: to come again when those in hand are likely to be through.

        That is when they have taken as long again as they took until now, or as long as others took lately.
        """
        age = trio.current_time() - self._begun / self.in_hand if self.in_hand else 0.0
        wait = timedelta(seconds=max(age, self._mean))
        return replace(tell(kind), retry_after=min(max(RETRY_LEAST, wait), self.deadline))


@dataclass(slots=True)
class Hold:
    """A request's place and its time, as a context that is left when the time is over."""

    workload: Workload
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    began: float = 0.0
    placed: bool = True

    def wait(self, longer: timedelta) -> None:
        """Have that much longer, and no place: the request does nothing but wait."""
        self.scope.deadline += longer.total_seconds()
        self._give_back(took=None)

    def __enter__(self) -> None:
        self.scope.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._give_back(took=trio.current_time() - self.began)
        return self.scope.__exit__(kind, error, trace)

    def _give_back(self, took: float | None) -> None:
        if self.placed:
            self.placed = False
            self.workload.leave(self.began, took=took)
