"""What is published of the log's events: a JSON Schema each, in the package, and the ledger of all that was promised.

    python -m tests.house.promises

writes both from the table in `regsvc/observe/events.py`. The ledger is what a change is compared with. The committed
schemas could not be: they follow the table, so whoever breaks a promise and writes them anew would have broken nothing.
A line of the ledger is only ever added, never changed; what it promises ends where the event's version is raised.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

from regsvc.observe import EVENTS, FIELDS, OWN, REQUIRED, VERSIONS, schema
from regsvc.observe.fields import ALWAYS, COMMON, Field

SCHEMAS: Final = Path(__file__).parent.parent.parent / "regsvc" / "observe" / "schemas"
LEDGER: Final = Path(__file__).parent / "promises.txt"
FREE: Final = frozenset({"description", "enum"})  # what may be told better, and what may know more words
COMMON_VERSION: Final = 1  # of what every line has: raised with the major version only

Promise = tuple[str, int, str]  # event, its version, field
Kept = tuple[bool, str]  # whether it is always there, and its type


def published() -> dict[str, str]:
    """Return the schema files by name, a field a line."""
    return {f"{event}.json": text_of(schema(event)) for event in EVENTS}


def text_of(whole: Mapping[str, object]) -> str:
    """Write a schema so that a person reads it and a change of it shows."""
    parts = {name: _json(value) for name, value in whole.items()}
    properties = cast("Mapping[str, object]", whole["properties"])
    inner = ",\n".join(f"    {_json(name)}: {_json(value)}" for name, value in properties.items())
    parts["properties"] = f"{{\n{inner}\n  }}"
    return "{\n" + ",\n".join(f"  {_json(name)}: {value}" for name, value in parts.items()) + "\n}\n"


def promised() -> dict[Promise, Kept]:
    """Return what the table promises now."""
    now: dict[Promise, Kept] = {("*", COMMON_VERSION, name): (name in ALWAYS, typed(COMMON[name])) for name in COMMON}
    for event in EVENTS:
        for name in FIELDS[event]:
            now[event, VERSIONS.get(event, 1), name] = (name in REQUIRED[event], typed(OWN[name]))
    return now


def typed(field: Field) -> str:
    """Return the type of a field, without what may change."""
    kept = {name: value for name, value in field.items() if name not in FREE}
    if isinstance(items := kept.get("items"), Mapping):
        kept["items"] = json.loads(typed(items))
    return _json(kept)


def read_ledger(text: str) -> dict[Promise, Kept]:
    """Read the ledger."""
    found: dict[Promise, Kept] = {}
    for line in text.splitlines():
        event, version, name, there, kept = line.split(" ", 4)
        found[event, int(version), name] = (there == "always", kept)
    return found


def written(promises: Mapping[Promise, Kept]) -> str:
    """Write a ledger."""
    lines = (
        f"{event} {version} {name} {'always' if there else 'maybe'} {kept}"
        for (event, version, name), (there, kept) in sorted(promises.items())
    )
    return "\n".join(lines) + "\n"


def broken(ledger: Mapping[Promise, Kept], now: Mapping[Promise, Kept]) -> Iterator[str]:
    """Yield what was promised, and is not so any more, of those versions of events that there are now."""
    alive = {(event, version) for event, version, _ in now} | {(event, VERSIONS.get(event, 1)) for event in EVENTS}
    for (event, version, name), (there, kept) in ledger.items():
        if event != "*" and event not in EVENTS:
            yield f"{event} is gone"
        elif (event, version) in alive:
            found = now.get((event, version, name))
            if found is None:
                yield f"{event}.{name} is gone"
            elif found[1] != kept:
                yield f"{event}.{name} was {kept} and is {found[1]}"
            elif there and not found[0]:
                yield f"{event}.{name} was always there, and may be missing"


def longer(ledger: Mapping[Promise, Kept], now: Mapping[Promise, Kept]) -> dict[Promise, Kept]:
    """Return the ledger with what is new; a field that is always there from now on is promised to be."""
    return dict(ledger) | dict(now)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def main() -> None:
    ledger = read_ledger(LEDGER.read_text("utf-8")) if LEDGER.exists() else {}
    now = promised()
    if faults := sorted(set(broken(ledger, now))):
        raise SystemExit("\n".join([*faults, "Nothing was written: raise the version of the event in VERSIONS."]))
    LEDGER.write_text(written(longer(ledger, now)), "utf-8")
    SCHEMAS.mkdir(exist_ok=True)
    files = published()
    for old in {path.name for path in SCHEMAS.glob("*.json")} - files.keys():
        (SCHEMAS / old).unlink()
    for name, text in files.items():
        (SCHEMAS / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
