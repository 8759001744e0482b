"""Secrets that passed through the tests of this process, and the search for them where none may be.

Every httpx client of the tests is listened to: passwords, tokens and proofs that were sent, tokens that were answered
or mailed. Every service that a test started is searched for all of them at its end, in whatever form they could have
been written. Short texts are no canaries: twelve characters are what nobody logs by chance.

The search costs the same however many canaries there are. Each form of each is known by the eight octets at its first
five places, so one of these lies at a multiple of five wherever the form is: a haystack is cut there, and only there.
"""

import base64
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, quote_plus, urlsplit

import httpx

SHORTEST: Final = 12  # octets of a form
GRAM: Final = 8
STRIDE: Final = SHORTEST - GRAM + 1
VARIED: Final = 6  # different characters: "aaaaaaaaaaaa" is nobody's secret
CHUNK: Final = 1 << 20  # octets that are cut at once, so that the pieces stay few
MAILED: Final = "mailed"  # the kind of what a letter held: a console prints letters
SENT: Final = frozenset({"password", "current_password", "new_password", "token", "link_token", "refresh_token"})
ANSWERED: Final = frozenset({"access_token", "refresh_token"})
RANDOM: Final = re.compile(r"(?=.{20})(?:[\w-]{4})*(?:[\w-]{2,4})?", re.ASCII)
DIGITS: Final = re.compile(rb"\d{10,}")
TOKEN: Final = re.compile(r"(?<![\w-])[\w-]{43}(?![\w-])", re.ASCII)
SECRET_NAME: Final = re.compile(r"(SECRET|SECRET_PREVIOUS|TOKEN|PASSWORD)$")


