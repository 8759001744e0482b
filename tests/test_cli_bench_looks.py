"""`regsvc bench`: how a result looks, in a terminal and as a page."""

import io
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from regsvc.cli.bench.charts import Axis, Series, chart, linear, nines, over_time, plain, stacked, times
from regsvc.cli.bench.histogram import Histogram
from regsvc.cli.bench.page import beside, report
from regsvc.cli.bench.run import Run
from regsvc.cli.bench.table import comparison, ms, result
from tests.benching import plan, ran, recorded

SVG = re.compile(r"<svg viewBox=.*?</svg>", re.DOTALL)
NUMBER = re.compile(r"-?\d+\.?\d*")


def shown(what: RenderableType, width: int = 100) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False, markup=False).print(what)
    return out.getvalue()


def slower(run: Run) -> Run:
    return ran(recorded(run.plan, factor=3.0))


# ------------------------------------------------------------------------------------------- in a terminal


def test_a_result_has_a_line_for_each_step_and_outcome() -> None:
    text = shown(result(ran(warnings=("Something is odd.",))))
    lines = text.splitlines()
    livez = next(line.split() for line in lines if line.startswith("GET /livez"))
    assert livez[2:6] == ["200", "1200", "20.0", "5.00"]
    assert livez[8:] == ["10.0", "10.0"]  # p99.9, of 1,200 times, and the longest
    register = [line.split() for line in lines if "201" in line or "503" in line]
    assert [words[:2] for words in register] == [["register", "201"], ["503", "12"]]
    assert register[1][-3:-1] == ["–", "–"]  # a dozen times have no p99
    assert "! Something is odd." in text
    assert max(cell_len(line) for line in lines) <= 100


def test_two_runs_are_shown_with_what_differs() -> None:
    other = replace(slower(ran()), plan=plan(duration=60.0, rate=None))
    text = shown(comparison(ran(), other, ("before", "after")))
    assert "! Not the same rate: 50 and max." in text
    assert re.search(r"GET /livez +200 +p99 ms +10\.\d+ +30\.\d+ +3\.00", text)
    assert "4 connections, closed loop" in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.00004, "0.04"), (0.0012345, "1.23"), (0.0345, "34.5"), (0.5, "500"), (12.3456, "12346")]
)
def test_times_have_three_figures(seconds: float, text: str) -> None:
    assert ms(seconds) == text


# ------------------------------------------------------------------------------------------------- a page


def test_a_page_is_whole_and_asks_for_nothing_else() -> None:
    text = report(ran(warnings=("Late.",), url="http://127.0.0.1:1/<script>&"))
    assert "<script" not in text
    assert "&lt;script&gt;&amp;" in text
    assert not re.search(r"(src|href|@import|url\()", text)
    assert "prefers-color-scheme: dark" in text
    assert "<li>Late.</li>" in text
    assert len(SVG.findall(text)) == 4
    for words in ("by percentile", "over time", "Offered and achieved", "What was answered", "5xx"):
        assert words in text


@pytest.mark.parametrize("text", [report(ran()), beside(ran(), slower(ran()), ("a", "b"))], ids=["one", "two"])
def test_every_chart_is_sound_and_inside_its_frame(text: str) -> None:
    for svg in SVG.findall(text):
        chart_ = ET.fromstring(svg)  # noqa: S314 - written above
        for path in chart_.iter("path"):
            numbers = [float(number) for number in NUMBER.findall(path.get("d", ""))]
            assert numbers
            assert all(-0.1 <= number <= 720.1 for number in numbers)
        for it in chart_.iter("rect"):
            assert float(it.get("height", 0)) > 0
            assert float(it.get("y", 0)) + float(it.get("height", 0)) <= 300
        assert [one.text for one in chart_.iter("title")]


def test_two_runs_are_beside_each_other() -> None:
    text = beside(ran(), slower(ran()), ("before", "after"))
    for words in ("A before", "B after", "GET /livez, by percentile", "register, p99 over time", "3.00"):
        assert words in text
    assert text.count('class="l s0 d"') >= 4  # the first is in dashes


