"""Nobody makes a mail say, or reach, more than it should: hundreds of tries against a real service and a real relay.

Each accepted registration gives one envelope with one recipient, the address as it was typed; nobody else is mailed;
headers are ours alone, and links lead to PUBLIC_URL, whatever was sent, in whatever field.
"""

import base64
import json
import re
import socket
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from regsvc.domain.values import Email
from tests.chaos.ledger import PASSWORD
from tests.e2e.injections import EVIL, Injection, injections
from tests.service import Service, running
from tests.smtp_sink import Received, Sink, open_sink

FEW = 400
OWNER = "owner@example.test"
PUBLIC = "https://accounts.example.test/base"
SENDER = "no-reply@accounts.example.test"
FIELDS = [
    "To", "Date", "Message-ID", "From", "Subject", "Auto-Submitted", "X-Auto-Response-Suppress", "MIME-Version",
    "Content-Language", "Content-Type",
]  # fmt: skip
FIXED = {
    "From": re.compile(rf"regsvc <{SENDER}>"),
    "Subject": re.compile(r"[A-Za-zäöüÄÖÜ ]+"),
    "Message-ID": re.compile(r"<[0-9a-f-]{36}@accounts\.example\.test>"),
    "Auto-Submitted": re.compile("auto-generated"),
    "X-Auto-Response-Suppress": re.compile("All"),
    "MIME-Version": re.compile(r"1\.0"),
    "Content-Language": re.compile("en|de"),
    "Content-Type": re.compile(r'multipart/alternative; boundary="=_part_of_letter_="'),
    "Date": re.compile(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [-+]0000"),
}
LINK = re.compile(r"""(?:https?|ftp|mailto):[^\s"<>]*""")


@dataclass
class Mischief:
    """Who sends all that; `wanted` has a mail to come for each time it stands there, `may` who may get some."""

    service: Service
    bearer: str = ""
    wanted: list[str] = field(default_factory=list)
    may: set[str] = field(default_factory=set)
    sent: int = 0

    def post(self, path: str, body: object, *headers: str, method: str = "POST") -> tuple[int, bytes]:
        """Send a request by hand, for clients would refuse to; return status and body."""
        data = json.dumps(body, ensure_ascii=self.sent % 2 == 0).encode("utf-8", "surrogatepass")
        named = {line.partition(":")[0].lower() for line in headers}
        own = [] if "host" in named else [f"Host: 127.0.0.1:{self.service.port}"]
        head = [f"{method} {path} HTTP/1.1", *own, "Content-Type: application/json", "Connection: close", *headers]
        text = "\r\n".join([*head, f"Content-Length: {len(data)}", "", ""]).encode("utf-8", "surrogatepass")
        with socket.create_connection(("127.0.0.1", self.service.port), timeout=10) as line:
            line.sendall(text + data)
            answer = b""
            while chunk := line.recv(65536):
                answer += chunk
        head_, _, found = answer.partition(b"\r\n\r\n")
        return int(head_.split(b" ", 2)[1]), found

    def register(self, email: str, *headers: str, **more: str) -> int:
        """Register; note who is to be mailed."""
        status, _ = self.post("/v1/users/register", {"email": email, "password": PASSWORD, **more}, *headers)
        if status == 201:
            self.wanted.append(recipient(email))
        return status

    def propose(self, email: str) -> int:
        form = {"new_email": email, "password": PASSWORD}
        status, _ = self.post("/v1/users/me/email", form, f"Authorization: Bearer {self.bearer}")
        if status == 202:
            self.may.add(recipient(email))
        return status

    def log_in(self, header: str) -> int:
        """Log in; the newest session is the one that is used, for too many end the oldest."""
        status, body = self.post("/v1/auth/login", {"email": OWNER, "password": PASSWORD}, header)
        if status == 200:
            self.bearer = json.loads(body)["access_token"]
        return status

    def commit(self, one: Injection) -> int:
        """Send one."""
        self.sent += 1
        fresh = f"mark-{self.sent}"
        text = one.filled(fresh)
        match one.place:
            case "email":
                return self.register(text)
            case "username" | "locale":
                return self.register(f"{fresh}@example.test", **{one.place: text})
            case "new_email":
                return self.propose(text)
            case "forgot-password" | "send-code":
                return self.post(f"/v1/auth/{one.place}", {"email": text})[0]
            case "User-Agent":
                return self.log_in(f"User-Agent: {text}")
            case header:
                return self.register(f"{fresh}@example.test", f"{header}: {text}")


def recipient(typed: str) -> str:
    """Return what stands in the envelope: the local part as it was typed, the domain as A-labels."""
    read = Email.parse(typed)
    assert isinstance(read, Email), typed
    assert typed.strip().removesuffix(".") == read.address
    return f"{read.address.rpartition('@')[0]}@{read.key.rpartition('@')[2]}"


@pytest.fixture
def sink() -> Iterator[Sink]:
    with open_sink() as one:
        yield one


@pytest.fixture
def mischief(sink: Sink) -> Iterator[Mischief]:
    with (
        tempfile.TemporaryDirectory(prefix="regsvc ") as folder,
        running(
            Path(folder), PASSWORD_ROUNDS="4", RESEND_COOLDOWN="0", HASH_QUEUE="1000", PUBLIC_URL=PUBLIC,
            MAIL_CHANNEL="smtp", SMTP_HOST="127.0.0.1", SMTP_PORT=str(sink.port), SMTP_TLS="none", MAIL_FROM=SENDER,
        ) as one,
    ):  # fmt: skip
        yield Mischief(one)


@pytest.mark.timeout(0)
def test_nobody_makes_a_mail_say_or_reach_more_than_it_should(
    mischief: Mischief, sink: Sink, rounds: int | None
) -> None:
    assert mischief.register(OWNER) == 201
    [welcome] = sink.wait(1)
    who = base64.b64encode(f"{OWNER}:{PASSWORD}".encode()).decode()
    assert mischief.post("/v1/users/activate", {"code": welcome.code}, f"Authorization: Basic {who}")[0] == 200
    assert mischief.log_in("User-Agent: tests") == 200
    mischief.may.add(OWNER)
    statuses = Counter(mischief.commit(one) for one in injections(rounds or FEW))
    print(f"\n{mischief.sent} injections: {dict(sorted(statuses.items()))}, {len(mischief.wanted)} to be mailed")  # noqa: T201
    assert max(statuses) < 500
    assert len(mischief.wanted) > mischief.sent / 10, "not everything is refused"
    # One more, whose mail leaves last: what was to come has come by then, and what was not has not.
    assert mischief.register("the-last-of-all@example.test") == 201
    mails = settled(sink, mischief)
    assert {len(mail.to) for mail in mails} == {1}
    got = Counter(mail.to[0] for mail in mails)
    for email in mischief.wanted:
        assert got[email] == 1 or email == OWNER, email
    assert set(got) <= {*mischief.wanted, *mischief.may}
    assert EVIL not in got
    for mail in mails:
        honest(mail)


def settled(sink: Sink, mischief: Mischief) -> list[Received]:
    """Wait until everybody who is to be mailed was, and return all mails."""
    left, count = set(mischief.wanted), 0
    while left:
        count += 1
        left -= set(sink.wait(count)[count - 1].to)
    return list(sink.mails)


def honest(mail: Received) -> None:
    """Fail if there is anything in a mail that we did not write."""
    message = mail.message
    assert mail.sender == SENDER
    assert message.keys() == FIELDS, mail.to
    assert message["To"] == mail.to[0]
    for name, pattern in FIXED.items():
        assert pattern.fullmatch(message[name]), (name, message[name])
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    for part in message.iter_parts():
        text = str(part.get_content())
        assert all(link.startswith(PUBLIC) for link in LINK.findall(text)), text
        assert "evil.test" not in text
