"""Letters as their readers' programs read them."""

from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from html.parser import HTMLParser
from typing import Any

from regsvc.adapters.mail import Letters
from regsvc.adapters.mail.letters import Written
from tests.adapters.writing import dispatch

HOME = Letters(sender="no-reply@service.test", public_url="https://service.test", service="regsvc")
LETTERS = Letters(sender="no-reply@service.test", public_url="http://127.0.0.1:8000", service="regsvc")


class Visible(HTMLParser):
    """What a reader of an HTML part sees, and where its links go."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.links: list[str | None] = []
        self.tags: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in {"href", "src"}]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def written(letters: Letters = LETTERS, **about: Any) -> Written:
    letter = letters.write(dispatch(**about))
    assert isinstance(letter, Written)
    return letter


def parts(letter: Written) -> tuple[EmailMessage, str, str]:
    """The message as its reader's program reads it: whole, text, HTML."""
    message = message_from_bytes(letter.raw, _class=EmailMessage, policy=SMTP)
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    return message, text.get_content(), html.get_content()
