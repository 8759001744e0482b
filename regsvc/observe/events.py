"""The closed list of what the log can say: each event with its level, its fields, and what it means.

To add one, add its name and its line here, a field that is new to `fields.py`, and run

    python -m tests.house.promises

which writes what is published of it. Within a version of an event no field is removed, renamed or retyped, nor missing
where it was always there; fields, events and words of an enum are added without a new version.
"""

import re
from typing import Final, Literal, get_args

from regsvc.observe.fields import ALWAYS, COMMON, OWN, Field

Level = Literal["debug", "info", "warning", "error"]

Event = Literal[
    "activation_refused",
    "activation_succeeded",
    "actor_crashed",
    "actor_restarted",
    "actor_started",
    "actor_stopped",
    "audit_partitions",
    "code_guessing_suspected",
    "code_minted",
    "connection_contained",
    "connection_cut",
    "database_recovered",
    "database_unavailable",
    "drain_completed",
    "drain_started",
    "email_change_asked",
    "email_changed",
    "embedded_database_started",
    "hash_queue_full",
    "hashing_chosen",
    "http_bug",
    "http_request",
    "idempotency_replayed",
    "letter_asked",
    "library_message",
    "listener_lost",
    "listener_restored",
    "log_lines_dropped",
    "login_refused",
    "login_succeeded",
    "mail_channel_down",
    "mail_channel_up",
    "mail_dead",
    "mail_deferred",
    "mail_dropped",
    "mail_failed",
    "mail_sent",
    "migration_applied",
    "outbox_reclaimed",
    "password_changed",
    "password_reset",
    "password_upgraded",
    "process_failed",
    "profile_changed",
    "profile_refused",
    "rate_limit_store_down",
    "rate_limit_store_up",
    "rate_limited",
    "refresh_refused",
    "refresh_reuse_detected",
    "registration_created",
    "registration_refused",
    "reload_completed",
    "reload_failed",
    "reload_started",
    "request_overdue",
    "request_unreadable",
    "resend_accepted",
    "resend_refused",
    "reset_refused",
    "service_started",
    "service_stopped",
    "session_ended",
    "session_refreshed",
    "settings_warning",
    "signing_key_made",
    "signing_key_unreadable",
    "signing_keys_loaded",
    "spans_dropped",
    "staff_acted",
    "staff_refused",
    "sweep_done",
    "trace_collector_down",
    "trace_collector_up",
    "user_deleted",
    "worker_exited",
    "worker_restarted",
    "worker_started",
    "worker_stopped",
]

_BUG: Final = "error reason traceback"
_MAIL: Final = "mail_id subject_id letter attempts"

