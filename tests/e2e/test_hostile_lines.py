"""Values that would forge, split or hide a line of the log, wherever a client may put one: one request, one line."""

import base64
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from urllib.parse import quote

import pytest

from tests import lines
from tests.e2e.plain import Asking, ask_all
from tests.http.tiny import Answer
from tests.service import Service, running
from tests.waiting import until

FORGED = '{"ts":"2026-11-21T09:00:00.000000Z","level":"info","event":"http_request","service":"regsvc"}'
VALUES = [
    f"\r\n{FORGED}\r\n".encode(),
    b"\n\r\x0b\x0c\x1c\x85",
    b"\x1b[2J\x1b]0;owned\x07\x9b31m",
    "\u2028\u2029\x85".encode(),
    "\u202e\u2066\u200b\ufeff".encode(),
    b"\0",
    b"\xed\xa0\x80\xed\xbf\xbf",  # lone surrogates, as nobody should write them
    b"\xff\xfe\xc0\x80",
    "\U000e0001\U0001f600\U0010ffff".encode(),
    b'"}],\\" request_id=forged [info] http_request',
    b"x" * 10_000,
    "\u202e".encode() * 3_000,
]
HEADERS = ["User-Agent", "X-Request-ID", "traceparent", "X-Forwarded-For", "Referer", "Origin", "Cookie", "Host"]
HEADERS += ["Content-Type", "Accept", "Idempotency-Key", "Authorization", "X-HTTP-Method-Override", "Forwarded"]
FORM = "/v1/users/register"
PROBE = "/readyz"  # asked by whoever waits until the service is ready, and by nobody here
JSON = (b"Content-Type", b"application/json")
Make = Callable[[bytes], Asking]


def quoted(value: bytes) -> bytes:
    return quote(value, safe="").encode()


def raw(value: bytes) -> bytes:
    """As it is, but for what would end the line: that would be another request."""
    return value.replace(b"\r\n", b"\\r\\n").replace(b"\n", b"\\n")


def with_header(name: str) -> Make:
    return lambda value: Asking("GET", b"/v1/users/me", [(name.encode(), raw(value))])


def with_email(value: bytes) -> Asking:
    """An address in a body, escaped as JSON escapes it: lone surrogates, too."""
    text = value.decode("utf-8", "surrogateescape")  # each octet that is no UTF-8 becomes half of a pair
    body = json.dumps({"email": f"{text}@example.test", "password": text})
    return Asking("POST", FORM.encode(), [JSON], body.encode())


def with_basic(value: bytes) -> Asking:
    shown = base64.b64encode(value + b"@example.test:" + value)
    return Asking("POST", b"/v1/users/activate", [JSON, (b"Authorization", b"Basic " + shown)], b'{"code":"1234"}')


PLACES: dict[str, Make] = {
    "path": lambda value: Asking("GET", b"/v1/" + quoted(value)),
    "below a route": lambda value: Asking("GET", b"/v1/admin/users/" + quoted(value)),
    "raw path": lambda value: Asking("GET", b"/" + raw(value)),
    "query": lambda value: Asking("GET", b"/livez?" + quoted(value) + b"=" + quoted(value)),
    "raw query": lambda value: Asking("GET", b"/livez?x=" + raw(value)),
    "method": lambda value: Asking("GET" + quoted(value).decode()[:20], b"/livez"),
    "address": with_email,
    "credentials": with_basic,
    "body": lambda value: Asking("POST", FORM.encode(), [JSON], value),
    **{name: with_header(name) for name in HEADERS},
    **{f"{name}, quoted": lambda value, name=name: with_header(name)(quoted(value)) for name in HEADERS},  # type: ignore[misc]  # mypy takes no lambda with a default
}


def corpus(mixed: int) -> Iterator[Asking]:
    """Each value at each place; then so many requests with values at several places at once."""
    yield from (make(value) for make, value in product(PLACES.values(), VALUES))
    dice = random.Random(7)
    for _ in range(mixed):
        asking = dice.choice(list(PLACES.values()))(dice.choice(VALUES))
        more = [(name.encode(), raw(dice.choice(VALUES))) for name in dice.sample(HEADERS, 3)]
        yield Asking(asking.method, asking.target, [*asking.headers, *more], asking.body)


def requests_in_json(service: Service) -> list[str]:
    said = lines.read_all(service.log.read_bytes())
    return [line["request_id"] for line in said if line["event"] == "http_request" and line["route"] != PROBE]


SHOWN = re.compile(rb"\d\d:\d\d:\d\d\.\d{3} \[info +\] http_request +.* request_id=([A-Za-z0-9._-]+)( |$)")


def requests_for_people(service: Service) -> list[str]:
    """Read what a person is shown; nothing in it is anything that a terminal would obey."""
    found = []
    for line in service.log.read_bytes().split(b"\n"):
        assert line.decode().isprintable(), line
        if (match := SHOWN.match(line)) and b" route=%b " % PROBE.encode() not in line:
            found.append(match[1].decode())
    return found


@pytest.mark.parametrize(("form", "read"), [("json", requests_in_json), ("pretty", requests_for_people)])
async def test_one_request_is_one_line_whatever_it_holds(
    tmp_path: Path, form: str, read: Callable[[Service], list[str]], rounds: int | None
) -> None:
    """`--rounds 100000` is the large form."""
    answered: Counter[str] = Counter()
    refused = Counter[int]()

    def judge(_asking: Asking, answer: Answer) -> None:
        assert answer.status < 500, answer
        if "traceparent" in answer.headers:
            answered[answer.headers["x-request-id"]] += 1
        else:  # at the door: it was no request, and has no line of one
            refused[answer.status] += 1

    told = {"LOG_FORMAT": form, "TRUSTED_PROXIES": "127.0.0.1/32", "PASSWORD_ROUNDS": "4", "MAIL_CHANNEL": "mailbox"}
    with running(tmp_path, **told) as service:
        await ask_all(service.port, corpus(rounds or 100), judge)
        await until(lambda: len(read(service)) >= answered.total())
        assert service.process is not None
        assert service.process.poll() is None
    assert Counter(read(service)) == answered
    assert answered.total() > len(VALUES) * len(PLACES) / 2
    assert refused.keys() == {400, 413, 431}
