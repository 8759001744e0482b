"""The page on OWASP's ASVS: every requirement of level 1 and 2 once, tests that are there, sums that are right."""

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "asvs.md").read_text("utf-8")
STATES = ("met", "partly", "not met", "operator", "n/a")
ROW = re.compile(r"^\| (\d+\.\d+\.\d+) \| L([12]) \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)

# The levels of ASVS 5.0.0: of each section its requirements in their order, a digit each.
SECTIONS = """
    1.1 22 · 1.2 1111122223 · 1.3 112222222223 · 1.4 222 · 1.5 123 · 2.1 122 · 2.2 112 · 2.3 12223 · 2.4 23 · 3.1 3
    3.2 113 · 3.3 12223 · 3.4 11222233 · 3.5 11122333 · 3.6 3 · 3.7 22333 · 4.1 12233 · 4.2 23333 · 4.3 22 · 4.4 1222
    5.1 2 · 5.2 112333 · 5.3 113 · 5.4 222 · 6.1 122 · 6.2 111111112222 · 6.3 11223333 · 6.4 112233 · 6.5 22222333
    6.6 2223 · 6.7 33 · 6.8 2222 · 7.1 222 · 7.2 1111 · 7.3 22 · 7.4 11222 · 7.5 223 · 7.6 22 · 8.1 1233 · 8.2 1123
    8.3 133 · 8.4 23 · 9.1 111 · 9.2 1222 · 10.1 22 · 10.2 223 · 10.3 22223 · 10.4 1111122222233333 · 10.5 22222
    10.6 22 · 10.7 222 · 11.1 2233 · 11.2 22233 · 11.3 11233 · 11.4 1222 · 11.5 23 · 11.6 23 · 11.7 33 · 12.1 12233
    12.2 11 · 12.3 22223 · 13.1 2333 · 13.2 222223 · 13.3 2233 · 13.4 1222233 · 14.1 22 · 14.2 12223333 · 14.3 122
    15.1 12233 · 15.2 12233 · 15.3 1222222 · 15.4 3333 · 16.1 2 · 16.2 22222 · 16.3 2222 · 16.4 222 · 16.5 2223
    17.1 23 · 17.2 22223333 · 17.3 22"""


def required() -> list[tuple[str, str]]:
    """Return the ids of levels 1 and 2 with their levels, in order."""
    sections = re.findall(r"(\d+\.\d+) (\d+)", SECTIONS)
    every = [(f"{section}.{n}", level) for section, levels in sections for n, level in enumerate(levels, 1)]
    assert len(every) == 345, "the standard has so many"
    return [(name, level) for name, level in every if level != "3"]


def test_every_requirement_is_there_once_in_order_with_its_level() -> None:
    assert [(row[0], row[1]) for row in ROW.findall(PAGE)] == required()


def test_the_sums_are_right() -> None:
    stated = Counter((level, state) for _, level, _, state, _, _ in ROW.findall(PAGE))
    assert {state for _, state in stated} <= set(STATES)
    for level in "12":
        counts = [stated[level, state] for state in STATES]
        assert f"| L{level} | {' | '.join(map(str, counts))} | {sum(counts)} |" in PAGE


def test_what_is_not_met_is_said_at_the_top() -> None:
    told = re.findall(r"^- \*\*(.+?)\*\* \(L(\d)\), (.+?): (.+)\.$", PAGE, re.MULTILINE)
    missing = [(row[0], row[1], row[2], row[4]) for row in ROW.findall(PAGE) if row[3] in {"partly", "not met"}]
    assert told == missing


def test_what_is_met_has_a_test_or_was_written_down() -> None:
    """What no test can show is few: documents, what is absent, and habits of the code."""
    bare = [name for name, _, _, state, _, shown in ROW.findall(PAGE) if state == "met" and shown == "–"]
    assert len(bare) <= 20, bare


@cache
def defined_in(path: Path) -> frozenset[str]:
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


NAMED = sorted({node for row in ROW.findall(PAGE) for node in re.findall(r"`([^`]+::[^`]+)`", row[5])})


@pytest.mark.parametrize("path", sorted({node.partition("::")[0] for node in NAMED}))
def test_the_tests_that_are_named_are_there(path: str) -> None:
    named = {node.partition("::")[2] for node in NAMED if node.startswith(f"{path}::")}
    assert named <= defined_in(ROOT / "tests" / path), f"tests/{path} has them no more"


@pytest.mark.parametrize("name", ["docs/asvs.md", "docs/security.md", ".github/SECURITY.md"])
def test_links_between_the_pages_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        led = (page.parent / file) if file else page
        assert led.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.+)$", led.read_text("utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}, target


def test_the_promises_name_tests_that_are_there() -> None:
    text = (ROOT / ".github" / "SECURITY.md").read_text("utf-8")
    named = re.findall(r"`(tests/[\w/]+(?:\.py)?)(?:::(\w+))?", text)
    assert len(named) > 10
    for path, test in named:
        assert (ROOT / path).exists(), path
        assert not test or test in defined_in(ROOT / path), f"{path}::{test}"
