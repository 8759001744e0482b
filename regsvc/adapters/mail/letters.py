"""Letters: a `Dispatch` becomes an RFC 5322 message with a text part and an HTML part.

Rule 1. A code stands alone on its line in both parts, and is the only run of digits that long in either, HTML source
        included: people, mail programs and test suites find it. What would break that (a name, a link) is left out;
        but for the link that does what the code does, and is there for those whom the code does not help: it comes
        after the code, its token has no such run, and a port as long as the code gets a zero before it.
        The token of a new password stands alone on its line too, and in the link that most people follow.
Rule 2. No code is in the subject: relays log subjects and mail servers index them, and no secret goes where others
        write it down. It stands among the first words of the body instead, so a notification shows it all the same.
Rule 3. No words of a user are in a header but the address itself; in a body a name is escaped, and left out where a
        mail program would make a link of it, for anybody can register anybody's address under any name. Of a device
        letters alone are shown: what a client says of itself leads nowhere, and has no number to call.
Rule 4. Everything is 7 bits (quoted-printable), so every relay takes it as it is.
"""

import re
import unicodedata
from binascii import b2a_qp
from dataclasses import dataclass, field
from datetime import timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, parseaddr
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from regsvc.adapters.mail.layouts import Form, Layouts, mark
from regsvc.adapters.mail.words import FALLBACK, Words, read_words
from regsvc.domain.delivery import Letter, Rejected
from regsvc.domain.values import Email, Flaw
from regsvc.ports import Dispatch

DIGITS_MIN: Final = 4  # the shortest code there is (40-config); a fixed text with a longer number would break rule 1
_SENDER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", re.ASCII)
_DEVICE: Final = re.compile(r"[A-Za-z][A-Za-z -]{0,63}", re.ASCII)
_RESET: Final = "/reset-password"  # under PUBLIC_URL: where people choose a new password
_ACTIVATE: Final = "/activate"  # and where they activate with the token of a link
_UNSAID: Final = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029<>()\[\],;:\\\"]")  # in an address of an envelope
_FACT: Final = "fact"
KINDS_MAX: Final = 1_000  # of letters, languages and lifetimes; there are some twenty
_BOUNDARY: Final = "=_part_of_letter_="  # never in quoted-printable; the library's own is a long run of digits

_Kind: TypeAlias = tuple[str, Letter, timedelta | None, timedelta | None, int | None, frozenset[str]]
"""What letters have in common whose words are the same: language, lifetimes, length of the code, what they say."""


@dataclass(frozen=True, slots=True)
class Written:
    """A letter ready to go: envelope (domain as A-labels) and message; `utf8`: the relay has to know RFC 6531.

    `raw` is the message as it goes over the wire, before dot-stuffing; its lines end with CR LF.
    """

    sender: str
    to: str
    subject: str
    text: str = field(repr=False)
    html: str = field(repr=False)
    raw: bytes = field(repr=False)

    @property
    def utf8(self) -> bool:
        """Whether the address can only be written in UTF-8."""
        return not self.to.isascii()

    @property
    def flaw(self) -> str | None:
        """Why it may not leave: something in it would end a line, or a command, that is not its to end; None: nothing.

        Nothing of the kind gets so far. It is looked for all the same, where what is written becomes what is said.
        """
        if _UNSAID.search(self.sender) or _UNSAID.search(self.to) or self.to.count("@") != 1:
            return "an address that is none on the wire"
        if not self.subject.isprintable():
            return "a subject of more than one line"
        ends = self.raw.count(b"\r\n")  # relays differ in what they take a bare CR or LF for
        if b"\0" in self.raw or not ends == self.raw.count(b"\r") == self.raw.count(b"\n"):
            return "a NUL or a bare line end in the letter"
        return None


