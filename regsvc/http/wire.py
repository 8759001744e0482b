"""Bytes to values, once, at the door; what cannot be read is `Unreadable` and already worded.

The JSON decoder is the standard library's with its permissive spots closed: orjson and pydantic's take the second of
two equal keys, and Quart's `get_json` answers deep nesting and bad UTF-8 with a 500. Basic is parsed by hand because
Quart's `authorization` takes the first of two headers, and credentials without a colon or with a NUL in them.
"""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn, TypeVar
from uuid import UUID

from pydantic import ValidationError
from werkzeug.datastructures import Headers
from werkzeug.http import parse_options_header

from regsvc.domain.values import Email, Flaw, Secret
from regsvc.flows.account import Credentials
from regsvc.http import kinds
from regsvc.http.caller import Asked
from regsvc.http.forms import FAULTS_MAX, NOBODY, Form, Rules
from regsvc.http.kinds import Kind
from regsvc.http.models import Fault
from regsvc.http.problems import BAD_TOKEN, NO_TOKEN, UNAUTHORIZED, Told, tell

F = TypeVar("F", bound=Form)
DEPTH_MAX: Final = 32  # levels of nesting; no body of ours has more than one
NAME_MAX: Final = 64  # characters of an unknown field's name that are said back
TOKEN_MAX: Final = 4096  # octets of an access token; ours have some 500
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)  # a string, even a torn one, is taken whole
_UNTEXT: Final = re.compile("[\0\ud800-\udfff]")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_BASE64: Final = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")  # RFC 4648, 4
_B64TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, 2.1
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)  # UUID() takes braces and more
_NUMBER: Final = re.compile(r"[0-9]{1,6}")


class Unreadable(Exception):  # noqa: N818 - it is what a client sent, not a mistake of ours
    """A request that no flow can be asked about; `told` is its answer."""

    def __init__(self, told: Told) -> None:
        super().__init__(told.detail)
        self.told = told


def _malformed(detail: str) -> NoReturn:
    raise Unreadable(tell(kinds.MALFORMED_REQUEST, detail))


# ------------------------------------------------------------------------------------------------- bodies


async def read(request: Asked, form: type[F], rules: Rules) -> F:
    """Read the body as a `form`. Raises Unreadable with every fault of every field."""
    body = await _body(request)
    _check_media_type(request.headers, empty=not body)
    try:
        return form.model_validate(decode(body), context=rules)
    except ValidationError as error:
        faults = [_fault(dict(found)) for found in error.errors(include_url=False, include_input=False)]
    raise Unreadable(faulty(faults))


async def read_nothing(request: Asked, form: type[F], rules: Rules) -> None:
    """Read a body that need not be there."""
    if await _body(request):
        await read(request, form, rules)


async def _body(request: Asked) -> bytes:
    body: bytes = await request.get_data(cache=True, as_text=False, parse_form_data=False)
    request.caller.bytes_in = len(body)
    return body


def _check_media_type(headers: Headers, *, empty: bool) -> None:
    types = headers.getlist("Content-Type")
    if not types and empty:
        _malformed("The body is empty; send a JSON object.")
    media_type, options = parse_options_header(types[0] if len(types) == 1 else None)
    plain = headers.get("Content-Encoding", "identity").strip().lower() == "identity"
    if media_type.lower() != "application/json" or options.get("charset", "utf-8").lower() != "utf-8" or not plain:
        raise Unreadable(tell(kinds.UNSUPPORTED_MEDIA_TYPE))


def decode(body: bytes) -> dict[str, Any]:
    """Decode a JSON object, strictly. Raises Unreadable."""
    if not body:
        _malformed("The body is empty; send a JSON object.")
    _check_depth(body)
    try:
        text = body.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except UnicodeDecodeError:
        _malformed("The body is not UTF-8.")
    except json.JSONDecodeError as error:
        _malformed(f"The body is not JSON: {error.msg.lower()} at line {error.lineno}, column {error.colno}.")
    except ValueError:  # Python refuses to read numbers of more than 4,300 digits
        _malformed("The body has a number that is too long.")
    if not isinstance(value, dict):
        _malformed("The body is JSON, but not an object.")
    if "\\u" in text:  # the only way to write either of them
        _check_text(value)
    return value


def _check_depth(body: bytes) -> None:
    """Refuse deep nesting before the decoder recurses into it; bodies of people have too few brackets to look."""
    if body.count(b"[") + body.count(b"{") <= DEPTH_MAX:
        return
    depth = 0
    for token in _TOKEN.finditer(body):
        mark = token[0]
        if mark in {b"[", b"{"}:
            depth += 1
            if depth > DEPTH_MAX:
                _malformed(f"The body is nested deeper than {DEPTH_MAX} levels.")
        elif mark in {b"]", b"}"}:
            depth -= 1


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        _malformed("The body has an object with the same key twice.")
    return members


