"""The report as a page in one file: figures, charts, and two runs beside each other; light and dark, and on paper."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Final

from regsvc.cli.bench.charts import COLOURS, Point, Series, chart, linear, nines, over_time, plain, stacked, times
from regsvc.cli.bench.compare import changes, differences
from regsvc.cli.bench.histogram import Histogram
from regsvc.cli.bench.run import Curve, Run, is_good
from regsvc.cli.bench.style import STYLE
from regsvc.cli.bench.table import coming, heading, ms, percentiles, source

FEW: Final = 3  # steps
SHOWN: Final = ("p50", "p90", "p99", "p99.9", "p99.99")
CLASS_COLOURS: Final = {"2xx": "good", "3xx": "s1", "4xx": "warn", "5xx": "bad", "none": "gone"}
KNOWN: Final = tuple(1 - 10 ** (-n / 20) for n in range(121))  # 20 percentiles for each nine
TOLD: Final = (0.5, 0.9, 0.99, 0.999, 0.9999)


def report(run: Run) -> str:
    """Return the page of a run."""
    charts = [
        _percentiles("How long it took, by percentile", [("", run)]),
        _over_time(run),
        _rates(run),
        _statuses(run),
    ]
    body = [
        f"<p class=lead>{escape(coming(run))}</p>",
        _notes(run.warnings),
        _steps(run),
        f"<p class=quiet>{escape(source(run))}</p>",
        '<div class="charts">',
        *charts,
        "</div>",
        _facts({"": run}),
    ]
    return _page(f"regsvc bench: {heading(run)}", body)


def beside(one: Run, other: Run, names: tuple[str, str]) -> str:
    """Return the page of two runs."""
    runs = [(f"A {names[0]}", one), (f"B {names[1]}", other)]
    steps = [step for step in one.steps if _good(one, step).count and _good(other, step).count]
    charts = [_percentiles(f"{step}, by percentile", runs, step) for step in steps]
    charts += [_p99s(f"{step}, p99 over time", runs, step) for step in steps]
    charts.append(_answers(runs))
    body = [
        "".join(f"<p class=lead><b>{escape(name)}</b>: {escape(heading(run))}</p>" for name, run in runs),
        _notes(differences(one, other)),
        _change_table(one, other),
        '<div class="charts">',
        *charts,
        "</div>",
        _facts(dict(runs)),
    ]
    return _page(f"regsvc bench: {names[0]} and {names[1]}", body)


def _page(title: str, body: Iterable[str]) -> str:
    inner = "\n".join(part for part in body if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style></head>\n"
        f"<body><main>\n<h1>{escape(title)}</h1>\n{inner}\n</main></body></html>\n"
    )


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    return "<ul class=notes>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>"


def _steps(run: Run) -> str:
    heads = ("step", "outcome", "count", "per s", *(f"{name}" for name in SHOWN), "max")
    rows = []
    for step, by_outcome in run.steps.items():
        for outcome, found in sorted(by_outcome.items(), key=lambda it: -it[1].count):
            values = percentiles(found, SHOWN)
            cells = [str(found.count), f"{found.count / run.seconds:.1f}", *values, ms(found.longest())]
            word = f'<td class="{"ok" if is_good(outcome) else "no"}">{escape(outcome)}</td>'
            rows.append(f"<tr><th scope=row>{escape(step)}</th>{word}" + "".join(f"<td>{it}</td>" for it in cells))
    return _table(heads, rows)


def _change_table(one: Run, other: Run) -> str:
    rows = []
    for it in changes(one, other):
        ratio = "–" if it.ratio is None else f"{it.ratio:.2f}"
        words = f"<th scope=row>{escape(it.step)}</th><td>{escape(it.outcome)}</td><td>{escape(it.figure)}</td>"
        mark = {"green": "ok", "red": "no"}.get(it.colour, "")
        rows.append(f'<tr>{words}<td>{it.before}</td><td>{it.after}</td><td class="{mark}">{ratio}</td>')
    return _table(("step", "outcome", "figure", "A", "B", "B ÷ A"), rows)


def _table(heads: Iterable[str], rows: Iterable[str]) -> str:
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in heads)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _facts(runs: Mapping[str, Run]) -> str:
    """Return what each run was, for whoever wants to do it again."""
    parts = []
    for name, run in runs.items():
        plan = run.plan
        facts = {
            "began": run.began,
            "service": f"regsvc {run.service} at {run.url}",
            "generator": f"regsvc {run.tool} on {run.host}",
            "rate": "closed loop" if plan.rate is None else f"{plan.rate:g}/s, {plan.arrivals}",
            "warm-up": f"{plan.warm_up:g} s",
            "connections": str(plan.connections),
            "seed": str(plan.seed),
            "timeout": f"{plan.timeout:g} s",
        }
        told = "".join(f"<dt>{key}</dt><dd>{escape(value)}</dd>" for key, value in facts.items())
        parts.append(f"<details><summary>How {escape(name) or 'it'} was measured</summary><dl>{told}</dl></details>")
    return "".join(parts)


def _good(run: Run, step: str | None) -> Histogram:
    """Return the times of good outcomes of a step."""
    whole = Histogram()
    for outcome, found in run.steps.get(step or "", {}).items():
        if is_good(outcome):
            whole.merge(found)
    return whole


def _percentiles(label: str, runs: Sequence[tuple[str, Run]], only: str | None = None) -> str:
    """Return times over percentiles; of two runs the first is in dashes."""
    lines: list[tuple[str, Histogram, str, bool]] = []
    for number, (name, run) in enumerate(runs):
        for at, step in enumerate([only] if only else run.steps):
            found = _good(run, step)
            if found.count:
                first = len(runs) > 1 and number == 0
                lines.append((name or str(step), found, f"s{(number if only else at) % COLOURS}", first))
    x = nines(max((found.count for _, found, _, _ in lines), default=1))
    series = [_curve(name, found, colour, dash=dash) for name, found, colour, dash in lines]
    values = [point[1] for one in series for point in one.points if point is not None]
    return chart(label, x, times(values), series, note="good answers")


def _curve(name: str, found: Histogram, colour: str, *, dash: bool) -> Series:
    """Return the times that a histogram can tell: a hundred times have no percentile beyond the 99th."""
    shares = sorted({*(share for share in KNOWN if found.known(share)), *_told(found)})
    values = found.quantiles(shares)
    points = [(-math.log10(1 - share), value * 1e3) for share, value in zip(shares, values, strict=True)]

    def told(point: Point) -> str:
        return f"{name}: {100 * (1 - 10 ** -point[0]):.6g} % within {ms(point[1] / 1e3)} ms"

    return Series(name, colour, points, dash, told)


def _told(found: Histogram) -> Iterable[float]:
    return (share for share in TOLD if found.known(share))


def _over_time(run: Run) -> str:
    """Return p99 of each step over time, and p50 where that is not too much to look at."""
    series = []
    for at, (step, curves) in enumerate(
        (step, run.timeline.steps[step]) for step in run.steps if step in run.timeline.steps
    ):
        colour = f"s{at % COLOURS}"
        series.append(_times(f"{step}, p99", colour, run, curves["p99"]))
        if len(run.timeline.steps) <= FEW:
            series.append(_times(f"{step}, p50", colour, run, curves["p50"], dash=True))
    values = [point[1] for one in series for point in one.points if point is not None]
    note = _noted(run)
    return chart("How long it took, over time", over_time(run.seconds), times(values), series, note=note)


def _noted(run: Run) -> str:
    each = f"good answers of each {run.timeline.interval:g} s, by when they were due"
    return f"{each}; of fewer than 100, p99 is the slowest"


def _p99s(label: str, runs: Sequence[tuple[str, Run]], step: str) -> str:
    series = [
        _times(name, f"s{number}", run, run.timeline.steps[step]["p99"], dash=number == 0)
        for number, (name, run) in enumerate(runs)
    ]
    values = [point[1] for one in series for point in one.points if point is not None]
    x = over_time(max(run.seconds for _, run in runs))
    return chart(label, x, times(values), series, note=_noted(runs[0][1]))


def _times(name: str, colour: str, run: Run, curve: Curve, *, dash: bool = False) -> Series:
    interval = run.timeline.interval
    points = [None if value is None else ((at + 0.5) * interval, value) for at, value in enumerate(curve)]

    def told(point: Point) -> str:
        return f"{name}, {plain(point[0])} s: {ms(point[1] / 1e3)} ms"

    return Series(name, colour, points, dash, told)


def _rates(run: Run) -> str:
    """Return who came, and what was answered, each second."""
    offered, answered = _per_second(run, run.timeline.offered), _answered(run)
    x = over_time(max(run.seconds, len(answered) * run.timeline.interval))
    y = linear("per s", max([*offered, *answered, 1.0]) * 1.05)
    series = [
        _line("offered", "s1", run, offered, dash=True),
        _line("answered (an arrival may ask for several things)", "s0", run, answered),
    ]
    return chart("Offered and achieved", x, y, series)


def _answers(runs: Sequence[tuple[str, Run]]) -> str:
    series = [
        _line(name, f"s{number}", run, _answered(run), dash=number == 0) for number, (name, run) in enumerate(runs)
    ]
    most = max((point[1] for one in series for point in one.points if point is not None), default=1.0)
    longest = max(len(one.points) * run.timeline.interval for one, (_, run) in zip(series, runs, strict=True))
    return chart("Answered", over_time(longest), linear("per s", max(most, 1.0) * 1.05), series)


def _statuses(run: Run) -> str:
    """Return what was answered each second, by class."""
    layers = [
        ("no answer" if name == "none" else name, CLASS_COLOURS[name], _per_second(run, counts))
        for name, counts in run.timeline.answered.items()
    ]
    points = max((len(values) for _, _, values in layers), default=0)
    sums = [sum(values[at] for _, _, values in layers if at < len(values)) for at in range(points)]
    x = over_time(max(run.seconds, points * run.timeline.interval))
    y = linear("per s", max([*sums, 1.0]) * 1.05)
    return stacked("What was answered, over time", x, y, layers, run.timeline.interval)


def _line(name: str, colour: str, run: Run, values: Sequence[float], *, dash: bool = False) -> Series:
    interval = run.timeline.interval
    points = [((at + 0.5) * interval, value) for at, value in enumerate(values)]
    return Series(name, colour, points, dash, lambda point: f"{name}, {plain(point[0])} s: {plain(point[1])}/s")


def _answered(run: Run) -> list[float]:
    """Return how many requests were answered each second, whatever the answer."""
    counts = [counts for name, counts in run.timeline.answered.items() if name != "none"]
    points = max((len(one) for one in counts), default=0)
    return _per_second(run, [sum(one[at] for one in counts if at < len(one)) for at in range(points)])


def _per_second(run: Run, counts: Iterable[int]) -> list[float]:
    """Return counts of intervals as rates; that of the last interval, which may be cut short, with its own length."""
    interval = run.timeline.interval
    found = []
    for at, count in enumerate(counts):
        length = min(interval, run.seconds - at * interval)
        found.append(count / (length if length > interval / 2 else interval))
    return found
