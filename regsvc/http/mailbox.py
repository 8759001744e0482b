"""The development mailbox: a page that shows mails as they come, and MailHog's API beside it."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final
from uuid import UUID

import trio
from pydantic import RootModel
from quart import Response, render_template, request
from quart_trio.wrappers import TrioResponse

from regsvc.http import kinds, mailhog, wire
from regsvc.http.models import Instant, Model
from regsvc.http.problems import Told, tell
from regsvc.http.reply import View, page, reply
from regsvc.ports import BoxedMail, Mailbox, Unavailable

LOOK: Final = 0.4  # seconds between two looks for new mail while a page is open
HEARTBEAT: Final = 15.0  # seconds; proxies cut what is silent for longer
SEARCHED_MAX: Final = 1000  # mails that a search other than by recipient looks through
LETTER_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'; sandbox"


class Mail(Model):
    """A mail as the page shows it."""

    id: UUID
    at: Instant
    sender: str
    to: str
    subject: str
    text: str
    has_html: bool


class Mails(Model):
    """Mails, newest first."""

    total: int
    items: list[Mail]


class MailHogList(RootModel[list[mailhog.Message]]):
    """Mails, newest first, as MailHog's API v1 has them."""


def views(mailbox: Mailbox) -> Mapping[str, View]:
    """Return what answers the routes of this room, by the names in the table."""
    return {**_page_views(mailbox), **_mailhog_views(mailbox)}


def _page_views(mailbox: Mailbox) -> Mapping[str, View]:
    async def show_page() -> Response:
        return page(await render_template("mailbox.html"))

    async def events() -> Response:  # noqa: ASYNC124 - views are async
        if request.method == "HEAD":
            return TrioResponse(b"", 200, content_type="text/event-stream")
        return TrioResponse(_events(mailbox), 200, content_type="text/event-stream")

    async def mails() -> Response:
        start, limit = _window()
        total, found = await mailbox.list(to=wire.argument(request.args, "to") or None, start=start, limit=limit)
        return reply(Mails(total=total, items=[_mail(mail) for mail in found]))

    async def letter(mail_id: str) -> Response | Told:
        mail = await _find(mailbox, mail_id)
        if mail is None or not mail.html:
            return tell(kinds.NOT_FOUND, "There is no such letter.")
        # A letter is not to be trusted, not even ours: it may run nothing, load nothing, and reach no one.
        head = {"Content-Security-Policy": LETTER_POLICY}
        return TrioResponse(mail.html, 200, head, content_type="text/html; charset=utf-8")

    async def source(mail_id: str) -> Response | Told:
        mail = await _find(mailbox, mail_id)
        if mail is None:
            return tell(kinds.NOT_FOUND, "There is no such mail.")
        return TrioResponse(mail.raw, 200, content_type="text/plain; charset=utf-8")

    return {"mail_page": show_page, "mail_events": events, "mails": mails, "mail_letter": letter, "mail_source": source}


async def _events(mailbox: Mailbox) -> AsyncIterator[bytes]:
    """Tell of every change until the client leaves or the server drains; ends when the mailbox is away."""
    seen: tuple[int, UUID | None] | None = None
    told_at = trio.current_time()
    yield b"retry: 1000\n\n"
    while True:
        try:
            total, newest = await mailbox.list(to=None, start=0, limit=1)
        except Unavailable:
            return  # the page comes back by itself, every second
        now = (total, newest[0].id if newest else None)
        if now != seen:
            seen, told_at = now, trio.current_time()
            yield f"event: mails\ndata: {total}\n\n".encode()
        elif trio.current_time() - told_at >= HEARTBEAT:
            told_at = trio.current_time()
            yield b": still here\n\n"
        await trio.sleep(LOOK)


def _mailhog_views(mailbox: Mailbox) -> Mapping[str, View]:
    async def messages() -> Response:
        start, limit = _window()
        return reply(mailhog.messages(*await _from(mailbox, None, start, limit)))

    async def search() -> Response | Told:
        start, limit = _window()
        kind, query = wire.argument(request.args, "kind"), wire.argument(request.args, "query")
        if kind is None or kind not in _MATCHES or not query:
            return tell(kinds.MALFORMED_REQUEST, "kind is one of from, to, containing; query is what to look for.")
        if kind == "to":
            return reply(mailhog.messages(*await _from(mailbox, query, start, limit)))
        _, found = await mailbox.list(to=None, start=0, limit=SEARCHED_MAX)
        hits = [mail for mail in found if query.casefold() in _MATCHES[kind](mail).casefold()]
        return reply(mailhog.messages(len(hits), start, hits[start : start + limit]))

    async def all_messages() -> Response:
        _, found = await mailbox.list(to=None, start=0, limit=SEARCHED_MAX)
        return reply(MailHogList([mailhog.message(mail) for mail in found]))

    async def one_message(mail_id: str) -> Response | Told:
        mail = await _find(mailbox, mail_id)
        return tell(kinds.NOT_FOUND, "There is no such mail.") if mail is None else reply(mailhog.message(mail))

    async def delete_messages() -> Response:
        await mailbox.clear()
        return TrioResponse(b"", 200, content_type="text/plain")

    async def delete_message(mail_id: str) -> Response | Told:
        known = _uuid(mail_id)
        if known is None or not await mailbox.remove(known):
            return tell(kinds.NOT_FOUND, "There is no such mail.")
        return TrioResponse(b"", 200, content_type="text/plain")

    return {
        "mailhog_messages": messages,
        "mailhog_search": search,
        "mailhog_all": all_messages,
        "mailhog_one": one_message,
        "mailhog_delete_all": delete_messages,
        "mailhog_delete_one": delete_message,
    }


_MATCHES: Final[Mapping[str, Callable[[BoxedMail], str]]] = {
    "from": lambda mail: mail.sender,
    "to": lambda mail: mail.to,
    "containing": lambda mail: f"{mail.subject}\n{mail.text}\n{mail.html}",
}


async def _from(mailbox: Mailbox, to: str | None, start: int, limit: int) -> tuple[int, int, list[BoxedMail]]:
    total, found = await mailbox.list(to=to, start=start, limit=limit)
    return total, start, list(found)


async def _find(mailbox: Mailbox, mail_id: str) -> BoxedMail | None:
    known = _uuid(mail_id)
    return None if known is None else await mailbox.show(known)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _window() -> tuple[int, int]:
    """Read `start` and `limit` as MailHog does: what is no number is as if it were not there."""
    start, limit = (_number(request.args.get(name)) for name in ("start", "limit"))
    return start or 0, min(limit or mailhog.LIMIT, mailhog.LIMIT_MAX)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) <= 9 else None


def _mail(mail: BoxedMail) -> Mail:
    return Mail(
        id=mail.id,
        at=mail.at,
        sender=mail.sender,
        to=mail.to,
        subject=mail.subject,
        text=mail.text,
        has_html=bool(mail.html),
    )
