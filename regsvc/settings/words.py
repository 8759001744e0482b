"""How variables and their values read: names, ranges, defaults, with and without secrets."""

from datetime import timedelta
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic.fields import FieldInfo

from regsvc.domain.values import Secret

PREFIX: Final = "REGSVC_"


def variable(name: str) -> str:
    """Return the environment's name of a field."""
    return PREFIX + name.upper()


def also(field: FieldInfo) -> str:
    """Return the name that a field is known by without the prefix, or nothing."""
    return _extra(field, "also")


def takes(field: FieldInfo) -> str:
    """Return what a field takes, in words."""
    if said := _extra(field, "takes"):
        return said
    kind, least, most = field.annotation, _bound(field, "ge"), _bound(field, "le")
    if kind is bool:
        return "true or false"
    if least is not None and most is not None:
        what = "seconds" if isinstance(least, timedelta) else "a whole number"
        return f"{what}, {as_text(least)} to {as_text(most)}"
    if choices := getattr(kind, "__args__", ()) if getattr(kind, "__origin__", None) is Literal else ():
        return " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1])))
    return "a path" if "Path" in str(kind) else "text"


def shown_default(field: FieldInfo) -> str:
    """Return a field's default as documents show it."""
    if said := _extra(field, "shown"):
        return said
    text = as_text(field.default)
    return f"`{text}`" if text else "–"


def as_text(value: object) -> str:
    """Return a value as the environment writes it, **secrets in clear**; nothing for None."""
    match value:
        case None:
            return ""
        case Secret():
            return value.reveal()
        case bool():
            return str(value).lower()
        case timedelta():
            return f"{value.total_seconds():g}" if value < timedelta(days=1) else str(int(value.total_seconds()))
        case frozenset() | tuple():
            return ",".join(sorted(map(str, value)))
        case _:
            return str(value)


def as_shown(value: object) -> str:
    """Return a value as people may see it: of a secret only the host and database of a PostgreSQL address."""
    if not isinstance(value, Secret):
        return as_text(value)
    parts = urlsplit(value.reveal())
    if parts.scheme in {"postgres", "postgresql"}:
        return f"{parts.scheme}://…@{parts.netloc.rpartition('@')[2]}{parts.path}"
    return "…"


def _extra(field: FieldInfo, key: str) -> str:
    return str(field.json_schema_extra[key]) if isinstance(field.json_schema_extra, dict) else ""


def _bound(field: FieldInfo, name: str) -> int | timedelta | None:
    return next((getattr(bound, name) for bound in field.metadata if hasattr(bound, name)), None)