@dataclass(frozen=True, slots=True)
class Canary:
    """A secret: `kind` says where it came from, for whoever reads that it was found."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Found:
    """A secret where none may be: what it is, in which form, and what stands around it."""

    canary: Canary
    form: bytes
    around: str


def forms(text: str) -> set[bytes]:
    """Return how a secret could be written: as it is, normalised, escaped, quoted, in hex, in base64 at any place."""
    found = {text.casefold().encode("utf-8", "surrogatepass")}
    for one in {text, unicodedata.normalize("NFKC", text), unicodedata.normalize("NFC", text)}:
        octets = one.encode("utf-8", "surrogatepass")
        found |= {octets, json.dumps(one)[1:-1].encode(), repr(one)[1:-1].encode(errors="backslashreplace")}
        found.add(json.dumps(one, ensure_ascii=False)[1:-1].encode("utf-8", "surrogatepass"))
        found |= {ascii(one)[1:-1].encode(), repr(octets)[2:-1].encode()}
        found |= {quote(octets, safe="").encode(), quote(octets).encode(), quote_plus(octets).encode()}
        found |= {octets.hex().encode(), octets.hex().upper().encode()}
        for before, cut in ((0, 0), (1, 2), (2, 3)):  # octets in front of it, and characters that they have a part in
            whole = octets[: len(octets) - (before + len(octets)) % 3]
            inner = base64.b64encode(b"\0" * before + whole)[cut:]
            found |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    if RANDOM.fullmatch(text):  # octets that base64url was made of
        found.add(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).hex().encode())
    return {form for form in found if len(form) >= SHORTEST}


@dataclass
class Canaries:
    """What is known; `KNOWN` is that of this process."""

    waiting: list[Canary] = field(default_factory=list)  # their forms are made when somebody searches
    all: dict[str, Canary] = field(default_factory=dict)  # by text: of what was mailed and then shown, mailed is kept
    grams: dict[bytes, list[tuple[bytes, Canary]]] = field(default_factory=dict, repr=False)
    codes: dict[bytes, Canary] = field(default_factory=dict)
    listening: bool = False

    def add(self, kind: str, text: object) -> None:
        """Note a secret, unless it is too plain to be one: some try their address as password, and logs may have it."""
        if isinstance(text, str) and len(text) >= SHORTEST and len(set(text)) >= VARIED and "@" not in text:
            self._note(Canary(kind, text))

    def add_code(self, code: str) -> None:
        """Note a code, of ten digits: shorter ones are among times and ports by chance."""
        assert len(code) == 10
        self._note(Canary("code", code))
        self.codes[code.encode()] = Canary("code", code)

    def _note(self, canary: Canary) -> None:
        if canary.text not in self.all:
            self.all[canary.text] = canary
            self.waiting.append(canary)

    def environment(self, environ: Mapping[str, str]) -> None:
        """Note what a service is told in confidence."""
        for name, value in environ.items():
            if SECRET_NAME.search(name):
                self.add(name, value)
            elif "://" in value:
                self.add(name, urlsplit(value).password)

    def request(self, request: httpx.Request) -> None:
        """Note what a client sends in confidence."""
        scheme, _, proof = request.headers.get("Authorization", "").partition(" ")
        if scheme == "Bearer":
            self.token("bearer", proof)
        elif scheme == "Basic":
            self.add("basic", proof)
            self.add("password", _password(proof))
        self.add("idempotency key", request.headers.get("Idempotency-Key"))
        self.body(request.content if isinstance(request.stream, httpx.ByteStream) else b"")

    def body(self, body: bytes) -> None:
        """Note what the body of a request holds in confidence."""
        for name, text in _texts(body):
            if name in SENT:
                self.token(name, text)

    def response(self, response: httpx.Response) -> None:
        """Note what a service answers in confidence, and what the mailbox of a test shows."""
        body = response.content if response.is_closed else b""
        if "/messages" in response.url.path or response.url.path.endswith("/search"):
            for _, text in _texts(body):
                self.letter(text)
        elif response.is_success:
            for name, text in _texts(body):
                if name in ANSWERED:
                    self.token(name, text)
        for cookie in response.headers.get_list("Set-Cookie"):
            self.add("cookie", cookie.partition("=")[2].partition(";")[0])

    def letter(self, text: str) -> None:
        """Note the tokens of a letter."""
        for token in TOKEN.findall(text):
            self.add(MAILED, token)

    def token(self, kind: str, text: str) -> None:
        """Note a token; of a signed one its signature, without which the rest opens nothing."""
        self.add(kind, text.rpartition(".")[2] if text.count(".") == 2 else text)

    def found(self, haystack: bytes, *, but: Iterable[str] = ()) -> list[Found]:
        """Return what of it is in there, except of the kinds in `but`."""
        self._learn()
        likely: set[bytes] = set()
        for begin in range(0, len(haystack), CHUNK - CHUNK % STRIDE):
            piece = haystack[begin : begin + CHUNK - CHUNK % STRIDE + GRAM]
            likely |= {piece[at : at + GRAM] for at in range(0, len(piece), STRIDE)} & self.grams.keys()
        suspected = {one for gram in likely for one in self.grams[gram]}
        runs = set(DIGITS.findall(haystack))
        suspected |= {(code, canary) for run in runs for code, canary in self.codes.items() if code in run}
        seen: dict[Canary, Found] = {}
        for form, canary in suspected:
            if canary.kind not in but and (at := haystack.find(form)) >= 0:
                around = haystack[max(0, at - 300) : at + len(form) + 100]
                seen.setdefault(canary, Found(canary, form, around.decode(errors="replace")))
        return sorted(seen.values(), key=lambda one: one.canary.text)

    def _learn(self) -> None:
        while self.waiting:
            canary = self.waiting.pop()
            for form in forms(canary.text):
                for at in range(STRIDE):
                    self.grams.setdefault(form[at : at + GRAM], []).append((form, canary))


KNOWN: Final = Canaries()


def assert_none(haystack: bytes, where: str, *, but: Iterable[str] = ()) -> None:
    """Fail if anything known is in there."""
    found = KNOWN.found(haystack, but=but)
    told = "\n".join(f"{one.canary} as {one.form!r} in …{one.around}…" for one in found[:3])
    assert not found, f"{len(found)} secrets in {where}:\n{told}"


@contextmanager
def listening(known: Canaries = KNOWN) -> Iterator[None]:
    """Listen to every httpx client until the end of the block; all they say and hear is as it was."""
    send, send_async = httpx.Client.send, httpx.AsyncClient.send

    def heard(self: httpx.Client, request: httpx.Request, **how: Any) -> httpx.Response:
        known.request(request)
        response = send(self, request, **how)
        known.response(response)
        return response

    async def heard_async(self: httpx.AsyncClient, request: httpx.Request, **how: Any) -> httpx.Response:
        known.request(request)
        response = await send_async(self, request, **how)
        known.response(response)
        return response

    httpx.Client.send, httpx.AsyncClient.send = heard, heard_async  # type: ignore[method-assign]  # for the block
    known.listening = True
    try:
        yield
    finally:
        known.listening = False
        httpx.Client.send, httpx.AsyncClient.send = send, send_async  # type: ignore[method-assign]


def _texts(body: bytes) -> Iterator[tuple[str, str]]:
    """Yield the texts of a JSON object by name, at any depth; nothing of what is no JSON."""
    try:
        yield from _leaves("", json.loads(body))
    except (ValueError, RecursionError):
        return


def _leaves(name: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for inner, one in value.items():
            yield from _leaves(inner, one)
    elif isinstance(value, list):
        for one in value:
            yield from _leaves(name, one)


def _password(proof: str) -> str:
    try:
        return base64.b64decode(proof).decode().partition(":")[2]
    except ValueError:
        return ""