class Letters:
    """Writes the letters of one service; made once, for it compiles the templates of every language.

    `sender` is MAIL_FROM, with or without a display name; `public_url` is where the service lives, the only thing any
    letter links to. Raises ValueError, for the operator, when one of them cannot stand in a letter.
    """

    def __init__(self, *, sender: str, public_url: str, service: str) -> None:
        display, address = parseaddr(sender)
        if not (_SENDER.fullmatch(address) and sender.isprintable()):
            raise ValueError(f"the sender {sender!r} is no e-mail address in ASCII")
        name = _fixed("sender's name", display or service)
        self._words = read_words(_fixed("name of the service", service))
        self._heads = {
            (tag, letter): _head(Address(name, addr_spec=address), words)
            for tag, letters in self._words.items()
            for letter, words in letters.items()
        }
        self._layouts = Layouts()
        self._forms: dict[_Kind, Form] = {}
        self._link = _fixed_link(public_url)
        self._reset = f"{self._link.rstrip('/')}{_RESET}"
        self._activate = f"{self._link.rstrip('/')}{_ACTIVATE}"
        self._domain = address.rpartition("@")[2]
        self.sender: Final = address
        self._last: tuple[Dispatch, Written | Rejected] | None = None

    @property
    def languages(self) -> frozenset[str]:
        """The languages there are, as BCP 47 tags in lower case."""
        return frozenset(self._words)

    def write(self, dispatch: Dispatch) -> Written | Rejected:
        """Write a letter; Rejected when it is addressed to nothing that a header and an envelope can hold."""
        if self._last is None or self._last[0] is not dispatch:  # two transports that send it both ask for it
            self._last = dispatch, self._write(dispatch)
        return self._last[1]

    def _write(self, dispatch: Dispatch) -> Written | Rejected:
        address = Email.parse(dispatch.to)
        if isinstance(address, Flaw):
            return Rejected("not an e-mail address")
        to = f"{address.address.rpartition('@')[0]}@{address.key.rpartition('@')[2]}"
        words = self._words[self._language(dispatch.locale)][dispatch.letter]
        own = self._own(dispatch, words)
        text, html = self._form(dispatch, words, frozenset(own)).fill(own)
        raw = self._raw(dispatch, words, to, text, html)
        return Written(self.sender, to, words.subject, text, html, raw)

    def _own(self, dispatch: Dispatch, words: Words) -> dict[str, str]:
        """Collect what differs from mail to mail."""
        code = dispatch.code.reveal() if dispatch.code is not None else None
        digits = len(code) if code is not None else None
        name = _presentable(dispatch.username, digits)
        own = {"greeting": words.greeting.render(name=name) if name is not None else words.unnamed}
        own |= {f"{_FACT}{n}": fact for n, fact in enumerate(_facts(dispatch, words))}
        if code is None:
            return own
        own["code"] = code
        if dispatch.letter is Letter.RESET:
            # In the fragment, which browsers keep to themselves: no server on the way writes it down.
            own["way"] = f"{self._reset}#token={code}"
        if dispatch.link is not None and (way := _beside(self._activate, len(code))) is not None:
            own["follow"] = f"{way}#{dispatch.link.reveal()}"
        return own

    def _form(self, dispatch: Dispatch, words: Words, own: frozenset[str]) -> Form:
        """Find what the letters of its kind have in common, or make it: there are few kinds, lifetimes are settings."""
        digits = len(dispatch.code.reveal()) if dispatch.code is not None else None
        kind = words.language, dispatch.letter, dispatch.lifetime, dispatch.link_lifetime, digits, own
        form = self._forms.get(kind)
        if form is None:
            if len(self._forms) >= KINDS_MAX:
                self._forms.clear()
            form = self._forms[kind] = self._layouts.form(self._said(dispatch, words, digits, own))
        return form

    def _said(self, dispatch: Dispatch, words: Words, digits: int | None, own: frozenset[str]) -> dict[str, object]:
        """Collect what the layouts are filled with; what is a mail's own is marked."""

        def marked(name: str) -> str | None:
            return mark(name) if name in own else None

        return {
            "language": words.language,
            "subject": words.subject,
            "greeting": marked("greeting"),
            "lead": words.lead,
            "facts": [mark(name) for name in sorted(own) if name.startswith(_FACT)],
            "way": marked("way") or self._reset,
            "action": words.action,
            "bare": words.bare,
            "code": marked("code"),
            "life": words.lives(dispatch.lifetime),
            "beside": words.stands_beside(dispatch.link_lifetime),
            "follow": marked("follow"),
            "following": words.following,
            "stranger": words.stranger,
            "footer": words.footer,
            "link": _unless_numbered(self._link, digits),
        }

    def _raw(self, dispatch: Dispatch, words: Words, to: str, text: str, html: str) -> bytes:
        """Put the message together.

        By hand, for the library takes a millisecond a mail for it, mostly to parse header fields that never differ: it
        writes those once, in `_head`. What is added here cannot break a header: `to` was read as an address, which has
        neither blanks nor controls, and is one word, so there is nothing to fold.
        """
        own = f"To: {to}\r\nDate: {formatdate()}\r\nMessage-ID: <{dispatch.id}@{self._domain}>\r\n"
        head = self._heads[words.language, dispatch.letter]
        end = f"--{_BOUNDARY}--\r\n".encode()
        return b"".join((own.encode(), head, _part("plain", text), _part("html", html), end))

    def _language(self, locale: str | None) -> str:
        """Find the language for a BCP 47 tag: itself, then with fewer and fewer subtags (RFC 4647 3.4)."""
        tag = (locale or FALLBACK).lower()
        while tag:
            if tag in self._words:
                return tag
            tag = tag.rpartition("-")[0]
        return FALLBACK


