"""What a run came to: what is kept in JSON, and what every table and picture is made of."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from regsvc.cli.bench.histogram import Histogram
from regsvc.cli.bench.plan import Plan

FORMAT: Final = 1  # of the JSON; another number: nothing of it is as it was
SHARES: Final = {"p50": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999, "p99.99": 0.9999}
CLASSES: Final = ("2xx", "3xx", "4xx", "5xx", "none")  # none: no answer came
Curve = tuple[float | None, ...]


class NoRun(ValueError):  # noqa: N818 - it says what is the matter
    """This is not the JSON of a run."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """Counts and times of each `interval`, in seconds. `steps`: of good answers, by when they were due."""

    interval: float
    offered: tuple[int, ...]
    answered: Mapping[str, tuple[int, ...]]  # by class, by when they came
    steps: Mapping[str, Mapping[str, Curve]]  # p50, p99, max


@dataclass(frozen=True, slots=True)
class Run:
    """A run. `steps`: for each step and outcome (a status, or what came instead) the times from when it was due."""

    url: str
    service: str  # version, as far as it says
    tool: str
    host: str
    began: str
    plan: Plan
    seconds: float
    interrupted: bool
    offered: int
    finished: int
    unfinished: int
    answered_per_s: float  # requests, whatever the answer, while it was counted
    good_per_s: float  # of those the good ones
    late: Histogram  # from when an arrival was due until the generator began with it
    waited: Histogram  # for a connection, where none was free
    busy: float  # the generator's share of a core
    steps: Mapping[str, Mapping[str, Histogram]]
    timeline: Timeline
    warnings: tuple[str, ...] = ()

    def outcomes(self) -> dict[str, int]:
        """Count outcomes over all steps."""
        found: dict[str, int] = {}
        for by_outcome in self.steps.values():
            for outcome, times in by_outcome.items():
                found[outcome] = found.get(outcome, 0) + times.count
        return found

    def as_json(self) -> dict[str, Any]:
        """Return all of it for programs: figures in ms beside the histograms they were read from."""
        return {
            "format": FORMAT,
            **{name: getattr(self, name) for name in _PLAIN},
            "plan": self.plan.as_json(),
            "warnings": list(self.warnings),
            "late": told(self.late, self.seconds),
            "waited": told(self.waited, self.seconds),
            "steps": {
                step: {outcome: told(times, self.seconds) for outcome, times in by_outcome.items()}
                for step, by_outcome in self.steps.items()
            },
            "timeline": asdict(self.timeline),
        }

    @classmethod
    def of(cls, plain: Any) -> Self:  # noqa: ANN401 - whatever a file held
        """Return what `as_json` wrote. Raises NoRun."""
        try:
            if plain["format"] != FORMAT:
                raise NoRun(f"it is of format {plain['format']!r}, and this regsvc reads {FORMAT}")
            line = plain["timeline"]
            return cls(
                **{name: plain[name] for name in _PLAIN},
                plan=Plan(**plain["plan"]),
                warnings=tuple(plain["warnings"]),
                late=Histogram.of(plain["late"]["histogram"]),
                waited=Histogram.of(plain["waited"]["histogram"]),
                steps={
                    step: {outcome: Histogram.of(one["histogram"]) for outcome, one in by_outcome.items()}
                    for step, by_outcome in plain["steps"].items()
                },
                timeline=Timeline(
                    line["interval"],
                    tuple(line["offered"]),
                    {name: tuple(counts) for name, counts in line["answered"].items()},
                    {
                        step: {name: tuple(curve) for name, curve in curves.items()}
                        for step, curves in line["steps"].items()
                    },
                ),
            )
        except (KeyError, TypeError, AttributeError) as why:
            raise NoRun(f"it is no run of regsvc bench ({type(why).__name__}: {why})") from why


_PLAIN: Final = (
    "url", "service", "tool", "host", "began", "seconds", "interrupted", "offered", "finished", "unfinished",
    "answered_per_s", "good_per_s", "busy",
)  # fmt: skip


def told(times: Histogram, seconds: float) -> dict[str, Any]:
    """Return a histogram for programs: count, rate and percentiles in ms, and itself."""
    found = times.quantiles(SHARES.values())
    return {
        "count": times.count,
        "per_s": round(times.count / seconds, 3) if seconds else 0.0,
        "mean_ms": round(times.mean() * 1e3, 3) if times.count else None,
        **{
            f"{name}_ms": round(value * 1e3, 3) if times.known(SHARES[name]) else None
            for name, value in zip(SHARES, found, strict=False)
        },
        "max_ms": round(times.longest() * 1e3, 3) if times.count else None,
        "histogram": times.as_json(),
    }


def is_good(outcome: str) -> bool:
    """Tell whether an outcome is what was asked for: a status below 400, or a code that was found."""
    return outcome[0] in "123" or outcome == DONE


DONE: Final = "done"  # the outcome of what is no request: a code found, a whole journey made


def class_of(outcome: str) -> str:
    """Return the class that an outcome is counted under."""
    if outcome == DONE:
        return "2xx"
    return f"{outcome[0]}xx" if outcome[:1] in "2345" else "none"
