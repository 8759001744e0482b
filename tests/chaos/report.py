"""The page about what was survived, made from the counts of one run or of several.

`python -m tests.chaos.report FOLDER… --write docs` adds them to docs/reliability.json, and writes the page and its
picture from all that is there; without `--write` the page of these runs is printed. Runs of one row are added up, those
that failed too; each row says of which days they are. So the large form can be done piece by piece.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Final

from tests.chaos.plan import FOUND, ROWS, Row
from tests.chaos.recording import Record

CONFIDENCE: Final = 0.95
KEPT: Final = "reliability.json"
NOT_ADDED: Final = re.compile(r"\b(ms|s|p99|p50|slowest|longest|most)\b")  # of such figures the largest is kept
PAGE: Final = """# Reliability: what was done to it, and what became of it

<!-- Made by `python -m tests.chaos.report FOLDER… --write docs`: nothing here is typed by hand. -->

Each row is a test that does something to a real service, with real processes, PostgreSQL and connections, and then
holds the record of its clients, the mails that left and the rows in the database against the invariants: I1 what was
acknowledged is there and was mailed, I2 no mail without a registration, I3 a code works once, for its own password, in
its life, I4 one account an address, I5 no more duplicates than interruptions, I6 a delivered code lives 45 s, I7 no
half-written rows, I8 one live token a session, I9 no secret anywhere, I10 no unexpected answer and no unexpected end.

*Violations* are runs that failed, for whatever reason. *At most* is the upper 95 % bound of the share of operations
that go wrong, had each been tried alone (Clopper and Pearson; without a violation nearly 3 ÷ operations). It says
nothing of faults that nobody thought of, and little of a machine that is not like this one:

{hosts}

`nox -s chaos` does all of it; `-- --large` as often as the large form, `-- --only TEXT` a part.

{table}
![The upper bound of each row, on a logarithmic scale](reliability.svg)

{failures}
## What other runs found

They are not counted above. All of it is mended, and has a test.

