"""docs/reliability.md is what the command makes of runs: its rows are tests that are there, its bounds are right."""

import re
from pathlib import Path
from typing import Final

import pytest

from tests.chaos import report
from tests.chaos.plan import ROWS
from tests.house.test_asvs import defined_in

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "reliability.md").read_text("utf-8")
PICTURE: Final = (ROOT / "docs" / "reliability.svg").read_text("utf-8")
CELLS: Final = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.partition(report.HEAD)[2].partition("\n\n")[0].splitlines()
]
DAYS: Final = re.compile(r"\d{4}-\d\d-\d\d( to \d{4}-\d\d-\d\d)?")


def test_it_is_made_of_the_records_beside_it() -> None:
    records = report.load(ROOT / "docs")
    assert report.page(records) == PAGE
    assert report.picture(records) == PICTURE


def test_it_has_the_form_that_the_command_gives_it() -> None:
    fixed = re.split(r"\{\w+\}", report.PAGE)
    at = 0
    for part in fixed:
        assert part in PAGE[at:], part
        at = PAGE.index(part, at) + len(part)
    assert re.search(r"(?m)^- \d+ cores of .+, Python 3\.\d+", PAGE), "it says of which machine it is"


def test_each_fault_of_the_plan_is_there_or_said_to_be_missing() -> None:
    told = {cells[0]: cells for cells in CELLS}
    missing = re.search(r"(?m)^Not done in these runs: (.+)\.$", PAGE)
    assert told.keys() | set(missing[1].split(", ") if missing else ()) == {row.fault for row in ROWS}
    assert list(told) == [row.fault for row in ROWS if row.fault in told], "in the order of the plan"


@pytest.mark.parametrize("cells", CELLS, ids=lambda cells: cells[0])
def test_a_row_names_its_test_its_day_and_its_bound(cells: list[str]) -> None:
    (row,) = [row for row in ROWS if row.fault == cells[0]]
    _, did, rounds, at_risk, violations, bound, _, run, test = cells
    path, _, name = test.strip("`").partition("::")
    assert (did, f"{path}::{name}") == (row.did, row.test)
    assert name in defined_in(ROOT / "tests" / path)
    assert DAYS.fullmatch(run)
    if rounds != "–":
        operations = int(at_risk.removesuffix(f" {row.at_risk}").replace(",", ""))
        assert bound == report._share(report.upper_bound(int(violations), operations))
        assert f">{row.fault}</text>" in PICTURE
        assert f">{bound}</text>" in PICTURE


def test_what_failed_is_told() -> None:
    failed = sum(int(cells[4]) for cells in CELLS if cells[4] != "–")
    assert ("## What failed" in PAGE) == (failed > 0)
