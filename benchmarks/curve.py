"""Draws docs/overload.svg from what `benchmarks/overload.py` measured. Its background is its own: light on any page."""

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

WHERE: Final = Path(__file__).parent.parent / "docs" / "overload.svg"
INK, PAPER, FAINT = "#24292f", "#ffffff", "#d0d7de"
GOOD, BAD, READ, PROBE = "#1a7f37", "#cf222e", "#0969da", "#8250df"
LIMIT: Final = 50.0  # ms


def draw(result: dict[str, Any], where: Path = WHERE) -> None:
    """Write the picture."""
    inks = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")
    style: Any = {**dict.fromkeys(inks, INK), "axes.edgecolor": FAINT, "svg.hashsalt": "the same ids each time"}
    with mpl.rc_context(style):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), facecolor=PAPER, layout="constrained")
        _rates(left, result)
        _times(right, result)
        for axes in (left, right):
            axes.set_xlabel("registrations offered ÷ capacity")
            axes.set_xlim(0, None)
            axes.grid(color=FAINT, linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(frameon=False, fontsize=9)
        figure.savefig(where, format="svg", metadata={"Date": None})
        plt.close(figure)


def _rates(axes: Axes, result: dict[str, Any]) -> None:
    rows = result["rows"]
    offered = [row["offered"] for row in rows]
    axes.set_title("What is done of what is asked")
    axes.set_ylabel("a second ÷ capacity")
    axes.plot([0, max(offered)], [0, max(offered)], color=FAINT, linestyle="--", label="offered")
    done = [row["goodput_per_s"] / row["capacity"] for row in rows]
    axes.plot(offered, done, color=GOOD, marker="o", label="accepted")
    refused = [row["refused_per_s"] / row["capacity"] for row in rows]
    axes.plot(offered, refused, color=BAD, marker="s", label="refused at once, with Retry-After")
    axes.set_ylim(0, None)


def _times(axes: Axes, result: dict[str, Any]) -> None:
    rows = result["rows"]
    axes.set_title("How long it takes")
    axes.set_ylabel("milliseconds")
    axes.set_yscale("log")
    lines = (
        ("accepted_p99_ms", "accepted, p99", GOOD, "o", "-"),
        ("accepted_p50_ms", "accepted, p50", GOOD, "o", ":"),
        ("refused_p99_ms", "refused, p99", BAD, "s", "-"),
        ("me_p99_ms", "GET /v1/users/me, p99", READ, "^", "-"),
        ("livez_p99_ms", "GET /livez, p99", PROBE, "d", "-"),
    )
    for name, label, color, marker, line in lines:
        some = [row for row in rows if row[name] == row[name]]
        axes.plot(
            [row["offered"] for row in some],
            [row[name] for row in some],
            color=color,
            marker=marker,
            linestyle=line,
            label=label,
        )
    latest = 1e3 * (result["deadline_s"] + 1)
    axes.axhline(latest, color=GOOD, linewidth=0.8, linestyle="--")
    axes.axhline(LIMIT, color=BAD, linewidth=0.8, linestyle="--")
    axes.set_ylim(1, 2 * latest)
