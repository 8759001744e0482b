"""What a variable's text becomes: the shapes of values, and how a field of the table is written."""

import ipaddress
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from email.utils import parseaddr
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from regsvc.domain.values import Email, Flaw, Secret

SECRET_MIN: Final = 32  # octets: as many as the SHA-256 keys derived from it have

_ORIGIN: Final = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::([1-9][0-9]{0,4}))?")  # RFC 6454, 6.2
_BEARER: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, 2.1: all else cannot be shown

EMBEDDED_ROOM: Final = 95  # connections of the embedded PostgreSQL's 100 that are not for its superuser or a verb

Role = Literal["http", "mailer", "sweeper"]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def secret_of(value: object) -> object:
    """Hide it."""
    return value if isinstance(value, Secret) else Secret(str(value))


def duration_of(value: object) -> object:
    """Read seconds."""
    try:
        return timedelta(seconds=float(value)) if isinstance(value, str) else value
    except OverflowError as error:
        raise ValueError("too long") from error


def words_of(value: object) -> object:
    """Read words with commas between."""
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


def count_of(value: object) -> object:
    """Read a number, or as many as there are cores."""
    return cores() if value == "auto" else value


def lanes_of(value: object) -> object:
    """Read a number, or none: as many as pay."""
    return None if value == "auto" else value


def web_address(value: str) -> str:
    """Take the base of an address on the web."""
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("not a web address")
    return value.rstrip("/")


def database_address(value: Secret) -> Secret:
    """Take where PostgreSQL is."""
    if urlsplit(value.reveal()).scheme not in {"postgres", "postgresql"}:
        raise ValueError("not a PostgreSQL address")
    return value


def redis_address(value: Secret) -> Secret:
    """Take where Redis is."""
    parts = urlsplit(value.reveal())
    number = parts.path.strip("/")
    if parts.scheme not in {"redis", "rediss"} or parts.port == 0 or not (number.isdecimal() or not number):
        raise ValueError("not a Redis address")  # reading the port says so itself
    return value


def origin(value: str) -> str:
    """Take an origin, as browsers write it."""
    found = _ORIGIN.fullmatch(value.lower())
    if found is None:
        raise ValueError("not an origin")
    scheme, host, port = found.groups()
    named = port is not None and port != {"http": "80", "https": "443"}[scheme]  # browsers leave out the usual one
    return f"{scheme}://{host}:{port}" if named else f"{scheme}://{host}"


def sender(value: str) -> str:
    """Take a mail's sender."""
    if isinstance(Email.parse(parseaddr(value)[1]), Flaw) or not value.isprintable():
        raise ValueError("not a sender")
    return value


def long_enough(value: Secret) -> Secret:
    """Take a secret that cannot be guessed."""
    if len(value.reveal().encode()) < SECRET_MIN:
        raise ValueError("too short")
    return value


def showable(value: Secret) -> Secret:
    """Take what can be shown as a bearer token."""
    if not _BEARER.fullmatch(value.reveal()):
        raise ValueError("no bearer token")
    return value


Hidden = Annotated[Secret, BeforeValidator(secret_of)]
Seconds = Annotated[timedelta, BeforeValidator(duration_of)]


def s(number: float) -> timedelta:
    """Return so many seconds."""
    return timedelta(seconds=number)


def field(
    default: object,
    meaning: str,
    *,
    least: int | timedelta | None = None,
    most: int | timedelta | None = None,
    also: str = "",
    takes: str = "",
    shown: str = "",
) -> Any:  # noqa: ANN401 - as pydantic's own Field, so that the annotation decides
    """Describe a variable: `also` is a name taken without the prefix, `takes` and `shown` read better than what is."""
    how: dict[str, Any] = {"default_factory": default} if callable(default) else {"default": default}
    extra: dict[str, Any] = {"also": also, "takes": takes, "shown": shown}
    return Field(description=meaning, ge=least, le=most, json_schema_extra=extra, **how)


def names_database(known: Mapping[str, object]) -> bool:
    """Tell whether a database is named."""
    return known["database_url"] is not None or known["database_host"] is not None


def own_url(known: Mapping[str, Any]) -> str:
    """Return where the service is found when nobody says otherwise."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(known["host"], known["host"])  # noqa: S104 - all: this one too
    return f"http://{in_url(host)}:{known['port']}"


def in_url(host: str) -> str:
    """Return a host as addresses have it."""
    return f"[{host}]" if ":" in host else host
