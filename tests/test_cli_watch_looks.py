"""`regsvc watch`: what it makes of lines, and how that looks."""

import io
import re
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from regsvc.cli.watch.feeds import Connected, End, Line, Lost, Numbers, Other, Waiting
from regsvc.cli.watch.screen import screen, summary
from regsvc.cli.watch.state import Sieve, State
from regsvc.cli.watch.window import Window
from tests.watching import METRICS, line, recorded, request

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def fed(*lines: dict[str, Any], sieve: Sieve | None = None) -> State:
    state = State("a test", sieve or Sieve())
    for one in lines:
        state.hear(Line(one))
    return state


# ---------------------------------------------------------------------------------------------- the figures


def test_recorded_lines_are_counted_as_they_were() -> None:
    found = fed(*recorded()).window.snapshot()
    assert found.seconds == pytest.approx(29.9, abs=0.5)
    assert found.per_s * found.seconds == pytest.approx(333)
    assert found.classes["4xx"] == pytest.approx(1, rel=0.05)
    register, activate, me = found.routes
    assert (register.route, register.count, register.failed) == ("POST /v1/users/register", 300, 0)
    assert (register.p50, register.p95, register.p99) == (150, 285, 297)
    assert (activate.p50, me.failed) == (5, 3)
    assert found.per_minute["registrations"] == pytest.approx(60, rel=0.05)
    assert found.refusals == {"invalid_code": 30, "service_unavailable": 3}
    assert sum(found.curve) == 333


def test_what_is_older_than_the_window_is_forgotten() -> None:
    window = Window(seconds=10)
    for one in recorded():
        window.take(one)
    found = window.snapshot()
    assert found.seconds == 10
    assert found.per_s == pytest.approx(11.1, rel=0.03)
    assert found.per_minute["mails_dead"] == 6


def test_more_than_can_be_remembered_makes_the_window_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    window = Window()
    window._requests = type(window._requests)(maxlen=50)
    for one in recorded():
        window.take(one)
    found = window.snapshot()
    assert found.seconds < 6
    assert found.per_s == pytest.approx(11, rel=0.15)


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"ts": 5},
        {"ts": "yesterday", "event": "http_request"},
        line("http_request", 1),
        line("http_request", 1, status="200", duration_ms=None),
        line("http_request", 1) | {"event": ["x"]},
    ],
)
def test_a_line_that_is_odd_is_passed_over(odd: dict[str, Any]) -> None:
    found = fed(odd, request(1, "GET /v1/health", 999, 1.0)).window.snapshot()
    assert (found.lines, len(found.routes), found.classes["5xx"]) == (2, 1, 1)


def test_the_sieve_lets_through_what_was_asked_for() -> None:
    lines = [*recorded()]
    assert {one["event"] for one in lines if Sieve("warning").lets(one)} == {"mail_dead"}
    assert {one["event"] for one in lines if Sieve(events=("mail_dead", "mail_sent")).lets(one)} == {"mail_dead"}
    by_path = [one for one in lines if Sieve(routes=("/v1/users/me",)).lets(one)]
    assert by_path == [one for one in lines if Sieve(routes=("GET /v1/users/me", "/nowhere")).lets(one)]
    assert len(by_path) == 3
    assert not Sieve(routes=("POST /v1/users/me",)).lets(by_path[0])
    assert Sieve().lets({"level": "quite loud"})


# ------------------------------------------------------------------------------------------------ the looks


def shown(state: State, width: int, height: int = 30, **how: Any) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, force_terminal=True, highlight=False, **how)
    console.print(screen(state, console), end="")
    return out.getvalue()


def whole() -> State:
    state = fed(*recorded(), line("mail_dead", 30, "warning", reason="\x1b[2J over"))
    state.hear(Connected({"instance": "here", "version": "0.1.0"}))
    state.hear(Numbers(METRICS))
    state.hear(Lost(7))
    state.hear(Other())
    return state


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_screen_fits_and_has_everything(width: int) -> None:
    text = ANSI.sub("", shown(whole(), width))
    lines = text.splitlines()
    assert len(lines) == 30
    assert max(cell_len(one) for one in lines) <= width
    for words in ("on here", "up 2 h", "connected", "POST /v1/users/register", "285 ms", "invalid_code", "mails dead"):
        assert words in text
    for value in (
        "2/3",
        "5/2",
        "11/8/1",
        "9/1/4",
        "321",
        "12 ms",
        "3 min",
        "away",
        "7 lines lost",
        "1 lines of others",
    ):
        assert value in text
    assert ("route" in lines[1]) is (width >= 150)
    assert "\\x1b[2J over" in text, "what a terminal would obey is shown, and not obeyed"


def test_a_screen_of_no_height_has_a_line_of_the_stream_at_least() -> None:
    assert "mail_dead" in shown(fed(*recorded(), line("mail_dead", 31)), 60, 3)


def test_nothing_is_coloured_where_nobody_wants_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    coloured = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|4[0-7]|9[0-7])(?:;\d+)*m")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert coloured.search(shown(whole(), 100, color_system="standard"))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not coloured.search(shown(whole(), 100, color_system="standard"))


def test_a_service_that_has_just_begun_is_as_young_as_it_is() -> None:
    state = fed()
    state.hear(Connected({"instance": "here"}))
    state.hear(Numbers({"uptime_s": 12}))
    assert "up 12 s" in ANSI.sub("", shown(state, 80))


def test_a_screen_before_anything_is_known() -> None:
    text = ANSI.sub("", shown(State("http://somewhere", Sieve()), 80))
    assert "connecting" in text
    assert "–/–" in text


def test_a_summary_is_a_line() -> None:
    told = summary(whole())
    assert "\n" not in told
    for words in ("11", "POST /v1/users/register p95 285 ms", "refused: 30 invalid_code", "workers 2/3", "restarts 1"):
        assert words in told
    assert "7 lines lost" in told


def test_a_state_tells_what_it_heard_last() -> None:
    state = whole()
    assert state.gauge("pool_idle") == 1
    state.hear(Waiting("it is gone", 2))
    assert (state.link, state.gauge("pool_idle")) == ("asking again in 2 s: it is gone", 1)
    state.hear(Numbers({"gauges": "odd", "workers": {"alive": "two"}}))
    assert (state.gauge("pool_idle"), state.workers("alive")) == (None, None)
    state.hear(End())
    assert (state.over, state.link, state.foreign) == (True, "ended", False)
