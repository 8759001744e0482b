"""The strict decoder and the strict Basic parser: nothing hostile is read, nothing hostile is a 5xx."""

import base64
import json
import re
from typing import Any

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from werkzeug.datastructures import Headers

from regsvc.http import wire
from regsvc.http.forms import NOBODY, ActivateForm
from regsvc.http.routes import Route
from regsvc.http.table.profile import PROFILE
from regsvc.http.table.session import SESSION
from regsvc.http.wire import Unreadable
from tests.http.doorstep import EMAIL, PASSWORD, Doorstep, basic
from tests.http.hostile_json import MALFORMED

REGISTER = "/v1/users/register"
ACTIVATE = "/v1/users/activate"
GOOD = {"email": EMAIL, "password": PASSWORD}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
async def test_what_is_not_strict_json_is_malformed(body: bytes) -> None:
    door = Doorstep()
    answer = await door.ask("POST", REGISTER, raw=body, headers={"Content-Type": "application/json"})
    answer.problem(400, "MalformedRequest")
    assert door.shelf.calls == 0


READABLE: dict[str, tuple[bytes, object]] = {
    "empty": (b"{}", {}),
    "32 levels": (b'{"a":' * 32 + b"1" + b"}" * 32, None),
    "100 brackets in a string": (b'{"a":"' + b"[" * 100 + b'"}', {"a": "[" * 100}),
    "100 brackets behind an escaped quote": (b'{"a":"\\"' + b"[" * 100 + b'"}', {"a": '"' + "[" * 100}),
    "100 shallow arrays": (b'{"a":[' + b"[]," * 99 + b"[]]}", {"a": [[]] * 100}),
    "a pair of surrogates": (b'{"a":"\\ud83d\\ude00"}', {"a": "😀"}),
    "the same key in two objects": (b'{"a":{"b":1},"c":{"b":2}}', {"a": {"b": 1}, "c": {"b": 2}}),
    "an escaped backslash and u": (b'{"a":"\\\\u0000"}', {"a": "\\u0000"}),
}


@pytest.mark.parametrize(("body", "value"), READABLE.values(), ids=READABLE.keys())
def test_what_is_strict_json_is_read(body: bytes, value: object) -> None:
    assert wire.decode(body) == (json.loads(body) if value is None else value)


@pytest.mark.parametrize(
    "headers",
    [
        [("Content-Type", "text/plain")],
        [("Content-Type", "application/x-www-form-urlencoded")],
        [("Content-Type", "application/json; charset=latin-1")],
        [("Content-Type", "application/jsonp")],
        [("Content-Type", "")],
        [("Content-Type", "application/json"), ("Content-Type", "text/plain")],
        [("Content-Type", "application/json"), ("Content-Encoding", "gzip")],
    ],
)
async def test_other_media_types_are_refused(headers: list[tuple[str, str]]) -> None:
    answer = await Doorstep().ask("POST", REGISTER, raw=json.dumps(GOOD).encode(), headers=headers)
    answer.problem(415, "UnsupportedMediaType")


