"""Takes down what happens, as it happens: a few dictionary look-ups a request, for it runs between them."""

from dataclasses import dataclass, field

from regsvc.cli.bench.histogram import COARSE, Histogram
from regsvc.cli.bench.plan import Plan
from regsvc.cli.bench.run import CLASSES, Curve, Timeline, class_of, is_good


@dataclass(slots=True)
class Recorder:
    """Counts from `since` (on Trio's clock) on; what was due before is warm-up, and forgotten.

    `in_time`, `good`: answers that came, and good ones, between `since` and `until`, whenever they were due.
    """

    interval: float
    since: float = 0.0
    until: float = 0.0
    in_time: int = 0
    good: int = 0
    offered: int = 0
    finished: int = 0
    late: Histogram = field(default_factory=Histogram)
    waited: Histogram = field(default_factory=Histogram)
    steps: dict[str, dict[str, Histogram]] = field(default_factory=dict)
    _offered: dict[int, int] = field(default_factory=dict)
    _answered: dict[str, dict[int, int]] = field(default_factory=dict)
    _times: dict[str, dict[int, Histogram]] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: Plan) -> "Recorder":
        """Return an empty one."""
        return cls(plan.interval)

    def came(self, due: float, began: float) -> None:
        """Take down an arrival: when it was due, and when the generator came to it."""
        if due >= self.since:
            self.offered += 1
            self.late.record(began - due)
            at = int((due - self.since) / self.interval)
            self._offered[at] = self._offered.get(at, 0) + 1

    def went(self, due: float) -> None:
        """Take down that one is done with, however it ended."""
        if due >= self.since:
            self.finished += 1

    def queued(self, since: float, until: float) -> None:
        """Take down how long a request waited for a connection, if it had to."""
        if since >= self.since:
            self.waited.record(until - since)

    def step(self, step: str, due: float, done: float, outcome: str, *, answer: bool = True) -> None:
        """Take down the end of a step; `answer`: it was a request."""
        good = is_good(outcome)
        if answer and self.since <= done <= self.until and outcome[0].isdigit():
            self.in_time += 1
            self.good += good
        if due < self.since:
            return
        took = done - due
        by_outcome = self.steps.get(step)
        if by_outcome is None:
            by_outcome = self.steps[step] = {}
        times = by_outcome.get(outcome)
        if times is None:
            times = by_outcome[outcome] = Histogram()
        times.record(took)
        if answer:
            counts = self._answered.setdefault(class_of(outcome), {})
            came = int((done - self.since) / self.interval)
            counts[came] = counts.get(came, 0) + 1
        if good:
            slices = self._times.setdefault(step, {})
            at = int((due - self.since) / self.interval)
            if (slice_ := slices.get(at)) is None:
                slice_ = slices[at] = Histogram(COARSE)
            slice_.record(took)

    def latest(self, at: int) -> list[tuple[str, int, float, float, float]]:
        """Return of each step, for a point of its curve: how many good ones there were, p50, p99 and max in ms.

        Where that point has none, for the next one: as much of it as there is.
        """
        found = []
        for step, slices in self._times.items():
            if (times := slices.get(at) or slices.get(at + 1)) is not None:
                values = [round(value * 1e3, 2) for value in (*times.quantiles([0.5, 0.99]), times.longest())]
                found.append((step, times.count, values[0], values[1], values[2]))
        return found

    def timeline(self, seconds: float) -> Timeline:
        """Return the curves; what came after the end is in their last points."""
        points = max(-(-int(seconds * 1000) // int(self.interval * 1000)), 1)
        longest = max((max(counts, default=0) for counts in self._answered.values()), default=0) + 1
        return Timeline(
            self.interval,
            _counts(self._offered, points),
            {name: _counts(self._answered[name], max(points, longest)) for name in CLASSES if name in self._answered},
            {
                step: {
                    "p50": _curve(slices, 0.5, points),
                    "p99": _curve(slices, 0.99, points),
                    "max": _curve(slices, 1.0, points),
                }
                for step, slices in self._times.items()
            },
        )


def _counts(counts: dict[int, int], points: int) -> tuple[int, ...]:
    return tuple(counts.get(at, 0) for at in range(points))


def _curve(slices: dict[int, Histogram], share: float, points: int) -> Curve:
    """Return a time in ms for each point; None where nothing was due, or nothing good came of it."""
    return tuple(round(slices[at].quantile(share) * 1e3, 3) if at in slices else None for at in range(points))
