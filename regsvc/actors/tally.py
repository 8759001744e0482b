"""The mailer's knobs and its count; both outlive its restarts."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

MARGIN: Final = timedelta(seconds=2)  # for the transport to end by its own deadline, which says more than ours
LIFE_SPENT_MAX: Final = 0.25  # of a code's life, from minting to the 250; invariant I6: 45 s of 60 are left


@dataclass(frozen=True, slots=True)
class Pace:
    """The mailer's knobs. `timeout` is the transport's own deadline for a mail; `jitter` gives numbers in [0, 1)."""

    concurrency: int = 8
    timeout: timedelta = timedelta(seconds=10)
    code_digits: int = 6
    code_lifetime: timedelta = timedelta(seconds=60)
    attempts_max: int = 8
    lease: timedelta = timedelta(seconds=15)
    renew: timedelta = timedelta(seconds=5)
    poll: timedelta = timedelta(seconds=5)
    jitter: Callable[[], float] = field(default=random.random, repr=False)

    @property
    def hand_over(self) -> timedelta:
        """How long minting and sending may take together."""
        return min(self.timeout + MARGIN, self.code_lifetime * LIFE_SPENT_MAX)


@dataclass(frozen=True, slots=True)
class Drained:
    """How a drain ended: mails handed over during it, and due or leased ones left (None: the database is away)."""

    handed_over: int
    left: int | None


@dataclass(frozen=True, slots=True)
class CourierStatistics:
    """Mails `in_flight` now, and what became of those before; `outages` in a row, 0 when the relay answers."""

    in_flight: int = 0
    sent: int = 0
    deferred: int = 0
    dead: int = 0
    dropped: int = 0
    reclaimed: int = 0
    outages: int = 0
    drained: Drained | None = None


class Tally:
    """What the mailer of this process does and has done; outlives its restarts."""

    def __init__(self) -> None:
        self._now = CourierStatistics()

    def statistics(self) -> CourierStatistics:
        """Count."""
        return self._now

    def note(self, *, drained: Drained | None = None, **counts: int) -> None:
        """Add `counts` to what was counted before."""
        self._now = replace(self._now, **{name: getattr(self._now, name) + n for name, n in counts.items()})
        if drained is not None:
            self._now = replace(self._now, drained=drained)
