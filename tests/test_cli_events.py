"""`regsvc events`: the list of what the log can say, for people and for programs."""

import json

from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator

from regsvc.cli import main
from regsvc.observe import COMMON, EVENTS, FIELDS, MEANINGS, schema


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ("events", *words), catch_exceptions=False)


def test_the_list_has_every_event_with_its_fields_and_meaning() -> None:
    found = run()
    assert found.exit_code == 0
    lines = found.stdout.splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(EVENTS)
    assert all(MEANINGS[event] in line for event, line in zip(EVENTS, lines, strict=True))
    [login] = [line for line in lines if line.startswith("login_refused")]
    assert login.split()[1:4] == ["info", "refusal", "address?"]
    assert next(line for line in lines if line.startswith("library_message")).split()[1:3] == ["its", "own"]


def test_the_list_for_programs_is_an_event_a_line() -> None:
    told = [json.loads(line) for line in run("--json").stdout.splitlines()]
    assert [one["event"] for one in told] == list(EVENTS)
    assert all({*one["always"], *one["maybe"]} == FIELDS[one["event"]] for one in told)
    assert told[0].keys() == {"event", "level", "version", "always", "maybe", "meaning"}


def test_one_event_is_shown_with_its_fields_and_its_schema() -> None:
    shown = run("worker_exited").stdout
    assert shown.startswith("worker_exited  warning, version 1\n" + MEANINGS["worker_exited"])
    fields, _, text = shown.partition("{")
    names = [line.split()[0] for line in fields.splitlines()[4:] if line]
    assert names[:2] == ["pid?", "exit_status?"]
    assert names[-len(COMMON) :] == ["ts", "level", "event", "service", "version", *(f"{n}?" for n in [*COMMON][5:])]
    assert json.loads("{" + text) == schema("worker_exited")


def test_types_are_told_in_words() -> None:
    assert "list of http mailer sweeper" in run("service_started").stdout
    assert " uuid " in run("mail_sent").stdout
    assert " regsvc " in run("mail_sent").stdout


def test_one_event_for_programs_is_its_schema_alone() -> None:
    found = json.loads(run("mail_sent", "--json").stdout)
    Draft202012Validator.check_schema(found)
    assert found["$id"] == "urn:regsvc:event:mail_sent:1"


def test_an_event_that_is_not_there_is_said_with_those_near_it() -> None:
    near, far = run("mail_snt"), run("xyzzy", "--json")
    assert (near.exit_code, near.stdout, near.stderr) == (
        1,
        "",
        "regsvc: there is no event mail_snt; did you mean mail_sent?\n",
    )
    assert (far.exit_code, far.stderr) == (1, "regsvc: there is no event xyzzy: see `regsvc events`\n")
