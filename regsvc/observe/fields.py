"""What each field of the log is: one name, one type, wherever it stands. Fragments of JSON Schema (draft 2020-12).

A unit is the end of a name (`_s`, `_ms`), and is told in its meaning. Enums list what there is now: a later version of
the service may know more of them, so whoever reads the log passes over a word that he does not know.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from regsvc.domain.delivery import Letter
from regsvc.domain.quota import Limit
from regsvc.domain.refusals import Refusal

Field = Mapping[str, object]

PROBLEMS: Final = (
    "account_disabled",
    "activation_code_expired",
    "code_expired",
    "forbidden",
    "headers_too_large",
    "idempotency_key_in_use",
    "idempotency_key_reused",
    "internal_error",
    "invalid_email",
    "last_admin",
    "malformed_request",
    "method_not_allowed",
    "not_found",
    "overloaded",
    "payload_too_large",
    "rate_limit_exceeded",
    "request_timeout",
    "service_unavailable",
    "unsupported_media_type",
    "validation_error",
)
"""What the front door refuses by itself; each is the word of a kind of problem, and a house test knows them all."""


def _text(meaning: str) -> Field:
    return {"type": "string", "description": meaning}


def _word(meaning: str, pattern: str) -> Field:
    return {"type": "string", "pattern": f"^{pattern}$", "description": meaning}


def _one_of(words: Iterable[str], meaning: str) -> Field:
    return {"type": "string", "enum": sorted(set(words)), "description": meaning}


def _id(meaning: str) -> Field:
    return {"type": "string", "format": "uuid", "description": meaning}


def _list(inner: Field, meaning: str) -> Field:
    return {"type": "array", "items": inner, "description": meaning}


def _flag(meaning: str) -> Field:
    return {"type": "boolean", "description": meaning}


def _number(meaning: str) -> Field:
    return {"type": "integer", "description": meaning}


def _count(meaning: str) -> Field:
    return {"type": "integer", "minimum": 0, "description": meaning}


def _s(meaning: str) -> Field:
    return {"type": "number", "minimum": 0, "description": f"{meaning}, in seconds."}


def _ms(meaning: str) -> Field:
    return {"type": "number", "minimum": 0, "description": f"{meaning}, in milliseconds."}


_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_LEVELS: Final = ("debug", "info", "warning", "error")
_STORES: Final = ("memory", "postgres", "redis")
_ROLES: Final = ("http", "mailer", "sweeper")

COMMON: Final[dict[str, Field]] = {
    "ts": {
        "type": "string",
        "format": "date-time",
        "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[.][0-9]{6}Z$",
        "description": "When the line was made: RFC 3339, UTC, microseconds.",
    },
    "level": _one_of(_LEVELS, "How loud the event is."),
    "event": _word("What happened.", "[a-z][a-z_]*"),
    "service": {"type": "string", "const": "regsvc", "description": "Which service speaks."},
    "version": _text("Its version."),
    "instance": _text("The name of the machine."),
    "worker": _count("The number of the worker; missing: the supervisor speaks."),
    "actor": _text("The actor that speaks, where it is not a request."),
    "request_id": _word("The request, as its answer names it in X-Request-ID.", "[A-Za-z0-9._-]{1,128}"),
    "trace_id": _word("The trace: from the request to its mails (W3C Trace Context).", "[0-9a-f]{32}"),
    "span_id": _word("The place in the trace.", "[0-9a-f]{16}"),
}
"""What every line may have; `ALWAYS` of it has every line."""

ALWAYS: Final = ("ts", "level", "event", "service", "version")

OWN: Final[dict[str, Field]] = {
    "accept_ms": {"type": "number", "description": "From the mail's entry in the outbox to the relay's yes, in ms."},
    "action": _word("What an administrator does, or wants to.", "[a-z_]+"),
    "actor_id": _text("Which administrator: the id of his account, or by what other right he acts."),
    "address": _text("An e-mail address: 64 bits of a keyed hash, or the address itself with LOG_PII."),
    "addresses": _count("Addresses that were deleted, nothing being known of them any more."),
    "algorithm": _text("What a key signs with, as JWT calls it."),
    "answers": _count("Kept answers of repeatable requests that were deleted."),
    "asked_for": _flag("Whether the end was asked for."),
    "attempts": _count("How often the mail was tried, this time included."),
    "away_s": _s("How long it was away"),
    "bytes_in": _count("Octets of the request's body."),
    "bytes_out": _count("Octets of the answer's body."),
    "changed": _list(_text("A field of the profile."), "What was changed."),
    "client": _text("The client's address; where clients are counted, of IPv6 its /64."),
    "clients": _count("How many clients wait."),
    "codes": _count("Codes that were deleted."),
    "crashes": _count("How often the actor crashed lately."),
    "cut": _count("Requests that were broken off."),
    "data_dir": _text("The folder of the database."),
    "deadline_s": _s("How long the request had"),
    "down_s": _s("How long the relay was down"),
    "dropped": _list(_text("A partition."), "Partitions that were dropped, with all that was in them."),
    "duration_ms": _ms("From the request to its answer"),
    "engine": _one_of(("lanes", "package"), "What computes bcrypts: our lanes, or the bcrypt package."),
    "error": _text("The type of an error."),
    "events": _count("Events of the audit trail that were deleted."),
    "exit_status": _number("What a process exited with; below 0: the signal that ended it."),
    "failures": _count("How many failures in the window are too many for mistakes."),
    "fields": _count("Fields that were left out of lines."),
    "finished": _count("Requests that were answered during the drain."),
    "handed_over": _count("Mails that were sent during the drain."),
    "in_flight": _count("Requests in hand when the drain began."),
    "keys": _count("Keys that are known."),
    "kid": _text("The id of a signing key."),
    "lag_s": _s("How far the deletion is behind"),
    "lanes": _number("How many bcrypts a thread does at once; 1: one after another."),
    "left": _count("Mails that wait in the outbox."),
    "letter": _one_of((letter.value for letter in Letter), "What is mailed."),
    "limits": _count("Buckets of limits that were deleted."),
    "lines": _count("Lines that were dropped."),
    "logger": _text("Which logger of a library speaks."),
    "lost": _count("Requests that got no answer because the worker ended: those cut, and those on their way."),
    "made": _list(_word("A month.", "[0-9]{4}-[0-9]{2}"), "Months that got a partition."),
    "mail_id": _id("The mail."),
    "mails": _count("Mails."),
    "message": _text("What a library says."),
    "method": _one_of(_METHODS, "The method of the request."),
    "migration": _count("The number of a migration."),
    "moved": _count("Rows that were moved to the partition of their month."),
    "name": _text("The name of a migration."),
    "outages": _count("Tries in a row that met no relay."),
    "pid": _count("A process."),
    "policy": _one_of((limit.value for limit in Limit), "Which limit."),
    "predicted_wait_s": _s("How long a hash would wait"),
    "proof": _one_of(("password", "code"), "What was shown for the login."),
    "reason": _text("Why, in words for people."),
    "refunded": _flag("Whether the try does not count."),
    "refusal": _one_of((*(refusal.value for refusal in Refusal), *PROBLEMS), "The name of the no."),
    "refused": _count("Hashes that were refused since the last line of this event."),
    "registration_id": _id("The registration; the account has the same id once it is active."),
    "registrations": _count("Registrations that were deleted, their time being over."),
    "repeated": _flag("Whether the same refresh was answered once more."),
    "replaced": _count("Workers that have given their place to a new one."),
    "restarts": _count("Which restart it is."),
    "retry_after_s": _s("How long the client was told to wait"),
    "roles": _list(_one_of(_ROLES, "A role."), "What these workers do."),
    "route": _word("The template of the route, never the path: `unmatched` where there is none.", "(/.*|unmatched)"),
    "send_ms": _ms("From the begin of the conversation to the relay's yes"),
    "session_id": _id("The session."),
    "sessions": _count("Sessions that were deleted."),
    "setting": _text("A variable."),
    "signing": _text("The id of the key that signs."),
    "spans": _count("Spans that were lost since the last line of this event."),
    "status": {"type": "integer", "minimum": 100, "maximum": 599, "description": "The status of the answer."},
    "store": _one_of(_STORES, "Where limits are counted."),
    "subject_id": _id("Whom it is about: a registration or an account; for administrators, a mail too."),
    "threads": _number("Threads that hash passwords."),
    "took_ms": _ms("How long it took"),
    "took_s": _s("How long it took"),
    "traceback": _text("The innermost frames of an error."),
    "unseen": _count("Requests that went uncounted while the store was away."),
    "untold": _count("Refusals by this limit that no line told of before this one."),
    "url": _text("The public address of the service."),
    "urls": _list(_text("An address."), "Where a person finds what, from this machine."),
    "user_id": _id("The account."),
    "wait_s": _s("How long until the next try"),
    "waiting": _count("Hashes that wait."),
    "window_s": _s("The window in which failures are counted"),
    "workers": _count("How many workers there are."),
}
"""What single events have."""
