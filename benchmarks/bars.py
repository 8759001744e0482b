"""Draws docs/lanes.svg from what `benchmarks/lanes.py` measured."""

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

WHERE: Final = Path(__file__).parent.parent / "docs" / "lanes.svg"
INK, PAPER, FAINT = "#24292f", "#ffffff", "#d0d7de"
OURS, OTHERS = "#1a7f37", "#8c959f"


def draw(result: dict[str, Any], where: Path = WHERE) -> None:
    """Write the picture: what each does with 64 clients, how long it takes, and what a probe waits meanwhile."""
    inks = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")
    style: Any = {**dict.fromkeys(inks, INK), "axes.edgecolor": FAINT, "svg.hashsalt": "the same ids each time"}
    rows = [row for row in result["rows"] if row["clients"] == 64][::-1]
    with mpl.rc_context(style):
        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 2.8), facecolor=PAPER, layout="constrained")
        _bars(left, rows, "ratio", "registrations a second ÷ (cores ÷ one bcrypt)", "{:.2f}")
        _bars(middle, rows, "accepted_p99_ms", "the slowest of 100 accepted, s", "{:.1f}", 1e-3)
        _bars(right, rows, "livez_p99_ms", "the slowest of 100 probes meanwhile, ms", "{:.0f}", log=True)
        left.set_yticks(range(len(rows)), [row["variant"] for row in rows])
        for axes in (middle, right):
            axes.set_yticks([])
        figure.savefig(where, format="svg", metadata={"Date": None})
        plt.close(figure)


def _bars(
    axes: Axes, rows: list[dict[str, Any]], name: str, title: str, shown: str, scale: float = 1.0, *, log: bool = False
) -> None:
    values = [row[name] * scale for row in rows]
    axes.set_title(title, fontsize=10)
    bars = axes.barh(range(len(rows)), values, color=[OURS if "regsvc" in row["variant"] else OTHERS for row in rows])
    axes.bar_label(bars, [shown.format(value) for value in values], padding=3)
    axes.set_xlim(1 if log else 0, max(values) * (4 if log else 1.2))
    if log:
        axes.set_xscale("log")
    axes.spines[["top", "right"]].set_visible(False)
