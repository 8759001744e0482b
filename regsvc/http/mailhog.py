"""The development mailbox in MailHog's JSON, so that its clients for many languages read our codes unchanged.

The shape is that of MailHog's `data.Message`: parts and bodies as they were sent, transfer encoding and all.
"""

from collections.abc import Iterator, Sequence
from email.message import Message as Part
from email.parser import BytesParser
from email.policy import compat32
from email.utils import parseaddr
from typing import Final

from regsvc.http.models import Instant, Model
from regsvc.ports import BoxedMail

LIMIT: Final = 50  # MailHog's own numbers
LIMIT_MAX: Final = 250


class Path(Model):
    """An address of the envelope."""

    Relays: list[str] | None = None
    Mailbox: str
    Domain: str
    Params: str = ""


class Content(Model):
    """Headers and body, of a mail or of a part of one."""

    Headers: dict[str, list[str]]
    Body: str
    Size: int
    MIME: "Mime | None" = None


class Mime(Model):
    """The parts of a multipart body."""

    Parts: list[Content]


class Raw(Model):
    """The mail as it was handed over."""

    From: str
    To: list[str]
    Data: str
    Helo: str = "regsvc"


class Message(Model):
    """A mail."""

    ID: str
    From: Path
    To: list[Path]
    Content: Content
    Created: Instant
    MIME: Mime | None
    Raw: Raw


class Messages(Model):
    """Mails, newest first."""

    total: int
    count: int
    start: int
    items: list[Message]


def message(mail: BoxedMail) -> Message:
    """Write a mail as MailHog does."""
    data = _text(mail.raw)
    root = BytesParser(policy=compat32).parsebytes(mail.raw)
    sender = parseaddr(mail.sender)[1]
    mime = Mime(Parts=[_content(part) for part in _parts(root)]) if root.is_multipart() else None
    _, _, body = data.partition("\r\n\r\n")
    return Message(
        ID=str(mail.id),
        From=_path(sender),
        To=[_path(mail.to)],
        Content=Content(Headers=_headers(root), Body=body, Size=len(mail.raw)),
        Created=mail.at,
        MIME=mime,
        Raw=Raw(From=sender, To=[mail.to], Data=data),
    )


def messages(total: int, start: int, mails: Sequence[BoxedMail]) -> Messages:
    """Write a page of mails as MailHog's API v2 does."""
    return Messages(total=total, count=len(mails), start=start, items=[message(mail) for mail in mails])


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _path(address: str) -> Path:
    local, _, domain = address.rpartition("@")
    return Path(Mailbox=local, Domain=domain)


def _parts(root: "Part[str, str]") -> Iterator["Part[str, str]"]:
    found = root.get_payload()
    assert isinstance(found, list)  # noqa: S101 - is_multipart says so
    for part in found:
        assert isinstance(part, Part)  # noqa: S101 - and a list holds nothing else
        yield part


def _content(part: "Part[str, str]") -> Content:
    payload = part.get_payload()
    if isinstance(payload, str):
        body = payload.encode("utf-8", "surrogateescape")
        return Content(Headers=_headers(part), Body=_text(body), Size=len(part.as_bytes()))
    whole = part.as_bytes()
    mime = Mime(Parts=[_content(inner) for inner in _parts(part)])
    return Content(Headers=_headers(part), Body=_text(whole.partition(b"\n\n")[2]), Size=len(whole), MIME=mime)


def _headers(part: "Part[str, str]") -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in part.items():
        found.setdefault(name, []).append(_text(str(value).encode("utf-8", "surrogateescape")))
    return found
