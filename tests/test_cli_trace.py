"""`regsvc trace`: the story of an id, across files, workers and what others say in between."""

import gzip
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner, Result

from regsvc.cli import main
from tests.lines import checked

BEGAN = datetime(2026, 11, 21, 9, 0, 0, tzinfo=UTC)
TRACE, OTHER = "4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000001"
PERSON, MAIL = str(UUID(int=0xAB)), str(UUID(int=0xCD))
REQUEST = {"trace_id": TRACE, "span_id": "a" * 16, "request_id": "my-request", "worker": 1}
TRY = {"trace_id": TRACE, "span_id": "b" * 16, "actor": "mailer", "worker": 2, "instance": "box"}
FACTS = {"mail_id": MAIL, "subject_id": PERSON, "letter": "activation", "attempts": 1}


def line(after: int, event: str, *about: dict[str, Any], level: str = "info", **fields: object) -> str:
    """A line that was said `after` milliseconds."""
    at = (BEGAN + timedelta(milliseconds=after)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    found: dict[str, Any] = {"ts": at, "level": level, "event": event, "service": "regsvc", "version": "0.1.0"}
    for one in about:
        found |= one
    checked(found | fields)
    return json.dumps(found | fields, separators=(",", ":"))


ASKED = {"method": "POST", "route": "/v1/users/register", "status": 201}
DOOR = [
    line(240, "registration_created", REQUEST, registration_id=PERSON, address="f" * 16),
    "regsvc: service  http://127.0.0.1:8000",
    line(250, "http_request", REQUEST, ASKED, duration_ms=250.0),
    line(260, "http_request", ASKED, {"trace_id": OTHER, "span_id": "c" * 16, "request_id": "other"}, duration_ms=1),
]
MAILER = [
    line(300, "mail_sent", TRY, FACTS, accept_ms=65.0, send_ms=20),
    line(270, "code_minted", TRY, FACTS),
    line(90_000, "mail_dead", FACTS, level="warning", reason="nobody took it"),
    line(200, "worker_started", pid=1),
]


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """The logs of two workers, the later one first and packed."""
    (tmp_path / "mailer.gz").write_bytes(gzip.compress("\n".join(MAILER).encode()))
    (tmp_path / "door").write_text("\n".join(DOOR) + "\n")
    return [str(tmp_path / "mailer.gz"), str(tmp_path / "door")]


def run(*words: str, given: Sequence[str] | None = None) -> Result:
    text = None if given is None else "\n".join(given).encode()
    return CliRunner().invoke(main, ("trace", *words), input=text, catch_exceptions=False)


def events(found: Result) -> list[tuple[float, str]]:
    told = [json.loads(one) for one in found.stdout.splitlines()]
    return [(one["after_ms"], one["line"]["event"]) for one in told]


STORY = [(240.0, "registration_created"), (250.0, "http_request"), (270.0, "code_minted"), (300.0, "mail_sent")]


@pytest.mark.parametrize("wanted", [TRACE, f"00-{TRACE}-{'9' * 16}-01", "my-request", "a" * 16, "b" * 16])
def test_every_id_of_a_trace_leads_to_all_of_it(files: list[str], wanted: str) -> None:
    found = run(wanted, *files, "--json")
    assert found.exit_code == 0
    assert events(found) == STORY
    assert found.stderr == "regsvc: 8 lines read; 1 of them of others, which were passed over\n"


@pytest.mark.parametrize("wanted", [PERSON, MAIL, PERSON.upper()])
def test_an_id_in_no_trace_is_told_of_too(files: list[str], wanted: str) -> None:
    assert events(run(wanted, *files, "--json")) == [*STORY, (0.0, "mail_dead")]


def test_standard_input_is_read_once_and_files_named_twice_as_well(files: list[str]) -> None:
    given = [*DOOR, *MAILER]
    assert events(run(TRACE, "--json", given=given)) == STORY
    assert events(run(TRACE, "-", "-", "--json", given=given)) == STORY
    assert events(run(TRACE, files[0], files[0], "-", "--json", given=DOOR)) == STORY


def test_what_a_container_s_log_puts_in_front_does_no_harm() -> None:
    given = [f"app-1  | 2026-11-21T09:00:01Z {one}" for one in DOOR]
    assert events(run(TRACE, "--json", given=given)) == STORY[:2]
    spaced = [json.dumps(json.loads(one)) for one in (DOOR[0], DOOR[2])]
    assert events(run(TRACE, "--json", given=spaced)) == STORY[:2]


def test_a_person_is_told_what_was_done_for_what(files: list[str]) -> None:
    shown = run(PERSON, *files).stdout.splitlines()
    assert shown == [
        f"trace {TRACE}  2026-11-21 09:00:00.000+00:00, 4 lines in 0.300 s",
        "├── request my-request POST /v1/users/register → 201  worker 1",
        f"│   ├── +0.240 s  registration_created  registration_id={PERSON}  address={'f' * 16}",
        "│   └── +0.250 s  http_request  method=POST  route=/v1/users/register  status=201  duration_ms=250.0",
        f"└── mail activation {MAIL}, try 1  box, worker 2, mailer",
        "    ├── +0.235 s  put into the outbox",
        f"    ├── +0.270 s  code_minted  subject_id={PERSON}",
        f"    └── +0.300 s  mail_sent  subject_id={PERSON}  accept_ms=65.0  send_ms=20",
        "outside of any trace  2026-11-21 09:01:30.000+00:00, 1 line in 0.000 s",
        f"└── mail activation {MAIL}, try 1",
        f"    └── +0.000 s  mail_dead  subject_id={PERSON}  reason=nobody took it",
    ]


def test_what_is_no_request_and_no_mail_has_the_name_of_who_speaks() -> None:
    actor = line(0, "session_ended", {"actor": "sweeper"}, user_id=PERSON, session_id=MAIL, reason="staff")
    nobody = line(0, "session_ended", user_id=PERSON, session_id=MAIL, reason="staff")
    overdue = line(0, "request_overdue", REQUEST, level="warning", method="GET", route="/", deadline_s=1)
    assert "── sweeper" in run(PERSON, given=[actor]).stdout
    assert "── the service" in run(PERSON, given=[nobody]).stdout
    assert "── request my-request  worker 1" in run(TRACE, given=[overdue]).stdout


def test_nothing_that_a_terminal_would_obey_is_shown() -> None:
    evil = "\x1b[2J\u202e\u2028\r\n[bold]"
    hostile = {**json.loads(DOOR[0]), "address": evil, "request_id": evil, "event": evil, "instance": evil}
    shown = run(TRACE, given=[json.dumps(hostile)]).stdout
    assert all(one.isprintable() for one in shown.splitlines())
    assert len(shown.splitlines()) == 3
    assert "[bold]" in shown


@pytest.mark.parametrize("given", [[], ["nothing of ours", '{"service":"regsvc"'], DOOR[3:], DOOR])
def test_nothing_found_is_one_line(given: list[str]) -> None:
    found = run("0192f6c8", given=given)
    assert (found.exit_code, found.stdout) == (1, "")
    assert len(found.stderr.splitlines()) == 1
    assert "nothing of 0192f6c8 is in" in found.stderr


@pytest.mark.parametrize(
    "odd",
    [
        f'"service":"regsvc" "{TRACE}" but no JSON',
        f'{{"service":"regsvc","trace_id":"{TRACE}"}}',
        f'{{"service":"regsvc","event":"x","ts":"yesterday","trace_id":"{TRACE}"}}',
        f'{{"service":"regsvc","event":"x","ts":"2026-11-21T09:00:00","trace_id":"{TRACE}"}}',
        f'{{"service":"regsvc","event":17,"ts":"2026-11-21T09:00:00Z","trace_id":"{TRACE}"}}',
        f'["{{", {{"service":"regsvc"}}, "{TRACE}"]',
    ],
)
def test_what_only_looks_like_a_line_is_passed_over(odd: str) -> None:
    assert run(TRACE, given=[odd]).exit_code == 1
    assert events(run(TRACE, "--json", given=[odd, *DOOR])) == STORY[:2]


def test_odd_values_do_no_harm() -> None:
    odd = {**json.loads(DOOR[2]), "duration_ms": "long", "level": None, "trace_id": TRACE}
    mail = {**json.loads(MAILER[0]), "accept_ms": None}
    assert run(TRACE, given=[json.dumps(odd), json.dumps(mail)]).exit_code == 0
    loose = {**json.loads(DOOR[0]), "trace_id": 17, "subject_id": TRACE}
    assert run(TRACE, given=[json.dumps(loose)]).exit_code == 0


def test_a_file_that_is_not_there_is_said() -> None:
    found = run(TRACE, "missing.log")
    assert found.exit_code == 1
    assert "missing.log" in found.stderr
