"""A line of NDJSON: what it says, what becomes of it, and that an account that was written reads back as itself."""

import json
import string
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regsvc.domain import transfer
from regsvc.domain.account import NO_PASSWORD
from regsvc.domain.delivery import Publish
from regsvc.domain.session import Role, User
from regsvc.domain.transfer import (
    KEYS,
    LINE_MAX,
    Created,
    Fault,
    Record,
    Seen,
    Standing,
    Unchanged,
    Updated,
    effects,
    read,
    settle,
    written,
)
from regsvc.domain.values import Email, EmailKey, Flaw, Locale, Username

NOW = datetime(2026, 11, 20, 11, tzinfo=UTC)
THEN = datetime(2020, 2, 29, 12, 30, 0, 123456, tzinfo=UTC)
NEW, OLD = UUID(int=7), UUID(int=3)


def hash_flaw(stored: str) -> Flaw | None:
    """Take what begins with a dollar."""
    return None if stored.startswith("$") else Flaw("unknown_hash", "This is no hash that is taken.")


def line(**told: object) -> bytes:
    return json.dumps({"email": "Ada@Example.org", "password_hash": "$hash", **told}).encode()


def good(**told: object) -> Record:
    found = read(line(**told), hash_flaw)
    assert isinstance(found, Record), found
    return found


def faults(octets: bytes) -> Sequence[Fault]:
    found = read(octets, hash_flaw)
    assert not isinstance(found, Record)
    return found


def codes(octets: bytes) -> list[tuple[str | None, str]]:
    return [(fault.field, fault.code) for fault in faults(octets)]


def email(text: str = "Ada@Example.org") -> Email:
    found = Email.parse(text)
    assert isinstance(found, Email)
    return found


def test_a_line_says_all_that_there_is_to_an_account() -> None:
    record = good(
        username="Ada_L",
        locale="de-AT",
        id="0192F6C8-4b7e-7c3a-9a53-1d0f2c9e8b11",
        role="admin",
        disabled=True,
        disabled_at="2024-02-29T12:30:00+02:00",
        created_at="2020-02-29T12:30:00.123456Z",
        activated_at="2020-02-29 12:30:00.123456789+00",
    )
    assert record == Record(
        email=Email("Ada@Example.org", EmailKey("ada@example.org")),
        password_hash="$hash",
        given=frozenset(KEYS),
        username=Username("Ada_L", "ada_l"),
        locale=Locale("de-AT"),
        id=UUID("0192f6c8-4b7e-7c3a-9a53-1d0f2c9e8b11"),
        role=Role.ADMIN,
        disabled=True,
        disabled_at=datetime(2024, 2, 29, 10, 30, tzinfo=UTC),
        created_at=THEN,
        activated_at=THEN,
    )
    assert "hash" not in repr(record).replace("password_hash", "")


def test_a_short_line_is_enough() -> None:
    assert good() == Record(email(), "$hash", frozenset({"email", "password_hash"}))
    nulls = good(username=None, locale=None, id=None, disabled_at=None, created_at=None, activated_at=None)
    assert nulls.given == {"email", "password_hash", "username", "locale", "disabled_at"}


@pytest.mark.parametrize("none", [None, NO_PASSWORD])
def test_an_account_may_have_no_password(none: str | None) -> None:
    assert good(password_hash=none).password_hash == NO_PASSWORD


@pytest.mark.parametrize(("told", "disabled"), [({"disabled": True}, True), ({"disabled": False}, False), ({}, False)])
def test_disabling_needs_no_time(told: dict[str, bool], disabled: bool) -> None:  # noqa: FBT001 - a case
    assert good(**told).disabled is disabled
    assert good(**told, disabled_at=None).disabled is disabled


