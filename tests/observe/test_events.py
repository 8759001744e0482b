"""The registry: closed, complete, typed, and without a place for a secret."""

from jsonschema import Draft202012Validator

from regsvc.http import kinds
from regsvc.http.framing import METHODS
from regsvc.http.kinds import Kind
from regsvc.observe import COMMON, EVENTS, FIELDS, FORBIDDEN, LEVELS, MEANINGS, OWN, REQUIRED, schema
from regsvc.observe.fields import PROBLEMS


def test_every_event_has_a_level_fields_and_a_meaning() -> None:
    assert set(EVENTS) == LEVELS.keys() == FIELDS.keys() == REQUIRED.keys() == MEANINGS.keys()
    assert list(EVENTS) == sorted(EVENTS)
    assert all(meaning.endswith(".") for meaning in MEANINGS.values())
    assert all(set(REQUIRED[event]) <= FIELDS[event] for event in EVENTS)


def test_no_event_has_a_field_for_a_secret_or_one_that_every_line_has() -> None:
    for fields in FIELDS.values():
        assert not [name for name in fields if FORBIDDEN.search(name)]
        assert not fields & set(COMMON)


def test_every_field_has_one_type_and_a_meaning_and_stands_somewhere() -> None:
    assert OWN.keys() == set().union(*FIELDS.values())
    assert list(OWN) == sorted(OWN)
    for name, field in {**COMMON, **OWN}.items():
        assert field["type"] in {"string", "integer", "number", "boolean", "array"}, name
        assert str(field["description"]).endswith("."), name


def test_every_schema_is_one() -> None:
    for event in EVENTS:
        Draft202012Validator.check_schema(schema(event))


def test_every_problem_that_a_request_may_meet_is_a_word_of_its_line() -> None:
    words = {kind.word for kind in vars(kinds).values() if isinstance(kind, Kind)}
    allowed = OWN["refusal"]["enum"]
    assert isinstance(allowed, list)
    assert words <= set(allowed)
    assert set(PROBLEMS) <= words


def test_every_method_that_the_door_lets_in_is_a_word_of_its_line() -> None:
    assert OWN["method"]["enum"] == sorted(method.decode() for method in METHODS)


def test_names_of_secrets_are_known_and_names_of_other_things_are_not() -> None:
    secret = "password new_password passwd code activation_code mac access_token Authorization cookie api_key apikey"
    harmless = "exit_status codes mailer refusal accept_ms machine decode_ms code_expires_at"
    assert all(FORBIDDEN.search(name) for name in secret.split())
    assert not any(FORBIDDEN.search(name) for name in harmless.split())
