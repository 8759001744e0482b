"""`python -m tests.chaos`: every row of the plan in its middle form; prints the report and leaves it in a folder.

`--large`: each row as often as the plan's large form, and other tests that have one; `--rounds N`: each N times;
`--only TEXT` (again and again): rows whose fault or test has it; `--report FOLDER`: where the counts go. Rows of one
number run in one pytest.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from tests.chaos import report
from tests.chaos.plan import ALSO, ROWS, Row

FOLDER: Final = "chaos-report"
ROOT: Final = Path(__file__).parents[2]


def chosen(only: Sequence[str]) -> list[Row]:
    """Return the rows that one of `only` names; all, without any. Raises SystemExit for a text that names none."""
    for text in only:
        if not any(text in row.fault or text in row.test for row in ROWS):
            raise SystemExit(f"no row has {text!r}; there are: {', '.join(row.fault for row in ROWS)}")
    return [row for row in ROWS if not only or any(text in row.fault or text in row.test for text in only)]


def commands(rows: Sequence[Row], folder: str, *, rounds: int | None, large: bool) -> list[list[str]]:
    """Return what to run: a pytest for the rows of each number of rounds."""

    def number(row: Row) -> int:
        return rounds or (row.large if large else row.middle)

    return [
        _pytest(times, folder, [row.test for row in group])
        for times, group in groupby(sorted(rows, key=number), number)
    ]


def _pytest(times: int, folder: str, tests: Sequence[str]) -> list[str]:
    words = ("-m", "pytest", "-s", "-q", "--no-header", "--rounds", str(times), "--report", folder)
    return [sys.executable, *words, *(f"tests/{test}" for test in tests)]


def main(words: Sequence[str]) -> int:
    """Run them all, whatever becomes of one; return how many pytests failed."""
    parser = argparse.ArgumentParser("python -m tests.chaos", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--rounds", type=int, metavar="N")
    size.add_argument("--large", action="store_true")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT")
    parser.add_argument("--report", default=FOLDER, metavar="FOLDER")
    told = parser.parse_args(words)
    folder = Path(told.report) / time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    where, failed = str(folder.absolute()), 0
    run = commands(chosen(told.only), where, rounds=told.rounds, large=told.large)
    if told.large and not told.only:
        run += [_pytest(times, where, [test]) for test, times in ALSO]
    for command in run:
        failed += subprocess.run(command, cwd=ROOT, check=False).returncode != 0
    records = report.read([folder])
    (folder / "reliability.md").write_text(report.page(records), "utf-8")
    (folder / "reliability.svg").write_text(report.picture(records), "utf-8")
    sys.stdout.write(
        f"\n{report.table(records)}\nIt is in {folder}: reliability.md, reliability.svg, and the counts.\n"
    )
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
