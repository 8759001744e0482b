"""`regsvc events`: what the log can say."""

import json
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from regsvc.cli.given import say

if TYPE_CHECKING:  # --help must not wait for them
    from rich.table import Table

    from regsvc.observe import Event


@click.command(short_help="List what the log can say.")
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--json", "as_json", is_flag=True, help="For programs: an event a line; with NAME, its JSON Schema.")
def events(name: str | None, *, as_json: bool) -> None:
    """List the events of the log: how loud each is, its fields, and what it means. With NAME, show one with its schema.

    A field that may be missing has a question mark. Within a version of an event no field is removed, renamed or
    retyped; events, fields and the words of an enum may be added: pass over what you do not know.

    \b
    Examples:
      regsvc events
      regsvc events mail_sent
      regsvc events mail_sent --json > mail_sent.schema.json
      regsvc events --json | jq -r 'select(.level == "warning").event'

    Exit statuses: 0 done, 1 there is no such event.
    """
    from regsvc.observe import EVENTS

    if name is None:
        _list_json(EVENTS) if as_json else _list(EVENTS)
        return
    known = next((event for event in EVENTS if event == name), None)
    if known is None:
        _miss(name, EVENTS)
    elif as_json:
        click.echo(_published(known), nl=False)
    else:
        _show(known)


def _miss(name: str, events: "tuple[Event, ...]") -> None:
    from difflib import get_close_matches

    near = get_close_matches(name, events, n=3)
    say(f"there is no event {name}" + (f"; did you mean {' or '.join(near)}?" if near else ": see `regsvc events`"))
    sys.exit(1)


def _list_json(events: "tuple[Event, ...]") -> None:
    from regsvc.observe import LEVELS, MEANINGS, VERSIONS

    for event in events:
        told: dict[str, object] = {"event": event, "level": LEVELS[event], "version": VERSIONS.get(event, 1)}
        click.echo(json.dumps(told | _fields(event) | {"meaning": MEANINGS[event]}))


def _fields(event: "Event") -> dict[str, list[str]]:
    from regsvc.observe import REQUIRED
    from regsvc.observe.events import ordered

    found: dict[str, list[str]] = {"always": [], "maybe": []}
    for name in ordered(event):
        found["always" if name in REQUIRED[event] else "maybe"].append(name)
    return found


def _list(events: "tuple[Event, ...]") -> None:
    from rich.table import Table

    from regsvc.observe import LEVELS, MEANINGS

    table = Table("event", "level", "fields", "meaning", box=None, pad_edge=False)
    for event in events:
        table.add_row(event, _level(event, LEVELS[event]), " ".join(_marked(event)), MEANINGS[event])
    _print(table)


def _level(event: "Event", level: str) -> str:
    return "its own" if event == "library_message" else level


def _marked(event: "Event") -> Iterator[str]:
    from regsvc.observe import REQUIRED
    from regsvc.observe.events import ordered

    return (name if name in REQUIRED[event] else f"{name}?" for name in ordered(event))


def _show(event: "Event") -> None:
    from rich.table import Table

    from regsvc.observe import ALWAYS, COMMON, LEVELS, MEANINGS, OWN, VERSIONS

    level, version = _level(event, LEVELS[event]), VERSIONS.get(event, 1)
    click.echo(f"{event}  {level}, version {version}\n{MEANINGS[event]}\n")
    table = Table("field", "type", "meaning", box=None, pad_edge=False)
    for marked in _marked(event):
        field = OWN[marked.removesuffix("?")]
        table.add_row(marked, _type(field), str(field["description"]))
    table.add_section()
    for name, field in COMMON.items():
        table.add_row(name if name in ALWAYS else f"{name}?", _type(field), str(field["description"]), style="dim")
    _print(table)
    click.echo(f"\n{_published(event)}", nl=False)


def _type(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return " ".join(field["enum"])
    if "items" in field:
        return f"list of {_type(field['items'])}"
    return str(field.get("format") or field.get("const") or field["type"])


def _published(event: "Event") -> str:
    """Return the schema as it is in the package."""
    from importlib.resources import files

    return (files("regsvc.observe") / "schemas" / f"{event}.json").read_text("utf-8")


def _print(table: "Table") -> None:
    from rich.console import Console

    wide = None if sys.stdout.isatty() else 300  # a pipe has no width, and a program wants whole lines
    Console(width=wide, highlight=False, markup=False).print(table)
