"""The registry: closed, complete, and without a place for a secret."""

from regsvc.observe import COMMON, EVENTS, FIELDS, FORBIDDEN, LEVELS


def test_every_event_has_a_level_and_fields() -> None:
    assert set(EVENTS) == LEVELS.keys() == FIELDS.keys()
    assert list(EVENTS) == sorted(EVENTS)


def test_no_event_has_a_field_for_a_secret_or_one_that_every_line_has() -> None:
    for fields in FIELDS.values():
        assert not [name for name in fields if FORBIDDEN.search(name)]
        assert not fields & set(COMMON)


def test_names_of_secrets_are_known_and_names_of_other_things_are_not() -> None:
    secret = "password new_password passwd code activation_code mac access_token Authorization cookie api_key apikey"
    harmless = "exit_status codes mailer refusal accept_ms machine decode_ms code_expires_at"
    assert all(FORBIDDEN.search(name) for name in secret.split())
    assert not any(FORBIDDEN.search(name) for name in harmless.split())
