"""SQL lives in sql/ alone, and what lives there is right, and used by its own room."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import regsvc
from regsvc.domain.values import Secret
from regsvc.store import sql
from regsvc.store.migrations import migrate
from regsvc.store.sql import Statement
from regsvc.trio_asyncpg import open_connection

PACKAGE = Path(regsvc.__file__).parent
QUERIES = sql.folder() / "queries"
ROOMS = sorted(path.stem for path in QUERIES.glob("*.sql"))
METHODS = {"row", "rows", "value", "none"}
LOOKS_LIKE_SQL = re.compile(
    r"^\s*(SELECT|WITH|INSERT\s+INTO|UPDATE|DELETE\s+FROM|MERGE\s+INTO|CREATE|ALTER|DROP|TRUNCATE|LOCK\s+TABLE|NOTIFY|LISTEN|"
    r"GRANT|REVOKE|COPY|EXPLAIN|BEGIN|COMMIT|ROLLBACK|SAVEPOINT|VACUUM|ANALYZE)\b"
)


def statements(room: str) -> dict[str, Statement]:
    return {statement.name: statement for statement in sql.read_queries(QUERIES)[room]}


def calls(room: str) -> Iterator[ast.Call]:
    """Where `store/<room>.py` runs a statement: calls of a method of Statements whose first argument is a name."""
    for node in ast.walk(ast.parse((PACKAGE / "store" / f"{room}.py").read_text("utf-8"))):
        match node:
            case ast.Call(func=ast.Attribute(attr=method), args=[ast.Constant(value=str()), *_]) if method in METHODS:
                yield node


async def test_every_statement_is_right_for_the_schema(database: str) -> None:
    await migrate(Secret(database))
    async with open_connection(database) as connection:
        for room in ROOMS:
            for statement in statements(room).values():
                prepared = await connection.prepare(statement.text)
                assert len(prepared.get_parameters()) == len(statement.parameters), statement.name
                brings_rows = bool(prepared.get_attributes())
                assert brings_rows or statement.result == "none", f"{statement.name} brings no rows"


@pytest.mark.parametrize("room", ROOMS)
def test_every_statement_is_used_by_its_own_room_as_it_is_declared(room: str) -> None:
    declared = statements(room)
    used = set()
    for call in calls(room):
        name = ast.literal_eval(call.args[0])
        assert name in declared, f"{room}.sql has no {name}"
        used.add(name)
        assert isinstance(call.func, ast.Attribute)
        assert call.func.attr == declared[name].result, name
        given = {keyword.arg for keyword in call.keywords}
        if None in given:  # a ** of several parameters, checked where it is called
            assert given - {None} <= set(declared[name].parameters), name
        else:
            assert given == set(declared[name].parameters), name
    assert used == declared.keys(), f"{room}.sql has statements that nobody uses"


# trio_asyncpg has the words of transactions; the embedded server makes the database before there is any to query.
ELSEWHERE = {"trio_asyncpg", "embedded"}


@pytest.mark.parametrize(
    "module",
    [path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if ELSEWHERE.isdisjoint(path.parts)],
)
def test_no_sql_in_python(module: str) -> None:
    tree = ast.parse((PACKAGE / module).read_text("utf-8"))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert [text for text in texts if LOOKS_LIKE_SQL.match(text)] == []
