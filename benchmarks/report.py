"""What was measured, as one table and as docs/benchmarks.md: from `docs/benchmarks.json`, and from nothing else.

A part's entry there has when it was measured, on what, whether the machine was calm, its rows, and its raw numbers. So
parts that ran on different days stand in one table, each row with its day.
"""

import json
import math
import textwrap
import traceback
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import Found, Spread, figure
from benchmarks.parts import BY_NAME, PARTS, Part
from benchmarks.wanted import ROWS, Wanted

DOCS: Final = Path(__file__).parent.parent / "docs"
JSON: Final = DOCS / "benchmarks.json"
BOOK: Final = DOCS / "benchmarks.md"
HEADS: Final = ("what", "ours", "peer", "ratio", "to reach", "holds?", "seen")
NOT_YET: Final = "not yet"
FAILED: Final = "failed"
UNCALM: Final = "†"
INTRO: Final = f"""\
# Benchmarks

Made by `nox -s bench -- --write` from what it measured ([benchmarks.json](benchmarks.json)); nothing here was typed by
hand. `nox -s bench` measures all of it on your machine in a quarter of an hour, `nox -s bench -- adapter light` a part
of it. Ours and its peers take turns within the same minutes; a figure is the median of several rounds, with the
least and the most of them, and a ratio is ours ÷ the best peer's, round by round. {UNCALM}: the machine was not calm.
"""
Entries = dict[str, dict[str, Any]]


def load(path: Path = JSON) -> Entries:
    """Return the entries of all parts that were ever measured."""
    entries: Entries = json.loads(path.read_text("utf-8"))["parts"] if path.exists() else {}
    for entry in entries.values():
        entry["numbers"] = _swapped(entry["numbers"], None, math.nan)
    return entries


def dump(entries: Entries, path: Path = JSON) -> None:
    """Write them."""
    ordered = {
        part.name: {**entries[part.name], "numbers": _swapped(entries[part.name]["numbers"], math.nan, None)}
        for part in PARTS
        if part.name in entries
    }
    path.write_text(json.dumps({"parts": ordered}, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _swapped(tree: Any, old: float | None, new: float | None) -> Any:  # noqa: ANN401 - whatever JSON has
    """Return numbers with each NaN a null, which JSON has instead, or the other way round."""
    match tree:
        case dict():
            return {name: _swapped(value, old, new) for name, value in tree.items()}
        case list():
            return [_swapped(value, old, new) for value in tree]
        case None:
            return new if old is None else None
        case float() if old is not None and math.isnan(tree):
            return new
    return tree


def table(entries: Entries, rows: tuple[Wanted, ...] = ROWS) -> str:
    """Return the one table as Markdown, a line for each row that is wanted."""
    lines: list[tuple[str, ...]] = [HEADS, ("---", *("---:",) * 3, "---", "---", "---")]
    lines += [_cells(row, entries.get(row.part)) for row in rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cells(row: Wanted, entry: dict[str, Any] | None) -> tuple[str, ...]:
    if entry is None:
        return (row.what, "–", "–", "–", row.goal, "–", NOT_YET)
    seen = entry["date"] + (f" {UNCALM}" if entry["disturbed"] else "")
    if entry["error"]:
        return (row.what, _cell_text(entry["error"]), "–", "–", row.goal, FAILED, seen)
    found = Found.from_json(entry["rows"][row.key])
    peers = "; ".join(f"{name}: {_spread(some, row.unit)}" for name, some in found.peers.items())
    ours = _spread(found.ours, row.unit) if found.ours or not found.note else found.note
    beside = peers or (found.note if found.ours else "") or "–"
    return (row.what, ours, beside, _spread(found.ratio), row.goal, _verdict(row, found), seen)


def _verdict(row: Wanted, found: Found) -> str:
    judged = found.ours if row.judged == "ours" else found.ratio
    if judged is None or not row.sign:
        return "–"
    return "yes" if row.holds(judged.median) else "**no**"


def _spread(some: Spread | None, unit: str = "") -> str:
    if some is None:
        return "–"
    middle, least, most = figure(some.median), figure(some.least), figure(some.most)
    around = f" ({least}–{most})" if least != most else ""
    return f"{middle}{around}{' ' + unit if unit else ''}"


def _cell_text(text: str) -> str:
    """An error on one line, short enough for a cell."""
    return textwrap.shorten(" ".join(text.split()).replace("|", "\\|").replace("`", "'"), 160, placeholder=" …")


def missed(entries: Entries) -> list[str]:
    """Return the rows that do not hold what is to be reached."""
    return [row.what for row in ROWS if _cells(row, entries.get(row.part))[5] == "**no**"]


def book(entries: Entries) -> str:
    """Return docs/benchmarks.md."""
    parts = [part for part in PARTS if part.name in entries and not entries[part.name]["error"]]
    return "\n".join(
        [INTRO, table(entries), *_hosts(entries), *_pictures(parts), *(_section(p, entries) for p in parts)]
    )


def _hosts(entries: Entries) -> list[str]:
    """What measured: a list for each machine, with the parts that it measured."""
    hosts: dict[str, list[str]] = {}
    for name, entry in entries.items():
        words = "; ".join(f"{what}: {value}" for what, value in entry["host"].items())
        hosts.setdefault(words, []).append(name)
    lines = [f"- {words}. Measured {', '.join(names)}." for words, names in hosts.items()]
    lines += [
        f"- {UNCALM} {name}, {entry['date']}: {entry['disturbed']}."
        for name, entry in entries.items()
        if entry["disturbed"]
    ]
    return ["## The machine\n", "\n".join(lines) + "\n"] if lines else []


def _pictures(parts: list[Part]) -> list[str]:
    shown = [part.picture for part in parts if part.picture]
    return [f"![{words}]({file})\n" for file, _, words in shown]


def _section(part: Part, entries: Entries) -> str:
    return f"## {part.title}\n\n{part.about}\n\n{part.module.table(entries[part.name]['numbers'])}\n"


def write(entries: Entries, folder: Path = DOCS) -> bool:
    """Write JSON, document and pictures into `folder`; return whether all could be written: what can be, is."""
    folder.mkdir(parents=True, exist_ok=True)
    dump(entries, folder / JSON.name)
    (folder / BOOK.name).write_text(book(entries), "utf-8")
    drawn = True
    for name, entry in entries.items():
        if not entry["error"]:
            try:
                BY_NAME[name].draw(entry["numbers"], folder)
            except Exception:  # noqa: BLE001 - a picture must not cost the others, after a quarter of an hour
                traceback.print_exc()
                drawn = False
    return drawn