@pytest.mark.parametrize(
    "media_type", ["application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"', "application/json; v=1"]
)
async def test_json_is_taken_however_its_type_is_spelt(media_type: str) -> None:
    answer = await Doorstep().ask("POST", REGISTER, GOOD, headers={"Content-Type": media_type})
    assert answer.status == 201


async def test_a_body_over_16_kib_is_refused() -> None:
    fits = json.dumps({**GOOD, "x": ""}).encode()
    door = Doorstep()
    room = b" " * (16 * 1024 - len(fits))
    (await door.ask("POST", REGISTER, raw=fits + room)).problem(422, "ValidationError")
    (await door.ask("POST", REGISTER, raw=fits + room + b" ")).problem(413, "PayloadTooLarge")


# ------------------------------------------------------------------------------------------------- fields

FIELDS: list[tuple[dict[str, Any], str, dict[str, str]]] = [
    ({}, "ValidationError", {"email": "missing", "password": "missing"}),
    ({"email": EMAIL}, "ValidationError", {"password": "missing"}),
    ({"password": PASSWORD}, "ValidationError", {"email": "missing"}),
    ({**GOOD, "email": True}, "ValidationError", {"email": "not_a_string"}),
    ({**GOOD, "email": None}, "ValidationError", {"email": "not_a_string"}),
    ({**GOOD, "password": 12345678}, "ValidationError", {"password": "not_a_string"}),
    ({**GOOD, "password": ["correct horse"]}, "ValidationError", {"password": "not_a_string"}),
    ({**GOOD, "password": "tab\tis no good"}, "ValidationError", {"password": "control_character"}),
    ({**GOOD, "email": "alice"}, "InvalidEmail", {"email": "invalid_email"}),
    ({**GOOD, "email": ""}, "InvalidEmail", {"email": "invalid_email"}),
    ({**GOOD, "email": "a" * 300 + "@example.com"}, "InvalidEmail", {"email": "too_long"}),
    ({**GOOD, "password": "short"}, "WeakPassword", {"password": "too_short"}),
    ({**GOOD, "password": "x" * 129}, "WeakPassword", {"password": "too_long"}),
    ({**GOOD, "password": "Password"}, "WeakPassword", {"password": "common"}),
    ({**GOOD, "password": "Alice@Example.com"}, "WeakPassword", {"password": "context"}),
    ({**GOOD, "username": "alice_in_wl", "password": "Alice_In_WL"}, "WeakPassword", {"password": "context"}),
    ({"email": "alice", "password": "short"}, "ValidationError", {"email": "invalid_email", "password": "too_short"}),
    ({**GOOD, "username": "a b"}, "ValidationError", {"username": "invalid_username"}),
    ({**GOOD, "username": 1.5}, "ValidationError", {"username": "not_a_string"}),
    ({**GOOD, "locale": "../etc"}, "ValidationError", {"locale": "invalid_locale"}),
    ({**GOOD, "full_name": "A"}, "ValidationError", {"full_name": "unknown_field"}),
    ({**GOOD, "a\u202e\n" + "b" * 99: 1}, "ValidationError", {"a��" + "b" * 61: "unknown_field"}),
    ({"email": "", "a": 1}, "ValidationError", {"email": "invalid_email", "password": "missing", "a": "unknown_field"}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "name", "faults"), FIELDS)
async def test_every_fault_is_named_at_once(body: dict[str, Any], name: str, faults: dict[str, str]) -> None:
    answer = await Doorstep().ask("POST", REGISTER, body)
    found = answer.problem(422, name)
    assert {fault["field"]: fault["code"] for fault in found["errors"]} == faults
    assert all(fault["message"] for fault in found["errors"])
    assert found["detail"] == found["message"]


def test_a_form_is_not_read_without_its_rules() -> None:
    with pytest.raises(TypeError, match="rules"):
        ActivateForm.model_validate({"code": "0428"})


async def test_a_thousand_unknown_fields_are_not_all_said_back() -> None:
    answer = await Doorstep().ask("POST", REGISTER, {str(n): n for n in range(1000)})
    assert len(answer.problem(422, "ValidationError")["errors"]) == 20


async def test_no_fault_repeats_a_secret() -> None:
    answer = await Doorstep().ask("POST", REGISTER, {"email": 1, "password": "hunter2", "locale": "hunter2!"})
    assert answer.status == 422
    assert b"hunter2" not in answer.body


CODES: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({}, {"code": "missing"}),
    ({"code": None}, {"code": "not_a_string"}),
    ({"code": 428}, {"code": "not_a_string"}),
    ({"code": True}, {"code": "not_a_string"}),
    ({"code": "42"}, {"code": "invalid_code"}),
    ({"code": "04281"}, {"code": "invalid_code"}),
    ({"activation_code": "abcd"}, {"activation_code": "invalid_code"}),
    ({"code": "0428", "activation_code": "0429"}, {"activation_code": "contradiction"}),
]


@pytest.mark.parametrize(("body", "faults"), CODES)
async def test_what_is_no_code_is_named(body: dict[str, Any], faults: dict[str, str]) -> None:
    answer = await Doorstep().ask("POST", ACTIVATE, body, who=f"{EMAIL}:{PASSWORD}")
    found = answer.problem(422, "ValidationError")
    assert {fault["field"]: fault["code"] for fault in found["errors"]} == faults


@pytest.mark.parametrize("wait", ["-1", "1.5", "61", "a", "", "%D9%A3", "1e1", "99999999999999999999"])
async def test_a_wait_is_a_small_whole_number(wait: str) -> None:
    answer = await Doorstep().ask("GET", f"/v1/users/registration?wait={wait}", who=f"{EMAIL}:{PASSWORD}")
    assert answer.problem(422, "ValidationError")["errors"][0]["field"] == "wait"


# ------------------------------------------------------------------------------------------------- anything

