"""`regsvc bench` beside a real service: journeys with codes from its mailbox, limits that are met, and Ctrl-C."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from regsvc.cli.bench.run import Run
from tests.e2e.test_serve import until
from tests.service import Service, running

SECONDS = 15.0
NEWCOMERS = "30"  # an hour: more than the first test registers, fewer than the second
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    told = {"PASSWORD_ROUNDS": "4", "MAIL_CHANNEL": "mailbox", "ENABLE_RATE_LIMITING": "true"}
    limits = {f"RATE_LIMIT_{name}": "100000" for name in ("GLOBAL_PER_MINUTE", "LOGIN_PER_MINUTE")}
    with (
        tempfile.TemporaryDirectory(prefix="regsvc-") as folder,
        running(Path(folder), **told, **limits, RATE_LIMIT_REGISTRATION_PER_HOUR=NEWCOMERS) as one,
    ):
        yield one


def command(service: Service, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "regsvc", "bench", service.url, "--warm-up", "0", *arguments]


@pytest.mark.timeout(180)  # a service is started, and a run takes its seconds, on however busy a machine
def test_people_register_read_their_code_activate_and_log_in(service: Service) -> None:
    words = ("--scenario", "mixed", "--rate", "12", "--duration", "4s", "--accounts", "2", "--seed", "5")
    asked = command(service, *words, "--json", "a.json", "--html", "a.html")
    done = subprocess.run(asked, cwd=service.folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    run = Run.of(json.loads((service.folder / "a.json").read_text()))
    assert (run.offered, run.finished, run.unfinished) == (48, 48, 0)
    assert {outcome for found in run.steps.values() for outcome in found} == {"200", "201", "done"}
    counts = {step: sum(times.count for times in found.values()) for step, found in run.steps.items()}
    assert counts["activate, all of it"] == counts["register"] >= 1
    assert counts["login, all of it"] == counts["me"] == counts["refresh"] >= 1
    assert counts["GET /livez"] + counts["login"] + counts["register"] == 48
    until(lambda: len(service.lines("activation_succeeded")) >= counts["activate"] + 2)
    assert len(service.lines("activation_succeeded")) == counts["activate"] + 2
    assert "activate, all of it" in done.stdout
    assert "<svg" in (service.folder / "a.html").read_text()


@pytest.mark.timeout(180)  # likewise
def test_who_meets_limits_is_told_what_lifts_them(service: Service) -> None:
    asked = command(service, "--scenario", "register", "--rate", "40", "--duration", "2s")
    done = subprocess.run(asked, cwd=service.folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"\b429 +\d+ ", done.stdout)
    assert "REGSVC_ENABLE_RATE_LIMITING=false" in done.stderr


@pytest.mark.timeout(180)  # likewise
def test_ctrl_c_on_a_terminal_shows_what_there_is(service: Service) -> None:
    ours, theirs = pty.openpty()
    environ = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"}
    process = subprocess.Popen(
        command(service, "--rate", "20", "--duration", "1h"),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=service.folder,
        env=environ,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        drawn = ""
        end = time.monotonic() + SECONDS
        while not re.search(r"GET /livez +\d", ANSI.sub("", drawn)) and time.monotonic() < end:
            if select.select([ours], [], [], 0.2)[0]:
                drawn += os.read(ours, 65536).decode("utf-8", "ignore")
        assert "measuring" in drawn, drawn
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: whoever draws hears it too
        out, _ = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert process.returncode == 0, out
    assert b"interrupted" in out
    assert b"GET /livez" in out
