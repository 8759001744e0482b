"""Letters: a `Dispatch` becomes an RFC 5322 message with a text part and an HTML part.

Rule 1. The code stands alone on its line in both parts, and is the only run of digits that long in either, HTML source
        included: people, mail programs and test suites find it. What would break that (a name, a link) is left out.
Rule 2. The code is not in the subject: relays log subjects and mail servers index them, and no secret goes where others
        write it down. It stands among the first words of the body instead, so a notification shows it all the same.
Rule 3. No words of a user are in a header but the address itself; in a body a name is escaped, and left out where a
        mail program would make a link of it, for anybody can register anybody's address under any name.
Rule 4. Everything is 7 bits (quoted-printable), so every relay takes it as it is.
"""

import re
import tomllib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import formatdate, parseaddr
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import css_inline
import jinja2

from regsvc.domain.delivery import Rejected
from regsvc.domain.values import Email, Flaw
from regsvc.ports import Dispatch

FALLBACK: Final = "en"
DIGITS_MIN: Final = 4  # the shortest code there is (40-config); a fixed text with a longer number would break rule 1
_TEMPLATES: Final = Path(__file__).with_name("templates")
_SENDER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", re.ASCII)
_BOUNDARY: Final = "=_part_of_letter_="  # never in quoted-printable; the library's own is a long run of digits


@dataclass(frozen=True, slots=True)
class Written:
    """A letter ready to go: envelope (domain as A-labels) and message; `utf8`: the relay has to know RFC 6531."""

    sender: str
    to: str
    utf8: bool
    subject: str
    text: str = field(repr=False)
    html: str = field(repr=False)
    message: EmailMessage = field(repr=False)

    def raw(self) -> bytes:
        """Return the message as it goes over the wire, before dot-stuffing; lines end with CR LF."""
        return self.message.as_bytes()


class Letters:
    """Writes the letters of one service; made once, for it compiles the templates of every language.

    `sender` is MAIL_FROM, with or without a display name; `public_url` is where the service lives, the only thing any
    letter links to. Raises ValueError, for the operator, when one of them cannot stand in a letter.
    """

    def __init__(self, *, sender: str, public_url: str, service: str) -> None:
        display, address = parseaddr(sender)
        if not (_SENDER.fullmatch(address) and sender.isprintable()):
            raise ValueError(f"the sender {sender!r} is no e-mail address in ASCII")
        self._service = _fixed("name of the service", service)
        self._link = _fixed_link(public_url)
        self.sender: Final = address
        self._from = Address(_fixed("sender's name", display or service), addr_spec=address)
        self._domain = address.rpartition("@")[2]
        self._languages = _languages()
        self._text, self._html = _layouts()

    @property
    def languages(self) -> frozenset[str]:
        """The languages there are, as BCP 47 tags in lower case."""
        return frozenset(self._languages)

    def write(self, dispatch: Dispatch) -> Written | Rejected:
        """Write a letter; Rejected when it is addressed to nothing that a header and an envelope can hold."""
        to = Email.parse(dispatch.to)
        if isinstance(to, Flaw):
            return Rejected("not an e-mail address")
        digits = len(dispatch.code.reveal())
        language = self._language(dispatch.locale)
        words = self._languages[language]
        about = {
            "service": self._service,
            "name": _presentable(dispatch.username, digits),
            "lifetime": _duration(dispatch.lifetime, words),
        }
        letter = dispatch.letter.value
        said = {key: words[f"{letter}.{key}"].render(about) for key in ("subject", "lead", "life", "stranger")}
        said |= {key: words[key].render(about) for key in ("greeting", "footer")}
        said |= {"code": dispatch.code.reveal(), "language": language}
        link = _unless_numbered(self._link, digits)
        envelope = f"{to.address.rpartition('@')[0]}@{to.key.rpartition('@')[2]}"
        text, html = self._text.render(said, link=link), self._html.render(said, link=link)
        message = self._message(dispatch, envelope, said, text, html)
        return Written(self.sender, envelope, not envelope.isascii(), said["subject"], text, html, message)

    def _message(self, dispatch: Dispatch, to: str, said: Mapping[str, str], text: str, html: str) -> EmailMessage:
        local, _, domain = to.rpartition("@")
        message = EmailMessage(policy=SMTP if to.isascii() else SMTPUTF8)
        message["From"] = self._from
        message["To"] = Address(username=local, domain=domain)
        message["Subject"] = said["subject"]
        message["Date"] = formatdate()
        message["Message-ID"] = f"<{dispatch.id}@{self._domain}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no vacation notices, please
        message["X-Auto-Response-Suppress"] = "All"  # the same, for Exchange
        message.set_content(text, cte="quoted-printable")
        message.add_alternative(html, subtype="html", cte="quoted-printable")
        message.set_boundary(_BOUNDARY)
        message["Content-Language"] = said["language"]
        for part in message.iter_parts():
            del part["MIME-Version"]  # of the whole, not of a part
        return message

    def _language(self, locale: str | None) -> str:
        """Find the language for a BCP 47 tag: itself, then with fewer and fewer subtags (RFC 4647 3.4)."""
        tag = (locale or FALLBACK).lower()
        while tag:
            if tag in self._languages:
                return tag
            tag = tag.rpartition("-")[0]
        return FALLBACK


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


