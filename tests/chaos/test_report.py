"""What a run counted becomes a row, and a bound that is right."""

import json
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.chaos import report
from tests.chaos.__main__ import ROOT, chosen, commands
from tests.chaos.plan import FOUND, ROWS, Row
from tests.chaos.recording import Record
from tests.house.test_asvs import defined_in

KILL = ROWS[0]
RACE = next(row for row in ROWS if row.each == 50)


def record(row: Row = KILL, **told: object) -> Record:
    """A run of ten rounds that went well, but for what is told."""
    known: dict[str, object] = {
        "test": f"tests/{row.test}",
        "outcome": "passed",
        "rounds": 10,
        "operations": 100,
        "violations": 0,
        "seconds": 1.5,
        "at": "2026-11-21T10:00:00+00:00",
        "host": "2 cores",
        "figures": {"duplicates": 2, "slowest answer ms": 7},
    }
    return Record(**{**known, **told})  # type: ignore[arg-type]  # a test's shorthand


@pytest.mark.parametrize("operations", [1, 10, 1000, 10**6])
def test_without_a_violation_the_bound_is_three_in_so_many(operations: int) -> None:
    bound = report.upper_bound(0, operations)
    assert (1 - bound) ** operations == pytest.approx(0.05)
    assert operations < 100 or bound == pytest.approx(3 / operations, rel=0.01)


@pytest.mark.parametrize(("violations", "operations"), [(1, 10), (1, 100), (5, 100), (3, 20), (50, 1000)])
def test_with_violations_so_few_are_seen_once_in_twenty_times_at_the_bound(violations: int, operations: int) -> None:
    bound = report.upper_bound(violations, operations)
    ways = (math.comb(operations, k) * bound**k * (1 - bound) ** (operations - k) for k in range(violations + 1))
    assert math.fsum(ways) == pytest.approx(0.05)


def test_it_is_the_bound_of_clopper_and_pearson_s_table() -> None:
    assert report.upper_bound(1, 10) == pytest.approx(0.3942, abs=0.0001)
    assert report.upper_bound(5, 100) == pytest.approx(0.1023, abs=0.0001)


def test_the_bound_grows_with_what_went_wrong_and_ends_at_all() -> None:
    assert all(one < more for one, more in pairwise(report.upper_bound(k, 50) for k in range(51)))
    assert report.upper_bound(50, 50) == report.upper_bound(0, 0) == 1.0


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        (1.0, "100 %"),
        (0.0299, "3.0 %"),
        (0.002996, "0.30 %"),
        (0.00000300, "0.00030 %"),
        (0.0, "0 %"),
        (0.951, "96 %"),
        (0.000998, "0.10 %"),
    ],
)
def test_a_share_is_rounded_up_to_two_digits(rate: float, said: str) -> None:
    assert report._share(rate) == said


def test_runs_of_a_row_are_added_up_also_those_that_failed() -> None:
    failed = record(violations=1, outcome="failed", at="2026-11-23T10:00:00+00:00", figures={"slowest answer ms": 9})
    (one,) = report.sums([record(), failed])
    assert (one.rounds, one.operations, one.violations) == (20, 200, 1)
    assert one.figures == {"duplicates": 2, "slowest answer ms": 9}
    assert one.bound == report.upper_bound(1, 200)
    (line,) = [line for line in report.table([record(), failed]).splitlines() if line.startswith(f"| {KILL.fault} ")]
    assert "| 2026-11-21 to 2026-11-23 |" in line


def test_a_test_that_counts_nothing_is_counted_by_the_plan() -> None:
    (one,) = report.sums([record(RACE, operations=None, rounds=7)])
    assert one.operations == 350


def test_variants_of_a_test_are_one_row() -> None:
    name = f"tests/{KILL.test}[one]"
    (one,) = report.sums([record(), record(test=name)])
    assert one.rounds == 20


def test_what_was_skipped_or_not_done_is_said() -> None:
    table = report.table([record(outcome="skipped", reason="needs root")])
    assert "not done: needs root" in table
    assert f"Not done in these runs: {ROWS[1].fault}" in table


def test_what_failed_is_told_with_its_words_and_its_day() -> None:
    page = report.page([record(violations=1, outcome="failed", reason="AssertionError: I4: two\naccounts")])
    assert f"- 2026-11-21T10:00:00+00:00, `tests/{KILL.test}`: AssertionError: I4: two accounts" in page
    assert "Nothing failed" in report.page([record()])


def test_what_was_mended_since_is_told_where_it_failed_or_else_by_itself() -> None:
    (word, what), (other, _), *_ = FOUND.items()
    failed = record(violations=1, outcome="failed", reason=f"AssertionError: {word}: I5")
    page, _, before = report.page([failed]).partition("## What other runs found")
    assert f"AssertionError: {word}: I5 … Mended since. {what[0].upper()}{what[1:]}" in page
    assert other not in page
    assert f"- {other}: " in before
    assert word not in before
    near = record(violations=1, outcome="failed", reason=f"AssertionError: {word}1: I5")
    assert "Mended" not in report.page([near])


