"""docs/benchmarks.md is what was measured, a row for each figure that is promised, and failures are told as such."""

import os
import re
from pathlib import Path
from typing import Any, Final

import pytest

from benchmarks import apart, report
from benchmarks.__main__ import main
from benchmarks.figures import Found, Spread, ratios
from benchmarks.parts import BY_NAME, PARTS, Part
from benchmarks.wanted import ROWS, Wanted, rows_of

AT_MOST: Final = 820.0  # seconds; a quarter of an hour, less what it takes to install and to calm down
GOOD: Final = Found(Spread(0.5, 0.4, 0.6), {"theirs": Spread(1.0, 1.0, 1.0)}, Spread(0.5, 0.4, 0.6))


def entry(rows: dict[str, Found], **more: Any) -> dict[str, Any]:
    told = {name: found.as_json() for name, found in rows.items()}
    host = {"processor": "one of a test"}
    return {"date": "2026-01-02", "host": host, "disturbed": "", "error": "", "rows": told, "numbers": {}} | more


def cells(text: str) -> list[list[str]]:
    """The rows of the first table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2 : 2 + len(ROWS)]]


def test_the_document_is_made_from_what_was_measured() -> None:
    assert report.BOOK.read_text("utf-8") == report.book(report.load()), "run `python -m benchmarks --render`"


def test_the_document_has_each_promised_figure() -> None:
    told = cells(report.BOOK.read_text("utf-8"))
    assert [(row[0], row[4]) for row in told] == [(row.what, row.goal) for row in ROWS]
    for row in told:
        assert len(row) == len(report.HEADS)
        assert row[5] in {"yes", "**no**", "–"}, "a part that failed is not for the documentation"
        assert re.fullmatch(r"not yet|\d{4}-\d{2}-\d{2}( †)?", row[6]), row


def test_pictures_and_numbers_are_there() -> None:
    shown = re.findall(r"!\[.+\]\((.+)\)", report.BOOK.read_text("utf-8"))
    measured = [part for part in PARTS if part.name in report.load()]
    assert shown == [part.picture[0] for part in measured if part.picture]
    assert all((report.DOCS / file).is_file() for file in shown)
    assert all(not told.get("quick") for told in report.load().values()), "the quick form sees no figures"


def test_every_part_has_rows_and_every_row_a_part() -> None:
    assert {row.part for row in ROWS} == set(BY_NAME)
    assert len({row.key for row in ROWS}) == len({row.what for row in ROWS}) == len(ROWS)
    assert sum(part.budget for part in PARTS if not part.asked) <= AT_MOST


@pytest.mark.parametrize(
    ("row", "value", "holds"),
    [
        (Wanted("", "", "", "ms", "≤", 20), 20.0, True),
        (Wanted("", "", "", "ms", "≤", 20), 20.1, False),
        (Wanted("", "", "", "/s", "≥", 300), 300.0, True),
        (Wanted("", "", "", "/s", "≥", 300), 299.0, False),
        (Wanted("", "", ""), 1e9, True),
    ],
)
def test_a_bound(row: Wanted, value: float, *, holds: bool) -> None:
    assert row.holds(value) is holds


def test_a_row_says_who_was_how_quick_and_whether_it_holds() -> None:
    [wanted, *_] = rows_of("light")
    [told] = cells(report.table({"light": entry({wanted.key: GOOD})}, (wanted,)))
    assert told[1:4] == ["0.50 (0.40–0.60) /s", "theirs: 1.00 /s", "0.50 (0.40–0.60)"]
    assert told[4:] == ["≥ 1 × theirs", "**no**", "2026-01-02"]


def test_a_machine_that_was_not_calm_marks_its_rows() -> None:
    rows = {row.key: GOOD for row in rows_of("starting")}
    entries = {"starting": entry(rows, disturbed="load 2.00 before the start", numbers={"first": [1.0], "warm": [1.0]})}
    told = {row[0]: row[6] for row in cells(report.book(entries))}
    assert {told[row.what] for row in rows_of("starting")} == {"2026-01-02 †"}
    assert "load 2.00 before the start" in report.book(entries)


def test_the_ratio_is_to_the_best_peer_round_by_round() -> None:
    assert ratios([6.0, 8.0], [3.0, 2.0], [2.0, 4.0]) == Spread(2.0, 2.0, 2.0)
    assert ratios([6.0], [3.0], [2.0], best="least") == Spread(3.0, 3.0, 3.0)
    assert ratios([6.0], []) is None


def test_what_failed_is_in_its_rows_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def run(part: Part, *_: Any, **__: Any) -> dict[str, Any]:
        seen.append(part.name)
        why = "the relay | is away" if part.name == "mail" else ""
        return entry({row.key: GOOD for row in rows_of(part.name)}, error=why)

    monkeypatch.setattr(apart, "run", run)
    monkeypatch.setattr(report, "write", lambda *_: True)
    assert main(["mail", "starting", "--quick", "--out", str(tmp_path)]) == 1
    assert seen == ["starting", "mail"]
    told = cells(report.table({"mail": entry({}, error="the relay | is away")}, rows_of("mail")))
    assert {(row[1], row[5]) for row in told} == {("the relay \\| is away", "failed")}


def test_what_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    part = Part("starting", "", -19.875)  # a limit of 0.375 s: long before a service is ready
    told = apart.run(part, {}, 0.0, tmp_path / "starting.json", quick=True)
    assert told["error"] == "not done after 0.375 s"
    mark = f"{apart.MARK}={os.getpid()}-".encode()
    assert not [path for path in Path("/proc").glob("[0-9]*/environ") if mark in _read(path)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_an_error_is_told_by_its_first_leaf() -> None:
    assert apart.entry(Part("nothing", "", 1), {}, 0.0, quick=True)["error"].startswith("ModuleNotFoundError")


@pytest.mark.parametrize("words", [["nothing"], ["--quick", "--write"]])
def test_wrong_words(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err
