"""The rules of the house that no linter knows: homes of libraries, clocks, SQL, names, reasons, deadlines, sizes."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FILES = sorted((ROOT / "regsvc").rglob("*.py"))
LINES_MAX = 400
STATEMENT = re.compile(
    r"\s*(SELECT\s.+\sFROM|INSERT\s+INTO|UPDATE\s+\S+\s+SET|DELETE\s+FROM|CREATE\s+(TABLE|INDEX)|ALTER\s+TABLE)\b",
    re.DOTALL,
)

HOMES = {
    "argon2": ("adapters/crypto/passwords.py",),
    "asyncpg": ("trio_asyncpg", "store/database.py"),
    "bcrypt": ("bcrypt_lanes/engine.py",),
    "click": ("cli",),
    "coredis": ("adapters/redis.py",),
    "cryptography": ("adapters/crypto",),
    "css_inline": ("adapters/mail",),
    "dotenv": ("settings",),
    "email_validator": ("domain/values.py",),
    "hatchling": ("bcrypt_lanes/hatch_build.py",),
    "h11": ("http/framing.py", "http/guard.py", "http/http11.py"),
    "hypercorn": ("http/server.py", "http/guard.py", "http/http11.py", "http/door.py", "http/connection.py"),
    "idna": ("domain/values.py",),
    "jinja2": ("adapters/mail",),
    "jwt": ("adapters/crypto/tokens.py",),
    "opentelemetry": ("observe/tracing.py",),
    "orjson": ("observe", "http"),
    "outcome": ("trio_asyncpg",),
    "prometheus_client": ("observe",),
    "pydantic": ("http", "settings"),
    "pydantic_core": ("http",),
    "quart": ("http",),
    "quart_trio": ("http",),
    "rich": ("cli",),
    "structlog": ("observe",),
    "uuid_utils": ("adapters/crypto/digests.py",),
    "werkzeug": ("http",),
}  # trio is at home everywhere above the domain


def name(path: Path) -> str:
    return path.relative_to(ROOT / "regsvc").as_posix()


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text("utf-8")))


def imported(path: Path) -> Iterator[str]:
    """Yield the top packages that a file imports."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Yield every call with the last part of what it calls."""
    for node in nodes(path):
        if isinstance(node, ast.Call):
            called = node.func
            yield called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", ""), node


def said(call: ast.Call) -> set[str | None]:
    return {keyword.arg for keyword in call.keywords}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file(path: Path) -> None:
    here = name(path)
    assert len(path.read_text("utf-8").splitlines()) <= LINES_MAX
    for library in set(imported(path)) - {"regsvc", "trio"} - set(sys.stdlib_module_names):
        homes = HOMES.get(library)
        assert homes, f"{library} has no home yet"
        assert any(here == home or here.startswith(f"{home}/") for home in homes), f"{library} is at home in {homes}"
    if here.startswith("domain/"):
        assert not {"trio", "os", "random", "secrets", "time", "socket"} & set(imported(path)), "the domain is pure"
    for called, call in calls(path):
        where = f"{here}:{call.lineno}"
        if called == "now" and isinstance(call.func, ast.Attribute):
            assert "datetime" not in ast.unparse(call.func), f"{where} asks the wrong clock"
        assert called != "utcnow", f"{where} asks the wrong clock"
        if called == "start_soon":
            assert "name" in said(call), f"{where} starts a task without a name"
        if called == "CancelScope" and "shield" in said(call):
            # Where the deadline comes later, or is somebody's call, a comment above the shield says whose.
            above = path.read_text("utf-8").splitlines()[call.lineno - 2]
            assert "deadline" in said(call) or "deadline" in above, f"{where} shields without a deadline"


def test_tests_and_benchmarks_keep_to_a_room_a_file_too() -> None:
    files = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    assert {path.name for path in files if len(path.read_text("utf-8").splitlines()) > LINES_MAX} == set()


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_cancel_has_its_reason(path: Path) -> None:
    for node in nodes(path):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "cancel":
            scope = ast.unparse(node.func.value)
            if "scope" in scope or scope.endswith(("waiting", "patience")):
                assert "reason" in said(node), f"{name(path)}:{node.lineno} cancels without a reason"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_sql_is_in_its_folder(path: Path) -> None:
    for node in nodes(path):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not STATEMENT.match(node.value), f"{name(path)}:{node.lineno} holds SQL"


def test_what_is_imported_is_declared() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    project = told["project"]
    words = [
        *told["build-system"]["requires"],
        *project["dependencies"],
        *(word for extra in ("argon2", "otlp", "redis") for word in project["optional-dependencies"][extra]),
    ]
    declared = {re.split(r"[^A-Za-z0-9_.-]", word)[0].lower().replace("_", "-") for word in words}
    known = packages_distributions()
    for library in HOMES.keys() - {"pydantic_core"}:  # a part of pydantic, released with it
        distributions = {found.lower().replace("_", "-") for found in known[library]}
        assert distributions & declared, f"{library} comes from {distributions}, which pyproject.toml does not name"
