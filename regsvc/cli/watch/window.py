"""What is known of the last minute, made of log lines: rates, percentiles, what people did, what was refused.

Time is that of the lines: their newest is now, and goes on with the clock of this machine. So it does not matter how
right either clock is, and a log of last week is shown as if it were written now.
"""

import math
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

SECONDS: Final = 60.0
REQUESTS_MAX: Final = 200_000  # that are remembered; with more a second than 3,333 the window is shorter than a minute
CLASSES: Final = ("1xx", "2xx", "3xx", "4xx", "5xx")
PEOPLE: Final[Mapping[str, str]] = {
    "registration_created": "registrations",
    "activation_succeeded": "activations",
    "login_succeeded": "logins",
    "mail_sent": "mails",
    "mail_deferred": "mails_deferred",
    "mail_dead": "mails_dead",
}
LEAST: Final = 1.0  # seconds that a rate is at least over

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RouteFigures:
    """A route in the window: requests, those a second, those of them that failed (5xx), and how many ms they took."""

    route: str
    count: int
    per_s: float
    failed: int
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the window holds; it is `seconds` long. `routes`: the busiest first; `per_minute`: what people did."""

    seconds: float
    per_s: float
    classes: Mapping[str, float]
    routes: tuple[RouteFigures, ...]
    per_minute: Mapping[str, float]
    refusals: Mapping[str, int]
    curve: tuple[int, ...]  # requests of each second, the newest last
    lines: int
    lost: int
    others: int


@dataclass(slots=True)
class _Request:
    at: float
    status: int
    route: str
    ms: float
    refusal: str | None


@dataclass(slots=True)
class Window:
    """Remembers as much of the lines as the figures need."""

    seconds: float = SECONDS
    lines: int = 0
    lost: int = 0  # lines that the service could not send fast enough
    others: int = 0  # lines that are not the service's
    _requests: deque[_Request] = field(default_factory=lambda: deque(maxlen=REQUESTS_MAX))
    _done: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=REQUESTS_MAX))
    _ahead: float | None = None  # of the newest line's clock before time.monotonic
    _began: float | None = None  # by the clock of the lines
    _since: float | None = None  # by ours

    def begin(self) -> None:
        """Be told that whatever happens comes as a line from now on."""
        self._since = self._since or time.monotonic()

    def take(self, line: Line) -> None:
        """Take a line; what is not as it should be is passed over."""
        self.lines += 1
        try:
            at = datetime.fromisoformat(line["ts"]).timestamp()
        except (KeyError, TypeError, ValueError):
            return
        self._see(at)
        event = str(line.get("event"))
        if event == "http_request":
            self._take_request(at, line)
        elif event in PEOPLE:
            self._done.append((at, PEOPLE[event]))

    def _see(self, at: float) -> None:
        ahead = at - time.monotonic()
        self._ahead = ahead if self._ahead is None else max(self._ahead, ahead)
        self._began = at if self._began is None else min(self._began, at)

    def _take_request(self, at: float, line: Line) -> None:
        status, ms, refusal = line.get("status"), line.get("duration_ms"), line.get("refusal")
        if isinstance(status, int) and isinstance(ms, int | float):
            route = f"{line.get('method')} {line.get('route')}"
            self._requests.append(_Request(at, status, route, ms, refusal if isinstance(refusal, str) else None))

    def snapshot(self) -> Snapshot:
        """Count."""
        now = time.monotonic() + (self._ahead or 0.0)
        self._forget(now - self.seconds)
        requests = [*self._requests]
        seconds = self._length(now)
        done = Counter(what for _, what in self._done)
        classes = Counter(CLASSES[min(max(one.status // 100, 1), 5) - 1] for one in requests)
        return Snapshot(
            seconds=seconds,
            per_s=len(requests) / seconds,
            classes={name: classes[name] / seconds for name in CLASSES},
            routes=_by_route(requests, seconds),
            per_minute={name: done[name] * 60 / seconds for name in PEOPLE.values()},
            refusals=dict(Counter(one.refusal for one in requests if one.refusal is not None).most_common()),
            curve=_curve((one.at for one in requests), now, int(self.seconds)),
            lines=self.lines,
            lost=self.lost,
            others=self.others,
        )

    def _forget(self, before: float) -> None:
        while self._requests and self._requests[0].at < before:
            self._requests.popleft()
        while self._done and self._done[0][0] < before:
            self._done.popleft()

    def _length(self, now: float) -> float:
        if len(self._requests) == self._requests.maxlen:
            return max(now - self._requests[0].at, LEAST)
        heard = now - self._began if self._began is not None else 0.0
        listened = time.monotonic() - self._since if self._since is not None else 0.0
        return min(max(heard, listened, LEAST), self.seconds)


def _by_route(requests: Iterable[_Request], seconds: float) -> tuple[RouteFigures, ...]:
    routes: dict[str, list[_Request]] = {}
    for one in requests:
        routes.setdefault(one.route, []).append(one)
    found = [_figures(route, took, seconds) for route, took in routes.items()]
    return tuple(sorted(found, key=lambda one: (-one.count, one.route)))


def _figures(route: str, requests: list[_Request], seconds: float) -> RouteFigures:
    took = sorted(one.ms for one in requests)
    p50, p95, p99 = (quantile(took, share) for share in (0.5, 0.95, 0.99))
    failed = sum(one.status >= 500 for one in requests)
    return RouteFigures(route, len(took), len(took) / seconds, failed, p50, p95, p99)


def quantile(values: list[float], share: float) -> float:
    """Return the smallest value that `share` of all, which are sorted, do not exceed (the nearest rank)."""
    return values[max(math.ceil(share * len(values)), 1) - 1]


def _curve(times: Iterable[float], now: float, seconds: int) -> tuple[int, ...]:
    counts = Counter(int(now - at) for at in times)
    return tuple(counts[ago] for ago in range(seconds - 1, -1, -1))
