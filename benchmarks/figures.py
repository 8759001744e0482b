"""Figures: what rounds saw, and what is found beside what is wanted."""

import math
import statistics
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of several rounds, and the least and the most of them."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self | None:
        """Return it for what the rounds saw; None where no round saw anything."""
        known = [value for value in values if not math.isnan(value)]
        return cls(statistics.median(known), min(known), max(known)) if known else None


@dataclass(frozen=True, slots=True)
class Found:
    """A row of the table: ours, the peers' by their names, ours ÷ the best of them, and what is to be said of it."""

    ours: Spread | None
    peers: dict[str, Spread | None] = field(default_factory=dict)
    ratio: Spread | None = None
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Self:
        def spread(some: dict[str, float] | None) -> Spread | None:
            return Spread(**some) if some else None

        peers = {name: spread(some) for name, some in told["peers"].items()}
        return cls(spread(told["ours"]), peers, spread(told["ratio"]), told["note"])


def percentile(values: list[float], share: float) -> float:
    """Return the value that `share` of `values` do not exceed; NaN where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def ratios(ours: list[float], *theirs: list[float], best: str = "most") -> Spread | None:
    """Return ours ÷ the best of theirs, round by round; `best`: whether the most or the least is.

    Rounds in which theirs got nothing done have no ratio.
    """
    peers = [some for some in theirs if some]
    if not ours or not peers:
        return None
    pick = max if best == "most" else min
    rounds = [(mine, pick(others)) for mine, *others in zip(ours, *peers, strict=True)]
    return Spread.of(mine / other if other else math.nan for mine, other in rounds)


def rotated(names: list[str], turn: int) -> list[str]:
    """Return the names, another one first each turn: what one leaves behind meets each of the others."""
    first = turn % len(names) if names else 0
    return names[first:] + names[:first]


def progress(text: str) -> None:
    """Say what is running, to whoever watches."""
    print(f"    {text}", file=sys.stderr, flush=True)


def middle(values: Iterable[float]) -> float:
    """Return the median of what is known; NaN where nothing is."""
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


def short(value: float) -> str:
    """Write a number for a table of many; a dash where there is none."""
    return "–" if math.isnan(value) else f"{value:.4g}"


def figure(value: float) -> str:
    """Write a number with the digits that count."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) < 0.1:
        return f"{value:.2g}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