HOSTILE_TEXT = st.one_of(
    st.text(),
    st.text(st.characters()),  # surrogates too
    st.sampled_from(
        ["\0", "\ud800", "İ", "a@b", "@", "x" * 9000, "a@" + "b." * 120 + "c", "ß@ß.de", '"a b"@c.d', "a@[1]"]
    ),
    st.emails(),
)
HOSTILE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), HOSTILE_TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(HOSTILE_TEXT, inner, max_size=4)),
    max_leaves=20,
)
NAMES = st.one_of(st.sampled_from(["email", "password", "username", "locale", "code", "activation_code"]), HOSTILE_TEXT)
BODIES = st.one_of(
    st.dictionaries(NAMES, st.one_of(HOSTILE, HOSTILE_TEXT), max_size=8).map(lambda value: json.dumps(value).encode()),
    HOSTILE.map(lambda value: json.dumps(value).encode()),
    HOSTILE.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")),
    st.binary(max_size=200),
    st.tuples(st.binary(max_size=40), st.integers(0, 4)).map(lambda two: b'{"email":"' + two[0] + b'"}' * two[1]),
    st.sampled_from(list(MALFORMED.values())),
)


@pytest.mark.timeout(900)  # the large form
def test_no_body_is_a_5xx(rounds: int | None) -> None:
    """Small here; `--rounds 5000` is the large form."""
    door = Doorstep()

    @settings(max_examples=rounds or 200, deadline=None)
    @given(body=BODIES, path=st.sampled_from([REGISTER, ACTIVATE, "/api/v1/users/resend-code"]))
    @example(body=b'{"email":"a@b.c","password":"' + b"\\ud83d\\ude00" * 8 + b'"}', path=REGISTER)
    def hostile(body: bytes, path: str) -> None:
        who = None if path == REGISTER else f"{EMAIL}:{PASSWORD}"

        async def ask() -> None:
            answer = await door.ask("POST", path, raw=body, headers={"Content-Type": "application/json"}, who=who)
            assert answer.status in {201, 400, 401, 409, 413, 422}, answer.body
            if answer.status >= 400:
                assert answer.json["instance"] == answer.headers["X-Request-ID"]

        trio.run(ask)

    hostile()


TEXTS = st.one_of(
    HOSTILE_TEXT,
    st.from_regex(r"[A-Za-z0-9_-]{43}", fullmatch=True),
    st.from_regex(r"[0-9 -]{6,8}", fullmatch=True),
    st.sampled_from([EMAIL, PASSWORD, "bob@example.com", "alice"]),
)
ABSENT: Any = object()
VALUES = st.one_of(st.just(ABSENT), TEXTS, HOSTILE)
FORMS = [route for route in (*SESSION, *PROFILE) if route.body is not None]
NAMED = {route.name: route for route in FORMS}


@pytest.mark.timeout(900)  # the large form
def test_no_form_of_people_is_a_5xx(rounds: int | None) -> None:
    """Fields of the right names with anything in them, for somebody and for nobody."""
    door = Doorstep()
    door.member("bob@example.com")
    door.member()
    known = trio.run(door.login)["access_token"]
    seen = set[int]()
    shown = st.one_of(st.none(), st.just(f"Bearer {known}"), TEXTS.map(lambda text: f"Bearer {text}"), TEXTS)

    @settings(max_examples=rounds or 200, deadline=None)
    @given(route=st.sampled_from(FORMS), values=st.lists(VALUES, max_size=4), line=shown)
    @example(route=NAMED["login"], values=[EMAIL, ABSENT, PASSWORD], line=None)
    @example(route=NAMED["login"], values=[ABSENT, "nobody", PASSWORD], line=None)
    @example(route=NAMED["reset_password"], values=["x" * 43, PASSWORD], line=None)
    @example(route=NAMED["confirm_email"], values=["000000"], line=f"Bearer {known}")
    def hostile(route: Route, values: list[object], line: str | None) -> None:
        assert route.body is not None
        names = [*route.body.model_fields, "extra"]  # which is sent where there are more values than fields
        sent = {name: value for name, value in zip(names, values, strict=False) if value is not ABSENT}
        raw = json.dumps(sent).encode()
        headers = [] if line is None else [("Authorization", re.sub(r"[^\t\x20-\x7e\x80-\xff]", "", line))]

        async def ask() -> None:
            answer = await door.ask(route.method, route.path, raw=raw, headers=headers)
            assert answer.status == route.success.status or answer.status in {kind.status for kind in route.problems}
            seen.add(answer.status)
            if answer.status >= 400:
                assert answer.json["instance"] == answer.headers["X-Request-ID"]

        trio.run(ask)

    hostile()
    assert {200, 400, 401, 410, 422} <= seen, "more than the fields is looked at"


# ------------------------------------------------------------------------------------------------- Basic


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