{before}"""
HEAD: Final = (
    "| fault | what was done | rounds | at risk | violations | at most (95 %) | seen besides | run | test |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)


def upper_bound(violations: int, operations: int, confidence: float = CONFIDENCE) -> float:
    """Return the one-sided Clopper-Pearson bound of a rate that was seen `violations` times in `operations`.

    The rate at which so few would be seen with a probability of 1 - `confidence` only; 1.0 where nothing was tried.
    """
    if operations <= 0 or violations >= operations:
        return 1.0
    if violations == 0:
        return -math.expm1(math.log1p(-confidence) / operations)
    low, high = violations / operations, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        if _at_most(violations, operations, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _at_most(seen: int, tries: int, rate: float) -> float:
    """Return how probable it is that something of this rate is seen so often, or less, in so many tries."""
    logs = (
        math.lgamma(tries + 1)
        - math.lgamma(k + 1)
        - math.lgamma(tries - k + 1)
        + k * math.log(rate)
        + (tries - k) * math.log1p(-rate)
        for k in range(seen + 1)
    )
    return math.fsum(math.exp(log) for log in logs) if rate < 1 else 0.0


@dataclass(frozen=True, slots=True)
class Sum:
    """All runs of one row, added up."""

    row: Row
    rounds: int
    operations: int
    violations: int
    figures: Mapping[str, float]
    days: tuple[str, ...]
    skipped: str

    @property
    def bound(self) -> float:
        """The upper bound of its violation rate."""
        return upper_bound(self.violations, self.operations)


def read(folders: Iterable[Path]) -> list[Record]:
    """Read the records of these folders and what is below them, in the order of their ends."""
    found = [Record.read(path) for folder in folders for path in folder.rglob("*.json")]
    return sorted(found, key=lambda record: record.at)


def load(folder: Path) -> list[Record]:
    """Read the records that the page in `folder` was made of; none where there is none."""
    path = folder / KEPT
    return [Record(**plain) for plain in json.loads(path.read_text("utf-8"))] if path.exists() else []


def merged(*several: Sequence[Record]) -> list[Record]:
    """Put records together, each once, in the order of their ends."""
    each = {(record.at, record.test, record.seconds): record for records in several for record in records}
    return [each[key] for key in sorted(each)]


def sums(records: Sequence[Record]) -> list[Sum]:
    """Add up the runs of each row that has one."""
    found = []
    for row in ROWS:
        own = [record for record in records if record.test.partition("[")[0] == f"tests/{row.test}"]
        if own:
            found.append(_sum(row, own))
    return found


def _sum(row: Row, records: Sequence[Record]) -> Sum:
    ran = [record for record in records if record.outcome != "skipped"]
    figures: dict[str, float] = {}
    for record in ran:
        for name, value in record.figures.items():
            seen = figures.get(name, 0)
            figures[name] = max(seen, value) if NOT_ADDED.search(name) else seen + value
    return Sum(
        row,
        rounds=sum(record.rounds or 0 for record in ran),
        operations=sum(_operations(row, record) for record in ran),
        violations=sum(record.violations for record in ran),
        figures=figures,
        days=tuple(sorted({record.at[:10] for record in records})),
        skipped="; ".join(sorted({record.reason for record in records if record.outcome == "skipped"})),
    )


def _operations(row: Row, record: Record) -> int:
    return row.each * (record.rounds or 0) if record.operations is None else record.operations


def table(records: Sequence[Record]) -> str:
    """Return the rows as a Markdown table; what was not done is said too."""
    lines = [_line(one) for one in sums(records)]
    done = {one.row.test for one in sums(records)}
    missing = [row.fault for row in ROWS if row.test not in done]
    more = f"\nNot done in these runs: {', '.join(missing)}.\n" if missing else ""
    return HEAD + "".join(lines) + more


def _line(one: Sum) -> str:
    besides = ", ".join(f"{value:,g} {name}" if value < 1e15 else name for name, value in one.figures.items())
    days = " to ".join(dict.fromkeys((one.days[0], one.days[-1])))
    if not one.rounds and one.skipped:
        counts = ["–", "–", "–", "–", f"not done: {one.skipped}"]
    else:
        at_risk = f"{one.operations:,} {one.row.at_risk}"
        counts = [f"{one.rounds:,}", at_risk, f"{one.violations}", _share(one.bound), besides or "–"]
    return f"| {' | '.join([one.row.fault, one.row.did, *counts, days, f'`{one.row.test}`'])} |\n"


def _share(rate: float) -> str:
    """Say a rate in percent, with two digits that count, rounded up: it is a bound."""
    if rate <= 0:
        return "0 %"
    step = 10.0 ** (math.floor(math.log10(rate * 100)) - 1)
    percent = math.ceil(rate * 100 / step - 1e-9) * step
    return f"{percent:.{max(0, 1 - math.floor(math.log10(percent) + 1e-9))}f} %"


def page(records: Sequence[Record]) -> str:
    """Return the whole page."""
    hosts = "\n".join(f"- {host}" for host in sorted({record.host for record in records}))
    failed = [record for record in records if record.violations]
    told = "".join(f"- {one.at}, `{one.test}`: {' '.join(one.reason.split())}{_mended(one)}\n" for one in failed)
    failures = f"## What failed\n\n{told}" if failed else "Nothing failed in these runs.\n"
    before = [
        f"- {word}: {what}\n"
        for word, what in FOUND.items()
        if not any(_names(word, record.reason) for record in failed)
    ]
    return PAGE.format(hosts=hosts, table=table(records), failures=failures, before="".join(before))


def _mended(record: Record) -> str:
    return "".join(
        f" … Mended since. {what[0].upper()}{what[1:]}" for word, what in FOUND.items() if _names(word, record.reason)
    )


def _names(word: str, reason: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", reason) is not None


LEFT, WIDTH, STEP, TOP = 260, 460, 26, 44  # of the picture, in its units
SCALE: Final = range(-6, 1)  # powers of ten


def picture(records: Sequence[Record]) -> str:
    """Return a picture (SVG) of each row's bound."""
    rows = [one for one in sums(records) if one.operations]
    height = TOP + STEP * len(rows) + 30
    size = f'viewBox="0 0 {LEFT + WIDTH + 90} {height}" font-family="system-ui, sans-serif" font-size="13"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
        f'<rect width="100%" height="{height}" fill="#fff"/>',
        f'<text x="{LEFT}" y="18" fill="#333">at most this share of operations goes wrong (95 %)</text>',
    ]
    for power in SCALE:
        x = _x(10.0**power)
        label = "100 %" if power == 0 else f"{10.0 ** (power + 2):g} %"
        parts.append(f'<line x1="{x}" y1="{TOP - 8}" x2="{x}" y2="{height - 26}" stroke="#ddd"/>')
        parts.append(f'<text x="{x}" y="{height - 8}" text-anchor="middle" fill="#666">{label}</text>')
    for number, one in enumerate(rows):
        y = TOP + STEP * number + 8
        colour, fault = "#c0392b" if one.violations else "#2471a3", escape(one.row.fault, quote=False)
        parts.append(f'<text x="{LEFT - 12}" y="{y + 4}" text-anchor="end" fill="#222">{fault}</text>')
        parts.append(f'<line x1="{_x(0)}" y1="{y}" x2="{_x(one.bound)}" y2="{y}" stroke="{colour}" stroke-width="8"/>')
        parts.append(f'<text x="{_x(one.bound) + 8}" y="{y + 4}" fill="{colour}">{_share(one.bound)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _x(rate: float) -> float:
    power = max(SCALE[0], math.log10(rate)) if rate > 0 else SCALE[0]
    return round(LEFT + WIDTH * (power - SCALE[0]) / (SCALE[-1] - SCALE[0]), 1)


def main(words: Sequence[str]) -> None:
    """Write the page, or print it."""
    parser = argparse.ArgumentParser("python -m tests.chaos.report", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="where reliability.md and .svg are put")
    told = parser.parse_args(words)
    records = read(told.folders)
    if told.write is None:
        sys.stdout.write(page(records))
        return
    records = merged(load(told.write), records)
    told.write.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(asdict(record)) for record in records)
    (told.write / KEPT).write_text(f"[\n{lines}\n]\n", "utf-8")
    (told.write / "reliability.md").write_text(page(records), "utf-8")
    (told.write / "reliability.svg").write_text(picture(records), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
