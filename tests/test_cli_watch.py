"""`regsvc watch`: what it reads, whom it asks, and what it says when a service is not as it should be."""

import json
import os
import queue
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from regsvc.cli import main
from regsvc.cli.watch import remote
from regsvc.cli.watch.feeds import Connected, End, Feed, Numbers, Waiting, follow, poll, read
from regsvc.cli.watch.remote import Away, Denied, Remote
from regsvc.domain.values import Secret
from tests.smtp_sink import tls_pair
from tests.watching import EVENTS, HELLO, METRICS, event, recorded, serving, written

TOKEN = "a-token-that-is-shown-to-a-service-of-tests"
STREAM, NUMBERS = remote.STREAM, remote.METRICS
JSON = "application/json"
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings but those of the test, and no waiting."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("REGSVC_", "DATABASE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("REGSVC_ADMIN_TOKEN", TOKEN)
    monkeypatch.setattr("regsvc.cli.watch.feeds.FIRST_WAIT", 0.01)


def run(*arguments: str, given: bytes | None = None) -> Result:
    return CliRunner().invoke(main, ["watch", *arguments], input=given, catch_exceptions=False)


# ------------------------------------------------------------------------------------------- standard input


def test_lines_on_standard_input_are_read_to_their_end() -> None:
    prefixed = written(recorded()).replace(b'{"ts"', b'app-1  | {"ts"')
    for given in (written(recorded()), prefixed, b"starting\n" + written(recorded()) + b'{"ts":cut'):
        found = run("-", "--once", "--json", given=given)
        assert found.exit_code == 0, found.output
        told = json.loads(found.stdout)
        assert (told["source"], told["link"], told["lines"]) == ("standard input", "ended", 366)
        assert told["routes"][0]["p95"] == 285
        assert told["service"] is None


def test_a_summary_comes_now_and_then_and_at_the_end() -> None:
    found = run("-", "--plain", "--every", "0.1", given=written(recorded()))
    assert found.exit_code == 0
    assert found.stdout.splitlines()[-1].endswith("· ended")


def test_on_a_terminal_it_is_drawn_and_summed_up_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regsvc.cli.watch._on_terminal", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal then
    found = run("-", given=written(recorded()))
    assert found.exit_code == 0
    assert "info and above" in found.stdout
    assert found.stdout.splitlines()[-1].endswith("· ended")


def test_ctrl_c_is_a_good_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("regsvc.cli.watch._watch", interrupted)
    assert run("-", given=b"").exit_code == 0


def test_lines_of_somebody_else_are_told_apart() -> None:
    found = run("-", given=b'hello\n{"ts":"x","service":"another"}\n{"ts":1}\n')
    assert found.exit_code == 1
    assert "REGSVC_LOG_FORMAT=json" in found.stderr
    assert found.stdout == ""
    assert run("-", given=b"").exit_code == 0


# ------------------------------------------------------------------------------------------------ a service


def one_stream(*events: bytes) -> dict[str, list[tuple[int, str, bytes]]]:
    return {STREAM: [(200, EVENTS, b"".join([HELLO, *events]))], NUMBERS: [(200, JSON, json.dumps(METRICS).encode())]}