BASIC: list[tuple[list[str], tuple[str, str] | None]] = [
    # what is exactly it: (address or "" for nobody, password)
    ([basic("alice@example.com:secret")], ("alice@example.com", "secret")),
    (["basic " + _b64(b"alice@example.com:secret")], ("alice@example.com", "secret")),
    (["BASIC " + _b64(b"alice@example.com:secret")], ("alice@example.com", "secret")),
    (["Basic   " + _b64(b"alice@example.com:secret") + "  "], ("alice@example.com", "secret")),
    ([basic("Alice@EXAMPLE.com:secret")], ("alice@example.com", "secret")),
    ([basic("alice@example.com:with:colons:")], ("alice@example.com", "with:colons:")),
    ([basic("alice@example.com:")], ("alice@example.com", "")),
    ([basic("alice@example.com:ünïcödé 😀")], ("alice@example.com", "ünïcödé 😀")),
    ([basic(" alice@example.com :secret ")], ("alice@example.com", "secret ")),
    ([basic("ünï@exämple.com:secret")], ("ünï@xn--exmple-cua.com", "secret")),
    # well-formed, but nobody's address: the same work and the same answer as an unknown one
    ([basic("alice:secret")], ("", "secret")),
    ([basic(":secret")], ("", "secret")),
    ([basic(":")], ("", "")),
    ([basic("alice@:secret")], ("", "secret")),
    ([basic("a" * 300 + "@example.com:secret")], ("", "secret")),
    ([basic("alice@example..com:secret")], ("", "secret")),
    # everything else
    ([], None),
    ([""], None),
    (["Basic"], None),
    (["Basic "], None),
    (["Basic\t" + _b64(b"alice@example.com:secret")], None),
    (["Bearer " + _b64(b"alice@example.com:secret")], None),
    (["Digest username=alice"], None),
    (["BasicX " + _b64(b"alice@example.com:secret")], None),
    ([_b64(b"alice@example.com:secret")], None),
    (["Basic alice@example.com:secret"], None),
    (["Basic " + _b64(b"alice@example.com")], None),
    (["Basic " + _b64(b"")], None),
    (["Basic " + _b64(b"alice@example.com:secret").rstrip("=")[:-1]], None),
    (["Basic " + _b64(b"alice@example.com:secret")[:10] + " " + _b64(b"alice@example.com:secret")[10:]], None),
    (["Basic " + _b64(b"alice@example.com:secret") + "=="], None),
    (["Basic " + _b64(b"alice@example.com:secret") + "é"], None),
    (["Basic " + base64.urlsafe_b64encode("alice@example.com:????>>>>ÿÿ".encode()).decode()], None),
    (["Basic " + _b64(b"alice@example.com:\xff\xfe")], None),
    (["Basic " + _b64("alice@example.com:ü".encode("latin-1"))], None),
    (["Basic " + _b64(b"alice@example.com:nul\x00")], None),
    (["Basic " + _b64(b"alice@example.com\x00:secret")], None),
    (["Basic " + _b64(b"alice@example.com:line\r\nbreak")], None),
    (["Basic " + _b64(b"alice@example.com:\x7f")], None),
    (["Basic " + _b64(b"alice@example.com:\xed\xa0\x80")], None),
    ([basic("alice@example.com:secret"), basic("alice@example.com:secret")], None),
    ([basic("alice@example.com:secret"), "Bearer x"], None),
    ([basic("alice@example.com:secret") + ", " + basic("bob@example.com:secret")], None),
]


@pytest.mark.parametrize(("lines", "read"), BASIC)
def test_basic_is_read_strictly(lines: list[str], read: tuple[str, str] | None) -> None:
    headers = Headers([("Authorization", line) for line in lines])
    if read is None:
        with pytest.raises(Unreadable):
            wire.credentials(headers)
        return
    who = wire.credentials(headers)
    assert (who.email.key, who.password.reveal()) == read
    assert (who.email == NOBODY) == (read[0] == "")


async def test_every_wrong_basic_gets_the_same_401() -> None:
    door = Doorstep()
    await door.register()
    answers = [
        await door.ask("POST", ACTIVATE, {"code": "0428"}, headers=[("Authorization", line) for line in lines])
        for lines, _ in BASIC
        if all(line.isascii() for line in lines)
    ]
    assert len(answers) >= 40
    shown = set()
    for answer in answers:
        found = answer.problem(401, "InvalidCredentials")
        assert answer.headers["WWW-Authenticate"] == 'Basic realm="regsvc", charset="UTF-8"'
        assert found.pop("instance")
        shown.add(json.dumps(found))
    assert len(shown) == 1


async def test_nobody_costs_a_hash_like_somebody() -> None:
    door = Doorstep()
    await door.ask("POST", ACTIVATE, {"code": "0428"}, who="no address:secret")
    await door.ask("POST", ACTIVATE, {"code": "0428"}, who="unknown@example.com:secret")
    assert door.hashing.checked == [0, 0]
    assert not door.shelf.addresses
