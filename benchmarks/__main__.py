"""`python -m benchmarks [NAME …]`: run benchmarks, print their tables, write the numbers to benchmarks/out/."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import registrations

OUT = Path(__file__).parent / "out"

ALL: dict[str, Callable[[], list[dict[str, float]]]] = {
    "registrations": lambda: [registrations.measure(clients) for clients in (2, 64)],
}


def main(names: list[str]) -> int:
    """Run what is named, or all."""
    unknown = set(names) - set(ALL)
    if unknown:
        print(f"no such benchmark: {', '.join(sorted(unknown))}; there are: {', '.join(ALL)}", file=sys.stderr)
        return 2
    OUT.mkdir(exist_ok=True)
    for name in names or ALL:
        rows = ALL[name]()
        print(f"\n## {name}\n\n{registrations.table(rows)}", flush=True)
        (OUT / f"{name}.json").write_text(json.dumps(rows, indent=1), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
