"""Accounts as lines of NDJSON: what a line says, what becomes of it here, and an account written as one.

Rule 1. Reading is total: any octets are a Record, or faults that a person can mend, all of a line at once.
Rule 2. A line speaks of what it names: on an account that is there, a key that is left out leaves things as they are.
Rule 3. What is written reads back as the same account, times to the microsecond.
Rule 4. No fault repeats a hash, nor what may be one.
"""

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NoReturn
from uuid import UUID

from regsvc.domain.account import NO_PASSWORD
from regsvc.domain.delivery import Effect, Publish
from regsvc.domain.session import Ending, Role, User, ended
from regsvc.domain.values import Email, EmailKey, Flaw, Locale, Username

LINE_MAX: Final = 64 * 1024  # octets, its end not counted
OVERWRITTEN: Final = ("password_hash", "locale", "role", "disabled_at")  # of an account that is there, on demand
_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_TIME: Final = re.compile(  # RFC 3339, and what PostgreSQL writes
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:([Zz])|([+-]\d\d)(?::?(\d\d))?)", re.ASCII
)
_SHOWN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,29}")  # keys that are repeated: too short for a hash

HashFlaw = Callable[[str], Flaw | None]
"""Say why a stored hash is not taken, or None; its words never repeat the hash."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a line is refused: the key it is about (None: the line itself), `code` for programs, `message` for people."""

    field: str | None
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Record:
    """What a line says of an account; `given` are the keys that it names."""

    email: Email
    password_hash: str = field(repr=False)
    given: frozenset[str]
    username: Username | None = None
    locale: Locale | None = None
    id: UUID | None = None
    role: Role = Role.USER
    disabled: bool = False
    disabled_at: datetime | None = None
    created_at: datetime | None = None
    activated_at: datetime | None = None


def read(line: bytes, hash_flaw: HashFlaw) -> Record | Sequence[Fault]:
    """Read a line without its end."""
    told = _object(line)
    if isinstance(told, Fault):
        return (told,)
    values: dict[str, Any] = {}
    faults = []
    for name, value in told.items():
        found = _hash(value, hash_flaw) if name == "password_hash" else _READERS.get(name, _nobodys)(value)
        if isinstance(found, Flaw):
            faults.append(Fault(name, found.code, found.message) if name in KEYS else _unknown(name))
        elif found is not None or name in _NULL_SAYS:
            values[name] = found
    faults += [Fault(name, "missing", "This key is required.") for name in _REQUIRED if name not in told]
    disabled_at = values.get("disabled_at")
    if disabled_at is not None and values.get("disabled") is False:
        faults.append(Fault("disabled", "contradiction", "disabled is false, and disabled_at says since when it is."))
    if faults:
        return faults
    given = frozenset(values)
    values.setdefault("disabled", disabled_at is not None)
    return Record(given=given, **values)


class _NotStrictError(ValueError):
    """The JSON is of a kind that readers understand differently."""


def _object(line: bytes) -> dict[str, object] | Fault:
    if len(line) > LINE_MAX:
        return Fault(None, "too_long", f"A line has at most {LINE_MAX} octets.")
    try:
        told = _JSON.decode(line.decode("utf-8"))
    except (ValueError, RecursionError) as why:
        return _garbled(why)
    if not isinstance(told, dict):
        return Fault(None, "not_an_object", "A line is a JSON object.")
    return told


def _garbled(why: Exception) -> Fault:
    match why:
        case UnicodeDecodeError():
            return Fault(None, "invalid_utf8", "This line is not UTF-8.")
        case _NotStrictError():
            return Fault(None, "invalid_json", str(why))
        case json.JSONDecodeError():
            return Fault(None, "invalid_json", f"This is not JSON: {why.msg}, at character {why.pos + 1}.")
        case _:  # a number of thousands of digits, or brackets as deep
            return Fault(None, "invalid_json", "This JSON is beyond all measure.")


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _NotStrictError("A key stands twice in this line.")
    return found


def _constant(name: str) -> NoReturn:
    raise _NotStrictError(f"{name} is not JSON.")


_JSON: Final = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant)
_NO_TEXT: Final = Flaw("not_a_string", "This has to be a string.")
_UNKNOWN: Final = Flaw("unknown", "")


def _nobodys(_: object) -> Flaw:
    return _UNKNOWN