def _head(sender: Address, words: Words) -> bytes:
    """Write the header fields that are the same in each mail, and the blank line after them."""
    message = EmailMessage(policy=SMTP)
    message["From"] = sender
    message["Subject"] = words.subject
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no vacation notices, please
    message["X-Auto-Response-Suppress"] = "All"  # the same, for Exchange
    message["MIME-Version"] = "1.0"
    message["Content-Language"] = words.language
    message["Content-Type"] = f'multipart/alternative; boundary="{_BOUNDARY}"'
    return message.as_bytes().partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


def _part(kind: str, text: str) -> bytes:
    head = (
        f'--{_BOUNDARY}\r\nContent-Type: text/{kind}; charset="utf-8"\r\n'
        "Content-Transfer-Encoding: quoted-printable\r\n\r\n"
    )
    return head.encode() + b2a_qp(text.replace("\n", "\r\n").encode()) + b"\r\n"


def _fixed(what: str, text: str) -> str:
    """Return a text of the operator's that is in every letter, if it keeps rule 1 and is one line."""
    if not text or not text.isprintable():
        raise ValueError(f"the {what} {text!r} is empty, or not one line of printable characters")
    if _numbered(text, DIGITS_MIN):
        raise ValueError(f"the {what} {text!r} has a number as long as a code: readers would take it for theirs")
    return text


def _fixed_link(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.netloc or not url.isprintable() or " " in url:
        raise ValueError(f"the public address {url!r} is no http(s) URL")
    return url


def _numbered(text: str, digits: int) -> bool:
    """Tell whether a run of `digits` digits (or more: searches look for parts of words) is in the text."""
    return re.search(rf"\d{{{digits},}}", text) is not None


def _unless_numbered(text: str, digits: int | None) -> str | None:
    return None if digits is not None and _numbered(text, digits) else text


def _beside(url: str, digits: int) -> str | None:
    """Return where a link that stands beside a code leads; None: some number in it is as long as the code.

    A port may begin with zeros (RFC 3986, 3.2.3), and browsers do not mind.
    """
    exactly = rf"(?<!\d)\d{{{digits}}}(?!\d)"
    way = re.sub(rf"(?<=:){exactly}(?=/)", r"0\g<0>", url)
    return None if re.search(exactly, way) else way


def _facts(dispatch: Dispatch, words: Words) -> list[str]:
    """Return what a notice tells line by line; a letter that carries something tells nothing else."""
    facts = [words.happened(dispatch.created_at)] if dispatch.letter.notice else []
    if dispatch.letter is Letter.NEW_DEVICE:
        device = dispatch.data.get("device", "")
        facts.append(words.used(device if _DEVICE.fullmatch(device) else None))
    return facts


def _presentable(name: str | None, digits: int | None) -> str | None:
    """Return a user's name if it may stand in a letter: see rules 1 and 3."""
    if name is None or not name.isprintable() or "." in unicodedata.normalize("NFKC", name):
        return None
    return _unless_numbered(name, digits)
