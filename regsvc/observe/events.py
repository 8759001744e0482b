"""The closed list of what the log can say: each event with its level and the fields it may have.

A field is never renamed or retyped within a major version. What every line has (`COMMON`) is no event's own field.
"""

import re
from typing import Final, Literal, get_args

Level = Literal["debug", "info", "warning", "error"]

Event = Literal[
    "activation_refused",
    "activation_succeeded",
    "actor_crashed",
    "actor_restarted",
    "actor_started",
    "actor_stopped",
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
    "profile_changed",
    "profile_refused",
    "rate_limit_store_down",
    "rate_limit_store_up",
    "rate_limited",
    "refresh_refused",
    "refresh_reuse_detected",
    "registration_created",
    "registration_refused",
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
    "staff_acted",
    "staff_refused",
    "sweep_done",
    "user_deleted",
    "worker_exited",
    "worker_restarted",
    "worker_started",
]

COMMON: Final = (
    "ts",
    "level",
    "event",
    "service",
    "version",
    "instance",
    "worker",
    "actor",
    "request_id",
    "trace_id",
    "span_id",
)

_BUG: Final = "error reason traceback"

_TABLE: Final[dict[Event, tuple[Level, str]]] = {
    # People
    "registration_created": ("info", "registration_id address"),
    "registration_refused": ("info", "refusal address"),
    "activation_succeeded": ("info", "user_id address"),
    "activation_refused": ("info", "refusal address"),
    "resend_accepted": ("info", "registration_id address"),
    "resend_refused": ("info", "refusal address"),
    # Sessions and profiles
    "login_succeeded": ("info", "user_id session_id address proof"),
    "login_refused": ("info", "refusal address"),
    "session_refreshed": ("debug", "user_id session_id repeated"),
    "refresh_refused": ("info", "refusal"),
    "refresh_reuse_detected": ("warning", "user_id session_id"),
    "session_ended": ("info", "user_id session_id reason"),
    "password_upgraded": ("info", "user_id"),
    "password_changed": ("info", "user_id"),
    "password_reset": ("info", "user_id"),
    "reset_refused": ("info", "refusal"),
    "letter_asked": ("info", "letter address"),
    "profile_changed": ("info", "user_id fields"),
    "profile_refused": ("info", "user_id refusal"),
    "email_change_asked": ("info", "user_id address"),
    "email_changed": ("info", "user_id address"),
    "user_deleted": ("info", "user_id"),
    "signing_key_made": ("info", "kid algorithm"),
    "signing_keys_loaded": ("info", "keys signing"),
    "signing_key_unreadable": ("error", "kid reason"),
    "staff_acted": ("info", "actor_id action subject_id"),
    "staff_refused": ("info", "actor_id action subject_id refusal"),
    # Limits
    "rate_limited": ("info", "policy client retry_after_s untold"),
    "rate_limit_store_down": ("warning", "store reason"),
    "rate_limit_store_up": ("info", "store away_s unseen"),
    "code_guessing_suspected": ("warning", "failures window_s"),
    # Mail
    "code_minted": ("info", "mail_id subject_id letter attempts"),
    "mail_sent": ("info", "mail_id subject_id letter attempts accept_ms send_ms"),
    "mail_deferred": ("info", "mail_id subject_id letter attempts wait_s reason refunded"),
    "mail_dead": ("warning", "mail_id subject_id letter attempts reason"),
    "mail_dropped": ("info", "mail_id subject_id letter attempts reason"),
    "mail_failed": ("error", f"mail_id subject_id letter attempts {_BUG}"),
    "mail_channel_down": ("warning", "reason outages"),
    "mail_channel_up": ("info", "outages down_s"),
    "outbox_reclaimed": ("warning", "mails"),
    # Foundations
    "database_unavailable": ("warning", "reason"),
    "database_recovered": ("info", "away_s"),
    "embedded_database_started": ("info", "data_dir pid port socket_dir took_s"),
    "migration_applied": ("info", "migration name took_ms"),
    "hash_queue_full": ("warning", "waiting clients predicted_wait_s retry_after_s refused"),
    "listener_lost": ("warning", "reason"),
    "listener_restored": ("info", "away_s"),
    "sweep_done": ("info", "registrations codes addresses mails sessions limits answers took_ms"),
    # HTTP
    "http_request": ("info", "method route status duration_ms bytes_in bytes_out client user_id refusal"),
    "http_bug": ("error", f"method route {_BUG}"),
    "idempotency_replayed": ("info", "route status"),
    "request_overdue": ("warning", "method route deadline_s"),
    "request_unreadable": ("debug", "method route status reason"),
    "connection_contained": ("warning", _BUG),
    "connection_cut": ("debug", "reason"),
    # Life of the process
    "service_started": ("info", "addresses url workers roles took_s pid"),
    "service_stopped": ("info", "exit_status reason"),
    "worker_started": ("info", "pid"),
    "worker_exited": ("warning", "pid exit_status reason asked_for"),
    "worker_restarted": ("info", "pid restarts wait_s"),
    "drain_started": ("info", "reason in_flight"),
    "drain_completed": ("info", "in_flight finished cut handed_over left took_s"),
    "actor_started": ("debug", ""),
    "actor_stopped": ("debug", ""),
    "actor_crashed": ("error", f"crashes {_BUG}"),
    "actor_restarted": ("warning", "restarts wait_s"),
    "settings_warning": ("warning", "setting reason"),
    # The log itself
    "log_lines_dropped": ("warning", "lines fields"),
    "library_message": ("info", "logger message traceback"),
}

LEVELS: Final[dict[Event, Level]] = {event: level for event, (level, _) in _TABLE.items()}
"""How loud each event is; `library_message` takes its record's level instead."""

FIELDS: Final[dict[Event, frozenset[str]]] = {event: frozenset(names.split()) for event, (_, names) in _TABLE.items()}
"""Which fields each event may have."""

EVENTS: Final[tuple[Event, ...]] = get_args(Event)

FORBIDDEN: Final = re.compile(
    r"passw|secret|token|authori[sz]ation|cookie|credential|api_?key|(^|_)(code|mac)$", re.IGNORECASE
)
"""What no field's name looks like, at any depth: its value would be what a thief wants."""