@lru_cache(maxsize=256)  # a file that has one has it in each line
def _unknown(name: str) -> Fault:
    if not _SHOWN.fullmatch(name):
        return Fault(None, "unknown_key", f"There is a key that is none of {', '.join(KEYS)}.")
    near = difflib.get_close_matches(name, KEYS, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(KEYS)}."
    return Fault(name, "unknown_key", f"{name} is no key of an account: {hint}")


def _email(value: object) -> Email | Flaw:
    return Email.parse(value) if isinstance(value, str) else _NO_TEXT


def _hash(value: object, hash_flaw: HashFlaw) -> str | Flaw:
    if value is None or value == NO_PASSWORD:
        return NO_PASSWORD
    if not isinstance(value, str):
        return _NO_TEXT
    return hash_flaw(value) or value


def _username(value: object) -> Username | Flaw | None:
    return None if value is None else Username.parse(value) if isinstance(value, str) else _NO_TEXT


def _locale(value: object) -> Locale | Flaw | None:
    return None if value is None else Locale.parse(value) if isinstance(value, str) else _NO_TEXT


def _id(value: object) -> UUID | Flaw | None:
    if value is None:
        return None
    if isinstance(value, str) and _ID.fullmatch(value):
        return UUID(value)
    return Flaw("invalid_id", "An id is a UUID of 32 hexadecimal digits and four dashes.")


def _role(value: object) -> Role | Flaw:
    found = _ROLES.get(value) if isinstance(value, str) else None
    return found if found is not None else Flaw("invalid_role", f"A role is {' or '.join(_ROLES)}.")


def _disabled(value: object) -> bool | Flaw:
    return value if isinstance(value, bool) else Flaw("not_a_boolean", "This has to be true or false.")


def _time(value: object) -> datetime | Flaw | None:
    if value is None:
        return None
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    if found is not None:
        day, clock, fraction, zulu, hours, minutes = found.groups("")
        zone = "+00:00" if zulu else f"{hours}:{minutes or '00'}"
        try:
            return datetime.fromisoformat(f"{day}T{clock}.{fraction[:6]:0<6}{zone}").astimezone(UTC)
        except (ValueError, OverflowError):  # no such day, or one that is not in UTC's calendar any more
            pass
    return Flaw("invalid_time", "A time is written as 2024-02-29T12:30:00.123456Z, with its offset.")


_ROLES: Final[Mapping[str, Role]] = {role.value: role for role in Role}
_READERS: Final[Mapping[str, Callable[[object], object]]] = {
    "email": _email,
    "username": _username,
    "locale": _locale,
    "id": _id,
    "role": _role,
    "disabled": _disabled,
    "disabled_at": _time,
    "created_at": _time,
    "activated_at": _time,
}
KEYS: Final = ("password_hash", *_READERS)
_REQUIRED: Final = ("email", "password_hash")
_NULL_SAYS: Final = frozenset(("username", "locale", "disabled_at"))  # null is a value: none; elsewhere it says nothing


def written(user: User) -> bytes:
    """Write an account as a line, its end included."""
    told = {
        "id": str(user.id),
        "email": user.email,
        "password_hash": None if user.password_hash == NO_PASSWORD else user.password_hash,
        "username": user.username.name if user.username is not None else None,
        "locale": user.locale.tag if user.locale is not None else None,
        "role": user.role.value,
        "disabled_at": _moment(user.disabled_at) if user.disabled_at is not None else None,
        "created_at": _moment(user.created_at),
        "activated_at": _moment(user.activated_at),
    }
    return _WRITER.encode(told).encode("utf-8") + b"\n"


_WRITER: Final = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"))


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC).replace(tzinfo=None).isoformat()}Z"


class Seen:
    """Whom the lines of a file have spoken of: the first of two wins. About 400 octets an account."""

    __slots__ = ("_emails", "_ids", "_usernames")

    def __init__(self) -> None:
        self._emails: dict[EmailKey, int] = {}
        self._usernames: dict[str, int] = {}
        self._ids: dict[UUID, int] = {}

    def before(self, record: Record, line: int) -> Fault | None:
        """Say in which line its address, name or id stood before, or None; then it stands in this one."""
        if (first := self._emails.get(record.email.key)) is not None:
            return Fault("email", "duplicate", f"This address stands in line {first}.")
        if record.username is not None and (first := self._usernames.get(record.username.key)) is not None:
            return Fault("username", "duplicate", f"This username stands in line {first}.")
        if record.id is not None and (first := self._ids.get(record.id)) is not None:
            return Fault("id", "duplicate", f"This id stands in line {first}.")
        self._emails[record.email.key] = line
        if record.username is not None:
            self._usernames[record.username.key] = line
        if record.id is not None:
            self._ids[record.id] = line
        return None


