"""Reading the log in tests. Every line that a test, or a service of a test, ever says is held to its event's schema.

The published schemas take fields that they do not know, for those who read lines of a later version; here they are
closed. jsonschema-rs, because jsonschema takes 92 µs for a line and this one 1.4 µs; reading the JSON takes 3.
"""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import jsonschema_rs

from regsvc.observe import EVENTS, FORBIDDEN, log, schema
from regsvc.observe.lines import LINE_MAX
from tests import canaries

OURS: Final = b'{"ts":'  # how a line of the log begins, and none of PostgreSQL's, of a letter or for a person
OUR_MARK: Final = b'"service":"regsvc"'  # what a piece of one would have
UNHEARD: Final[list[str]] = []
"""What was said wrongly in this process since the last look."""


class Lines(io.BytesIO):
    """A stream that a test can ask what was said."""

    @property
    def all(self) -> list[dict[str, Any]]:
        """Every line; each is checked against the registry, and all for what was said in confidence."""
        canaries.assert_none(self.getvalue(), "the log")
        return [read(line) for line in self.getvalue().splitlines()]

    def of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.all if line["event"] == event]

    @property
    def events(self) -> list[str]:
        return [line["event"] for line in self.all]


@cache
def _validators() -> dict[str, jsonschema_rs.Draft202012Validator]:
    return {
        event: jsonschema_rs.Draft202012Validator(
            {**schema(event), "additionalProperties": False}, validate_formats=True
        )
        for event in EVENTS
    }


def checked(line: dict[str, Any]) -> None:
    """Fail if the line is not what its event's schema says, or has a name for a secret."""
    validator = _validators().get(line.get("event", ""))
    assert validator is not None, f"no event: {line}"
    if not validator.is_valid(line):
        found = [f"{one.instance_path}: {one.message}" for one in validator.iter_errors(line)]
        raise AssertionError(f"{found} in {line}")
    assert not [name for name in line if FORBIDDEN.search(name)]


def read(octets: bytes) -> dict[str, Any]:
    """Return a line of the log; fail if it is not one in every respect."""
    assert len(octets) < LINE_MAX
    text = octets.decode()
    assert text.isprintable(), text
    line: dict[str, Any] = json.loads(text)
    checked(line)
    return line


def read_all(octets: bytes) -> list[dict[str, Any]]:
    """Return the lines of the log in what a service said, others may have said more; fail as `read` does."""
    found = []
    for one in octets.split(b"\n"):  # at nothing else: a line that has another end of a line in it is no line
        if one.startswith(OURS):
            found.append(read(one))
        else:
            assert OUR_MARK not in one, f"a torn line: {one[:200]!r}"
    return found


@contextmanager
def overhearing() -> Iterator[None]:
    """Check each line that this process says where it is made, whoever reads it, or nobody.

    Logs that are not strict are left out: those are asked for by tests that say what they may not.
    """
    encode = log.Log._encode

    def heard(self: log.Log, _logger: object, _level: str, line: log.Fields) -> bytes:
        octets = encode(self, _logger, _level, line)
        if self._strict:
            try:
                read(octets.removesuffix(b"\n"))
            except Exception as wrong:  # noqa: BLE001 - told at the end of the test, not to whoever logged
                UNHEARD.append(str(wrong))
        return octets

    log.Log._encode = heard  # type: ignore[method-assign]  # for all logs of this process
    try:
        yield
    finally:
        log.Log._encode = encode  # type: ignore[method-assign]  # as it was