def test_a_service_is_watched_for_a_moment() -> None:
    lines = (event("line", one) for one in recorded())
    with serving(one_stream(b": ping\n\n", *lines, event("lost", {"lines": 4}), event("news", {}))) as told:
        found = run(told.url + "/", "--once", "--json", "--every", "3")
    assert found.exit_code == 0, found.stderr
    shown = json.loads(found.stdout)
    assert shown["lines"] >= 366
    assert shown["lost"] >= 4
    assert shown["service"]["gauges"]["outbox_ready"] == 11
    assert all(headers["Authorization"] == f"Bearer {TOKEN}" for headers in told.of(STREAM))
    assert "level=info" in told.asked[0][1] + told.asked[1][1]


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        ((401, JSON, b"{}"), 1, "does not take this token"),
        ((403, JSON, b"{}"), 1, "no administrator"),
        ((404, JSON, b"{}"), 1, f"has no {STREAM}"),
        ((422, JSON, b"{}"), 1, "answers 422"),
        ((302, JSON, b"{}"), 1, "name the address"),
        ((200, "text/html", b"<html>"), 1, "is no stream"),
        ((503, JSON, b"{}"), 75, "answers 503"),
        ((429, JSON, b"{}"), 75, "answers 429"),
    ],
)
def test_a_no_is_told_in_words(answer: tuple[int, str, bytes], status: int, words: str) -> None:
    with serving({STREAM: [answer]}) as told:
        found = run(told.url, "--once")
    assert (found.exit_code, found.stdout) == (status, "")
    assert words in found.stderr
    assert found.stderr.count("\n") == 1


def test_a_certificate_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = tls_pair("127.0.0.1")
    with serving(one_stream(), tls=ours) as told:
        refused = run(told.url, "--once")
        monkeypatch.setattr("ssl.create_default_context", lambda: theirs)
        taken = run(told.url, "--once", "--every", "0.2")
    assert refused.exit_code == 1
    assert "its certificate is not good" in refused.stderr
    assert taken.exit_code == 0


def test_who_does_not_speak_http_or_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def rude() -> None:
            with suppress(OSError):  # the test is over
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        connection.sendall(b"220 mail.example.test ESMTP\r\n")

        thread = threading.Thread(target=rude)
        thread.start()
        found = run(f"http://127.0.0.1:{port}", "--once")
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert found.exit_code == 75
    assert "does not speak HTTP" in found.stderr
    found = run(f"http://127.0.0.1:{port}", "--once")
    assert found.exit_code == 75
    assert "cannot be reached" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--event", "mail_snet"), "did you mean mail_sent?"),
        (("--event", "zzz"), "regsvc events"),
        (("accounts.example.org",), "no web address"),
        (("ftp://accounts.example.org",), "no web address"),
        (("http://127.0.0.1:1", "--email", "a@example.org"), "no terminal"),
        (("--every", "0"), "0.1"),
        (("--token-file", os.devnull), "holds no token"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], words: str) -> None:
    found = run(*arguments)
    assert found.exit_code == 2
    assert words in found.stderr


def test_without_an_address_it_is_the_service_of_these_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(one_stream()) as told:
        monkeypatch.setenv("REGSVC_PORT", str(told.port))
        for host in ("127.0.0.1", "0.0.0.0"):  # noqa: S104 - read
            monkeypatch.setenv("REGSVC_HOST", host)
            assert run("--once", "--every", "0.2").exit_code == 0
    monkeypatch.setenv("REGSVC_HOST", "::1")
    assert f"http://[::1]:{told.port} cannot be reached" in run("--once").stderr


def test_a_token_is_read_from_a_file_and_goes_in_clear_only_with_a_word(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN[::-1]}\n")
    with serving(one_stream()) as told:
        url = told.url.replace("127.0.0.1", "127.0.0.2")
        assert run(told.url, "--token-file", "token", "--once", "--every", "2").exit_code == 0
    assert told.of(STREAM)[0]["Authorization"] == f"Bearer {TOKEN[::-1]}"
    assert "in clear" in run(url, "--once").stderr


ADMITTED = json.dumps({"access_token": "first" * 9, "refresh_token": "again" * 9}).encode()
RENEWED = json.dumps({"access_token": "second" * 9, "refresh_token": "more" * 9}).encode()


