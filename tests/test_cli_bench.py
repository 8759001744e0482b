"""`regsvc bench`: what it says and writes, whom it refuses, and what it exits with."""

import io
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner, Result
from rich.console import Console

from regsvc.cli import main
from regsvc.cli.bench import live, screen
from regsvc.cli.bench.generator import Generator
from regsvc.cli.bench.lines import Lines
from regsvc.cli.bench.record import Recorder
from regsvc.cli.bench.run import Run
from regsvc.cli.bench.scenarios import Place
from regsvc.cli.bench.target import target
from tests.benching import Fake, faking, plan, ran, recorded
from tests.smtp_sink import tls_pair

QUICK = ("--duration", "1s", "--warm-up", "0", "--rate", "30")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No files but those of the test."""
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["bench", *arguments], catch_exceptions=False)


# ---------------------------------------------------------------------------------------------------- runs


def test_a_light_run_is_shown_and_written() -> None:
    with faking() as fake:
        found = run(fake.url, *QUICK, "--json", "a.json", "--html", "a.html")
    assert found.exit_code == 0, found.output
    assert f"light at {fake.url}: 30/s, even, 1 s" in found.stdout
    assert "GET /livez" in found.stdout
    assert "offered 30.0/s (30 arrivals), answered " in found.stdout
    one = Run.of(json.loads(Path("a.json").read_text()))
    assert (one.offered, one.finished, one.service) == (30, 30, "9.9")
    assert one.steps["GET /livez"]["200"].count == 30
    assert Path("a.html").read_text().startswith("<!doctype html>")
    assert "written: a.json" in found.stderr


@pytest.mark.parametrize(("scenario", "step"), [("activate", "activate, all of it"), ("login", "login, all of it")])
def test_journeys_are_made(scenario: str, step: str) -> None:
    with faking() as fake:
        found = run(fake.url, *QUICK, "--scenario", scenario, "--rate", "8", "--accounts", "2", "--json", "-")
    assert found.exit_code == 0, found.output
    one = json.loads(found.stdout)
    assert one["steps"][step]["done"]["count"] == 8
    assert fake.asked["/v1/users/register"] == (8 if scenario == "activate" else 2)


def test_a_closed_loop_asks_as_fast_as_it_is_answered() -> None:
    with faking() as fake:
        found = run(fake.url, *QUICK, "--rate", "max", "--duration", "3s", "--connections", "3", "--scenario", "light")
    assert found.exit_code == 0, found.output
    assert "3 connections, closed loop" in found.stdout
    assert "does not see who could not come" in found.stdout
    assert fake.asked["/livez"] > 3 * 30  # the rate of the other tests


def test_the_progress_is_told() -> None:
    with faking() as fake:
        found = run(fake.url, *QUICK, "--duration", "1.6s", "--warm-up", "0.5")
    assert found.exit_code == 0
    assert "regsvc: " not in found.stderr  # nothing to say yet, each 5 s


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_shows_what_there_is(number: signal.Signals) -> None:
    with faking() as fake:

        def interrupt() -> None:
            until = time.monotonic() + 10
            while fake.asked["/livez"] < 40 and time.monotonic() < until:
                time.sleep(0.01)
            os.kill(os.getpid(), number)

        thread = threading.Thread(target=interrupt)
        thread.start()
        found = run(fake.url, "--rate", "50", "--duration", "1h", "--warm-up", "0")
        thread.join()
    assert found.exit_code == 0, found.output
    assert "interrupted" in found.stdout
    assert "GET /livez" in found.stdout


def test_ctrl_c_before_anything_was_counted_shows_nothing() -> None:
    with faking() as fake:

        def interrupt() -> tuple[int, dict[str, Any]]:
            os.kill(os.getpid(), signal.SIGINT)
            return 201, {}  # and no letter comes

        fake.instead["/v1/users/register"] = interrupt
        found = run(fake.url, *QUICK, "--scenario", "login", "--accounts", "1")
    assert (found.exit_code, found.stdout) == (1, "")
    assert "before anything was counted" in found.stderr


# ------------------------------------------------------------------------------------- what cannot be measured


def test_limits_are_told_with_what_lifts_them() -> None:
    answers: Iterator[tuple[int, dict[str, Any]]] = iter([(200, {}), (200, {})])
    with faking(instead={"/livez": lambda: next(answers, (429, {}))}) as fake:
        found = run(fake.url, *QUICK)
    assert found.exit_code == 1
    assert "answers were 429" in found.stdout
    assert "REGSVC_ENABLE_RATE_LIMITING=false" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "how", "status", "words"),
    [
        ((), {"instead": {"/livez": lambda: (404, {})}}, 1, "answers 404 to /livez"),
        (("--path", "/nothing"), {}, 1, "answers 404 to /nothing: that would measure refusals"),
        (("--path", "/v1/x"), {"instead": {"/v1/x": lambda: (429, {})}}, 1, "REGSVC_ENABLE_RATE_LIMITING=false"),
        (("--scenario", "activate"), {"instead": {"/dev/mail/messages": lambda: (404, {})}}, 1, "REGSVC_PROFILE=dev"),
        (("--scenario", "mixed"), {"instead": {"/dev/mail/messages": lambda: None}}, 75, "mailbox of"),
        (("--scenario", "login"), {"letters": False}, 75, "REGSVC_MAIL_CHANNEL"),
        (("--scenario", "login"), {"instead": {"/v1/users/register": lambda: (429, {})}}, 1, "ENABLE_RATE_LIMITING"),
        (("--scenario", "login"), {"instead": {"/v1/users/activate": lambda: (503, {})}}, 1, "activate of somebody"),
        (("--scenario", "register"), {"instead": {"/v1/users/register": lambda: (503, {})}}, 1, "No answer was good"),
    ],
)
def test_what_is_missing_is_said(arguments: tuple[str, ...], how: Any, status: int, words: str) -> None:
    with faking(**how) as fake:
        found = run(fake.url, *QUICK, "--timeout", "3s", *arguments)
    assert found.exit_code == status, found.output
    assert words in found.stderr
    assert found.stderr.count("\n") == 1


def test_a_service_without_a_version_is_measured_all_the_same() -> None:
    with faking(instead={"/v1/health": lambda: (404, {})}) as fake:
        found = run(fake.url, *QUICK, "--json", "-")
    assert json.loads(found.stdout)["service"] == "?"


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        found = run(f"http://127.0.0.1:{taken.getsockname()[1]}", *QUICK)
    assert (found.exit_code, found.stdout) == (75, "")
    assert "nothing listens" in found.stderr


@pytest.mark.parametrize(
    ("said", "status", "words"),
    [(b"SSH-2.0-x\r\n\r\n\r\n", 1, "does not speak HTTP"), (b"", 75, "hung up"), (None, 75, "said nothing")],
)
def test_somebody_else_there(said: bytes | None, status: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regsvc.cli.bench.session.GREETING", 0.3 if said is None else 10.0)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                if said is None:
                    connection.recv(1000)
                else:
                    connection.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        found = run(f"http://127.0.0.1:{server.getsockname()[1]}", *QUICK)
        thread.join()
    assert found.exit_code == status, found.output
    assert words in found.stderr


def test_a_certificate_is_looked_at() -> None:
    ours, _ = tls_pair("127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            connection, _ = server.accept()
            with suppress(OSError):  # however the other side says no
                ours.wrap_socket(connection, server_side=True)
            connection.close()

        thread = threading.Thread(target=refuse)
        thread.start()
        found = run(f"https://127.0.0.1:{server.getsockname()[1]}", *QUICK)
        thread.join()
    assert found.exit_code == 1, found.output
    assert "TLS fails" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("http://192.0.2.1",), "--i-own-this-host"),
        (("no address",), "no web address"),
        ((), "either a URL, or two files"),
        (("http://127.0.0.1", "--rate", "0"), "neither max nor"),
        (("http://127.0.0.1", "--rate", "many"), "neither max nor"),
        (("http://127.0.0.1", "--duration", "soon"), "is no time"),
        (("http://127.0.0.1", "--duration", "9999h"), "between 0 and a week"),
        (("http://127.0.0.1", "--duration", "10ms"), "less than a second"),
        (("http://127.0.0.1", "--timeout", "0"), "no time"),
        (("http://127.0.0.1", "--path", "livez"), "is no path"),
        (("http://127.0.0.1", "--path", "/a b"), "is no path"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], words: str) -> None:
    found = run(*arguments)
    assert (found.exit_code, found.stdout) == (2, "")
    assert words in found.stderr


# ------------------------------------------------------------------------------------------------- two runs


def kept(name: str, one: Run) -> str:
    Path(name).write_text(json.dumps(one.as_json()))
    return name


def test_two_runs_are_compared() -> None:
    a, b = kept("before.json", ran()), kept("after.json", ran(recorded(plan(duration=60.0), factor=2.0)))
    found = run("--compare", a, b, "--html", "change.html", "--json", "change.json")
    assert found.exit_code == 0, found.output
    assert "A before: light" in found.stdout
    assert "2.00" in found.stdout
    assert "B after" in Path("change.html").read_text()
    written = json.loads(Path("change.json").read_text())
    assert json.loads(run("--compare", a, b, "--json", "-").stdout) == written
    assert [one["ratio"] for one in written["changes"] if one["figure"] == "p50 ms"] == pytest.approx(
        [2, 2, 2], rel=0.01
    )


def test_what_is_no_run_is_not_compared() -> None:
    Path("x.json").write_text("{}")
    Path("y.json").write_bytes(b"\xff")
    good = kept("good.json", ran())
    for name in ("x.json", "y.json", "nowhere.json"):
        found = run("--compare", good, name)
        assert found.exit_code == 2
        assert name in found.stderr
    assert run("http://127.0.0.1", "--compare", good, good).exit_code == 2


def test_where_nothing_can_be_written_that_is_said() -> None:
    good = kept("good.json", ran())
    found = run("--compare", good, good, "--html", "no/such/folder.html")
    assert found.exit_code == 1
    assert "no/such/folder.html" in found.stderr


# ------------------------------------------------------------------------------------------------- progress


def going(fake_url: str = "http://127.0.0.1:1") -> Generator:
    of = plan(duration=60.0, warm_up=5.0)
    to = target(fake_url, mine=False)
    recorder = recorded(of)
    place = Place(of, to, Lines(to, 1, Recorder(1.0)), recorder, "mark", "a password")
    return Generator(place, lambda _person: None)  # type: ignore[arg-type, return-value]  # nobody comes


async def test_how_it_goes(autojump_clock: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = going()
    assert live.state(found)["phase"] == "warm-up"
    recorder = found.place.recorder
    found.began = trio.current_time()
    recorder.since = found.began
    with live.open_progress() as tell:
        for _ in range(11):
            await trio.sleep(1)
            tell(found)
    told = live.state(found)
    assert (told["phase"], round(told["at"]), told["of"]) == ("measuring", 11, 60)
    assert told["steps"][0][:2] == ("GET /livez", 20)
    said = capsys.readouterr().err.splitlines()
    assert [line.split()[2] for line in said] == ["5/60", "10/60"]
    assert f"1200 arrivals, 0 under way, {recorder.good} good of {recorder.in_time} answers" in said[0]
    recorder.since -= 60
    assert live.state(found)["phase"] == "waiting for the last"


def test_on_a_terminal_another_process_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", _Terminal())
    monkeypatch.setattr(live, "SCREEN", (sys.executable, "-c", "import sys; print(len(sys.stdin.read()))"))
    with live.open_progress() as tell:
        tell(going())
        tell(going())


@pytest.mark.parametrize("program", ["import os; os.close(0); os._exit(0)", "import time; time.sleep(60)"])
def test_a_screen_that_dies_or_hangs_disturbs_nobody(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", _Terminal())
    monkeypatch.setattr(live, "SCREEN", (sys.executable, "-c", program))
    monkeypatch.setattr(live, "ENDING", 0.3)
    run_ = going()
    with live.open_progress() as tell:
        for _ in range(300):  # more than a pipe holds
            tell(run_)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_screen_shows_what_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    told = live.state(going()) | {"steps": [("GET /livez", 20, 1.0, 2.0, 3.0)]}
    screen.draw([json.dumps(told)] * 2, Console(file=out, width=100, force_terminal=True))
    for words in ("light at http://127.0.0.1:1", "warm-up 0/5 s", "GET /livez", "3.0", "1200"):
        assert words in out.getvalue()
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    try:
        screen.main()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_fake_is_as_strict_as_the_service() -> None:
    fake = Fake()
    assert fake.answer("POST", "/v1/users/activate", {}, b'{"code": "0000"}') == (400, {})
    assert fake.answer("GET", "/nothing", {}, b"") == (404, {})
