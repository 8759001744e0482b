"""What administrators do."""

from collections.abc import Mapping
from typing import Final, get_args

from regsvc import observe
from regsvc.http import kinds, staff_models
from regsvc.http.forms import Form, NothingForm
from regsvc.http.kinds import Kind
from regsvc.http.routes import EVENTS, Auth, Parameter, Route, Success, Tag, under_v1
from regsvc.http.staff import LIMIT, LIMIT_MAX, MAIL_STATES, SOUGHT
from regsvc.http.table.parts import ANY_BODY, ID, LATER, NAME, NOON
from regsvc.observe import Level

_OTHER_ID: Final = "01939d70-1c7e-7a61-8b0f-5d2c9e4a7b13"
_UUID: Final = {"type": "string", "format": "uuid"}
_USER_ID: Final = Parameter("user_id", "path", "The account's id.", _UUID)
_MAIL_ID: Final = Parameter("mail_id", "path", "The mail's id.", _UUID)
_CURSOR: Final = Parameter(
    "cursor", "query", "The `next` of the page before.", {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"}
)
_LIMIT: Final = Parameter(
    "limit", "query", "How many to return.", {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT}
)
_USER: Final = {
    "id": ID,
    "email": "alice@example.com",
    "username": "alice",
    "locale": "en",
    "state": "active",
    "role": "user",
    "created_at": NOON,
    "activated_at": LATER,
    "disabled_at": None,
}
_SESSION: Final = {
    "id": ID,
    "device": "Firefox on Windows",
    "ip": "203.0.113.9",
    "created_at": NOON,
    "last_used_at": LATER,
    "expires_at": "2026-12-20T11:00:00.123Z",
}
_MAIL: Final = {
    "id": ID,
    "letter": "activation",
    "state": "dead",
    "subject_id": _OTHER_ID,
    "attempts": 8,
    "created_at": NOON,
    "not_before": LATER,
    "not_after": "2026-11-20T11:30:00.123Z",
    "sent_at": None,
    "last_error": "550 5.1.1 no such user",
}
_EVENT: Final = {
    "id": ID,
    "at": NOON,
    "name": "admin.user_disabled",
    "actor_id": _OTHER_ID,
    "subject_id": "01939d6f-0a11-7f35-9d7e-4b8a6c2e1f90",
    "ip": "203.0.113.9",
    "data": {"sessions": "2"},
}
_LIMITS: Final = {
    "enabled": True,
    "store": "postgres",
    "store_up": True,
    "limits": [
        {
            "name": "registration",
            "limit": 5,
            "window_seconds": 3600,
            "per": "client",
            "routes": ["POST /v1/users/register"],
            "taken": 12,
            "refused": 1,
            "unseen": 0,
        }
    ],
    "hashing": {"waiting": 0, "running": 1},
}
_DONE: Final = Success("Done.", status=204)


def _staff(
    method: str,
    path: str,
    name: str,
    summary: str,
    description: str,
    success: Success,
    *problems: Kind,
    body: type[Form] | None = None,
    body_example: Mapping[str, str] | None = None,
) -> Route:
    """Return a route under `/admin`; with a form, it has the problems of a body."""
    parameters = (*((_USER_ID,) if "{user_id}" in path else ()), *((_MAIL_ID,) if "{mail_id}" in path else ()))
    known = (kinds.NOT_FOUND,) if parameters else ()
    return Route(
        name=name,
        method=method,
        path=f"/v1/admin{path}",
        aliases=under_v1(f"/admin{path}"),
        tag=Tag.ADMINISTRATION,
        summary=summary,
        description=description,
        auth=Auth.BEARER,
        parameters=parameters,
        success=success,
        problems=(
            *(ANY_BODY if body is not None else ()),
            kinds.INVALID_ACCESS_TOKEN,
            kinds.FORBIDDEN,
            *known,
            *problems,
            kinds.SERVICE_UNAVAILABLE,
        ),
        body=body,
        body_example=body_example,
    )


def _words(name: str, description: str, words: tuple[str, ...]) -> Parameter:
    return Parameter(name, "query", description, {"type": "string", "enum": list(words)})


def _several(name: str, description: str, one: Mapping[str, object]) -> Parameter:
    said = f"{description} Repeated, or with commas."
    return Parameter(name, "query", said, {"type": "array", "items": dict(one)})


STAFF: Final[tuple[Route, ...]] = (
    _staff(
        "GET",
        "/users",
        "staff_users",
        "Look for accounts",
        "The newest first. For administrators, as everything under `/admin`: accounts of that role, and machines with "
        "the token that the operator set (`REGSVC_ADMIN_TOKEN`).",
        Success("A page of them.", staff_models.StaffUsers, {"users": [_USER], "next": "AZOdbnfIfSuaUy9vHBtMDg"}),
        kinds.VALIDATION_ERROR,
    ).taking(
        Parameter("query", "query", "How the address or the username begins, in any case.", NAME),
        _words(
            "state",
            "Only these; `pending` are registrations that nobody has proved yet, which are shown on request only.",
            tuple(SOUGHT),
        ),
        _CURSOR,
        _LIMIT,
    ),
    _staff(
        "GET",
        "/users/{user_id}",
        "staff_user",
        "See an account",
        "Or a registration that waits for its code.",
        Success("The account.", staff_models.StaffUser, _USER),
    ),
    _staff(
        "PATCH",
        "/users/{user_id}",
        "staff_change_user",
        "Disable or enable an account, or give it another role",
        "Disabled, its sessions end, in every process. Nobody takes away the last administrator. What is so already is "
        "left as it is.",
        Success("The account as it is now.", staff_models.StaffUser, {**_USER, "role": "admin"}),
        kinds.LAST_ADMIN,
        body=staff_models.StaffChangeForm,
        body_example={"role": "admin"},
    ),
    _staff(
        "DELETE",
        "/users/{user_id}",
        "staff_delete_user",
        "Delete an account",
        "With its sessions, codes and unsent mails; the address is free again.",
        _DONE,
        kinds.LAST_ADMIN,
    ),
    _staff(
        "GET",
        "/users/{user_id}/sessions",
        "staff_sessions",
        "List the sessions of an account",
        "",
        Success("Those that are alive, the newest first.", staff_models.StaffSessions, {"sessions": [_SESSION]}),
    ),
    _staff(
        "DELETE",
        "/users/{user_id}/sessions",
        "staff_end_sessions",
        "End all sessions of an account",
        "Their access tokens are refused from now on, by every process.",
        _DONE,
    ),
    _staff(
        "GET",
        "/mails",
        "staff_mails",
        "List mails",
        "The newest first.",
        Success("A page of them.", staff_models.StaffMails, {"mails": [_MAIL], "next": None}),
        kinds.VALIDATION_ERROR,
    ).taking(_words("state", "Only these; `dead` were given up.", MAIL_STATES), _CURSOR, _LIMIT),
    _staff(
        "POST",
        "/mails/{mail_id}/retry",
        "staff_retry_mail",
        "Make a dead mail ready again",
        "With all its tries, and a new code where it carries one. No body is needed.",
        _DONE,
        body=NothingForm,
    ),
    _staff(
        "POST",
        "/mails/{mail_id}/discard",
        "staff_discard_mail",
        "Delete a dead mail",
        "For good. No body is needed.",
        _DONE,
        body=NothingForm,
    ),
    _staff(
        "GET",
        "/events",
        "staff_events",
        "Read the audit trail",
        "What happened, the newest first: what people did to their accounts, and what administrators did.",
        Success("A page of it.", staff_models.StaffEvents, {"events": [_EVENT], "next": None}),
        kinds.VALIDATION_ERROR,
    ).taking(
        Parameter("subject", "query", "Only what happened to this account or registration.", _UUID),
        Parameter("name", "query", "Only events of this name, such as `admin.user_disabled`.", NAME),
        _CURSOR,
        _LIMIT,
    ),
    _staff(
        "GET",
        "/limits",
        "staff_limits",
        "See how the limits stand",
        "What may be done how often, where that is counted, and what the worker that answers has taken and refused.",
        Success("How they stand.", staff_models.StaffLimits, _LIMITS),
    ),
    _staff(
        "GET",
        "/logs/stream",
        "staff_log_stream",
        "Follow the log",
        "The lines of all processes of the service on this machine, as they are written, from now on. First comes "
        "`hello` with `instance`, `version` and `workers`; then `line`, each one an object as the log has it, and "
        "`lost` with the number of `lines` that came faster than they were read. `bye` says that the worker ends: "
        "come again. The stream ends with the session and the role, too. Lines that REGSVC_LOG_LEVEL leaves out are "
        "not here either.",
        Success("Events, without end.", media_type=EVENTS),
        kinds.VALIDATION_ERROR,
    ).taking(
        _words("level", "The least level.", get_args(Level)),
        _several("event", "Only these events.", {"type": "string", "enum": list(observe.EVENTS)}),
        _several("route", "Only lines about these routes: a path, or as `POST /v1/users/register`.", NAME),
    ),
)
