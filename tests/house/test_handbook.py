"""The handbook names verbs, options, variables, files and places that there are."""

import re
from pathlib import Path
from typing import Final

import click
import pytest

from benchmarks.plan import table
from regsvc.cli import main
from regsvc.observe import EVENTS
from tests.house.test_settings_documented import KNOWN, TOLD

HERE: Final = Path(__file__).parents[2]
BOOKS: Final = ("docs/operations.md", "docs/capacity.md")


def text(name: str) -> str:
    return (HERE / name).read_text("utf-8")


def commands(name: str) -> list[list[str]]:
    """Every `regsvc …` in code, as words: in a block a line each, elsewhere between two backticks."""
    book = text(name)
    blocks = re.findall(r"^```console\n(.*?)^```$", book, re.DOTALL | re.MULTILINE)
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```$", "", book, flags=re.DOTALL | re.MULTILINE))
    pieces = [part for block in blocks for line in block.splitlines() for part in re.split(r"[|;&]", line)]
    found = [re.sub(r"^(\w+=\S+ )+", "", piece.strip()) for piece in (*pieces, *spans)]
    return [words for piece in found if (words := piece.split()) and words[0] == "regsvc" and len(words) > 1]


def verb(words: list[str]) -> tuple[click.Command, list[str]]:
    """The verb that the words call, and what is left of them."""
    found: click.Command = main
    while words and isinstance(found, click.Group) and not words[0].startswith("-"):
        inner = found.get_command(click.Context(found), words[0])
        assert inner is not None, f"there is no verb {words[0]}"
        found, words = inner, words[1:]
    return found, words


@pytest.mark.parametrize("words", [words for book in BOOKS for words in commands(book)], ids=" ".join)
def test_a_command_is_one(words: list[str]) -> None:
    found, left = verb(words[1:])
    assert not isinstance(found, click.Group)
    known = {name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.partition("=")[0] for word in left if word.startswith("--")} <= known


@pytest.mark.parametrize("name", BOOKS)
def test_a_variable_is_one(name: str) -> None:
    assert set(TOLD.findall(text(name))) <= KNOWN


@pytest.mark.parametrize("name", BOOKS)
def test_a_variable_without_its_prefix_is_one(name: str) -> None:
    short = {variable.removeprefix("REGSVC_") for variable in KNOWN}
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)(?:=[^`]*)?`", text(name)))
    assert {name for name in named if not name.startswith("REGSVC_")} <= short


@pytest.mark.parametrize("name", BOOKS)
def test_an_event_is_one(name: str) -> None:
    beside = {
        "max_connections",
        "archive_command",
        "pg_stat_activity",
        "request_id",
        "pool_mode",
        "pg_wal",
        "database_up",
        "stop_grace_period",
    }
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", text(name)))
    assert named - beside <= set(EVENTS)


@pytest.mark.parametrize("name", BOOKS)
def test_a_link_leads_somewhere(name: str) -> None:
    for place, mark in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", text(name)):
        if place.startswith("http"):
            continue
        target = (HERE / name).parent / place if place else HERE / name
        assert target.exists(), place
        if mark:
            assert mark in headings(target), mark


def headings(path: Path) -> set[str]:
    """As they are linked to."""
    titles = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_plan_is_the_one_of_today() -> None:
    [plan] = re.findall(r"<!-- plan -->\n(.*?)<!-- /plan -->", text("docs/capacity.md"), re.DOTALL)
    assert plan == table(), "put what `python -m benchmarks.plan` prints between the marks"
