"""What was promised of the log is kept, and what is published of it is what the table says."""

import json
from importlib.resources import files

import pytest
from jsonschema import Draft202012Validator

from regsvc.observe import VERSIONS
from tests.house import promises
from tests.house.promises import LEDGER, Kept, Promise

UUID = '{"type": "string", "format": "uuid"}'
THEN: dict[Promise, Kept] = {("mail_sent", 1, "mail_id"): (True, UUID), ("mail_sent", 1, "worker"): (False, "{}")}


def test_the_published_schemas_are_fresh() -> None:
    folder = files("regsvc.observe") / "schemas"
    found = {path.name: path.read_text("utf-8") for path in folder.iterdir()}
    assert found == promises.published(), "run `python -m tests.house.promises`"
    for text in found.values():
        Draft202012Validator.check_schema(json.loads(text))


def test_no_field_is_removed_renamed_or_retyped_without_a_new_version() -> None:
    ledger = promises.read_ledger(LEDGER.read_text("utf-8"))
    now = promises.promised()
    assert sorted(promises.broken(ledger, now)) == []
    assert promises.longer(ledger, now) == ledger, "run `python -m tests.house.promises`"


def test_the_ledger_reads_as_it_was_written() -> None:
    assert promises.read_ledger(promises.written(THEN)) == THEN


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"worker": (False, "{}")}, "mail_sent.mail_id is gone"),
        ({"mail_id": (True, "{}"), "worker": (False, "{}")}, f"mail_sent.mail_id was {UUID} and is {{}}"),
        ({"mail_id": (False, UUID), "worker": (False, "{}")}, "mail_sent.mail_id was always there, and may be missing"),
        ({"mail_id": (True, UUID), "worker": (True, "{}"), "new": (True, "{}")}, None),
    ],
)
def test_what_breaks_a_promise(changed: dict[str, Kept], said: str | None) -> None:
    now = {("mail_sent", 1, name): kept for name, kept in changed.items()}
    assert list(promises.broken(THEN, now)) == ([said] if said else [])


def test_an_event_is_never_gone_and_a_new_version_promises_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(promises.broken({("mail_lost", 1, "mail_id"): (True, UUID)}, {})) == ["mail_lost is gone"]
    assert list(promises.broken(THEN, {})), "without any field left it is the same version still"
    monkeypatch.setitem(VERSIONS, "mail_sent", 2)
    assert list(promises.broken(THEN, {("mail_sent", 2, "mail_id"): (True, "{}")})) == []
