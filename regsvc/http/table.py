"""The one route table: it drives the routes, their aliases, and the OpenAPI document.

A test holds app, table and document to each other.
"""

from typing import Final

from regsvc.http import kinds, mailbox, mailhog, models
from regsvc.http.account import WAIT_MAX
from regsvc.http.forms import ActivateForm, NothingForm, RegisterForm
from regsvc.http.routes import EVENTS, HTML, PLAIN, Auth, Parameter, Route, Success, Tag, under_v1

_ID: Final = "01939d6e-77c8-7d2b-9a53-2f6f1c1b4c0e"
_NOON: Final = "2026-11-20T11:00:00.123Z"
_LATER: Final = "2026-11-20T11:00:30.123Z"
_ANY_BODY: Final = (
    kinds.MALFORMED_REQUEST,
    kinds.REQUEST_TIMEOUT,
    kinds.PAYLOAD_TOO_LARGE,
    kinds.UNSUPPORTED_MEDIA_TYPE,
    kinds.VALIDATION_ERROR,
)
_BUSY: Final = (kinds.OVERLOADED, kinds.SERVICE_UNAVAILABLE)

ACCOUNT: Final = (
    Route(
        name="register",
        method="POST",
        path="/v1/users/register",
        aliases=under_v1("/users/register", "/registration", bare="/users/register"),
        tag=Tag.ACCOUNT,
        summary="Register an address",
        description="Claims the address and has a code mailed to it. The code's life begins when its mail leaves.",
        body=RegisterForm,
        body_example={"email": "alice@example.com", "password": "correct horse battery staple", "locale": "en"},
        success=Success(
            "Registered; the code is on its way.",
            models.Registration,
            {
                "id": _ID,
                "email": "alice@example.com",
                "is_activated": False,
                "created_at": _NOON,
                "resend_available_at": _LATER,
                "message": "A code is on its way to alice@example.com. Activate with it: POST /v1/users/activate.",
            },
            201,
        ),
        problems=(
            *_ANY_BODY,
            kinds.USER_ALREADY_EXISTS,
            kinds.INVALID_EMAIL,
            kinds.WEAK_PASSWORD,
            kinds.RATE_LIMIT_EXCEEDED,
            *_BUSY,
        ),
    ),
    Route(
        name="activate",
        method="POST",
        path="/v1/users/activate",
        aliases=under_v1("/users/activate", "/activation", bare="/users/activate"),
        tag=Tag.ACCOUNT,
        summary="Activate with the code",
        description="Turns the registration into the account of its address; of several tries, one gets the 200.",
        auth=Auth.BASIC,
        body=ActivateForm,
        success=Success(
            "Active.",
            models.User,
            {
                "id": _ID,
                "email": "alice@example.com",
                "is_activated": True,
                "activated_at": _NOON,
                "message": "The account is active.",
            },
        ),
        problems=(
            *_ANY_BODY,
            kinds.INVALID_ACTIVATION_CODE,
            kinds.INVALID_CREDENTIALS,
            kinds.USER_ALREADY_ACTIVATED,
            kinds.ACTIVATION_CODE_EXPIRED,
            kinds.TOO_MANY_ATTEMPTS,
            *_BUSY,
        ),
    ),
    Route(
        name="resend",
        method="POST",
        path="/v1/users/resend-code",
        aliases=(
            *under_v1("/users/resend-code", "/users/resend-activation", bare="/users/resend-code"),
            "/users/resend-activation",
        ),
        tag=Tag.ACCOUNT,
        summary="Have a new code mailed",
        description="The new code makes every older one invalid when it is handed over. No body is needed.",
        auth=Auth.BASIC,
        body=NothingForm,
        success=Success(
            "A new code is on its way.",
            models.Resent,
            {
                "email": "alice@example.com",
                "resend_available_at": _LATER,
                "message": "A new code is on its way to alice@example.com; it replaces the one before.",
            },
            202,
        ),
        problems=(
            *_ANY_BODY,
            kinds.INVALID_CREDENTIALS,
            kinds.USER_ALREADY_ACTIVATED,
            kinds.RESEND_TOO_SOON,
            *_BUSY,
        ),
    ),
    Route(
        name="standing",
        method="GET",
        path="/v1/users/registration",
        aliases=under_v1("/users/registration", bare="/users/registration"),
        tag=Tag.ACCOUNT,
        summary="See how the registration stands",
        description="With `wait`, answers as soon as the mail was sent or given up, or after that many seconds.",
        auth=Auth.BASIC,
        parameters=(
            Parameter(
                "wait",
                "query",
                "Seconds to wait for the mail to leave.",
                {"type": "integer", "minimum": 0, "maximum": WAIT_MAX, "default": 0},
            ),
        ),
        success=Success(
            "How it stands.",
            models.Standing,
            {
                "id": _ID,
                "email": "alice@example.com",
                "mail": "sent",
                "code_expires_at": "2026-11-20T11:01:00.123Z",
                "resend_available_at": _LATER,
            },
        ),
        problems=(kinds.INVALID_CREDENTIALS, kinds.USER_ALREADY_ACTIVATED, kinds.VALIDATION_ERROR, *_BUSY),
    ),
)