def test_the_picture_has_each_row_once() -> None:
    picture = report.picture([record(), record(RACE)])
    texts = [element.text for element in ET.fromstring(picture).iter()]  # noqa: S314 - our own
    assert texts.count(KILL.fault) == texts.count(RACE.fault) == 1
    assert "1.5 %" in texts or "3.0 %" in texts


def test_records_of_several_folders_are_merged_into_one_page(tmp_path: Path) -> None:
    record().write(tmp_path / "one" / "deeper")
    record(at="2026-11-22T10:00:00+00:00").write(tmp_path / "two")
    words = [str(tmp_path / "one"), str(tmp_path / "two"), "--write", str(tmp_path / "docs")]
    subprocess.run([sys.executable, "-m", "tests.chaos.report", *words], check=True, cwd=ROOT)
    assert "| 20 | 200 " in (tmp_path / "docs" / "reliability.md").read_text()
    assert (tmp_path / "docs" / "reliability.svg").read_text().startswith("<svg ")


def test_what_is_written_is_added_to_what_was_there_once(tmp_path: Path) -> None:
    record(RACE).write(tmp_path / "one")
    record(at="2026-11-22T10:00:00+00:00", violations=1, reason="lost").write(tmp_path / "two")
    for folder in ("one", "two", "two"):
        report.main([str(tmp_path / folder), "--write", str(tmp_path / "docs")])
    kept = report.load(tmp_path / "docs")
    assert [one.rounds for one in kept] == [10, 10]
    assert (tmp_path / "docs" / "reliability.md").read_text() == report.page(kept)
    assert "lost" in report.page(kept)


NODES = """
def test_counts(counted, rounds):
    counted(rounds, 30, {"lost": 0}, longest=2)
def test_says_nothing(rounds):
    pass
def test_fails(rounds):
    assert False, "I4: two accounts"
def test_is_skipped(rounds):
    import pytest
    pytest.skip("needs root")
def test_without_rounds():
    pass
"""


def test_each_test_with_rounds_is_recorded_as_it_ended(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(NODES)
    words = ["-q", "-p", "tests.conftest", "--rounds", "3", "--report", str(tmp_path / "out"), str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pytest", *words], cwd=ROOT, capture_output=True, check=False)
    found = {one.test.rpartition("::")[2]: one for one in report.read([tmp_path / "out"])}
    assert found.keys() == {"test_counts", "test_says_nothing", "test_fails", "test_is_skipped"}
    counts = found["test_counts"]
    assert (counts.outcome, counts.rounds, counts.operations, counts.violations) == ("passed", 3, 30, 0)
    assert counts.figures == {"lost": 0, "longest": 2}
    assert (found["test_says_nothing"].rounds, found["test_says_nothing"].operations) == (3, None)
    assert (found["test_fails"].violations, found["test_fails"].outcome) == (1, "failed")
    assert found["test_fails"].rounds == 0, "nobody knows how many"
    assert found["test_fails"].reason.startswith("AssertionError: I4: two accounts")
    assert (found["test_is_skipped"].outcome, found["test_is_skipped"].reason) == ("skipped", "needs root")
    assert "cores of" in counts.host


def test_each_row_runs_once_with_its_number() -> None:
    run = commands(ROWS, "folder", rounds=None, large=False)
    nodes = [word.removeprefix("tests/") for command in run for word in command if "::" in word]
    assert sorted(nodes) == sorted(row.test for row in ROWS)
    for command in run:
        number = int(command[command.index("--rounds") + 1])
        assert all(f"tests/{row.test}" not in command or row.middle == number for row in ROWS)
    (same,) = commands(ROWS, "folder", rounds=5, large=False)
    assert same.count("5") == 1


def test_rows_are_chosen_by_what_they_are_called() -> None:
    assert chosen(["kill -9 of", "disk"]) == [row for row in ROWS if row.fault in {KILL.fault, "disk full"}]
    with pytest.raises(SystemExit, match="no row has 'teapot'"):
        chosen(["teapot"])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.fault)
def test_a_row_names_a_test_that_has_rounds(row: Row) -> None:
    path, _, name = row.test.partition("::")
    source = ROOT / "tests" / path
    assert name in defined_in(source)
    head = source.read_text("utf-8").partition(f"def {name}(")[2].partition("->")[0]
    assert "rounds: int | None" in head
    assert 0 < row.middle <= row.large
    assert "|" not in row.fault + row.did + row.at_risk


def test_records_are_plain_json(tmp_path: Path) -> None:
    path = record().write(tmp_path)
    assert json.loads(path.read_text())["figures"] == {"duplicates": 2, "slowest answer ms": 7}
    assert Record.read(path) == record()
    assert math.isclose(Record.read(path).seconds, 1.5)