def _unless_numbered(text: str, digits: int) -> str | None:
    return None if _numbered(text, digits) else text


def _presentable(name: str | None, digits: int) -> str | None:
    """Return a user's name if it may stand in a letter: see rules 1 and 3."""
    if name is None or "." in unicodedata.normalize("NFKC", name):
        return None
    return _unless_numbered(name, digits)


def _duration(lifetime: timedelta, words: Mapping[str, jinja2.Template]) -> str:
    """Say a duration in words, rounded down to what has at most three digits."""
    seconds = int(lifetime.total_seconds())
    for unit, size, most in (("seconds", 1, 120), ("minutes", 60, 120), ("hours", 3600, 72), ("days", 86400, 1000)):
        if seconds < size * most and not (unit == "seconds" and seconds == 60):
            return words[unit].render(n=seconds // size)
    raise ValueError(f"no code lives for {lifetime}")


def _languages() -> dict[str, dict[str, jinja2.Template]]:
    """Compile the words of all languages; each must say everything that the fallback says."""
    plain = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701 - the layouts escape
    languages = {}
    for file in sorted((_TEMPLATES / "words").glob("*.toml")):
        read = tomllib.loads(file.read_text("utf-8"))
        languages[file.stem.lower()] = {key: plain.from_string(text) for key, text in _flat(read).items()}
    for tag, words in languages.items():
        if missing := languages[FALLBACK].keys() ^ words.keys():
            raise ValueError(f"templates/words/{tag}.toml and {FALLBACK}.toml differ in {', '.join(sorted(missing))}")
    return languages


def _flat(read: Mapping[str, object]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in read.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": text for inner, text in _flat(value).items()}
        else:
            flat[key] = str(value)
    return flat


def _layouts() -> tuple[jinja2.Template, jinja2.Template]:
    """Compile the layouts, text and HTML; the style sheet is moved into the elements here, once, not in each mail."""
    knobs = {"undefined": jinja2.StrictUndefined, "trim_blocks": True, "keep_trailing_newline": True}
    text = jinja2.Environment(autoescape=False, **knobs)  # type: ignore[arg-type]  # noqa: S701 - it is plain text
    html = jinja2.Environment(autoescape=True, **knobs)  # type: ignore[arg-type]
    inlined = css_inline.inline((_TEMPLATES / "letter.html").read_text("utf-8"), load_remote_stylesheets=False)
    return text.from_string((_TEMPLATES / "letter.txt").read_text("utf-8")), html.from_string(f"{inlined}\n")
