"""Measure beside what people would use instead; print one table. Without names: everything, in a quarter of an hour.

Numbers, table and pictures go to benchmarks/out; with --write they are merged into docs/benchmarks.json, .md and .svg.
Exit status: 1 where a part failed; 2 for wrong words; a bound that is missed is no failure.
"""

import argparse
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Final

from benchmarks import apart, host, report
from benchmarks.beside import missing
from benchmarks.parts import BY_NAME, PARTS, Part
from benchmarks.wanted import rows_of

OUT: Final = Path(__file__).parent / "out"


def _measure(parts: list[Part], out: Path, *, quick: bool) -> report.Entries:
    """Run them one after the other; return their entries."""
    about = host.describe()
    load = host.wait_calm(0.0 if quick else host.CALM_WAIT)
    about["load before"] = f"{load:.2f}"
    print("; ".join(f"{what}: {value}" for what, value in about.items()), flush=True)
    entries: report.Entries = {}
    left = sum(part.budget for part in parts)
    for number, part in enumerate(parts, 1):
        times = "a few seconds" if quick else f"about {part.budget:.0f} s, {left / 60:.0f} min for all that is left"
        print(f"[{number}/{len(parts)}] {part.name}: {times}", file=sys.stderr, flush=True)
        began = time.monotonic()
        entries[part.name] = told = apart.run(part, about, load, out / f"{part.name}.json", quick=quick)
        left -= part.budget
        print(
            f"    {part.name}: {told['error'] or 'done'}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True
        )
        if told["disturbed"]:
            print(f"    not calm: {told['disturbed']}; its rows are marked", file=sys.stderr, flush=True)
    return entries


def _say(entries: report.Entries) -> None:
    """Print the table of what was measured, and what does not hold."""
    rows = tuple(row for name in entries for row in rows_of(name))
    print(f"\n{report.table(entries, rows)}")
    if missed := report.missed(entries):
        print("Not reached: " + "; ".join(missed), flush=True)


def _words(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"parts: {', '.join(BY_NAME)}")
    parser.add_argument("--quick", action="store_true", help="the smallest form, which shows that it works and no more")
    parser.add_argument("--write", action="store_true", help="merge what was measured into docs/")
    parser.add_argument("--render", action="store_true", help="measure nothing: make docs/benchmarks.md anew")
    parser.add_argument("--out", type=Path, default=OUT, help="where numbers and pictures go")
    words = parser.parse_args(argv)
    if unknown := set(words.names) - set(BY_NAME):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are: {', '.join(BY_NAME)}")
    if (words.write or words.render) and (why := missing("matplotlib")):
        parser.error(why)
    if words.quick and words.write:
        parser.error("what --quick sees is no figure, and does not belong into docs/")
    return words


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(argv: list[str]) -> int:
    """Run what is named, or all; return the exit status."""
    words = _words(argv)
    if words.render:
        written = report.write(report.load())
        print(report.table(report.load()))
        return 0 if written else 1
    signal.signal(signal.SIGTERM, _interrupt)  # what was started is stopped
    words.out.mkdir(parents=True, exist_ok=True)
    parts = [part for part in PARTS if (part.name in words.names if words.names else not part.asked)]
    try:
        entries = _measure(parts, words.out, quick=words.quick)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    _say(entries)
    if words.quick:
        print("It works; what --quick sees is no figure.")
    good = {name: entry for name, entry in entries.items() if not entry["error"]}
    written = not words.write or report.write(report.load() | good)
    if not missing("matplotlib"):
        written &= report.write(entries, words.out / "report")
    return 0 if written and len(good) == len(entries) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