def _constant(name: str) -> NoReturn:
    _malformed(f"{name} is not JSON.")


def _check_text(value: object) -> None:
    match value:
        case str():
            if _UNTEXT.search(value):
                _malformed("The body has a NUL or half of a surrogate pair in a string.")
        case dict():
            for key, member in value.items():
                _check_text(key)
                _check_text(member)
        case list():
            for member in value:
                _check_text(member)


# ------------------------------------------------------------------------------------------------- faults


def _fault(error: Mapping[str, Any]) -> Fault:
    field = ".".join(str(part) for part in error["loc"])
    match error["type"]:
        case "missing":
            return Fault(field=field, message="This field is required.", code="missing")
        case "extra_forbidden":
            name = "".join(c if c.isprintable() else "�" for c in field[:NAME_MAX])
            return Fault(field=name, message="This field is not known here; leave it out.", code="unknown_field")
        case "flaw":
            return Fault(field=field, message=error["msg"], code=error["ctx"]["code"])
        case code:
            return Fault(field=field, message=error["msg"], code=code)


_OWN: Final[Mapping[str, Kind]] = {
    "email": kinds.INVALID_EMAIL,
    "new_email": kinds.INVALID_EMAIL,
    "password": kinds.WEAK_PASSWORD,
    "new_password": kinds.WEAK_PASSWORD,
}
# No matter of the address or of strength:
_SHAPE: Final = frozenset({"missing", "unknown_field", "not_a_string", "control_character", "oversize"})


def faulty(faults: Sequence[Fault]) -> Told:
    """Word what is wrong with the fields; one that has a problem of its own gets it when it is the only one."""
    fields = dict.fromkeys(fault.field for fault in faults)
    kind = kinds.VALIDATION_ERROR
    if len(fields) == 1 and faults[0].code not in _SHAPE:
        kind = _OWN.get(faults[0].field, kind)
    if len(faults) == 1:
        return tell(kind, faults[0].message, errors=faults)
    return tell(
        kind, f"These fields are not right: {', '.join(list(fields)[:FAULTS_MAX])}.", errors=faults[:FAULTS_MAX]
    )


# ------------------------------------------------------------------------------------------------- the rest


def credentials(headers: Headers) -> Credentials:
    """Read HTTP Basic (RFC 7617). Raises Unreadable with the one 401 for everything that is not exactly it.

    What is well-formed but cannot be an address becomes NOBODY: it takes the way of an unknown one, hash and all.
    """
    lines = headers.getlist("Authorization")
    found = _basic(lines[0]) if len(lines) == 1 else None
    if found is None:
        raise Unreadable(UNAUTHORIZED)
    name, password = found
    email = Email.parse(name)
    return Credentials(NOBODY if isinstance(email, Flaw) else email, Secret(password))


def _basic(line: str) -> tuple[str, str] | None:
    scheme, _, token = line.partition(" ")
    token = token.strip(" ")
    if scheme.lower() != "basic" or not _BASE64.fullmatch(token):  # b64decode lets surplus padding pass
        return None
    try:
        text = base64.b64decode(token).decode("utf-8")
    except UnicodeError:
        return None
    name, colon, password = text.partition(":")
    return (name, password) if colon and not _CONTROL.search(text) else None


def bearer(headers: Headers) -> str:
    """Read a bearer token (RFC 6750). Raises Unreadable with the 401 that says whether one was shown."""
    lines = headers.getlist("Authorization")
    scheme, _, token = lines[0].partition(" ") if lines else ("", "", "")
    token = token.strip(" ")
    if len(lines) == 1 and scheme.lower() != "bearer":
        raise Unreadable(NO_TOKEN)
    if len(lines) != 1 or len(token) > TOKEN_MAX or not _B64TOKEN.fullmatch(token):
        raise Unreadable(BAD_TOKEN if lines else NO_TOKEN)
    return token


def identifier(text: str) -> UUID | None:
    """Read an id from a path; None for what is none, as it is nobody's."""
    return UUID(text) if _UUID.fullmatch(text) else None


def argument(arguments: Mapping[str, str], name: str) -> str | None:
    """Read a text from the query. Raises Unreadable for a NUL, which no text in the database can hold."""
    text = arguments.get(name)
    if text is not None and _UNTEXT.search(text):
        _malformed(f"{name} has a NUL.")
    return text


def seconds(arguments: Mapping[str, str], name: str, most: int) -> int:
    """Read a number of seconds from the query, 0 when it is not there. Raises Unreadable."""
    text = arguments.get(name, "0")
    if not _NUMBER.fullmatch(text) or int(text) > most:
        message = f"{name} is a whole number from 0 to {most}."
        raise Unreadable(faulty([Fault(field=name, message=message, code="out_of_range")]))
    return int(text)
