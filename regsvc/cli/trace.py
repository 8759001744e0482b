"""`regsvc trace`: what became of a request, a registration or a mail, from the lines of the log."""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from regsvc.cli.given import say
from regsvc.cli.story import LONGEST, Chapter, Part, Search, Step, told, wanted
from regsvc.cli.streams import Lines, open_lines

if TYPE_CHECKING:  # --help must not wait for them
    from rich.text import Text
    from rich.tree import Tree

BATCH: Final = 4096  # lines
OCTETS: Final = 1 << 22  # of a batch
_SAID_ABOVE: Final = frozenset(("event", "ts", "level", "mail_id", "letter", "attempts", "error", "traceback"))
_LOUD: Final = {"warning": "yellow", "error": "red"}


@click.command(short_help="Tell what became of a request or a mail.")
@click.argument("id_", metavar="ID")
@click.argument("files", metavar="[FILE]…", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help='For programs: a line each, {"after_ms": …, "line": {…}}.')
def trace(id_: str, files: tuple[str, ...], *, as_json: bool) -> None:
    """Tell the story of an ID from log files, or from standard input: the request, what came of it, its mails.

    ID is that of a trace (also a whole `traceparent`), a request (X-Request-ID), a registration, an account, a session
    or a mail. It leads to the traces it is met in, and these are told whole, across files and workers. Files may be
    packed with gzip, and a container's log may have put something in front of its lines. Lines of others are counted.

    \b
    Examples:
      regsvc trace 4bf92f3577b34da6a3ce929d0e0e4736 /var/log/regsvc.log*
      journalctl -u regsvc -o cat | regsvc trace 0192f6c8-4b7e-7c3a-9a53-1d0f2c9e8b11
      docker compose logs app | regsvc trace 0192f6c8-4b7e-7c3a-9a53-1d0f2c9e8b11 --json

    Exit statuses: 0 done, 1 nothing was found, or a file cannot be read.
    """
    search = Search(wanted(id_))
    with tempfile.TemporaryDirectory(prefix="regsvc-") as folder:
        aside = Path(folder) / "input"  # standard input is kept for the second look: it comes once
        names = list(dict.fromkeys(files)) or ["-"]
        for name in names:
            _look(name, search.learn, keep=aside if name == "-" else None)
        for name in names if search.met else ():
            _look(str(aside) if name == "-" else name, search.take)
    foreign = f"; {search.foreign} of them of others" if search.foreign else ""
    if not search.taken:
        say(f"nothing of {id_} is in {_counted(search.read)}{foreign}")
        sys.exit(1)
    chapters = told(search.taken)
    if as_json:
        _print_json(chapters)
    else:
        _print(chapters)
    if search.foreign:
        say(f"{_counted(search.read)} read{foreign}, which were passed over")


def _counted(lines: int) -> str:
    return f"{lines} line" if lines == 1 else f"{lines} lines"


def _look(name: str, at: Callable[[bytes], None], keep: Path | None = None) -> None:
    with open_lines(name, longest=LONGEST) as (lines, _), ExitStack() as closing:
        kept = closing.enter_context(keep.open("wb")) if keep is not None else None
        for octets in _lines(lines):
            at(octets)
            if kept is not None:
                kept.write(octets + b"\n")


def _lines(lines: Lines) -> Iterator[bytes]:
    while batch := lines.batch(BATCH, OCTETS):
        yield from (octets for _, octets in batch)


def _print_json(chapters: Sequence[Chapter]) -> None:
    for chapter in chapters:
        for step in chapter.steps:
            click.echo(json.dumps({"after_ms": _ms(step.after), "line": step.line}))


def _ms(after: timedelta) -> float:
    return round(after / timedelta(milliseconds=1), 3)


# ------------------------------------------------------------------------------------------------ for people


def _print(chapters: Sequence[Chapter]) -> None:
    from rich.console import Console

    wide = None if sys.stdout.isatty() else 300  # a pipe has no width
    console = Console(width=wide, highlight=False, markup=False, emoji=False)
    for chapter in chapters:
        console.print(_tree(chapter), soft_wrap=True)


def _tree(chapter: Chapter) -> "Tree":
    from rich.text import Text
    from rich.tree import Tree

    steps = chapter.steps
    name = f"trace {chapter.trace_id}" if chapter.trace_id else "outside of any trace"
    began = chapter.began.isoformat(sep=" ", timespec="milliseconds")
    facts = f"  {began}, {_counted(len(steps))} in {_seconds(steps[-1].after)}"
    tree = Tree(Text.assemble((_seen(name), "bold"), (facts, "dim")))
    for part in chapter.parts:
        branch = tree.add(Text.assemble((_heading(part), "bold"), (_where(part), "dim")))
        if (entered := part.waited) is not None:
            branch.add(Text(f"+{_seconds(entered)}  put into the outbox", "dim"))
        for step in part.steps:
            branch.add(_step(step))
    return tree


def _heading(part: Part) -> str:
    first = part.steps[0].line
    if (mail := part.mail) is not None:
        return _seen(f"mail {mail.get('letter')} {mail['mail_id']}, try {mail.get('attempts')}")
    if (request := part.request) is not None:
        asked = f"{request.get('method')} {request.get('route')}"
        return _seen(f"request {request.get('request_id')} {asked} → {request.get('status')}")
    if "request_id" in first:
        return _seen(f"request {first['request_id']}")
    return _seen(str(first.get("actor", "the service")))


def _where(part: Part) -> str:
    line = part.steps[0].line
    names = [str(line[name]) for name in ("instance", "actor") if name in line]
    if "worker" in line:
        names.insert(1 if "instance" in line else 0, f"worker {line['worker']}")
    return _seen(f"  {', '.join(names)}") if names else ""


def _step(step: Step) -> "Text":
    from rich.text import Text

    from regsvc.observe.fields import COMMON

    line = step.line
    fields = {name: value for name, value in line.items() if name not in _SAID_ABOVE and name not in COMMON}
    said = "".join(f"  {name}={one if isinstance(one, str) else json.dumps(one)}" for name, one in fields.items())
    loud = _LOUD.get(str(line.get("level")), "green")
    return Text.assemble((f"+{_seconds(step.after)}  ", "cyan"), (_seen(line["event"]), loud), _seen(said))


def _seconds(after: timedelta) -> str:
    return f"{after.total_seconds():.3f} s"


def _seen(text: str) -> str:
    """Return the text without what a terminal would obey: who wrote the lines is not known."""
    from regsvc.observe.lines import visible

    return visible(text)
