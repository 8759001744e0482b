"""From an event to bytes: one line each, parseable and harmless whatever the values contain.

JSON lines escape every character that is not printable: a terminal escape, a U+2028 or a bidirectional override in a
value cannot forge, split or hide a line. A line fits into PIPE_BUF, because several workers write into one pipe and
only writes of that size are never torn apart.
"""

import os
import re
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import orjson
import structlog

from regsvc.domain.values import Secret
from regsvc.observe.events import FORBIDDEN
from regsvc.observe.fields import COMMON, OWN

Value = str | int | float | bool | None | list["Value"] | dict[str, "Value"]

LINE_MAX: Final = 4096  # octets with the newline; PIPE_BUF of Linux, see pipe(7)
VALUE_MAX: Final = 1000  # characters of a text
TRACEBACK_MAX: Final = 3000  # characters; the innermost frames are kept
ITEMS_MAX: Final = 50  # entries of a list or dict
DEPTH_MAX: Final = 4
_PLAIN: Final = frozenset((str, int, float, bool, type(None)))
_NOT_PLAIN_ASCII: Final = re.compile(r"[^ -~]")  # what has to be looked at; `str.isprintable` decides


class Unfit(TypeError):  # noqa: N818 - the house says what is wrong in plain words
    """A field holds what must not be in a log; raised where the log is strict."""


def plain(value: object, *, strict: bool, depth: int = 0) -> Value:
    """Return what may be logged of `value`: plain data, texts cut, secrets as "…", other things by their type only.

    Strict: raises Unfit for other things and for keys that name a secret.
    """
    if type(value) in _PLAIN:
        # The set holds exactly these; mypy does not see through it, and isinstance would cost the fast path.
        return _short(value) if type(value) is str else value  # type: ignore[return-value]  # see above
    match value:
        case Secret():
            return "…"
        case str() | UUID():
            return _short(str(value))
        case list() | tuple() if depth < DEPTH_MAX:
            return [plain(item, strict=strict, depth=depth + 1) for item in value[:ITEMS_MAX]]
        case dict() if depth < DEPTH_MAX:
            return _plain_dict(value, strict=strict, depth=depth)
    if strict:
        raise Unfit(f"a {type(value).__name__} is not logged")
    return f"<{type(value).__name__}>"


def _plain_dict(value: Mapping[object, object], *, strict: bool, depth: int) -> dict[str, Value]:
    kept: dict[str, Value] = {}
    for key, item in list(value.items())[:ITEMS_MAX]:
        name = _short(str(key))
        if not FORBIDDEN.search(name):
            kept[name] = plain(item, strict=strict, depth=depth + 1)
        elif strict:
            raise Unfit(f"a field named {name} is not logged")
    return kept


def _short(text: str, most: int = VALUE_MAX) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def told(error: BaseException) -> dict[str, Value]:
    """Return the fields that tell of a bug: its type, its words, and where it came from."""
    frames = "".join(traceback.format_exception(error))
    if len(frames) > TRACEBACK_MAX:
        frames = "…" + frames[1 - TRACEBACK_MAX :]
    return {"error": type(error).__name__, "reason": _short(str(error), 300), "traceback": frames}


_FORMED: Final = frozenset(("format", "pattern", "enum", "const"))  # a text with one of these is not cut lightly
_FREE: Final = frozenset(name for name, field in (COMMON | OWN).items() if _FORMED.isdisjoint(field))


def json_line(fields: Mapping[str, Value]) -> bytes:
    """Return `fields` as one line of JSON; what is too long is cut where that leaves each field what it is."""
    line = _dumps(dict(fields))
    for most in (1000, 300, 100, 30, 10):
        if len(line) <= LINE_MAX:
            return line
        line = _dumps({name: _cut(value, most) if name in _FREE else value for name, value in fields.items()})
    if len(line) > LINE_MAX:  # somebody put a novel where an id belongs
        line = _dumps({name: _cut(value, 10) for name, value in fields.items()})
    return line


def _dumps(fields: dict[str, Value]) -> bytes:
    try:
        line = orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # orjson takes neither lone surrogates nor integers beyond 64 bits
        line = orjson.dumps(_encodable(fields), option=orjson.OPT_APPEND_NEWLINE)
    if line.isascii() and b"\x7f" not in line:
        return line
    return _NOT_PLAIN_ASCII.sub(_json_escape, line[:-1].decode()).encode() + b"\n"


def _json_escape(found: re.Match[str]) -> str:
    character = found[0]
    if character.isprintable():
        return character
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def _encodable(value: Value) -> Value:
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case int() if not -(2**63) <= value < 2**64:
            return _short(hex(value))  # not decimal: Python refuses that beyond 4,300 digits
        case list():
            return [_encodable(item) for item in value]
        case dict():
            return {name.encode("utf-8", "backslashreplace").decode(): _encodable(v) for name, v in value.items()}
        case _:
            return value


def _cut(value: Value, most: int) -> Value:
    match value:
        case str() if len(value) > most:
            return "…" + value[1 - most :]  # the end, where a traceback has the error itself
        case list():  # fewer of them, and such as have a form stay what they are: they are short
            return [_cut(item, max(most, 64)) for item in value[: max(1, most // 30)]]
        case dict():
            return {"…": "…"}
        case _:
            return value


# --------------------------------------------------------------------------------------------- for people


class Pretty:
    """Render lines for a terminal: time, level, event, fields, who; aligned, in colours unless `colours` is false."""

    def __init__(self, *, colours: bool) -> None:
        self._console = structlog.dev.ConsoleRenderer(
            colors=colours, pad_event_to=24, sort_keys=False, timestamp_key="ts"
        )

    def __call__(self, fields: Mapping[str, Value]) -> bytes:
        """Return `fields` as a line, and the traceback, if there is one, as lines below it."""
        # The event's own fields first; who and which request come after them.
        names = sorted((name for name in fields if name not in _ALWAYS_THE_SAME), key=COMMON.__contains__)
        shown: dict[str, object] = {name: visible(fields[name]) for name in names}
        shown["ts"] = str(fields["ts"])[11:23]
        if isinstance(frames := fields.get("traceback"), str):
            shown["exception"] = "\n".join("    " + visible(line) for line in frames.splitlines())
            del shown["traceback"]
        return str(self._console(None, "", shown)).encode() + b"\n"


_ALWAYS_THE_SAME: Final = frozenset(("service", "version", "instance", "span_id"))


def visible(value: Value) -> str:
    """Return a value for a terminal, without what that would obey."""
    text = value if isinstance(value, str) else repr(value)
    return _NOT_PLAIN_ASCII.sub(lambda c: c[0] if c[0].isprintable() else c[0].encode("unicode_escape").decode(), text)


def wants_colour() -> bool:
    """Tell whether the person at the terminal asked for none; https://no-color.org"""
    return not os.environ.get("NO_COLOR")


# ------------------------------------------------------------------------------------------------- the time


class Clock:
    """Writes time stamps: RFC 3339 in UTC with microseconds. The date is formatted once a second, not once a line."""

    def __init__(self) -> None:
        self._second: tuple[int, str] = (-1, "")

    def stamp(self, ns: int) -> str:
        """Return `ns` (since 1970, as `time.time_ns` gives it) as text."""
        second, rest = divmod(ns, 1_000_000_000)
        known, text = self._second  # one attribute: threads stamp too
        if known != second:
            text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._second = (second, text)
        return f"{text}.{rest // 1000:06d}Z"
