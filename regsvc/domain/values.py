"""The words of the house as values: addresses, passwords, codes, secrets.

Everything a person types becomes one of these once, at the door, and is trusted from there on.
`idna` and `email_validator` are the two libraries this floor lets in: both are pure functions over tables,
and IDNA (UTS 46) and RFC 5321 are nothing to write again.
"""

import hmac
import re
import string
import unicodedata
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NewType, NoReturn
from uuid import UUID

import email_validator
import idna

EmailKey = NewType("EmailKey", str)
"""The canonical form that decides whether two addresses are one; see `Email.parse`."""

EMAIL_MAX: Final = 254  # octets; RFC 5321 4.5.3.1.3 without the angle brackets
LOCAL_MAX: Final = 64  # octets before the @; RFC 5321 4.5.3.1.1, and RFC 6531 changes no limit
USERNAME: Final = re.compile(r"[a-z0-9_.-]{3,32}")
LOCALE: Final = re.compile(r"[a-zA-Z]{2,3}(-[a-zA-Z0-9]{2,8}){0,3}")  # the part of BCP 47 that letters are written in
_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"  # RFC 5322 3.2.3
_LABEL: Final = r"(?!..--)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"  # RFC 1123 2.1, RFC 5890 2.3.1 (no R-LDH)
_PLAIN: Final = re.compile(rf"(?=[^@]{{1,64}}@){_ATOM}(?:\.{_ATOM})*@((?:{_LABEL}\.)+{_LABEL}(?<=[A-Za-z]))")
_SPECIAL: Final = tuple(f".{name}" for name in email_validator.SPECIAL_USE_DOMAIN_NAMES if name != "test")
_LINK_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}")  # 32 octets in base64url without padding
WORD_MIN: Final = 4  # characters; shorter ones begin too many good passwords
_AROUND: Final = string.digits + string.punctuation + string.whitespace
_CODE_NOISE: Final = str.maketrans(
    "", "", " -\u00a0\u2010\u2011\u2012\u2013"
)  # what people and mail programs put into codes


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with something a person typed: `code` for programs, `message` for people."""

    code: str
    message: str


class Secret:
    """Text that cannot be printed, logged, formatted or pickled; `reveal()` is the only way out."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself; whoever calls this answers for where it goes."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    def __str__(self) -> str:
        return "…"

    def __format__(self, spec: str) -> str:
        return "…"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(
            self._text.encode("utf-8", "surrogatepass"), other._text.encode("utf-8", "surrogatepass")
        )

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __bool__(self) -> bool:
        return bool(self._text)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not serialised")


@dataclass(frozen=True, slots=True)
class Email:
    """An address: `address` as the person typed it (mail goes exactly there), `key` as identity sees it."""

    address: str
    key: EmailKey

    @classmethod
    def parse(cls, text: str) -> "Email | Flaw":
        """Read an address; blanks around it go, dots and `+tags` stay distinct.

        The key: NFKC, local part casefolded, domain as lower-case A-labels (UTS 46) without a trailing dot.
        """
        return _read_email(text)


@lru_cache(maxsize=4096)  # the long way takes 0.2 ms, and the same address is read at each step of its way
def _read_email(text: str) -> Email | Flaw:
    address = text.strip()
    if len(address.encode("utf-8", "surrogatepass")) > EMAIL_MAX:
        return Flaw("too_long", f"An e-mail address has at most {EMAIL_MAX} octets.")
    address = address.removesuffix(".")
    if "=?" in address:  # an encoded word (RFC 2047), which some who read it would take for what it encodes
        return Flaw("invalid_email", "This is not an e-mail address: =? cannot be in one.")
    key = _plain(address)
    return _read_any(address) if key is None else Email(address, key)


def _plain(address: str) -> EmailKey | None:
    """Return the key of an address that is plain ASCII, as nearly all are, in 2 µs; None leaves it to the libraries.

    What it takes, `_read_any` takes with the same key: atoms and dots, labels of a host without `--` in the third
    place (so no Punycode), a last one that ends with a letter, no special-use name. ASCII is its own NFKC.
    """
    found = _PLAIN.fullmatch(address)
    if found is None:
        return None
    key = EmailKey(address.lower())
    return None if f".{key[found.start(1) :]}".endswith(_SPECIAL) else key


def _read_any(address: str) -> Email | Flaw:
    """Read an address of any kind."""
    try:
        typed = _validated(address)
        if len(typed.local_part.encode()) > LOCAL_MAX:  # the library counts characters
            return Flaw("invalid_email", f"This is not an e-mail address: before the @ are at most {LOCAL_MAX} octets.")
        key = _key(typed.local_part, typed.domain)
        if key != address:  # the folded form is the identity of a person: it has to be an address too
            _validated(key)
    except (email_validator.EmailNotValidError, idna.IDNAError, UnicodeError) as why:
        return Flaw("invalid_email", f"This is not an e-mail address: {_sentence(str(why))}")
    return Email(address, key)


