"""`regsvc watch` beside a real service of two workers: on a terminal, on a pipe, and while the service dies."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.e2e.people import ADMIN_TOKEN
from tests.service import Service

SECONDS = 15.0
FRAME = "\x1b[H"
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOURED = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7])(?:;\d+)*m")
REGISTER = "/v1/users/register"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with tempfile.TemporaryDirectory(prefix="regsvc-") as folder:
        told = {"WORKERS": "2", "PASSWORD_ROUNDS": "4", "MAIL_CHANNEL": "mailbox", "ADMIN_TOKEN": ADMIN_TOKEN}
        one = Service(Path(folder), {f"REGSVC_{name}": value for name, value in told.items()})
        try:
            one.start()
            yield one
        finally:
            one.end()


def environ(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("REGSVC_", "DATABASE_"))}
    return {**kept, "REGSVC_ADMIN_TOKEN": ADMIN_TOKEN, "TERM": "xterm-256color", **more}


@dataclass
class Screen:
    """A `regsvc watch` on a terminal of its own."""

    process: subprocess.Popen[bytes]
    terminal: int
    drawn: str = ""

    def until(self, seen: Callable[[str], object]) -> str:
        """Read until the latest frame has what is looked for; return it without colours."""
        end, text = time.monotonic() + SECONDS, ""
        while time.monotonic() < end:
            if select.select([self.terminal], [], [], 0.2)[0]:
                self.drawn += os.read(self.terminal, 65536).decode("utf-8", "ignore")
            *_, frame = self.drawn.split(FRAME)
            if seen(text := ANSI.sub("", frame)):
                return text
        raise AssertionError(f"it was never there:\n{text}")

    def end(self) -> int:
        """End it by Ctrl-C; return its exit status."""
        self.process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # a terminal that nobody else has open any more
            while octets := os.read(self.terminal, 65536):
                self.drawn += octets.decode("utf-8", "ignore")
        return self.process.wait(SECONDS)


@contextlib.contextmanager
def on_terminal(service: Service, width: int, *arguments: str, **more: str) -> Iterator[Screen]:
    """Watch on a terminal of this width and 40 lines; end it by Ctrl-C, which is a good end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    command = [sys.executable, "-m", "regsvc", "watch", service.url, "--every", "0.2", *arguments]
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        cwd=service.folder,
        env=environ(**more),
        start_new_session=True,
    )
    os.close(theirs)
    try:
        screen = Screen(process, ours)
        yield screen
        assert screen.end() == 0
    finally:
        process.kill()
        _, said = process.communicate()
        os.close(ours)
    assert said == b""


def register(service: Service, *, emails: int) -> None:
    with httpx.Client(base_url=service.url, timeout=10) as http:
        for n in range(emails):
            http.post(REGISTER, json={"email": f"{time.time_ns()}-{n}@example.test", "password": "correct horse"})
        http.get("/v1/users/me", headers={"Authorization": "Bearer nobody"})


@pytest.mark.parametrize(("width", "no_color"), [(80, "1"), (200, "")])
def test_two_workers_on_a_terminal(service: Service, width: int, no_color: str) -> None:
    with on_terminal(service, width, "--event", "registration_created", NO_COLOR=no_color) as screen:
        screen.until(lambda text: "connected" in text and "2/2" in text)
        register(service, emails=5)
        frame = screen.until(lambda text: text.count("registration_created") >= 5 and "invalid_access_token" in text)
        assert re.search(rf"POST {REGISTER} .* ms ", frame)
        lines = [line.rstrip() for line in frame.splitlines()]
        assert max(map(len, lines)) <= width
        below = lines[next(n for n, line in enumerate(lines) if line.startswith("info and above")) + 1 :]
        assert all("registration_created" in line for line in below if line.strip())
        assert ("route" in lines[1]) is (width == 200)
    assert bool(COLOURED.search(screen.drawn)) is not bool(no_color)
    assert screen.drawn.rstrip().endswith("\x1b[?1049l"), "the terminal is left as it was found"


def run(service: Service, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "regsvc", "watch", *arguments],
        cwd=service.folder,
        env=environ(**more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_a_glance_for_programs_and_a_wrong_token(service: Service) -> None:
    done = run(service, service.url, "--once", "--json", "--every", "1")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["link"] == "connected"
    assert told["service"]["workers"] == {"asked": 2, "alive": 2, "restarts": 0}
    wrong = run(service, service.url, "--once", REGSVC_ADMIN_TOKEN="f" * 40)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "does not take this token" in wrong.stderr


def test_the_log_of_a_service_on_a_pipe(service: Service) -> None:
    said = service.said()
    done = subprocess.run(
        [sys.executable, "-m", "regsvc", "watch", "-", "--once", "--json"],
        cwd=service.folder,
        env=environ(),
        input=said,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    told = json.loads(done.stdout)
    assert told["lines"] == sum(line.startswith('{"ts":') for line in said.splitlines())
    assert sum(told["curve"]) == sum(route["count"] for route in told["routes"]) > 0


@dataclass
class Lines:
    """What a `regsvc watch --plain` says."""

    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)

    def until(self, words: str) -> None:
        assert self.process.stdout is not None
        end = time.monotonic() + 3 * SECONDS  # a service that was away for long is asked again each quarter of a minute
        while time.monotonic() < end:
            self.said.append(self.process.stdout.readline())
            if words in self.said[-1]:
                return
        raise AssertionError("".join(self.said))


def test_whoever_reads_has_read_enough(service: Service) -> None:
    command = [sys.executable, "-m", "regsvc", "watch", service.url, "--plain", "--every", "0.1"]
    with subprocess.Popen(command, cwd=service.folder, env=environ(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "req/s" in process.stdout.readline()
        process.stdout.close()
        assert process.wait(SECONDS) == 0


def test_a_service_that_dies_and_comes_back(service: Service) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "regsvc", "watch", service.url, "--plain", "--every", "0.2"],
        cwd=service.folder,
        env=environ(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        watching = Lines(process)
        try:
            watching.until("· connected")
            service.kill()
            watching.until("asking again in 1 s")
            service.start()
            watching.until("· connected")
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()
