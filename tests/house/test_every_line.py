"""The check that every line of the tests goes through finds what is wrong; see tests/lines.py."""

import json
from typing import Any

import pytest

from regsvc.observe import emit, open_log
from tests import lines
from tests.lines import Lines, checked, read, read_all

GOOD = {
    "ts": "2026-11-21T09:00:00.000000Z",
    "level": "info",
    "event": "mail_sent",
    "service": "regsvc",
    "version": "0.1.0",
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    "mail_id": "0192f6c8-4b7e-7c3a-9a53-1d0f2c9e8b11",
    "subject_id": "0192f6c8-4b7e-7c3a-9a53-1d0f2c9e8b12",
    "letter": "activation",
    "attempts": 1,
    "accept_ms": 12.5,
    "send_ms": 3,
}


def text(line: dict[str, Any]) -> bytes:
    return json.dumps(line, separators=(",", ":")).encode()


def test_a_line_that_is_right_is_read() -> None:
    assert read(text(GOOD)) == GOOD
    assert read_all(b"LOG:  ready\n" + text(GOOD) + b"\nregsvc: service http://localhost\n") == [GOOD]


@pytest.mark.parametrize(
    "wrong",
    [
        {"event": "mail_lost"},
        {"level": "warning"},
        {"ts": "2026-11-21 09:00:00"},
        {"ts": "2026-13-21T09:00:00.000000Z"},
        {"trace_id": "4BF92F3577B34DA6A3CE929D0E0E4736"},
        {"mail_id": "17"},
        {"letter": "love"},
        {"attempts": "1"},
        {"attempts": 1.5},
        {"attempts": True},
        {"send_ms": -1},
        {"send_ms": None},
        {"reason": "that event has none"},
    ],
    ids=str,
)
def test_a_line_with_a_wrong_field_is_found(wrong: dict[str, object]) -> None:
    with pytest.raises(AssertionError, match=next(iter(wrong))):
        checked(GOOD | wrong)


@pytest.mark.parametrize("name", ["ts", "service", "mail_id", "send_ms"])
def test_a_line_that_lacks_a_field_is_found(name: str) -> None:
    with pytest.raises(AssertionError, match=f'"{name}" is a required property'):
        checked({key: value for key, value in GOOD.items() if key != name})


def test_a_torn_a_long_and_an_unprintable_line_are_found() -> None:
    with pytest.raises(json.JSONDecodeError):
        read_all(text(GOOD)[:50] + b"\n")
    with pytest.raises(AssertionError, match="a torn line"):
        read_all(text(GOOD)[10:] + b"\n")
    with pytest.raises(AssertionError):
        read(text(GOOD | {"letter": "x" * 5000}))
    with pytest.raises(AssertionError, match="\u202e"):
        read(json.dumps(GOOD | {"instance": "\u202e"}, ensure_ascii=False).encode())


def test_a_line_that_nobody_reads_is_heard_too() -> None:
    with open_log(Lines()):
        emit("outbox_reclaimed", mails=-1)
    [said] = lines.UNHEARD
    assert "mails" in said
    lines.UNHEARD.clear()  # it would fail this test


def test_a_log_that_may_say_anything_is_not_listened_to() -> None:
    with open_log(Lines(), strict=False):
        emit("outbox_reclaimed", mails=-1)
    assert lines.UNHEARD == []