def _validated(address: str) -> email_validator.ValidatedEmail:
    return email_validator.validate_email(address, check_deliverability=False, strict=True, test_environment=True)


def _key(local: str, domain: str) -> EmailKey:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", local).casefold())
    labels = idna.encode(unicodedata.normalize("NFKC", domain).rstrip("."), uts46=True, transitional=False)
    return EmailKey(f"{folded}@{labels.decode('ascii').lower()}")


def _sentence(text: str) -> str:
    """Make a library's reason fit to be shown: printable, short, one sentence."""
    plain = "".join(c for c in text if c.isprintable())[:200].strip()
    return plain if plain.endswith(".") else f"{plain}."


@dataclass(frozen=True, slots=True)
class Username:
    """A name to log in with: `name` as typed, `key` as identity sees it."""

    name: str
    key: str

    @classmethod
    def parse(cls, text: str) -> "Username | Flaw":
        """Read a username; the key is NFKC and casefolded, 3 to 32 of `a-z 0-9 _ . -`."""
        name = text.strip()
        key = unicodedata.normalize("NFKC", name).casefold()
        if not USERNAME.fullmatch(key):
            return Flaw("invalid_username", "A username has 3 to 32 characters: letters a to z, digits, and _ . -")
        return cls(name, key)


@dataclass(frozen=True, slots=True)
class Locale:
    """The language a person reads, as a BCP 47 tag such as `en` or `de-AT`."""

    tag: str

    @classmethod
    def parse(cls, text: str) -> "Locale | Flaw":
        """Read a language tag."""
        tag = text.strip()
        if len(tag) > 35 or not LOCALE.fullmatch(tag):  # RFC 5646 4.4.1: 35 characters hold every tag in use
            return Flaw("invalid_locale", "A locale is a language tag such as en or de-AT.")
        return cls(tag)


@dataclass(frozen=True, slots=True)
class PasswordRules:
    """What a new password must be: length in code points after NFKC, and nothing that everybody tries.

    Compared after NFKC and casefolding: with `common`, and with the context, which is the address, its local part, the
    username and the name of the service. Of a password and of the context's words, digits and signs at the ends do not
    count ("regsvc-2026!" is the service's name), unless that leaves a word of less than WORD_MIN.
    """

    shortest: int = 8
    longest: int = 128
    common: frozenset[str] = field(default=frozenset(), repr=False)
    service: str = "regsvc"

    def flaw(self, password: Secret, email: Email | None = None, username: Username | None = None) -> Flaw | None:
        """Return why `password` is refused, or None."""
        text = unicodedata.normalize("NFKC", password.reveal())
        folded = _folded(text)
        if len(text) < self.shortest:
            return Flaw("too_short", f"A password has at least {self.shortest} characters.")
        if len(text) > self.longest:
            return Flaw("too_long", f"A password has at most {self.longest} characters.")
        if len(set(folded)) == 1:
            return Flaw("repeated", "This password is one character over and over.")
        if folded in self.common:
            return Flaw("common", "This password is among those that everybody tries first.")
        words = self._context(email, username)
        cores = {core for word in words if len(core := word.strip(_AROUND)) >= WORD_MIN}
        if folded in words or folded.strip(_AROUND) in cores:
            message = "This password is the address, the name, or the name of this service, or little more."
            return Flaw("context", message)
        return None

    def _context(self, email: Email | None, username: Username | None) -> set[str]:
        words = {self.service}
        if email is not None:
            words |= {email.address, email.key, email.key.rpartition("@")[0]}
        if username is not None:
            words.add(username.key)
        return {_folded(word) for word in words}


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def read_code(text: str, digits: int) -> Secret | Flaw:
    """Read a code of `digits` digits as people type it: spaces and dashes are ignored, leading zeros kept."""
    code = unicodedata.normalize("NFKC", text).translate(_CODE_NOISE)
    if len(code) == digits and code.isascii() and code.isdigit():
        return Secret(code)
    return Flaw("invalid_code", f"The code has {digits} digits, sent as a string.")


@dataclass(frozen=True, slots=True)
class LinkToken:
    """What a link in a mail carries: for whom it is, and 128 random bits that are stored nowhere but as a MAC."""

    subject: UUID
    secret: Secret

    def text(self) -> Secret:
        """Return it as it stands in the letter: 43 characters that need no quoting in a URL.

        The subject lies under the random bits, so every token of one is another text from its first character on.
        """
        secret = int(self.secret.reveal(), 16)
        octets = (self.subject.int ^ secret).to_bytes(16, "big") + secret.to_bytes(16, "big")
        return Secret(urlsafe_b64encode(octets).rstrip(b"=").decode("ascii"))

    @classmethod
    def parse(cls, text: str) -> "LinkToken | None":
        """Read it back; None for what was never one."""
        if not _LINK_TOKEN.fullmatch(text):
            return None
        octets = urlsafe_b64decode(text + "=")
        secret = int.from_bytes(octets[16:], "big")
        return cls(UUID(int=int.from_bytes(octets[:16], "big") ^ secret), Secret(f"{secret:032x}"))