@dataclass(frozen=True, slots=True)
class Standing:
    """What is there, under the address's lock, where a line wants to go."""

    owner: User | None = None  # of the address
    id_taken: bool = False  # by another address
    username_taken: bool = False


@dataclass(frozen=True, slots=True)
class Created:
    """The line becomes an account."""

    user: User


@dataclass(frozen=True, slots=True)
class Updated:
    """The account becomes what the line says; `changed` names what differed."""

    user: User
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The account is what the line says."""


Outcome = Created | Updated | Unchanged | Fault
LAST_ADMIN: Final = Fault("role", "last_admin", "This is the last administrator; somebody has to be one.")


def settle(record: Record, standing: Standing, new_id: UUID, now: datetime, *, update: bool) -> Outcome:
    """Decide what becomes of a line; `now` is the database's clock, `new_id` is for an account without one.

    With `update` the hash, locale, role and disabling of an account are overwritten, and all else stays as it is.
    """
    owner = standing.owner
    if owner is None:
        return _taken(standing) or Created(_account(record, new_id, now))
    if record.id is not None and record.id != owner.id:
        return Fault("id", "exists", "The account with this address has another id.")
    after = _overwritten(record, owner, now)
    changed = tuple(name for name in OVERWRITTEN if getattr(owner, name) != getattr(after, name))
    if update:
        return Updated(replace(after, updated_at=now), changed) if changed else Unchanged()
    if changed or not _alike(record, owner):
        return Fault("email", "exists", "There is an account with this address, and it is not as this line says.")
    return Unchanged()


def _taken(standing: Standing) -> Fault | None:
    if standing.id_taken:
        return Fault("id", "exists", "Somebody else has this id.")
    if standing.username_taken:
        return Fault("username", "exists", "Somebody else has this username.")
    return None


def _account(record: Record, new_id: UUID, now: datetime) -> User:
    created_at = record.created_at or record.activated_at or now
    return User(
        id=record.id or new_id,
        email=record.email.address,
        email_key=record.email.key,
        password_hash=record.password_hash,
        created_at=created_at,
        activated_at=record.activated_at or created_at,
        updated_at=now,
        username=record.username,
        locale=record.locale,
        role=record.role,
        disabled_at=(record.disabled_at or now) if record.disabled else None,
    )


def _overwritten(record: Record, owner: User, now: datetime) -> User:
    disabled_at = owner.disabled_at
    if not record.given.isdisjoint(("disabled", "disabled_at")):
        disabled_at = (record.disabled_at or owner.disabled_at or now) if record.disabled else None
    return replace(
        owner,
        password_hash=record.password_hash,
        locale=record.locale if "locale" in record.given else owner.locale,
        role=record.role if "role" in record.given else owner.role,
        disabled_at=disabled_at,
    )


def _alike(record: Record, owner: User) -> bool:
    """Tell whether what no update touches is as the line says; the spelling of an address does not matter."""
    return (
        ("username" not in record.given or record.username == owner.username)
        and record.created_at in {None, owner.created_at}
        and record.activated_at in {None, owner.activated_at}
    )


def resigns(owner: User | None, outcome: Outcome) -> bool:
    """Tell whether a line takes an administrator away."""
    return owner is not None and administers(owner) and isinstance(outcome, Updated) and not administers(outcome.user)


def administers(user: User) -> bool:
    """Tell whether this is an administrator who is not disabled."""
    return user.role is Role.ADMIN and user.disabled_at is None


def effects(outcome: Created | Updated, sessions: int) -> tuple[Effect, ...]:
    """Return what is written down of it; `sessions` is how many ended."""
    user = outcome.user.id
    if isinstance(outcome, Created):
        return (Publish("user.imported", user, data={"change": "created"}),)
    imported = Publish("user.imported", user, data={"change": "updated", "fields": " ".join(outcome.changed)})
    return (imported, *(ended(user, Ending.STAFF, sessions) if sessions else ()))