# The level, the fields (those with `?` may be missing), the meaning.
_TABLE: Final[dict[Event, tuple[Level, str, str]]] = {
    # People
    "registration_created": ("info", "registration_id address", "Somebody registered."),
    "registration_refused": ("info", "refusal address", "A registration was refused."),
    "activation_succeeded": ("info", "user_id address", "An account was activated."),
    "activation_refused": ("info", "refusal address", "An activation was refused."),
    "resend_accepted": ("info", "registration_id address", "A pending registration is mailed again."),
    "resend_refused": ("info", "refusal address", "A pending registration is not mailed again."),
    # Sessions and profiles
    "login_succeeded": ("info", "user_id session_id address proof", "Somebody logged in."),
    "login_refused": ("info", "refusal address?", "A login was refused; without an address it was by username."),
    "session_refreshed": ("debug", "user_id session_id repeated", "A session got its next tokens."),
    "refresh_refused": ("info", "refusal", "A refresh token was not good."),
    "refresh_reuse_detected": ("warning", "user_id session_id", "A used refresh token came again: it was copied."),
    "session_ended": ("info", "user_id session_id reason", "A session ended, other than by its time."),
    "password_upgraded": ("info", "user_id", "A password's hash was made anew, as new ones are made."),
    "password_changed": ("info", "user_id", "Somebody who was logged in changed his password."),
    "password_reset": ("info", "user_id", "Somebody set a new password by a mailed token."),
    "reset_refused": ("info", "refusal", "A reset of a password was refused."),
    "letter_asked": ("info", "letter address", "A letter was asked for, and will be mailed."),
    "profile_changed": ("info", "user_id changed", "Somebody changed his profile."),
    "profile_refused": ("info", "user_id refusal", "A change of a profile was refused."),
    "email_change_asked": ("info", "user_id address", "Somebody wants another address; it is mailed a code."),
    "email_changed": ("info", "user_id address", "An account has another address, this one."),
    "user_deleted": ("info", "user_id", "Somebody deleted his account."),
    "signing_key_made": ("info", "kid algorithm", "The first key for access tokens was made."),
    "signing_keys_loaded": ("info", "keys signing?", "Other keys than before are known, or another one signs."),
    "signing_key_unreadable": (
        "error",
        "kid reason",
        "A key cannot be opened: the SECRET it was sealed under is gone.",
    ),
    "staff_acted": ("info", "actor_id action subject_id", "An administrator did something; it is in the audit trail."),
    "staff_refused": ("info", "actor_id action subject_id? refusal", "An administrator was refused something."),
    # Limits
    "rate_limited": ("info", "policy client? retry_after_s untold", "Somebody met a limit."),
    "rate_limit_store_down": ("warning", "store reason", "Limits are not counted: their store is away."),
    "rate_limit_store_up": ("info", "store away_s unseen", "Limits are counted again."),
    "code_guessing_suspected": ("warning", "failures window_s", "More activations fail than by mistakes."),
    # Mail
    "code_minted": ("info", _MAIL, "The secret of a letter was made; its life begins."),
    "mail_sent": ("info", f"{_MAIL} accept_ms send_ms", "The relay took a mail."),
    "mail_deferred": ("info", f"{_MAIL} wait_s reason refunded", "A mail was not taken, and will be tried again."),
    "mail_dead": ("warning", f"{_MAIL} reason", "A mail was given up; an operator may retry it."),
    "mail_dropped": ("info", f"{_MAIL} reason", "Nobody waits for this mail any more."),
    "mail_failed": ("error", f"{_MAIL} {_BUG}", "A bug, met when a mail was sent; it will be tried again."),
    "mail_channel_down": ("warning", "reason outages", "The relay is down."),
    "mail_channel_up": ("info", "outages down_s", "The relay is back."),
    "outbox_reclaimed": ("warning", "mails", "A mailer ended with mails in hand; they will be tried again."),
    # Foundations
    "database_unavailable": ("warning", "reason", "The database is away; once per outage and process."),
    "database_recovered": ("info", "away_s", "The database is back."),
    "embedded_database_started": ("info", "data_dir pid took_s", "The embedded PostgreSQL runs."),
    "migration_applied": ("info", "migration name took_ms?", "The database was brought forward."),
    "hash_queue_full": (
        "warning",
        "waiting clients predicted_wait_s retry_after_s refused",
        "A password was not hashed: too many wait; a line a second at most.",
    ),
    "hashing_chosen": ("info", "engine lanes threads reason", "How this worker hashes passwords, and why so."),
    "listener_lost": ("warning", "reason", "Notices of the database do not come; polling goes on."),
    "listener_restored": ("info", "away_s", "Notices of the database come again."),
    "sweep_done": (
        "info",
        "registrations codes addresses mails sessions limits answers events lag_s took_ms",
        "What had its time was deleted.",
    ),
    "audit_partitions": ("info", "made moved dropped", "Months of the audit trail were made or dropped."),
    "trace_collector_down": ("warning", "reason", "Traces are lost: their collector is away; once per outage."),
    "trace_collector_up": ("info", "away_s", "Traces are collected again."),
    "spans_dropped": ("warning", "spans", "Spans were lost: the collector was away, or slower than they were made."),
    # HTTP
    "http_request": (
        "info",
        "method route status duration_ms bytes_in? bytes_out? client? user_id? refusal?",
        "A request was answered: one line each.",
    ),
    "http_bug": ("error", f"method? route? {_BUG}", "A bug, met in a request: it was answered with 500."),
    "idempotency_replayed": ("info", "route status", "A repeated request got the answer of the first one."),
    "request_overdue": ("warning", "method route deadline_s", "A request was given up: it took too long."),
    "request_unreadable": (
        "debug",
        "method? route? status reason",
        "A request could not be read, or went nowhere; without a method it was no HTTP.",
    ),
    "connection_contained": ("warning", _BUG, "An error of a connection was kept from ending the process."),
    "connection_cut": ("debug", "reason", "A connection met a deadline."),
    # Life of the process
    "service_started": (
        "info",
        "urls url workers roles took_s pid",
        "All workers are ready.",
    ),
    "service_stopped": ("info", "exit_status reason", "The service ends, and with what."),
    "worker_started": ("info", "pid", "A worker begins."),
    "worker_stopped": ("info", "pid exit_status reason?", "A worker ended as it was asked to."),
    "worker_exited": (
        "warning",
        "pid? exit_status? reason? asked_for?",
        "A worker ended unasked, or not as it was asked to; without a pid it could not even be started.",
    ),
    "worker_restarted": ("info", "pid restarts wait_s", "A worker that ended will be replaced; `pid` is the old one."),
    "reload_started": ("info", "workers", "The settings were read again; the workers are replaced one by one."),
    "reload_completed": ("info", "replaced took_s", "All workers have the new settings."),
    "reload_failed": (
        "error",
        "reason replaced took_s",
        "New settings cannot be used: workers that were not replaced until then stay as they were.",
    ),
    "process_failed": ("error", _BUG, "A bug ends the process."),
    "drain_started": ("info", "reason in_flight", "A worker was told to stop; it serves on for LAME_DUCK_SECONDS."),
    "drain_completed": (
        "info",
        "in_flight? finished? cut? lost? handed_over? left? took_s?",
        "A worker has finished what it had; what it has no role for is missing.",
    ),
    "actor_started": ("debug", "", "An actor stands."),
    "actor_stopped": ("debug", "", "An actor returned."),
    "actor_crashed": ("error", f"crashes? {_BUG}", "An actor met a bug."),
    "actor_restarted": ("warning", "restarts wait_s", "An actor that crashed was started again."),
    "settings_warning": ("warning", "setting reason", "A setting is not what it seems."),
    # The log itself
    "log_lines_dropped": ("warning", "lines fields", "The log could not be written, or said what it may not."),
    "library_message": ("info", "logger message traceback?", "What a library says, at that record's own level."),
}

