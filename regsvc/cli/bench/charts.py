"""Charts as SVG, for a page that is one file: no script, no font and no picture from elsewhere.

Colours are classes of the page's style, which knows light and dark. Whatever a run brought along is escaped.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDE: Final = 720.0
HIGH: Final = 300.0
LEFT: Final = 62.0
RIGHT: Final = 14.0
TOP: Final = 12.0
BOTTOM: Final = 44.0
COLOURS: Final = 9  # s0 … s8 of the style
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Axis:
    """How values become places: from `low` to `high`; `ticks` are values and what is written there."""

    title: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Return where a value is: 0 at the low end, 1 at the high one; what is beyond is at the end."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, low / 10, 1e-9))
        return min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.0


@dataclass(frozen=True, slots=True)
class Series:
    """A line. `colour`: one of the style's; `dash`: drawn in dashes; None breaks it. `told`: what a point says."""

    name: str
    colour: str
    points: Sequence[Point | None]
    dash: bool = False
    told: Callable[[Point], str] | None = None


def linear(title: str, high: float, *, low: float = 0.0, ticks: int = 5) -> Axis:
    """Return an axis with round ticks."""
    span = max(high - low, 1e-9)
    step = _round_up(span / ticks)
    count = math.ceil(round(span / step, 6))
    return Axis(
        title, low, low + count * step, tuple((low + n * step, plain(low + n * step)) for n in range(count + 1))
    )


def over_time(seconds: float) -> Axis:
    """Return an axis of time, to its last second and no further."""
    whole = linear("seconds", seconds, ticks=8)
    return Axis(whole.title, 0.0, seconds, tuple((at, text) for at, text in whole.ticks if at <= seconds))


def times(values: Iterable[float]) -> Axis:
    """Return a logarithmic axis of ms that has room for all values, and for a power of ten at least."""
    known = [value for value in values if value > 0] or [1.0]
    low, high = _below(min(known)), _above(max(known))
    if high / low < 10:
        high = low * 10
    found = [(mantissa * 10.0**power) for power in range(-3, 8) for mantissa in (1, 2, 5)]
    inside = [value for value in found if low * 0.999 <= value <= high * 1.001]
    if len(inside) > 9:
        inside = [value for value in inside if _is_power(value)]
    return Axis("ms", low, high, tuple((value, plain(value)) for value in inside), logarithmic=True)


def nines(count: int) -> Axis:
    """Return an axis of percentiles that gives each further nine the same room, as far as `count` times can say."""
    high = min(max(math.log10(max(count, 2)), 1.0), 6.0)
    marks = [(0.0, "0 %"), (math.log10(2), "50 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %")]
    marks += [(4.0, "99.99 %"), (5.0, "99.999 %"), (6.0, "99.9999 %")]
    return Axis("percentile", 0.0, high, tuple(mark for mark in marks if mark[0] <= high + 1e-9))


def chart(label: str, x: Axis, y: Axis, series: Sequence[Series], *, note: str = "") -> str:
    """Return lines in a frame, with their legend above; `note`: what is to be known of them."""
    drawn = [part for one in series for part in _line(x, y, one)]
    return _figure(label, [(one.name, one.colour, one.dash) for one in series], [*_frame(x, y), *drawn], note)


def stacked(label: str, x: Axis, y: Axis, layers: Sequence[tuple[str, str, Sequence[float]]], width: float) -> str:
    """Return bars on bars, each `width` wide: names, colours and heights of the layers, from below."""
    parts = [*_frame(x, y)]
    count = max((len(values) for _, _, values in layers), default=0)
    for at in range(count):
        base = 0.0
        left, right = _x(x, at * width), _x(x, (at + 1) * width)
        for name, colour, values in layers:
            value = values[at] if at < len(values) else 0.0
            if value <= 0:
                continue
            top, bottom = _y(y, base + value), _y(y, base)
            wide = max(right - left - (1 if right - left > 4 else 0), 0.5)
            said = escape(f"{plain(at * width)} s: {plain(value)}/s {name}")
            parts.append(
                f'<rect class="f {colour}" x="{left:.1f}" y="{top:.1f}" width="{wide:.1f}" '
                f'height="{max(bottom - top, 0.5):.1f}"><title>{said}</title></rect>'
            )
            base += value
    return _figure(label, [(name, colour, False) for name, colour, _ in layers], parts)


