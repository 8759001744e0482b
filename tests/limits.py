"""What an answer says of limits, read by a parser of structured fields that is not ours."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import http_sf

NAMES = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "RateLimit-Policy", "RateLimit")


@dataclass(frozen=True)
class Told:
    """The tightest policy of a request; times in seconds."""

    name: str
    limit: int
    window: int
    remaining: int
    reset: int


def told(headers: Mapping[str, str]) -> Told | None:
    """Read the headers of limits; None: there are none. Fails unless all are there, and agree with each other."""
    there = [name for name in NAMES if name in headers]
    if not there:
        return None
    assert there == list(NAMES), there
    name, policy = _only(headers["RateLimit-Policy"])
    named, state = _only(headers["RateLimit"])
    assert (named, set(policy), set(state)) == (name, {"q", "w"}, {"r", "t"})
    found = Told(name, policy["q"], policy["w"], state["r"], state["t"])
    plain = [int(headers[name]) for name in NAMES[:3]]
    assert plain == [found.limit, found.remaining, found.reset]
    assert 0 <= found.remaining <= found.limit
    if "Retry-After" in headers:
        assert int(headers["Retry-After"]) == found.reset
    else:
        assert 0 <= found.reset <= found.window
    return found


def _only(text: str) -> tuple[str, dict[str, int]]:
    """Read a list with one string in it, and its parameters, which are whole numbers."""
    read: Any = http_sf.parse(text.encode("ascii"), tltype="list")
    [(name, parameters)] = read
    assert type(name) is str  # in quotes; a bare word is a Token
    assert all(type(value) is int for value in parameters.values())
    return name, parameters