def test_a_run_in_which_nothing_was_good_has_a_page_too() -> None:
    of = plan(duration=60.0)
    recorder = recorded(of)
    recorder.steps, recorder._times, recorder._answered = {"x": {"refused": Histogram()}}, {}, {"none": {3: 5}}
    recorder.steps["x"]["refused"].record(0.001)
    text = report(ran(recorder))
    assert "no answer" in text
    assert "good answers" in text
    assert len(SVG.findall(text)) == 4
    assert beside(ran(recorder), ran(), ("a", "b"))


def test_where_there_are_many_steps_only_p99_is_drawn() -> None:
    run = ran()
    many = {f"step {n}": run.steps["GET /livez"] for n in range(9)}
    curves = dict.fromkeys(many, run.timeline.steps["GET /livez"])
    text = report(replace(run, steps=many, timeline=replace(run.timeline, steps=curves)))
    assert "step 8, p99" in text
    assert "step 8, p50" not in text
    assert "GET /livez, p50" in report(run)


# -------------------------------------------------------------------------------------------------- charts


def test_axes_have_room_and_round_ticks() -> None:
    assert [text for _, text in linear("x", 47).ticks] == ["0", "10", "20", "30", "40", "50"]
    assert [at for at, _ in over_time(12).ticks] == [0, 2, 4, 6, 8, 10, 12]
    assert over_time(12.5).high == 12.5
    few = times([3.0, 18.0])
    assert (few.low, few.high) == (2, 20)
    assert [text for _, text in few.ticks] == ["2", "5", "10", "20"]
    many = times([0.02, 30_000.0])
    assert [text for _, text in many.ticks] == ["0.1", "1", "10", "100", "1,000", "10,000"]
    assert (times([]).low, times([5.0, 5.0]).high) == (1, 50)
    assert [text for _, text in nines(1000).ticks] == ["0 %", "50 %", "90 %", "99 %", "99.9 %"]
    assert nines(1).high == 1
    assert [plain(value) for value in (0.001, 12.345, 999.4, 12_345.6)] == ["0.001", "12.3", "999", "12,346"]


def test_values_have_their_place() -> None:
    line = Axis("x", 0.0, 10.0, ())
    assert [line.share(value) for value in (-1, 0, 5, 10, 11)] == [0, 0, 0.5, 1, 1]
    log = Axis("x", 1.0, 100.0, (), logarithmic=True)
    assert [log.share(value) for value in (0, 1, 10, 100, 1e9)] == [0, 0, 0.5, 1, 1]
    assert Axis("x", 5.0, 5.0, ()).share(5) == 0


def test_a_line_is_broken_where_there_is_nothing_and_a_point_alone_is_seen() -> None:
    x = y = Axis("x", 0.0, 10.0, ())
    drawn = chart("a & b", x, y, [Series("<s>", "s0", [(0, 0), (1, 1), None, (5, 5), None, (7, 7), (8, 8)])])
    path = next(part for part in re.findall(r' d="([^"]*)"', drawn) if part.count("M") > 1)
    assert (path.count("M"), path.count("L")) == (3, 2)
    assert drawn.count("<circle") == 1
    assert "a &amp; b" in drawn
    assert "&lt;s&gt;" in drawn


def test_bars_stand_on_each_other() -> None:
    x, y = Axis("x", 0.0, 2.0, ()), Axis("y", 0.0, 10.0, ())
    drawn = stacked("x", x, y, [("a", "good", [4.0, 0.0]), ("b", "bad", [6.0])], 1.0)
    found = re.findall(r'<rect[^>]* y="([\d.]+)"[^>]* height="([\d.]+)"', drawn)
    bars = [{"y": float(top), "height": float(height)} for top, height in found]
    assert len(bars) == 2
    assert bars[1]["y"] + bars[1]["height"] == pytest.approx(bars[0]["y"], abs=0.1)
    assert bars[1]["height"] == pytest.approx(1.5 * bars[0]["height"], rel=0.01)
