"""Draws docs/overload.svg from what `benchmarks/overload.py` measured. Its background is its own: light on any page."""

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.figures import middle
from benchmarks.overload import OURS
from benchmarks.registrations import THREADS

INK, PAPER, FAINT = "#24292f", "#ffffff", "#d0d7de"
GOOD, BAD, READ, PROBE, OTHERS = "#1a7f37", "#cf222e", "#0969da", "#8250df", "#8c959f"
LIMIT: Final = 50.0  # ms


def draw(numbers: dict[str, Any], where: Path) -> None:
    """Write the picture: what is done, and how long it takes, over what is asked."""
    inks = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")
    style: Any = {**dict.fromkeys(inks, INK), "axes.edgecolor": FAINT, "svg.hashsalt": "the same ids each time"}
    ours, theirs = medians(numbers["rows"], OURS), medians(numbers["rows"], THREADS)
    with mpl.rc_context(style):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), facecolor=PAPER, layout="constrained")
        _rates(left, ours, theirs)
        _times(right, ours, theirs, 1e3 * (numbers["deadline_s"] + 1))
        for axes in (left, right):
            axes.set_xlabel("registrations offered ÷ capacity")
            axes.set_xlim(0, None)
            axes.grid(color=FAINT, linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(frameon=False, fontsize=9)
        figure.savefig(where, format="svg", metadata={"Date": None})
        plt.close(figure)


def medians(rows: list[dict[str, Any]], who: str) -> list[dict[str, float]]:
    """Return a row for each load that was asked, the medians of its rounds, in order; NaN where there was nothing."""
    mine = [row for row in rows if row["who"] == who]
    names = [name for name in mine[0] if name != "who"] if mine else []
    return [
        {name: middle(row[name] for row in mine if row["asked"] == load) for name in names}
        for load in sorted({row["asked"] for row in mine})
    ]


def _rates(axes: Axes, ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> None:
    offered = [row["offered"] for row in ours]
    axes.set_title("What is done of what is asked")
    axes.set_ylabel("a second ÷ capacity")
    axes.plot([0, max(offered)], [0, max(offered)], color=FAINT, linestyle="--", label="offered")
    _line(axes, ours, "goodput", label="accepted within 6 s", color=GOOD, marker="o")
    _line(axes, ours, "refused", label="refused at once, with Retry-After", color=BAD, marker="s")
    _line(axes, theirs, "goodput", label=f"{THREADS}: accepted within 6 s", color=OTHERS, marker="o")
    axes.set_ylim(0, None)


def _times(axes: Axes, ours: list[dict[str, float]], theirs: list[dict[str, float]], latest: float) -> None:
    axes.set_title("How long it takes")
    axes.set_ylabel("milliseconds")
    axes.set_yscale("log")
    _line(axes, ours, "accepted_p99_ms", label="accepted, p99", color=GOOD, marker="o")
    _line(axes, ours, "accepted_p50_ms", label="accepted, p50", color=GOOD, marker="o", linestyle=":")
    _line(axes, ours, "refused_p99_ms", label="refused, p99", color=BAD, marker="s")
    _line(axes, ours, "me_p99_ms", label="GET /v1/users/me, p99", color=READ, marker="^")
    _line(axes, ours, "livez_p99_ms", label="GET /livez, p99", color=PROBE, marker="d")
    _line(axes, theirs, "livez_p99_ms", label=f"{THREADS}: GET /livez, p99", color=OTHERS, marker="d")
    axes.axhline(latest, color=GOOD, linewidth=0.8, linestyle="--")
    axes.axhline(LIMIT, color=BAD, linewidth=0.8, linestyle="--")
    axes.set_ylim(1, 2 * latest)


def _line(axes: Axes, rows: list[dict[str, float]], name: str, **style: str) -> None:
    some = [row for row in rows if row[name] == row[name]]
    if some:
        axes.plot([row["offered"] for row in some], [row[name] for row in some], **style)  # type: ignore[arg-type]
