"""The statements of `sql/queries/`: one file a room, each statement with a name, its parameters by name.

    -- name: load_mail(id) -> row
    -- Comments.
    SELECT … WHERE id = $1;

What stands behind the arrow is which of `Statements`' methods runs it: `row` (or None), `rows`, `value` (of the first
row's first column), `none`. A name, a parameter or a method that does not fit is an error at once, before the database
hears of it. Written by hand: the libraries for this (aiosql) bring drivers of their own and know parameters by number.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from regsvc import observe
from regsvc.store.database import Row, Session, outages

NAME: Final = re.compile(
    r"--\s*name:\s*(?P<name>\w+)\((?P<parameters>[^)]*)\)\s*->\s*(?P<result>row|rows|value|none)\s*"
)
PLACEHOLDER: Final = re.compile(r"\$(\d+)")


class StatementError(Exception):
    """A file of statements, or a call of one, is wrong: a bug."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement as its file has it; `text` is what the database gets."""

    name: str
    parameters: tuple[str, ...]
    result: str
    text: str

    def arguments(self, given: Mapping[str, object]) -> list[object]:
        """Put the arguments in order; raises StatementError unless they are exactly the statement's."""
        if given.keys() != set(self.parameters):
            raise StatementError(f"{self.name} takes {sorted(self.parameters)}, not {sorted(given)}")
        return [given[parameter] for parameter in self.parameters]


class Statements:
    """The statements of one room. Every method raises Unavailable where the database is away."""

    def __init__(self, room: str, statements: Mapping[str, Statement]) -> None:
        self.room = room
        self._statements = statements

    def __iter__(self) -> Iterator[Statement]:
        return iter(self._statements.values())

    async def row(self, name: str, session: Session, /, **parameters: object) -> Row | None:
        """Run a statement; return its first row, or None."""
        statement = self._find(name, "row")
        arguments = statement.arguments(parameters)
        with observe.span("statement", name), outages():
            return await session.fetchrow(statement.text, *arguments)

    async def rows(self, name: str, session: Session, /, **parameters: object) -> list[Row]:
        """Run a statement; return its rows."""
        statement = self._find(name, "rows")
        arguments = statement.arguments(parameters)
        with observe.span("statement", name), outages():
            return await session.fetch(statement.text, *arguments)

    async def value(self, name: str, session: Session, /, **parameters: object) -> Any:  # noqa: ANN401 - whatever the column holds
        """Run a statement; return the first value of its first row, or None."""
        statement = self._find(name, "value")
        arguments = statement.arguments(parameters)
        with observe.span("statement", name), outages():
            return await session.fetchval(statement.text, *arguments)

    async def none(self, name: str, session: Session, /, **parameters: object) -> None:
        """Run a statement for what it does."""
        statement = self._find(name, "none")
        arguments = statement.arguments(parameters)
        with observe.span("statement", name), outages():
            await session.execute(statement.text, *arguments)

    def _find(self, name: str, result: str) -> Statement:
        statement = self._statements.get(name)
        if statement is None:
            raise StatementError(f"{self.room}.sql has no statement {name!r}")
        if statement.result != result:
            raise StatementError(f"{name} is declared to return {statement.result}, and asked for {result}")
        return statement


def folder() -> Path:
    """Return where `sql/` lies: within the package in a wheel, beside it in a checkout."""
    package = Path(str(files("regsvc")))
    for place in (package / "sql", package.parent / "sql"):
        if (place / "queries").is_dir():
            return place
    raise StatementError(f"there is no sql/queries in {package} or beside it")


def read_queries(queries: Path) -> dict[str, Statements]:
    """Read every room's statements. Blocks for some small files; raises StatementError for what is not understood."""
    return {
        path.stem: Statements(path.stem, parse(path.read_text("utf-8"), path.name))
        for path in sorted(queries.glob("*.sql"))
    }


def parse(text: str, origin: str) -> dict[str, Statement]:
    """Read the statements of one file; `origin` names it in errors."""
    statements: dict[str, Statement] = {}
    # A declaration may go on over several comment lines.
    _, *parts = re.split(r"^(?=--\s*name:)", text, flags=re.MULTILINE)
    for part in parts:
        declaration, _, rest = part.partition("->")
        head = re.sub(r"\n--\s*", " ", declaration) + "->" + rest.split("\n", 1)[0]
        found = NAME.fullmatch(head)
        if found is None:
            raise StatementError(f"{origin}: not a declaration: {head!r}")
        statement = _statement(found, rest.partition("\n")[2], origin)
        if statement.name in statements:
            raise StatementError(f"{origin}: {statement.name} is declared twice")
        statements[statement.name] = statement
    return statements


def _statement(found: re.Match[str], body: str, origin: str) -> Statement:
    name = found["name"]
    parameters = tuple(word.strip() for word in found["parameters"].split(",") if word.strip())
    # Comments are for readers: the database gets the statement from its first word on.
    lines = (line for line in body.splitlines() if line.strip() and not line.lstrip().startswith("--"))
    text = "\n".join(lines).strip().removesuffix(";")
    used = {int(number) for number in PLACEHOLDER.findall(text)}
    if not text:
        raise StatementError(f"{origin}: {name} has no statement")
    if len(set(parameters)) != len(parameters) or used != set(range(1, len(parameters) + 1)):
        raise StatementError(f"{origin}: {name} declares {list(parameters)}, but uses {sorted(used)}")
    return Statement(name, parameters, found["result"], text)
