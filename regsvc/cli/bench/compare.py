"""Two runs beside each other: what differs in what was asked, and what in what came of it."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Final

from regsvc.cli.bench.histogram import Histogram
from regsvc.cli.bench.run import SHARES, Run

FIGURES: Final = ("p50", "p90", "p99", "p99.9")
SAME: Final = 0.05  # a change smaller than this share is none to look at
ENOUGH: Final = 10  # times that have to be beyond a percentile for it to be one


@dataclass(frozen=True, slots=True)
class Change:
    """A figure of both runs as it is shown. `ratio`: the second ÷ the first; None where one of them has none."""

    step: str
    outcome: str
    figure: str
    before: str
    after: str
    ratio: float | None
    less_is_better: bool

    @property
    def colour(self) -> str:
        """What it is to whoever reads it: better, worse, or neither."""
        if self.ratio is None or abs(self.ratio - 1) < SAME:
            return ""
        return "green" if (self.ratio < 1) == self.less_is_better else "red"


def differences(one: Run, other: Run) -> list[str]:
    """Return what makes the runs hard to compare, in sentences."""
    before, after = asdict(one.plan), asdict(other.plan)
    told = [
        f"Not the same {name.replace('_', '-')}: {_plain(before[name])} and {_plain(after[name])}."
        for name in before
        if before[name] != after[name] and name not in {"seed", "accounts"}
    ]
    if one.host != other.host:
        told.append(f"Not the same machine: {one.host} and {other.host}.")
    told += [f"A: {said}" for said in one.warnings]
    return [*told, *(f"B: {said}" for said in other.warnings)]


def _plain(value: object) -> str:
    return "max" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def changes(one: Run, other: Run) -> Iterator[Change]:
    """Yield every figure of both, those of both together first."""
    yield _rate("all", "", "answers per s", one.answered_per_s, other.answered_per_s)
    yield _rate("all", "", "good per s", one.good_per_s, other.good_per_s)
    for step in [*one.steps, *(step for step in other.steps if step not in one.steps)]:
        before, after = one.steps.get(step, {}), other.steps.get(step, {})
        for outcome in [*before, *(outcome for outcome in after if outcome not in before)]:
            yield from _times(step, outcome, before.get(outcome, Histogram()), after.get(outcome, Histogram()))


def _times(step: str, outcome: str, before: Histogram, after: Histogram) -> Iterator[Change]:
    yield Change(step, outcome, "count", str(before.count), str(after.count), None, less_is_better=False)
    for name in FIGURES:
        share = SHARES[name]
        if share > 0.5 and min(before.count, after.count) * (1 - share) < ENOUGH:
            continue  # a handful of times has no such percentile
        values = [times.quantile(share) for times in (before, after)]
        if all(times.count for times in (before, after)):
            ratio = values[1] / values[0] if values[0] else None
            before_ms, after_ms = (f"{value * 1e3:.2f}" for value in values)
            yield Change(step, outcome, f"{name} ms", before_ms, after_ms, ratio, less_is_better=True)


def _rate(step: str, outcome: str, figure: str, before: float, after: float) -> Change:
    ratio = after / before if before else None
    return Change(step, outcome, figure, f"{before:.1f}", f"{after:.1f}", ratio, less_is_better=False)


def as_json(one: Run, other: Run) -> dict[str, object]:
    """Return the comparison for programs."""
    found = [
        {"step": it.step, "outcome": it.outcome, "figure": it.figure, "a": float(it.before), "b": float(it.after),
         "ratio": None if it.ratio is None else round(it.ratio, 4)}
        for it in changes(one, other)
    ]  # fmt: skip
    return {"differences": differences(one, other), "changes": found}
