"""`python -m benchmarks [NAME …]`: run benchmarks, print their tables, write the numbers to benchmarks/out/."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import adapter, lanes, light, overload, registrations, transfer

OUT = Path(__file__).parent / "out"


def _registrations() -> tuple[str, object]:
    rows = [registrations.measure(clients) for clients in (2, 64)]
    return registrations.table(rows), rows


def _adapter() -> tuple[str, object]:
    result = adapter.measure_here()
    return adapter.table(result), result


def _light() -> tuple[str, object]:
    result = light.measure()
    return light.table(result), result


def _lanes() -> tuple[str, object]:
    from benchmarks import bars  # noqa: PLC0415 - matplotlib takes a while, and the others draw nothing

    result = lanes.measure()
    bars.draw(result)
    return lanes.table(result), result


def _overload() -> tuple[str, object]:
    from benchmarks import curve  # noqa: PLC0415 - matplotlib takes a while, and the others draw nothing

    result = overload.measure()
    curve.draw(result)
    return overload.table(result), result


def _transfer() -> tuple[str, object]:
    rows = transfer.measure()
    return transfer.table(rows), rows


ALL: dict[str, Callable[[], tuple[str, object]]] = {
    "adapter": _adapter,
    "lanes": _lanes,
    "light": _light,
    "overload": _overload,
    "registrations": _registrations,
    "transfer": _transfer,
}


def main(names: list[str]) -> int:
    """Run what is named, or all."""
    unknown = set(names) - set(ALL)
    if unknown:
        print(f"no such benchmark: {', '.join(sorted(unknown))}; there are: {', '.join(ALL)}", file=sys.stderr)
        return 2
    OUT.mkdir(exist_ok=True)
    for name in names or ALL:
        table, numbers = ALL[name]()
        print(f"\n## {name}\n\n{table}", flush=True)
        (OUT / f"{name}.json").write_text(json.dumps(numbers, indent=1), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