def plain(value: float) -> str:
    """Write a number as short as it is round."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _figure(label: str, legend: Iterable[tuple[str, str, bool]], parts: Iterable[str], note: str = "") -> str:
    keys = "".join(
        f'<li><svg class="key" viewBox="0 0 24 8" aria-hidden="true"><path class="l {colour}{" d" if dash else ""}" '
        f'd="M1 4H23"/></svg>{escape(name)}</li>'
        for name, colour, dash in legend
    )
    inner = "\n".join(parts)
    words = f"{escape(label)}<small>{escape(note)}</small>" if note else escape(label)
    return (
        f'<figure><figcaption>{words}</figcaption><ul class="legend">{keys}</ul>'
        f'<svg viewBox="0 0 {WIDE:g} {HIGH:g}" role="img" aria-label="{escape(label)}">\n{inner}\n</svg></figure>'
    )


def _frame(x: Axis, y: Axis) -> Iterator[str]:
    """Yield grid lines and what is written at them."""
    left, right, top, bottom = LEFT, WIDE - RIGHT, TOP, HIGH - BOTTOM
    for value, text in y.ticks:
        at = _y(y, value)
        yield f'<path class="g" d="M{left:g} {at:.1f}H{right:g}"/>'
        yield f'<text class="e" x="{left - 7:g}" y="{at + 4:.1f}">{escape(text)}</text>'
    for value, text in x.ticks:
        at = _x(x, value)
        yield f'<path class="g" d="M{at:.1f} {top:g}V{bottom:g}"/>'
        anchor = "e" if at > right - 12 else "m"
        yield f'<text class="{anchor}" x="{min(at, right):.1f}" y="{bottom + 17:g}">{escape(text)}</text>'
    middle = (top + bottom) / 2
    yield f'<text class="m t" x="{(left + right) / 2:g}" y="{HIGH - 6:g}">{escape(x.title)}</text>'
    yield f'<text class="m t" x="14" y="{middle:g}" transform="rotate(-90 14 {middle:g})">{escape(y.title)}</text>'


def _line(x: Axis, y: Axis, one: Series) -> Iterator[str]:
    path: list[str] = []
    pen = "M"
    alone: list[Point] = []
    points = [*one.points, None]
    for before, point in zip([None, *points], points, strict=False):
        if point is None:
            if before is not None and path and path[-1].startswith("M"):
                alone.append(before)  # a line of one point would not be seen
            pen = "M"
        else:
            path.append(f"{pen}{_x(x, point[0]):.1f} {_y(y, point[1]):.1f}")
            pen = "L"
    if path:
        yield f'<path class="l {one.colour}{" d" if one.dash else ""}" d="{"".join(path)}"/>'
    for point in alone:
        yield f'<circle class="f {one.colour}" cx="{_x(x, point[0]):.1f}" cy="{_y(y, point[1]):.1f}" r="2.5"/>'
    if one.told is not None:
        for point in one.points:
            if point is not None:
                said = escape(one.told(point))
                where = f'cx="{_x(x, point[0]):.1f}" cy="{_y(y, point[1]):.1f}"'
                yield f'<circle class="h {one.colour}" {where} r="5"><title>{said}</title></circle>'


def _x(axis: Axis, value: float) -> float:
    return LEFT + axis.share(value) * (WIDE - RIGHT - LEFT)


def _y(axis: Axis, value: float) -> float:
    return HIGH - BOTTOM - axis.share(value) * (HIGH - BOTTOM - TOP)


def _round_up(value: float) -> float:
    """Return the next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * 0.999999)


def _below(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (5, 2, 1) if step * power <= value * 1.000001)


def _above(value: float) -> float:
    return _round_up(value)


def _is_power(value: float) -> bool:
    return abs(math.log10(value) - round(math.log10(value))) < 1e-6
