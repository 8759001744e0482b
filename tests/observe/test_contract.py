"""Whatever a value of a right type holds, the line is its event's: the promise of the schemas, kept by the log."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from regsvc.observe import EVENTS, LEVELS, OWN, REQUIRED, Event, emit, open_log, request_context
from regsvc.observe.events import ordered
from regsvc.observe.lines import LINE_MAX
from tests.lines import Lines, read

NASTY: Final = (
    "\r\n",
    "\x1b[2J",
    "\u2028",
    "\u202e",
    "\0",
    "\ud800",
    "\x85",
    '"}',
    "\U000e0001",
    "%0d%0a",
    "\U0001f600",
)
texts = st.text(st.characters(exclude_categories=())) | st.sampled_from(NASTY).map(lambda one: one * 10_000)
numbers = st.floats(0, 1e12, allow_nan=False) | st.integers(0, 2**53)


def values(field: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """What a field may hold by its type."""
    if "enum" in field:
        return st.sampled_from(field["enum"])
    if "pattern" in field:
        return st.from_regex(field["pattern"].replace("^", r"\A").replace("$", r"\Z"))
    kinds: dict[str, Callable[[], st.SearchStrategy[Any]]] = {
        "string": lambda: st.uuids() if field.get("format") == "uuid" else texts,
        "boolean": st.booleans,
        "number": lambda: numbers,
        "integer": lambda: st.integers(field.get("minimum", -(2**31)), field.get("maximum", 2**31)),
        "array": lambda: st.lists(values(field["items"]), max_size=100),
    }
    return kinds[field["type"]]()


@pytest.mark.parametrize("event", EVENTS)
@settings(max_examples=10)
@given(st.data())
def test_every_event_makes_lines_of_its_schema(event: Event, data: st.DataObject) -> None:
    names = [
        name for name in ordered(event) if name in REQUIRED[event] or data.draw(st.booleans(), label=f"has {name}")
    ]
    look_at(event, {name: data.draw(values(OWN[name]), label=name) for name in names})


@given(st.sampled_from(NASTY), st.integers(1, 10_000))
@example("\U000e0001", 10_000)
def test_all_texts_together_leave_the_rest_what_it_is(nasty: str, times: int) -> None:
    words = {"method": "OPTIONS", "route": "/v1/" + "x" * 60}
    bug = dict.fromkeys(("error", "reason", "traceback"), nasty * times)
    line = look_at("http_bug", words | bug)
    assert (line["method"], line["route"]) == (words["method"], words["route"])


def look_at(event: Event, fields: dict[str, Any]) -> dict[str, Any]:
    """Emit it on the loudest terms there are; return the line."""
    lines = Lines()
    with (
        open_log(lines, level="debug", instance="x" * 64, worker=1),
        request_context("r" * 128, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ):
        emit(event, **fields)
    octets = lines.getvalue()
    assert len(octets) <= LINE_MAX
    line = read(octets.removesuffix(b"\n"))
    assert line["level"] == LEVELS[event]
    return line
