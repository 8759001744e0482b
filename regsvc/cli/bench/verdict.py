"""What whoever reads the figures has to know first: that they are not what he asked for, or not of the service."""

from typing import Final

from regsvc.cli.bench.run import Run, class_of

LATE: Final = 0.010  # seconds; an arrival that began later than this was late
LATE_SHARE: Final = 0.01  # of all arrivals, from which on it is said
BUSY: Final = 0.8  # of a core; there is one, for Python has one
LIFT: Final = "REGSVC_ENABLE_RATE_LIMITING=false, in the service's environment, lifts them: do so for a load test"


def warnings(run: Run) -> tuple[str, ...]:
    """Return what has to be said, in sentences, the gravest first."""
    return tuple(
        one for one in (_limits(run), _none(run), _late(run), _busy(run), _queue(run), _unfinished(run)) if one
    )


def is_void(run: Run) -> bool:
    """Tell whether the service refused to be measured: its limits were met, or nothing it answered was good."""
    return bool(_limits(run) or _none(run))


def _limits(run: Run) -> str | None:
    count = run.outcomes().get("429", 0)
    return f"{count} answers were 429, for the service's limits are on. {LIFT}." if count else None


def _none(run: Run) -> str | None:
    outcomes = run.outcomes()
    if not outcomes or any(class_of(outcome) in {"2xx", "3xx"} for outcome in outcomes):
        return None
    told = ", ".join(f"{outcome} ({count})" for outcome, count in sorted(outcomes.items(), key=lambda it: -it[1])[:4])
    return f"No answer was good: {told}."


def _late(run: Run) -> str | None:
    late = run.late.above(LATE)
    if not run.late.count or late / run.late.count <= LATE_SHARE:
        return None
    return (
        f"The generator could not keep up: {late / run.late.count:.1%} of the arrivals began more than "
        f"{LATE * 1e3:.0f} ms after they were due (p99 {run.late.quantile(0.99) * 1e3:.0f} ms), and that is in all "
        "times below. Ask for less, or let it run on a machine that has a core to spare."
    )


def _busy(run: Run) -> str | None:
    if run.busy < BUSY:
        return None
    return f"The generator took {run.busy:.0%} of a core: it may be what was measured, and not the service."


def _queue(run: Run) -> str | None:
    if not run.waited.count:
        return None
    return (
        f"{run.waited.count} requests waited for one of the {run.plan.connections} connections "
        f"(p99 {run.waited.quantile(0.99) * 1e3:.0f} ms), and that is in their times: --connections allows more."
    )


def _unfinished(run: Run) -> str | None:
    return f"{run.unfinished} arrivals were still on their way when it ended." if run.unfinished else None
