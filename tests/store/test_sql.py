"""Reading statements, and calling them wrongly."""

from pathlib import Path
from typing import cast

import pytest

from regsvc.store import sql
from regsvc.store.sql import Statement, StatementError, Statements, parse
from regsvc.trio_asyncpg import Connection

GOOD = """-- What the file is about.

-- name: first(one, two) -> row
-- Why; it's not sent.
SELECT $1 + $2
-- nor this
WHERE true;

-- name: second(
--     one) -> none
DELETE FROM things WHERE id = $1;
-- name: third() -> value
SELECT 1
"""


def test_statements_are_read_with_their_parameters_and_without_their_comments() -> None:
    assert parse(GOOD, "good.sql") == {
        "first": Statement("first", ("one", "two"), "row", "SELECT $1 + $2\nWHERE true"),
        "second": Statement("second", ("one",), "none", "DELETE FROM things WHERE id = $1"),
        "third": Statement("third", (), "value", "SELECT 1"),
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("-- name: a() -> row\nSELECT 1;\n-- name: a() -> row\nSELECT 2;", "a is declared twice"),
        ("-- name: a(b) -> row\nSELECT 1;", r"a declares \['b'\], but uses \[\]"),
        ("-- name: a() -> row\nSELECT $1;", r"a declares \[\], but uses \[1\]"),
        ("-- name: a(b, b) -> row\nSELECT $1, $2;", "a declares"),
        ("-- name: a(b, c) -> row\nSELECT $1, $3;", "a declares"),
        ("-- name: a() -> rose\nSELECT 1;", "not a declaration"),
        ("-- name: a -> row\nSELECT 1;", "not a declaration"),
        ("-- name: a() -> row\n-- nothing more", "a has no statement"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(text: str, why: str) -> None:
    with pytest.raises(StatementError, match=why) as caught:
        parse(text, "bad.sql")
    assert "bad.sql" in str(caught.value)


async def test_a_wrong_call_never_reaches_the_database() -> None:
    nowhere = cast("Connection", None)
    statements = Statements("good", parse(GOOD, "good.sql"))
    with pytest.raises(StatementError, match=r"good.sql has no statement 'fourth'"):
        await statements.row("fourth", nowhere)
    with pytest.raises(StatementError, match="first is declared to return row, and asked for rows"):
        await statements.rows("first", nowhere, one=1, two=2)
    with pytest.raises(StatementError, match=r"second takes \['one'\], not \[\]"):
        await statements.none("second", nowhere)
    with pytest.raises(StatementError, match=r"not \['one', 'three', 'two'\]"):
        await statements.row("first", nowhere, one=1, two=2, three=3)
    with pytest.raises(StatementError, match="first is declared"):
        await statements.value("first", nowhere, one=1, two=2)


def test_the_folder_is_found_in_a_wheel_and_in_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (sql.folder() / "migrations").is_dir()
    package = tmp_path / "regsvc"
    package.mkdir()
    monkeypatch.setattr(sql, "files", lambda _: package)
    with pytest.raises(StatementError, match="there is no sql/queries"):
        sql.folder()
    (tmp_path / "sql" / "queries").mkdir(parents=True)
    assert sql.folder() == tmp_path / "sql"
    (package / "sql" / "queries").mkdir(parents=True)
    assert sql.folder() == package / "sql"
