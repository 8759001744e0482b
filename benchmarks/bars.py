"""Draws docs/lanes.svg, adapter.svg and light.svg: what each variant does, from what the parts measured."""

import math
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.figures import middle

INK, PAPER, FAINT = "#24292f", "#ffffff", "#d0d7de"
OURS, OTHERS = "#1a7f37", "#8c959f"
Bar = tuple[str, float]
FIGURES: Final = (  # of registrations: what is drawn, in which words, as, × what
    ("ratio", "registrations a second ÷ (cores ÷ one bcrypt)", "{:.2f}", 1.0),
    ("accepted_p99_ms", "the slowest of 100 accepted, s", "{:.1f}", 1e-3),
    ("probe_p99_ms", "the slowest of 100 probes meanwhile, ms", "{:.0f}", 1.0),
)


def draw_registrations(numbers: dict[str, Any], where: Path) -> None:
    """Write the picture: what each does with 64 clients, how long it takes, and what a probe waits meanwhile."""
    seen = {name: kinds["crowd"] for name, kinds in numbers["seen"].items()}

    def bars(figure: str, scale: float) -> list[Bar]:
        return [(name, scale * middle(turn[figure] for turn in turns)) for name, turns in seen.items()]

    with _picture(where, 3, 2.8) as panels:
        for number, (axes, (figure, title, shown, scale)) in enumerate(zip(panels, FIGURES, strict=True)):
            _bars(axes, bars(figure, scale), title, shown, log=figure == "probe_p99_ms", named=number == 0)


def draw_adapter(numbers: dict[str, Any], where: Path) -> None:
    """Write the picture: what a query costs each way."""
    with _picture(where, 1, 2.4) as [axes]:
        _bars(
            axes, list(numbers["median_us"].items()), "µs per SELECT through the pool, 10 at once", "{:.0f}", named=True
        )


def draw_light(numbers: dict[str, Any], where: Path) -> None:
    """Write the picture: light requests a second and worker."""
    paths = list(dict.fromkeys(row["path"] for row in numbers["rows"]))
    with _picture(where, len(paths), 2.0) as panels:
        for number, (axes, path) in enumerate(zip(panels, paths, strict=True)):
            bars = [(row["who"], row["rate"]) for row in numbers["rows"] if row["path"] == path]
            _bars(axes, bars, f"GET {path}, requests a second of one worker", "{:.0f}", named=number == 0)


class _picture:  # noqa: N801 - a context manager in lower case, as open()
    """Panels beside each other; written at the end of the block."""

    def __init__(self, where: Path, panels: int, height: float) -> None:
        inks = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")
        style: Any = {**dict.fromkeys(inks, INK), "axes.edgecolor": FAINT, "svg.hashsalt": "the same ids each time"}
        self._where, self._panels, self._height, self._style = where, panels, height, mpl.rc_context(style)

    def __enter__(self) -> list[Axes]:
        self._style.__enter__()
        size = (3.0 + 3.0 * self._panels, self._height)
        self._figure, axes = plt.subplots(
            1, self._panels, figsize=size, facecolor=PAPER, layout="constrained", squeeze=False
        )
        return list(axes[0])

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._figure.savefig(self._where, format="svg", metadata={"Date": None})
        plt.close(self._figure)
        self._style.__exit__(None, None, None)


def _bars(axes: Axes, bars: list[Bar], title: str, shown: str, *, log: bool = False, named: bool = False) -> None:
    names = [name for name, _ in bars[::-1]]
    values = [0.0 if math.isnan(value) else value for _, value in bars[::-1]]
    axes.set_title(title, fontsize=10)
    drawn = axes.barh(range(len(bars)), values, color=[OURS if "regsvc" in name else OTHERS for name in names])
    axes.bar_label(drawn, [shown.format(value) for value in values], padding=3)
    axes.set_xlim(1 if log else 0, max(*values, 1e-6) * (4 if log else 1.2))
    if log:
        axes.set_xscale("log")
    axes.set_yticks(range(len(bars)), names) if named else axes.set_yticks([])
    axes.spines[["top", "right"]].set_visible(False)
