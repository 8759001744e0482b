"""Reading the log in tests."""

import io
import json
from typing import Any

from regsvc.observe import COMMON, FIELDS, FORBIDDEN, LEVELS
from tests import canaries


class Lines(io.BytesIO):
    """A stream that a test can ask what was said."""

    @property
    def all(self) -> list[dict[str, Any]]:
        """Every line; each is checked against the registry, and all for what was said in confidence."""
        canaries.assert_none(self.getvalue(), "the log")
        lines = [json.loads(line) for line in self.getvalue().decode().splitlines()]
        for line in lines:
            checked(line)
        return lines

    def of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.all if line["event"] == event]

    @property
    def events(self) -> list[str]:
        return [line["event"] for line in self.all]


def checked(line: dict[str, Any]) -> None:
    """Fail if the line is not one that the registry knows."""
    assert line["event"] in FIELDS
    assert line["level"] == LEVELS[line["event"]] or line["event"] == "library_message"
    assert line.keys() - set(COMMON) <= FIELDS[line["event"]]
    assert not [name for name in line if FORBIDDEN.search(name)]
