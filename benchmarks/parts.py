"""The parts of the benchmarks, in the order in which they run, each with its budget of seconds on two calm cores."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol

from benchmarks.figures import Found


class Module(Protocol):
    """What a part's module has."""

    def measure(self, *, quick: bool = False) -> dict[str, Any]:
        """Measure; return what is written as JSON. `quick`: as little as shows that it works."""

    def found(self, numbers: dict[str, Any]) -> dict[str, Found]:
        """Return the part's rows by their keys (`wanted.py`)."""

    def table(self, numbers: dict[str, Any]) -> str:
        """Return what else was seen, as Markdown."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part: the name of its module, what it is about, how long it may take, and its picture.

    `asked`: it runs only where it is named, for it says nothing of the service.
    """

    name: str
    title: str
    budget: float  # seconds on two calm cores
    picture: tuple[str, str, str] | None = None  # its file, the function that draws it, what it shows
    asked: bool = False

    @property
    def limit(self) -> float:
        """Seconds after which something hangs."""
        return 3 * self.budget + 60

    @property
    def module(self) -> Module:
        """The module; imported when asked for, so that a part costs the others nothing."""
        found: Module = import_module(f"benchmarks.{self.name}")
        return found

    @property
    def about(self) -> str:
        """What its module says of how it measures."""
        return (import_module(f"benchmarks.{self.name}").__doc__ or "").strip()

    def draw(self, numbers: dict[str, Any], folder: Path) -> None:
        """Draw its picture into `folder`, if it has one. Matplotlib has to be there."""
        if self.picture is not None:
            file, drawn_by, _ = self.picture
            module, _, function = drawn_by.partition(":")
            getattr(import_module(f"benchmarks.{module}"), function)(numbers, folder / file)


PARTS: Final = (
    Part("starting", "Starting", 20),
    Part("memory", "Memory", 40),
    Part("telling", "Logging and metrics", 40),
    Part("light", "Light requests", 75, ("light.svg", "bars:draw_light", "Light requests a second of one worker")),
    Part("adapter", "The database adapter", 50, ("adapter.svg", "bars:draw_adapter", "What a query costs, each way")),
    Part("mail", "Mail", 75),
    Part("transfer", "Moving people", 35),
    Part("full", "A full database", 70),
    Part(
        "registrations",
        "Registrations",
        230,
        (
            "lanes.svg",
            "bars:draw_registrations",
            "Registrations a second with 64 clients, and what others wait meanwhile",
        ),
    ),
    Part(
        "overload",
        "Overload",
        180,
        (
            "overload.svg",
            "curve:draw",
            "Registrations done and their times, offered up to three times what the machine can do",
        ),
    ),
    Part("agreement", "Our own load tool", 60, asked=True),
)
BY_NAME: Final = {part.name: part for part in PARTS}