OPERATIONS: Final = (
    Route(
        name="livez",
        method="GET",
        path="/livez",
        tag=Tag.OPERATIONS,
        summary="Does the process turn",
        description="Asks nobody; what it does not answer is to be restarted.",
        success=Success("It does.", models.Alive, {"status": "ok"}),
    ),
    Route(
        name="readyz",
        method="GET",
        path="/readyz",
        tag=Tag.OPERATIONS,
        summary="Is the process ready for requests",
        description="Database reachable (asked once a second at most), migrations applied, not draining.",
        success=Success("It is.", models.Ready, {"status": "ready"}),
        problems=(kinds.SERVICE_UNAVAILABLE,),
    ),
    Route(
        name="health",
        method="GET",
        path="/v1/health",
        aliases=under_v1("/health", bare="/health"),
        tag=Tag.OPERATIONS,
        summary="See how the parts do",
        description="Answers 200 whenever the process turns; `status` and `checks` tell the rest.",
        success=Success(
            "How they do.",
            models.Health,
            {
                "status": "ok",
                "version": "0.1.0",
                "timestamp": _NOON,
                "checks": {
                    "database": {"status": "ok", "detail": None},
                    "mailer": {"status": "ok", "detail": None},
                    "sweeper": {"status": "ok", "detail": None},
                },
            },
        ),
    ),
    Route(
        name="health_db",
        method="GET",
        path="/v1/health/db",
        aliases=under_v1("/health/db", bare="/health/db"),
        tag=Tag.OPERATIONS,
        summary="Ask the database something",
        success=Success("It answered.", models.DatabaseHealth, {"status": "ok", "latency_ms": 0.412}),
        problems=(kinds.SERVICE_UNAVAILABLE,),
    ),
)

_NAME: Final = {"type": "string"}

DOCUMENTATION: Final = (
    Route(
        name="index",
        method="GET",
        path="/",
        tag=Tag.DOCUMENTATION,
        summary="Where to go from here",
        description="JSON, or a page for a browser.",
        success=Success(
            "The addresses of what there is.",
            models.Index,
            {
                "service": "regsvc",
                "version": "0.1.0",
                "documentation": "/docs",
                "openapi": "/openapi.json",
                "problems": "/problems",
                "health": "/v1/health",
                "mailbox": None,
            },
        ),
    ),
    Route(
        name="openapi",
        method="GET",
        path="/openapi.json",
        tag=Tag.DOCUMENTATION,
        summary="This document",
        success=Success("OpenAPI 3.1."),
    ),
    Route(
        name="docs",
        method="GET",
        path="/docs",
        tag=Tag.DOCUMENTATION,
        summary="This document as a page",
        success=Success("Swagger UI, working without a network.", media_type=HTML),
    ),
    Route(
        name="problem_index",
        method="GET",
        path="/problems",
        tag=Tag.DOCUMENTATION,
        summary="Every problem there is",
        success=Success("A page with links.", media_type=HTML),
    ),
    Route(
        name="problem",
        method="GET",
        path="/problems/{name}",
        tag=Tag.DOCUMENTATION,
        summary="What a problem means and what to do",
        description="The `type` of every problem is the address of its page.",
        parameters=(Parameter("name", "path", "The last part of a problem's `type`.", _NAME),),
        success=Success("A page with an example.", media_type=HTML),
        problems=(kinds.NOT_FOUND,),
    ),
    Route(
        name="asset",
        method="GET",
        path="/assets/{name}",
        tag=Tag.DOCUMENTATION,
        summary="A style sheet or a script of the pages",
        parameters=(Parameter("name", "path", "A file's name.", _NAME),),
        success=Success("The file.", media_type=PLAIN),
        problems=(kinds.NOT_FOUND,),
    ),
)