def test_an_administrator_logs_in_is_renewed_and_logs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = [(200, EVENTS, HELLO), (401, JSON, b"{}"), (200, EVENTS, HELLO)]
    answers = one_stream() | {
        STREAM: stream,
        "/v1/auth/login": [(200, JSON, ADMITTED)],
        "/v1/auth/refresh": [(200, JSON, RENEWED)],
        "/v1/auth/logout": [(204, JSON, b"")],
    }
    monkeypatch.delenv("REGSVC_ADMIN_TOKEN")
    monkeypatch.setattr("regsvc.cli.watch._typist", lambda: True)
    with serving(answers) as told:
        given = b"alice@example.org\ncorrect horse battery staple\n"
        found = run(told.url, "--once", "--every", "3", given=given)
        assert found.exit_code == 0, found.stderr
        bodies = [body for _, path, _, body in told.asked if path == "/v1/auth/login"]
        assert json.loads(bodies[0]) == {"email": "alice@example.org", "password": "correct horse battery staple"}
        tokens = [headers["Authorization"].split()[1] for headers in told.of(STREAM)]
        assert tokens[:3] == ["first" * 9, "first" * 9, "second" * 9]
        assert told.of("/v1/auth/logout")[0]["Authorization"] == f"Bearer {'second' * 9}"
        assert "correct horse" not in found.output
        told.answers["/v1/auth/login"] = [(401, JSON, b"{}")]
        refused = run(told.url, "--email", "alice@example.org", given=b"wrong horse\n")
    assert refused.exit_code == 1
    assert "address or password is wrong" in refused.stderr


# -------------------------------------------------------------------------------------------------- threads


@pytest.fixture
def feed() -> Iterator[Feed]:
    made = Feed(queue.Queue(100), threading.Event())
    yield made
    made.stop.set()


def heard(feed: Feed) -> list[object]:
    return [feed.inbox.get_nowait() for _ in range(feed.inbox.qsize())]


def test_a_service_that_goes_is_asked_again_and_a_session_that_ends_is_the_end(feed: Feed) -> None:
    answers = [(200, EVENTS, HELLO), (503, JSON, b"{}"), (200, EVENTS, HELLO + event("bye", {})), (401, JSON, b"{}")]
    with serving({STREAM: answers}) as told:
        asker = Remote(told.url, Secret(TOKEN), renewal=Secret("it is not known any more"))
        follow(asker, "info", feed)
    first, ended, away, second, bye, end = heard(feed)
    assert isinstance(first, Connected)
    assert isinstance(second, Connected)
    assert isinstance(ended, Waiting)
    assert isinstance(away, Waiting)
    assert isinstance(bye, Waiting)
    assert ("ended" in ended.reason, "503" in away.reason) == (True, True)
    assert away.seconds > ended.seconds
    assert bye.seconds == ended.seconds, "who was there again is asked soon"
    assert isinstance(end, End)
    assert isinstance(end.error, Denied)


def test_a_silent_service_is_left(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "SILENCE", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        follow(Remote(f"http://127.0.0.1:{listening.getsockname()[1]}"), "info", feed)
    [end] = heard(feed)
    assert isinstance(end, End)
    assert isinstance(end.error, Away)
    assert "said nothing" in str(end.error)


def test_numbers_that_are_not_shown_are_none_and_who_is_away_has_none(feed: Feed) -> None:
    with serving({NUMBERS: [(200, JSON, b"[]"), (404, JSON, b"{}"), (503, JSON, b"{}")]}) as told:
        polling = threading.Thread(target=poll, args=(Remote(told.url), 0.01, feed))
        polling.start()
        found = [feed.inbox.get(timeout=5) for _ in range(3)]
        feed.stop.set()
        polling.join()
    assert found == [Numbers({}), Numbers(None), Numbers(None)]


def test_whoever_reads_waits_for_room_but_not_beyond_the_end() -> None:
    feed = Feed(queue.Queue(1), threading.Event())
    reading = threading.Thread(target=read, args=(written(recorded()).splitlines(), feed))
    reading.start()
    feed.inbox.get(timeout=5)
    feed.stop.set()
    reading.join(5)
    assert not reading.is_alive()