@pytest.mark.parametrize(
    ("octets", "field", "code"),
    [
        (b"", None, "invalid_json"),
        (b"\xff{}", None, "invalid_utf8"),
        (b"ada@example.org", None, "invalid_json"),
        (b'["ada@example.org"]', None, "not_an_object"),
        (b"null", None, "not_an_object"),
        (b'{"email":"a@b.co","email":"c@d.co","password_hash":null}', None, "invalid_json"),
        (line(created_at=float("nan")), None, "invalid_json"),
        (b'{"email":"a@b.co","password_hash":-Infinity}', None, "invalid_json"),
        (b'{"email":"a@b.co","password_hash":null}{}', None, "invalid_json"),
        (b'{"email":"a\x00@b.co","password_hash":null}', None, "invalid_json"),
        (b"[" * LINE_MAX, None, "invalid_json"),
        (b"9" * LINE_MAX, None, "invalid_json"),
        (line(locale="x" * LINE_MAX), None, "too_long"),
        (line(email="ada"), "email", "invalid_email"),
        (line(email="a\0@b.co"), "email", "invalid_email"),
        (line(email="a\ud800@b.co"), "email", "invalid_email"),
        (line(email=17), "email", "not_a_string"),
        (line(email=None), "email", "not_a_string"),
        (line(password_hash="plain"), "password_hash", "unknown_hash"),
        (line(password_hash=["$"]), "password_hash", "not_a_string"),
        (line(username="a b"), "username", "invalid_username"),
        (line(username="ada\0"), "username", "invalid_username"),
        (line(username=1), "username", "not_a_string"),
        (line(locale="en_US"), "locale", "invalid_locale"),
        (line(locale=True), "locale", "not_a_string"),
        (line(id="0192f6c84b7e7c3a9a531d0f2c9e8b11"), "id", "invalid_id"),
        (line(id="{0192f6c8-4b7e-7c3a-9a53-1d0f2c9e8b11}"), "id", "invalid_id"),
        (line(id=7), "id", "invalid_id"),
        (line(role="root"), "role", "invalid_role"),
        (line(role=None), "role", "invalid_role"),
        (line(role=["user"]), "role", "invalid_role"),
        (line(disabled=1), "disabled", "not_a_boolean"),
        (line(disabled=None), "disabled", "not_a_boolean"),
        (line(disabled=False, disabled_at="2024-02-29T12:30:00Z"), "disabled", "contradiction"),
        (line(created_at="2024-02-30T12:30:00Z"), "created_at", "invalid_time"),
        (line(created_at="2024-02-29T12:30:00"), "created_at", "invalid_time"),
        (line(created_at="2024-02-29"), "created_at", "invalid_time"),
        (line(created_at="0001-01-01T00:00:00+14:00"), "created_at", "invalid_time"),
        (line(created_at=1700000000), "created_at", "invalid_time"),
        (line(activated_at="２024-02-29T12:30:00Z"), "activated_at", "invalid_time"),
    ],
)
def test_a_flaw_is_told_with_the_key_that_has_it(octets: bytes, field: str | None, code: str) -> None:
    [fault] = faults(octets)
    assert (fault.field, fault.code) == (field, code)
    assert fault.message.isprintable()


def test_all_faults_of_a_line_are_told_at_once() -> None:
    octets = json.dumps({"email": "ada", "username": "a", "rolle": "user"}).encode()
    assert codes(octets) == [
        ("email", "invalid_email"),
        ("username", "invalid_username"),
        ("rolle", "unknown_key"),
        ("password_hash", "missing"),
    ]


def test_a_mistyped_key_is_told_with_the_one_that_was_meant() -> None:
    assert [fault.message for fault in faults(line(user_name="ada"))] == [
        "user_name is no key of an account: did you mean username?"
    ]
    [strange] = faults(line(zzz=1))
    assert strange.message.startswith("zzz is no key of an account: there are ")


@pytest.mark.parametrize("key", ["$2b$12$" + "a" * 53, "d41d8cd98f00b204e9800998ecf8427e", "\ud800", "a\nb", ""])
def test_what_may_be_a_hash_is_not_repeated_as_a_key(key: str) -> None:
    [fault] = faults(line(**{key: ""}))
    assert (fault.field, fault.code) == (None, "unknown_key")
    assert not key or key not in fault.message


_JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_TOLD: Any = st.fixed_dictionaries({}, optional=dict.fromkeys((*KEYS, "rolle"), _JSONS))


