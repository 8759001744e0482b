"""The mailbox of the development profile."""

from typing import Final

from regsvc.http import kinds, mailbox, mailhog
from regsvc.http.routes import EVENTS, HTML, PLAIN, Parameter, Route, Success, Tag
from regsvc.http.table.parts import NAME

_WINDOW: Final = tuple(
    Parameter(name, "query", description, {"type": "integer", "minimum": 0, "default": default})
    for name, description, default in (
        ("start", "How many of the newest to pass over.", 0),
        ("limit", "How many to return, 250 at most.", mailhog.LIMIT),
    )
)
_MAIL_ID: Final = Parameter("mail_id", "path", "The mail's id.", {"type": "string", "format": "uuid"})
_SOUGHT: Final = {"type": "string", "minLength": 1}
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
    ).taking(*_WINDOW, Parameter("to", "query", "Only those to this address.", NAME)),
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
        Parameter("query", "query", "What to look for; with `to`, a whole address.", _SOUGHT, required=True),
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