_WINDOW: Final = tuple(
    Parameter(name, "query", description, {"type": "integer", "minimum": 0, "default": default})
    for name, description, default in (
        ("start", "How many of the newest to pass over.", 0),
        ("limit", "How many to return, 250 at most.", mailhog.LIMIT),
    )
)
_MAIL_ID: Final = Parameter("mail_id", "path", "The mail's id.", {"type": "string", "format": "uuid"})
_PLACES: Final = {"type": "string", "enum": ["from", "to", "containing"]}


def _mailbox(name: str, path: str, summary: str, success: Success, *, method: str = "GET") -> Route:
    known = "{mail_id}" in path
    problems = (kinds.NOT_FOUND, kinds.SERVICE_UNAVAILABLE) if known else (kinds.SERVICE_UNAVAILABLE,)
    parameters = (_MAIL_ID,) if known else ()
    return Route(name, method, path, Tag.DEVELOPMENT, summary, success, parameters=parameters, problems=problems)


DEVELOPMENT: Final = (
    _mailbox("mail_page", "/dev/mail", "The mailbox as a page", Success("The page.", media_type=HTML)),
    _mailbox(
        "mail_events",
        "/dev/mail/events",
        "Hear of new mail",
        Success("An event `mails` with their number, at once and at every change.", media_type=EVENTS),
    ),
    _mailbox(
        "mails",
        "/dev/mail/messages",
        "List mails, ready to be shown",
        Success("Mails, newest first.", mailbox.Mails),
    ).taking(*_WINDOW, Parameter("to", "query", "Only those to this address.", _NAME)),
    _mailbox(
        "mail_letter",
        "/dev/mail/messages/{mail_id}/letter",
        "The HTML part of a mail",
        Success("The letter; it may run and load nothing.", media_type=HTML),
    ),
    _mailbox(
        "mail_source",
        "/dev/mail/messages/{mail_id}/source",
        "A mail as it was sent",
        Success("RFC 5322.", media_type=PLAIN),
    ),
    _mailbox(
        "mailhog_messages",
        "/api/v2/messages",
        "MailHog v2: list mails",
        Success("Mails, newest first.", mailhog.Messages),
    ).taking(*_WINDOW),
    _mailbox(
        "mailhog_search",
        "/api/v2/search",
        "MailHog v2: search mails",
        Success("Mails, newest first.", mailhog.Messages),
    ).taking(
        Parameter("kind", "query", "Where to look.", _PLACES, required=True),
        Parameter("query", "query", "What to look for; with `to`, a whole address.", _NAME, required=True),
        *_WINDOW,
    ),
    _mailbox(
        "mailhog_all", "/api/v1/messages", "MailHog v1: list mails", Success("Newest first.", mailbox.MailHogList)
    ),
    _mailbox(
        "mailhog_delete_all",
        "/api/v1/messages",
        "MailHog v1: delete all mails",
        Success("Deleted.", media_type=PLAIN),
        method="DELETE",
    ),
    _mailbox(
        "mailhog_one",
        "/api/v1/messages/{mail_id}",
        "MailHog v1: one mail",
        Success("The mail.", mailhog.Message),
    ),
    _mailbox(
        "mailhog_delete_one",
        "/api/v1/messages/{mail_id}",
        "MailHog v1: delete a mail",
        Success("Deleted.", media_type=PLAIN),
        method="DELETE",
    ),
)


def routes(*, development: bool) -> tuple[Route, ...]:
    """Return every route, those of the mailbox only where there is one."""
    return (*ACCOUNT, *OPERATIONS, *DOCUMENTATION, *(DEVELOPMENT if development else ()))
