"""What the console knows, and what of it it shows below."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, assert_never

from regsvc.cli.watch.feeds import Connected, End, Line, Lost, News, Numbers, Other, Waiting
from regsvc.cli.watch.remote import Away, Denied
from regsvc.cli.watch.window import Snapshot, Window

LEVELS: Final = ("debug", "info", "warning", "error")
KEPT: Final = 500  # lines; no terminal is higher


@dataclass(frozen=True, slots=True)
class Sieve:
    """Which lines are shown: of this level or above, and where any are named, of these events and routes."""

    level: str = "info"
    events: Sequence[str] = ()
    routes: Sequence[str] = ()

    def lets(self, line: Mapping[str, Any]) -> bool:
        """Tell whether a line is shown."""
        level = line.get("level")
        if level in LEVELS and LEVELS.index(level) < LEVELS.index(self.level):
            return False
        if self.events and line.get("event") not in self.events:
            return False
        route = line.get("route")
        return not self.routes or route in self.routes or f"{line.get('method')} {route}" in self.routes


@dataclass(slots=True)
class State:
    """Everything that was heard. `source`: where from, in words; `over`: nothing more comes."""

    source: str
    sieve: Sieve
    window: Window = field(default_factory=Window)
    stream: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=KEPT))
    link: str = "connecting"
    hello: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] | None = None
    over: bool = False
    error: Denied | Away | None = None

    def hear(self, news: News) -> None:
        """Take in what came."""
        match news:
            case Line(fields):
                self.window.take(fields)
                if self.sieve.lets(fields):
                    self.stream.append(fields)
            case Other():
                self.window.others += 1
            case Lost(lines):
                self.window.lost += lines
            case Connected(hello):
                self.hello, self.link = hello, "connected"
                self.window.begin()
            case Waiting(reason, seconds):
                self.link = f"asking again in {seconds:g} s: {reason}"
            case Numbers(metrics):
                self.metrics = metrics
            case End(error):
                self.over, self.error, self.link = True, error, "ended"
            case _:
                assert_never(news)

    @property
    def foreign(self) -> bool:
        """Whether all that was read to its end was somebody else's."""
        return self.over and not self.window.lines and self.window.others > 0

    def gauge(self, name: str) -> float | None:
        """Return one of the service's own numbers, if it shows them."""
        return _number((self.metrics or {}).get("gauges"), name)

    def workers(self, name: str) -> float | None:
        """Return how many workers there are `alive`, `asked` for, or `restarts` of them."""
        return _number((self.metrics or {}).get("workers"), name)

    def as_json(self) -> dict[str, Any]:
        """Return all of it for programs; `service` is what the service itself counts since it started, or null."""
        return {"source": self.source, "link": self.link, **_plain(self.window.snapshot()), "service": self.metrics}


def _number(numbers: object, name: str) -> float | None:
    found = numbers.get(name) if isinstance(numbers, Mapping) else None
    return found if isinstance(found, int | float) else None


def _plain(snapshot: Snapshot) -> dict[str, Any]:
    return {name: _rounded(value) for name, value in asdict(snapshot).items()}


def _rounded(value: Any) -> Any:  # noqa: ANN401 - what asdict makes
    match value:
        case float():
            return round(value, 3)
        case dict():
            return {name: _rounded(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_rounded(inner) for inner in value]
        case _:
            return value
