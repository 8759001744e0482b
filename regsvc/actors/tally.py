"""The mailer's knobs and its count; both outlive its restarts."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, assert_never

from regsvc.domain.delivery import NOT_AFTER, Letter
from regsvc.domain.profile import PROPOSAL_TTL

MARGIN: Final = timedelta(seconds=2)  # for the transport to end by its own deadline, which says more than ours
LIFE_SPENT_MAX: Final = 0.25  # of a code's life, from minting to the 250; invariant I6: 45 s of 60 are left


@dataclass(frozen=True, slots=True)
class Carried:
    """The secret in a letter: a code of so many digits, or (None) a token of 128 bits; `lifetime` from its minting.

    `link`: how long a second one lives, a token in a link; None: there is none.
    """

    digits: int | None
    lifetime: timedelta
    link: timedelta | None = None

    @property
    def shortest(self) -> timedelta:
        """How long all of it lives."""
        return self.lifetime if self.link is None else min(self.lifetime, self.link)


@dataclass(frozen=True, slots=True)
class Pace:
    """The mailer's knobs. `timeout` is the transport's own deadline for a mail; `jitter` gives numbers in [0, 1).

    Lapsed leases, and mails of which no bell told, are looked for each `poll`: often enough that the database is seen
    to be there all the time (see courier.GAP).
    """

    concurrency: int = 8
    timeout: timedelta = timedelta(seconds=10)
    code_digits: int = 6
    code_lifetime: timedelta = timedelta(seconds=60)
    link_lifetime: timedelta = timedelta(minutes=10)
    verify_digits: int = 6
    verify_lifetime: timedelta = timedelta(minutes=10)
    reset_lifetime: timedelta = timedelta(minutes=10)
    attempts_max: int = 8
    lease: timedelta = timedelta(seconds=15)
    renew: timedelta = timedelta(seconds=5)
    poll: timedelta = timedelta(seconds=1)
    jitter: Callable[[], float] = field(default=random.random, repr=False)

    def carried(self, letter: Letter) -> Carried | None:
        """Return what a letter carries; None: nothing, it is a notice."""
        match letter:
            case Letter.ACTIVATION:
                return Carried(self.code_digits, self.code_lifetime, self.link_lifetime)
            case Letter.VERIFY:
                return Carried(self.verify_digits, self.verify_lifetime)
            case Letter.CHANGE_EMAIL:
                # However late its mail leaves, the proposed address waits for the code to its end.
                return Carried(self.verify_digits, min(self.verify_lifetime, PROPOSAL_TTL - NOT_AFTER))
            case Letter.RESET:
                return Carried(None, self.reset_lifetime)
            case Letter.PASSWORD_CHANGED | Letter.EMAIL_CHANGED | Letter.NEW_DEVICE | Letter.REGISTERED_AGAIN:
                return None
            case _:
                assert_never(letter)

    def hand_over(self, letter: Letter) -> timedelta:
        """How long minting and sending may take together."""
        longest = self.timeout + MARGIN
        carried = self.carried(letter)
        return longest if carried is None else min(longest, carried.shortest * LIFE_SPENT_MAX)


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
        self._counts: Counter[str] = Counter()
        self._drained: Drained | None = None

    def statistics(self) -> CourierStatistics:
        """Count."""
        return CourierStatistics(**self._counts, drained=self._drained)

    def note(self, *, drained: Drained | None = None, **counts: int) -> None:
        """Add `counts` to what was counted before."""
        for name, n in counts.items():
            self._counts[name] += n
        if drained is not None:
            self._drained = drained

    def note_outages(self, outages: int) -> None:
        """Say how often in a row the relay has been away."""
        self._counts["outages"] = outages
