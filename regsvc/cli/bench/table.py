"""The result as a person reads it in a terminal, and two runs beside each other."""

from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from regsvc.cli.bench.compare import Change, changes, differences
from regsvc.cli.bench.histogram import Histogram
from regsvc.cli.bench.run import DONE, SHARES, Run, is_good

SHOWN = ("p50", "p90", "p99", "p99.9")


def ms(seconds: float) -> str:
    """Write a time in ms, with three figures that count."""
    value = seconds * 1e3
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def result(run: Run) -> Group:
    """Return a run: what was asked, what came of it, and how long each step took."""
    parts: list[RenderableType] = [Text(heading(run), "bold"), Text(coming(run)), Text(), _steps(run), Text()]
    parts += [Text(f"! {one}", "yellow") for one in run.warnings]
    return Group(*parts, Text(source(run), "dim"))


def heading(run: Run) -> str:
    """Say what was asked of whom."""
    plan = run.plan
    how = f"{plan.connections} connections, closed loop" if plan.rate is None else f"{plan.rate:g}/s, {plan.arrivals}"
    ended = ", interrupted" if run.interrupted else ""
    return f"{plan.scenario} at {run.url}: {how}, {run.seconds:g} s{ended}"


def coming(run: Run) -> str:
    """Say what was offered, and what came of it."""
    offered = run.offered / run.seconds
    return (
        f"offered {offered:.1f}/s ({run.offered} arrivals), answered {run.answered_per_s:.1f}/s, good "
        f"{run.good_per_s:.1f}/s; started late p99 {ms(run.late.quantile(0.99))} ms; generator {run.busy:.0%} of a core"
    )


def percentiles(times: Histogram, names: Iterable[str]) -> list[str]:
    """Return percentiles in ms, as far as there are enough times for them."""
    shares = [SHARES[name] for name in names]
    values = times.quantiles(shares)
    return [ms(value) if times.known(share) else "–" for share, value in zip(shares, values, strict=True)]


def source(run: Run) -> str:
    """Say what times there are."""
    if run.plan.rate is None:
        return "Times in ms, each from when it was sent: whoever waits for an answer does not see who could not come."
    return "Times in ms, each from when it was due."


def _steps(run: Run) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("step", no_wrap=True)
    table.add_column("outcome")
    for name in ("count", "per s", *SHOWN, "max"):
        table.add_column(name, justify="right", no_wrap=True)
    for step, by_outcome in run.steps.items():
        for number, (outcome, times) in enumerate(sorted(by_outcome.items(), key=lambda it: -it[1].count)):
            table.add_row(
                "" if number else step,
                Text(outcome, "green" if is_good(outcome) else "red"),
                str(times.count),
                f"{times.count / run.seconds:.1f}",
                *percentiles(times, SHOWN),
                ms(times.longest()),
                style="dim" if outcome == DONE else "",
            )
    return table


def comparison(one: Run, other: Run, names: tuple[str, str]) -> Group:
    """Return two runs: what was different about them, and how each figure changed."""
    parts: list[RenderableType] = [Text(f"A {names[0]}: {heading(one)}"), Text(f"B {names[1]}: {heading(other)}")]
    parts += [Text(f"! {said}", "yellow") for said in differences(one, other)]
    return Group(*parts, Text(), _changes(changes(one, other)), Text("Times in ms; B ÷ A below 1 is less.", "dim"))


def _changes(found: Iterable[Change]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("step", "outcome", "figure"):
        table.add_column(name, no_wrap=True)
    for name in ("A", "B", "B ÷ A"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        ratio = Text("–" if one.ratio is None else f"{one.ratio:.2f}", one.colour)
        table.add_row(one.step, one.outcome, one.figure, one.before, one.after, ratio)
    return table


def show(what: RenderableType) -> None:
    """Print to standard output; where that is no terminal, no line is broken."""
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(what, soft_wrap=not console.is_terminal)