@given(st.binary(max_size=80) | _TOLD.map(lambda told: json.dumps(told).encode()))
def test_any_octets_are_a_record_or_faults(octets: bytes) -> None:
    found = read(octets, hash_flaw)
    assert isinstance(found, Record) or (found and all(isinstance(fault, Fault) for fault in found))


@given(st.text(string.printable, min_size=12, max_size=200))
def test_no_fault_repeats_what_was_given_as_the_hash(secret: str) -> None:
    octets = json.dumps({"email": "ada", "password_hash": secret, "zzz": 1}).encode()
    assert all(secret.strip() not in fault.message for fault in faults(octets) if secret.strip())


_MOMENTS = st.datetimes(
    datetime(1970, 1, 2),  # noqa: DTZ001 - hypothesis adds the zone
    datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=-7, minutes=-30)), timezone(timedelta(hours=14))]),
)
_USERS = st.builds(
    lambda user, address: replace(user, email=address.address, email_key=address.key),
    st.builds(
        User,
        id=st.uuids(),
        email=st.just(""),
        email_key=st.just(EmailKey("")),
        password_hash=st.sampled_from(["$hash", NO_PASSWORD]),
        created_at=_MOMENTS,
        activated_at=_MOMENTS,
        updated_at=st.just(NOW),
        username=st.none() | st.sampled_from(["Ada_L", "ＢＯＢ", "x.y-z"]).map(Username.parse),
        locale=st.none() | st.just(Locale("de-AT")),
        role=st.sampled_from(Role),
        disabled_at=st.none() | _MOMENTS,
    ),
    st.sampled_from(["Ada@Example.org", "Ünï@exämple.de", "\u0149@x.org", "o'h+t@b.co"]).map(email),
)


@given(_USERS)
def test_an_account_that_was_written_reads_back_as_itself(user: User) -> None:
    octets = written(user)
    assert octets.endswith(b"}\n")
    assert octets.count(b"\n") == 1
    record = read(octets.rstrip(), hash_flaw)
    assert isinstance(record, Record)
    assert settle(record, Standing(), NEW, NOW, update=False) == Created(user)
    assert settle(record, Standing(user), NEW, NOW, update=False) == Unchanged()
    assert settle(record, Standing(user), NEW, NOW, update=True) == Unchanged()


def test_the_first_of_two_lines_wins() -> None:
    seen = Seen()
    assert seen.before(good(username="ada", id=str(OLD)), 1) is None
    bob = good(email="bob@x.org")
    assert seen.before(bob, 4) is None
    again = [good(email="ADA@example.org"), replace(bob, email=email("c@x.org"), username=Username("ADA", "ada"))]
    again.append(replace(bob, email=email("d@x.org"), id=OLD))
    found = [seen.before(record, 9) for record in again]
    assert [(one.field, one.code) for one in found if one] == [
        ("email", "duplicate"),
        ("username", "duplicate"),
        ("id", "duplicate"),
    ]
    assert all(one is not None and "line 1." in one.message for one in found)
    assert seen.before(good(email="c@x.org"), 10) is None, "a line that is refused keeps nobody out"


# ------------------------------------------------------------------------------------------------------------- settle

OWNER = User(
    id=OLD,
    email="ada@example.org",
    email_key=EmailKey("ada@example.org"),
    password_hash="$old",
    created_at=THEN,
    activated_at=THEN + timedelta(minutes=1),
    updated_at=THEN,
    username=Username("ada", "ada"),
    locale=Locale("en"),
    role=Role.ADMIN,
    disabled_at=THEN,
)


def settled(record: Record, standing: Standing = Standing(), *, update: bool = False) -> transfer.Outcome:  # noqa: B008
    return settle(record, standing, NEW, NOW, update=update)


def test_what_a_new_account_is_not_told_is_made_up() -> None:
    outcome = settled(good())
    assert outcome == Created(User(NEW, "Ada@Example.org", EmailKey("ada@example.org"), "$hash", NOW, NOW, NOW))
    for told in ({"created_at": "2020-02-29T12:30:00.123456Z"}, {"activated_at": "2020-02-29T12:30:00.123456Z"}):
        outcome = settled(good(**told, disabled=True))
        assert isinstance(outcome, Created)
        user = outcome.user
        assert (user.created_at, user.activated_at, user.updated_at, user.disabled_at) == (THEN, THEN, NOW, NOW)


