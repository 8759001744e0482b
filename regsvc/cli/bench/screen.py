"""Draws how a run goes, from lines of JSON on standard input, until that ends (see `live`); on standard error."""

import json
import signal
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text


def picture(told: Mapping[str, Any]) -> Group:
    """Return what is drawn."""
    head = Table.grid(padding=(0, 2, 0, 0))
    bar = ProgressBar(total=max(told["of"], 0.001), completed=min(told["at"], told["of"]), width=30)
    head.add_row(Text(told["what"], "bold"), bar, Text(f"{told['phase']} {told['at']:.0f}/{told['of']:.0f} s"))
    numbers = (
        f"arrivals {told['offered']}   under way {told['under_way']}   answers {told['answers']}, "
        f"good {told['good']}   started late p99 {told['late_ms']:.1f} ms   generator {told['busy']:.0%} of a core"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("step, good answers of the last interval", no_wrap=True)
    for name in ("count", "p50 ms", "p99 ms", "max ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for step, count, *times in told["steps"]:
        table.add_row(step, str(count), *(f"{value:.1f}" for value in times))
    return Group(head, Text(numbers, "dim", no_wrap=True, overflow="ellipsis"), table)


def draw(lines: Iterable[str], console: Console) -> None:
    """Draw each line over the one before, and nothing at the end."""
    with Live(console=console, auto_refresh=False, transient=True) as live:
        for line in lines:
            live.update(picture(json.loads(line)), refresh=True)


def main() -> None:
    """Draw standard input. Ctrl-C is for the run: this ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    draw(sys.stdin, Console(stderr=True, highlight=False, markup=False, emoji=False))


if __name__ == "__main__":
    main()
