"""`regsvc calibrate`: what bcrypt costs on this machine, and how many lanes pay."""

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from regsvc.cli.given import say, settings

if TYPE_CHECKING:  # --help must not wait for them
    from rich.console import Console

    from regsvc.bcrypt_lanes import Engine
    from regsvc.bcrypt_lanes.race import Heat

BAR = 20  # characters of the longest bar
CLEAR = "\r\x1b[K"


@click.command(short_help="Measure bcrypt on this machine: hashes a second by threads and lanes.")
@click.option("--seconds", type=click.FloatRange(0.05, 60), default=0.5, show_default=True, help="For each line.")
@click.option("--target", type=click.FloatRange(0.001, 60), default=0.25, show_default=True, metavar="SECONDS",
              help="What a hash may take: shows the rounds that meet it.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="A JSON object for programs.")
@click.option("--svg", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Also as a picture there.")
def calibrate(seconds: float, target: float, *, as_json: bool, svg: Path | None) -> None:
    """Measure how many passwords a second this machine hashes, with the bcrypt package and in lanes.

    A lane is one of several bcrypts that a thread computes interleaved. The service takes as many as pay, by itself
    (REGSVC_HASH_LANES=auto); this shows what they bring, and which REGSVC_PASSWORD_ROUNDS a hash of --target seconds
    allows. Nothing else should run meanwhile.

    \b
    Examples:
      regsvc calibrate
      regsvc calibrate --target 0.1
      regsvc calibrate --seconds 3 --svg lanes.svg
      regsvc calibrate --json | jq '.heats[] | select(.threads == 1) | .per_second'

    Exit statuses: 0 done, 78 misconfigured.
    """
    from regsvc.bcrypt_lanes import Package, open_engine
    from regsvc.bcrypt_lanes import calibrate as measure
    from regsvc.bcrypt_lanes.race import race
    from regsvc.settings import cores

    rounds = settings().password_rounds
    engine, why = open_engine()
    engines: tuple[Engine, ...] = (Package(),) if isinstance(engine, Package) else (Package(), engine)
    lanes = measure(engine, threads=cores())[0]
    heats = list(race(engines, cores(), seconds=seconds, report=_progress))
    if at_terminal():
        sys.stderr.write(CLEAR)
    if as_json:
        click.echo(json.dumps(_plain(heats, rounds, target, lanes, why)))
    if svg is not None:
        _print(heats, rounds, target, lanes, why, to=_recorder()).save_svg(str(svg), title="regsvc calibrate")
        say(f"the picture is in {svg}")
    if not as_json:
        _print(heats, rounds, target, lanes, why, to=_terminal())


def at_terminal() -> bool:
    """Tell whether a person waits."""
    return sys.stderr.isatty()


def _progress(what: str) -> None:
    if at_terminal():
        sys.stderr.write(f"{CLEAR}{what} …")
        sys.stderr.flush()


def _terminal() -> "Console":
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def _recorder() -> "Console":
    from rich.console import Console

    return Console(record=True, file=io.StringIO(), width=100, highlight=False, force_terminal=True)


def _print(heats: Sequence["Heat"], rounds: int, target: float, lanes: int, why: str, *, to: "Console") -> "Console":
    """Print the table, a bar for each line, and what it comes to."""
    from rich.table import Table
    from rich.text import Text

    from regsvc.bcrypt_lanes.race import rounds_within

    most = max(heat.per_second(rounds) for heat in heats)
    table = Table("computed by", "threads", "at once", "a second", "each, s", f"rounds in {target:g} s", "", box=None)
    for heat in heats:
        a_second = heat.per_second(rounds)
        chosen = heat.lanes == lanes and heat.engine == heats[-1].engine
        table.add_row(
            heat.engine,
            str(heat.threads),
            str(heat.lanes),
            f"{a_second:.1f}",
            f"{heat.each(rounds):.3f}",
            str(rounds_within(heat, target)),
            Text("█" * max(1, round(BAR * a_second / most)), style="green" if chosen else "dim"),
        )
    to.print(f"bcrypt at {rounds} rounds (REGSVC_PASSWORD_ROUNDS), hashes a second on this machine", markup=False)
    to.print(table)
    to.print(f"A thread of the service takes up to {lanes} at once: {why}.", markup=False)
    return to


def _plain(heats: Sequence["Heat"], rounds: int, target: float, lanes: int, why: str) -> dict[str, object]:
    from regsvc.bcrypt_lanes.race import rounds_within

    return {
        "rounds": rounds,
        "lanes": lanes,
        "reason": why,
        "target_s": target,
        "heats": [
            {
                "engine": heat.engine,
                "threads": heat.threads,
                "lanes": heat.lanes,
                "per_second": round(heat.per_second(rounds), 3),
                "each_s": round(heat.each(rounds), 4),
                "rounds_in_target": rounds_within(heat, target),
            }
            for heat in heats
        ],
    }
