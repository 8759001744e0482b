"""What becomes of what people type as an address: the table of `addresses.tsv`, read."""

import json
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).with_name("addresses.tsv")


@dataclass(frozen=True)
class Decision:
    """A line: what is typed, and its key, or the code that it is refused with; `why` names a source or a house rule."""

    group: str
    typed: str
    key: str | None
    code: str | None
    why: str

    def __str__(self) -> str:
        return f"{self.group} {ascii(self.typed)[1:-1][:40]}"


def decisions() -> list[Decision]:
    """Return all of them."""
    found, group = [], ""
    for line in TABLE.read_text("utf-8").split("\n"):
        if line.startswith("## "):
            group = line.removeprefix("## ")
        elif line and not line.startswith("# "):
            typed, becomes, why = line.split("\t")
            key = json.loads(becomes) if becomes.startswith('"') else None
            found.append(Decision(group, json.loads(typed), key, None if key else becomes, why))
    return found


DECISIONS = decisions()
