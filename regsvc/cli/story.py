"""The story of an id: which lines of the log belong to it, and in what order it went.

Rule 1. An id leads to the traces it is met in, and all that is said in those is told; what is said of it outside of any
        trace is told too.
Rule 2. A line belongs to what it was done for: a span, which is a request or a try of a mail.
Rule 3. Time is that of the lines. A request began as long before its own line as that says it took.
"""

import json
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

IDS: Final = (
    "trace_id",
    "request_id",
    "span_id",
    "mail_id",
    "subject_id",
    "registration_id",
    "user_id",
    "session_id",
    "actor_id",
)
LONGEST: Final = 64 * 1024  # octets of a line; ours have 4,096, what a container's log puts around them included
_OURS: Final = re.compile(rb'"service": ?"regsvc"')
_TRACE: Final = re.compile(rb'"trace_id": ?"([0-9a-f]{32})"')
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

Line = dict[str, Any]


def wanted(text: str) -> str:
    """Return the id that somebody means, as lines have it: of a `traceparent` the trace, a UUID in small letters."""
    if found := _TRACEPARENT.fullmatch(text.lower()):
        return found[1]
    return text.lower() if _UUID.fullmatch(text) else text


class Search:
    """Two looks at the same lines: the first learns the traces of an id, the second takes what belongs to them."""

    def __init__(self, wanted: str) -> None:
        self._wanted = wanted
        self._needle = json.dumps(wanted).encode()
        self._traces: set[bytes] = set()
        self._met = False
        self.read = 0  # lines
        self.foreign = 0  # of them
        self.taken: list[Line] = []

    @property
    def met(self) -> bool:
        """Whether the first look met the id at all."""
        return self._met

    def learn(self, octets: bytes) -> None:
        """Look at a line for the first time."""
        self.read += 1
        if _OURS.search(octets) is None:
            self.foreign += 1
        elif self._needle in octets and self._speaks_of(_parsed(octets)):
            self._met = True
            if found := _TRACE.search(octets):
                self._traces.add(found[1])

    def take(self, octets: bytes) -> None:
        """Look at a line for the second time."""
        found = _TRACE.search(octets)
        if (found is not None and found[1] in self._traces) or self._needle in octets:
            line = _parsed(octets)
            if line is not None and (str(line.get("trace_id")).encode() in self._traces or self._speaks_of(line)):
                self.taken.append(line)

    def _speaks_of(self, line: Line | None) -> bool:
        return line is not None and any(line.get(name) == self._wanted for name in IDS)


def _parsed(octets: bytes) -> Line | None:
    """Return the line of the log, whatever a container's log puts in front of it; None: it is somebody else's."""
    with suppress(ValueError, KeyError, TypeError):
        line = json.loads(octets[octets.find(b"{") :])
        if line["service"] == "regsvc" and isinstance(line["event"], str) and datetime.fromisoformat(line["ts"]).tzinfo:
            found: Line = line
            return found
    return None


@dataclass(frozen=True, slots=True)
class Step:
    """A line, and how long after the beginning of its trace it was said."""

    after: timedelta
    line: Line


@dataclass(frozen=True, slots=True)
class Part:
    """What was said in a span; in the order of time."""

    steps: Sequence[Step]

    @property
    def mail(self) -> Line | None:
        """The line that says which mail it is about, where it is the try of one."""
        return next((one.line for one in self.steps if "mail_id" in one.line and "request_id" not in one.line), None)

    @property
    def request(self) -> Line | None:
        """The line that says how a request was answered."""
        return next((step.line for step in self.steps if step.line["event"] == "http_request"), None)

    @property
    def waited(self) -> timedelta | None:
        """When the mail was put into the outbox, where it is known: it was sent then."""
        for step in self.steps:
            if step.line["event"] == "mail_sent" and isinstance(took := step.line.get("accept_ms"), int | float):
                return step.after - timedelta(milliseconds=took)
        return None


@dataclass(frozen=True, slots=True)
class Chapter:
    """A trace; without an id, what was said outside of any."""

    trace_id: str | None
    began: datetime
    parts: Sequence[Part]

    @property
    def steps(self) -> list[Step]:
        """All lines, in the order of time."""
        return sorted((step for part in self.parts for step in part.steps), key=lambda step: step.after)


def told(lines: Iterable[Line]) -> list[Chapter]:
    """Put lines in order: the traces as they began, in each what was done as it began, in that the lines."""
    traces: dict[str | None, list[Line]] = {}
    for line in sorted(lines, key=lambda line: datetime.fromisoformat(line["ts"])):
        traces.setdefault(line.get("trace_id"), []).append(line)
    return sorted((_chapter(name, of_it) for name, of_it in traces.items()), key=lambda chapter: chapter.began)


def _chapter(trace_id: str | None, lines: Sequence[Line]) -> Chapter:
    began = min(_began(line) for line in lines)
    spans: dict[object, list[Step]] = {}
    for line in lines:
        key = line.get("span_id", line.get("mail_id"))
        spans.setdefault(key, []).append(Step(datetime.fromisoformat(line["ts"]) - began, line))
    return Chapter(trace_id, began, [Part(steps) for steps in spans.values()])


def _began(line: Line) -> datetime:
    at = datetime.fromisoformat(line["ts"])
    took = line.get("duration_ms")
    return at - timedelta(milliseconds=took) if isinstance(took, int | float) else at