VERSIONS: Final[dict[Event, int]] = {}
"""Of the events whose version was raised, which it is now; of all others it is 1."""

LEVELS: Final[dict[Event, Level]] = {event: level for event, (level, _, _) in _TABLE.items()}
"""How loud each event is; `library_message` takes its record's level instead."""

FIELDS: Final[dict[Event, frozenset[str]]] = {
    event: frozenset(names.replace("?", "").split()) for event, (_, names, _) in _TABLE.items()
}
"""Which fields each event may have."""

REQUIRED: Final[dict[Event, tuple[str, ...]]] = {
    event: tuple(name for name in names.split() if not name.endswith("?")) for event, (_, names, _) in _TABLE.items()
}
"""Which of them are on every line of the event."""

MEANINGS: Final[dict[Event, str]] = {event: meaning for event, (_, _, meaning) in _TABLE.items()}

EVENTS: Final[tuple[Event, ...]] = get_args(Event)

FORBIDDEN: Final = re.compile(
    r"passw|secret|token|authori[sz]ation|cookie|credential|api_?key|(^|_)(code|mac)$", re.IGNORECASE
)
"""What no field's name looks like, at any depth: its value would be what a thief wants."""


def ordered(event: Event) -> tuple[str, ...]:
    """Return the fields of an event in the order in which the table has them."""
    return tuple(_TABLE[event][1].replace("?", "").split())


def schema(event: Event) -> dict[str, Field | object]:
    """Return the JSON Schema of the lines of an event.

    It takes fields that it does not know: a later version of the service may have more of them.
    """
    common = {**COMMON, "event": _always("event", event)}
    if event != "library_message":
        common["level"] = _always("level", LEVELS[event])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:regsvc:event:{event}:{VERSIONS.get(event, 1)}",
        "title": event,
        "description": MEANINGS[event],
        "type": "object",
        "properties": common | {name: OWN[name] for name in ordered(event)},
        "required": [*ALWAYS, *REQUIRED[event]],
    }


def _always(name: str, word: str) -> Field:
    return {"type": "string", "const": word, "description": COMMON[name]["description"]}