@pytest.mark.parametrize(
    ("standing", "field"), [(Standing(id_taken=True), "id"), (Standing(username_taken=True), "username")]
)
def test_what_somebody_else_has_is_refused(standing: Standing, field: str) -> None:
    for update in (False, True):
        outcome = settled(good(), standing, update=update)
        assert isinstance(outcome, Fault)
        assert (outcome.field, outcome.code) == (field, "exists")


ALIKE: dict[str, Any] = {"password_hash": "$old"}


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"username": "ada", "locale": "en", "role": "admin", "id": str(OLD), "disabled": True},
        {"disabled_at": "2020-02-29T12:30:00.123456Z", "created_at": "2020-02-29T12:30:00.123456Z"},
    ],
)
def test_an_account_that_is_as_its_line_says_is_left_alone(told: dict[str, Any]) -> None:
    record = good(**ALIKE, **told)
    assert settled(record, Standing(OWNER, username_taken=True)) == Unchanged()
    assert settled(record, Standing(OWNER, username_taken=True), update=True) == Unchanged()


@pytest.mark.parametrize(
    ("told", "changed"),
    [
        ({"password_hash": "$new"}, {"password_hash": "$new"}),
        ({"password_hash": None}, {"password_hash": NO_PASSWORD}),
        ({"locale": None}, {"locale": None}),
        ({"role": "user", "locale": "fr"}, {"locale": Locale("fr"), "role": Role.USER}),
        ({"disabled": False}, {"disabled_at": None}),
        ({"disabled_at": None}, {"disabled_at": None}),
        ({"disabled_at": "2024-02-29T12:30:00Z"}, {"disabled_at": datetime(2024, 2, 29, 12, 30, tzinfo=UTC)}),
    ],
)
def test_an_account_that_differs_is_refused_or_overwritten(told: dict[str, Any], changed: dict[str, Any]) -> None:
    record = good(**{**ALIKE, **told})
    refused = settled(record, Standing(OWNER))
    assert isinstance(refused, Fault)
    assert (refused.field, refused.code) == ("email", "exists")
    outcome = settled(record, Standing(OWNER), update=True)
    assert outcome == Updated(replace(OWNER, updated_at=NOW, **changed), tuple(changed))


def test_disabling_somebody_without_a_time_is_disabling_now() -> None:
    active = replace(OWNER, disabled_at=None)
    outcome = settled(good(**ALIKE, disabled=True), Standing(active), update=True)
    assert outcome == Updated(replace(active, disabled_at=NOW, updated_at=NOW), ("disabled_at",))


@pytest.mark.parametrize(
    "told",
    [
        {"username": "bob"},
        {"username": None},
        {"created_at": "2024-02-29T12:30:00Z"},
        {"activated_at": "2024-02-29T12:30:00Z"},
    ],
)
def test_what_no_update_touches_makes_a_difference_without_one(told: dict[str, Any]) -> None:
    record = good(**ALIKE, **told)
    assert isinstance(settled(record, Standing(OWNER)), Fault)
    assert settled(record, Standing(OWNER), update=True) == Unchanged()


def test_an_account_never_gets_another_id() -> None:
    for update in (False, True):
        outcome = settled(good(**ALIKE, id=str(NEW)), Standing(OWNER), update=update)
        assert isinstance(outcome, Fault)
        assert outcome.field == "id"


def test_every_import_is_written_down() -> None:
    assert effects(Created(OWNER), 0) == (Publish("user.imported", OLD, data={"change": "created"}),)
    updated = Updated(OWNER, ("password_hash", "role"))
    told = Publish("user.imported", OLD, data={"change": "updated", "fields": "password_hash role"})
    assert effects(updated, 0) == (told,)
    [first, ended] = effects(updated, 3)
    assert first == told
    assert isinstance(ended, Publish)
    assert ended.data["sessions"] == "3"
