"""One line each, parseable and harmless, whatever the values contain."""

import json
import re
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from regsvc.domain.values import Secret
from regsvc.observe import Unfit, emit, exception, open_log
from regsvc.observe.lines import LINE_MAX, Clock
from tests.lines import Lines

anything = st.text(st.characters(exclude_categories=()))  # lone surrogates, too
scalars = st.none() | st.booleans() | st.integers() | st.floats() | anything
data = st.recursive(scalars, lambda deeper: st.lists(deeper) | st.dictionaries(anything, deeper), max_leaves=30)
FORGED = '201"}\r\n{"event":"forged"}\x1b[2J\x7f\x85\u2028\u2029\u202e\ud800'


REQUEST = {"method": "GET", "route": "/", "status": 200, "duration_ms": 1.5}


def said(*, strict: bool = True, **fields: object) -> bytes:
    lines = Lines()
    with open_log(lines, strict=strict):
        emit("http_request", **(REQUEST | fields))
    return lines.getvalue()


def told(message: str) -> bytes:
    lines = Lines()
    with open_log(lines):
        emit("library_message", logger="x", message=message)
    return lines.getvalue()


def parsed(line: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(line)
    return found


@given(data, anything)
@example(FORGED, FORGED)
@example({FORGED: [FORGED] * 100}, "x" * 5000)
@example("\x7f", "")
@example(["x" * 1000] * 50, "")
@example(10**5000, "\U0001f600\U000e0001")
def test_whatever_is_said_is_one_printable_line(value: object, route: str) -> None:
    line = said(strict=False, client=value, route=route)
    text = line.decode()
    assert text.endswith("\n")
    assert len(text.splitlines()) == 1
    assert text[:-1].isprintable()
    assert len(line) <= LINE_MAX
    assert parsed(line)["event"] == "http_request"


@given(st.text(max_size=300))
def test_text_comes_through_unchanged(text: str) -> None:
    assert parsed(told(text))["message"] == text


def test_numbers_that_json_does_not_have() -> None:
    line = parsed(said(strict=False, status=2**70, duration_ms=float("nan"), bytes_in=-(2**63), bytes_out=2**64 - 1))
    assert line["status"] == hex(2**70)
    assert line["duration_ms"] is None
    assert (line["bytes_in"], line["bytes_out"]) == (-(2**63), 2**64 - 1)


def test_the_form_of_a_line() -> None:
    lines = Lines()
    with open_log(lines, instance="box", worker=0):
        emit("http_request", **REQUEST, refusal=None)
    [line] = lines.all
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("ts"))
    assert line.pop("version")
    assert line == {
        "level": "info",
        "event": "http_request",
        "service": "regsvc",
        "instance": "box",
        "worker": 0,
        **REQUEST,
    }


@pytest.mark.parametrize("ns", [0, 999, 1_000_000_000, 1_763_636_400_123_456_789, 1_763_636_400_999_999_999])
def test_time_stamps(ns: int) -> None:
    clock = Clock()
    for _ in range(2):
        text = clock.stamp(ns)
        seconds, rest = divmod(ns, 10**9)
        assert datetime.fromisoformat(text) == datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
        assert text.endswith("Z")


def test_a_novel_where_an_id_belongs_is_cut_as_well() -> None:
    """Also where the service is not strict, a line has its end in time."""
    line = said(strict=False, route="\U000e0001" * 2000, method="\x1b" * 2000, refusal="\x7f" * 2000)
    assert len(line) <= LINE_MAX
    assert parsed(line)["route"].startswith("…")


# ------------------------------------------------------------------------------------------------- secrets


def test_a_secret_is_never_written() -> None:
    hidden = Secret("hunter2 hunter2")
    line = said(strict=False, client=hidden, route=[hidden, {"inner": hidden}], method=f"{hidden}")
    assert b"hunter2" not in line
    assert parsed(line)["client"] == "…"
    assert parsed(line)["route"] == ["…", {"inner": "…"}]


@pytest.mark.parametrize("value", [b"hunter2", {"password": "hunter2"}, [{"inner": {"code": "hunter2"}}], object()])
def test_what_has_no_place_in_a_log_is_left_out_or_raises(value: object) -> None:
    assert b"hunter2" not in said(strict=False, client=value)
    with pytest.raises(Unfit):
        said(client=value)


def test_other_things_are_told_by_their_type_only() -> None:
    assert parsed(said(strict=False, client=b"x"))["client"] == "<bytes>"
    assert parsed(said(client=UUID(int=1)))["client"] == str(UUID(int=1))
    deep: object = "x"
    for _ in range(10):
        deep = [deep]
    assert "<list>" in json.dumps(parsed(said(strict=False, client=deep)))


# ---------------------------------------------------------------------------------------------------- bugs


def failing(words: str = "innermost\x1b[31m") -> None:
    raise LookupError(words)


def test_a_bug_is_told_with_its_innermost_frames() -> None:
    lines = Lines()
    with open_log(lines):
        try:
            failing("much" * 1000 + " innermost")
        except LookupError as error:
            exception("http_bug", error, method="GET", route="/v1/" + "x" * 900)
    [line] = lines.all
    assert line["error"] == "LookupError"
    assert line["traceback"].startswith("…")
    assert line["traceback"].endswith(" innermost\n")
    assert line["reason"].endswith("…")
    assert len(lines.getvalue()) <= LINE_MAX


# ----------------------------------------------------------------------------------------------- for people


class Terminal(Lines):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, no_color: str) -> list[str]:
    monkeypatch.setenv("NO_COLOR", no_color)
    terminal = Terminal()
    with open_log(terminal, instance="box", strict=False):
        emit("http_request", method="GET", route=FORGED, status=200)
        emit("database_unavailable", reason="away")
        try:
            failing()
        except LookupError as error:
            exception("http_bug", error)
    return terminal.getvalue().decode().splitlines()


def test_on_a_terminal_lines_are_aligned_and_in_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, coloured = shown(monkeypatch, "1"), shown(monkeypatch, "")
    assert len(plain) == len(coloured)
    assert not any("\x1b" in line for line in plain)
    assert all("\x1b[" in line for line in coloured[:3])
    request, outage = plain[:2]
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3} \[info +\] http_request ", request)
    assert request.index("method=GET") == outage.index("reason=away")
    assert "instance" not in request
    assert "    LookupError: innermost\\x1b[31m" in "\n".join(plain)
    assert all(line.isprintable() for line in plain)


def test_without_a_terminal_no_colour_is_written() -> None:
    lines = Lines()
    with open_log(lines, fmt="pretty"):
        emit("database_unavailable", reason="away")
    assert b"\x1b" not in lines.getvalue()
    assert b"reason=away" in lines.getvalue()


SGR = re.compile(r"\x1b\[[0-9;]*m")


@given(anything | st.just(FORGED), anything)
def test_of_a_value_nothing_reaches_a_terminal_that_it_would_obey(message: str, logger: str) -> None:
    """The renderer's own colours are all there is: without them it is what is shown where there are none."""
    shown = []
    for terminal in (Terminal(), Lines()):
        with open_log(terminal, fmt="pretty"):
            emit("library_message", logger=logger, message=message, traceback=message)
        shown.append(terminal.getvalue().decode())
    coloured, plain = (SGR.sub("", one).split("\n") for one in shown)
    assert [line[12:].split() for line in coloured] == [line[12:].split() for line in plain]
    assert all(line.isprintable() for line in plain)
