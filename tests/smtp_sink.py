"""A real SMTP server that keeps what it is given: aiosmtpd on a thread of its own, or as a program of its own.

The loop is made here and never asked of asyncio's policy, which other packages replace; so nothing else in the process
notices, and nothing else there changes how this runs. `python -m tests.smtp_sink` says its port, then one line a mail.
"""

import asyncio
import re
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP as POLICY
from typing import Any

import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

HOST = "127.0.0.1"
SECONDS = 10.0  # how long anything here is waited for


@dataclass(frozen=True, slots=True)
class Received:
    """A mail as it came: envelope, message, whether the connection was under TLS, who had logged in, and when."""

    sender: str
    to: tuple[str, ...]
    raw: bytes = field(repr=False)
    tls: bool
    login: str | None
    at: float = field(default_factory=time.time)  # seconds of the epoch; just before the answer to the dot

    @property
    def message(self) -> EmailMessage:
        """The message."""
        return message_from_bytes(self.raw, _class=EmailMessage, policy=POLICY)

    @property
    def text(self) -> str:
        """Its text part."""
        part = self.message.get_body(("plain",))
        assert part is not None
        return str(part.get_content())

    @property
    def numbers(self) -> set[str]:
        """What stands alone on a line and is digits, in whatever part; none in a notice.

        Unparsed: that takes some ten milliseconds, in which a relay that does it has the mail and has not said so.
        """
        return {found.decode() for found in re.findall(rb"(?m)^(\d+)\r?$", self.raw)}

    @property
    def code(self) -> str:
        """The code: what stands alone on its line and is digits."""
        numbers = self.numbers
        if len(numbers) == 1:
            return numbers.pop()
        found = re.findall(r"(?m)^(\d+)\r?$", self.text)
        assert len(found) == 1, found
        return str(found[0])


@dataclass(slots=True)
class Sink:
    """The mails so far, in order; `refusals` says what a recipient is answered instead of 250, and may be changed.

    `echoes`: after the letter, such a recipient's is refused so, with all its words, as some relays do.
    """

    port: int = 0
    mails: list[Received] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)
    echoes: dict[str, str] = field(default_factory=dict)
    connections: int = 0  # open now
    opened: int = 0
    told: Callable[[Received], None] | None = None
    servers: "set[_Server]" = field(default_factory=set, repr=False)
    _changed: threading.Condition = field(default_factory=threading.Condition, repr=False)

    def wait(self, count: int, seconds: float = SECONDS) -> list[Received]:
        """Block until there are `count` mails, and return them. From Trio: `await trio.to_thread.run_sync(...)`."""
        return self._wait_for(lambda: len(self.mails) >= count, seconds)

    def wait_quiet(self, seconds: float = SECONDS) -> list[Received]:
        """Block until nobody is connected."""
        return self._wait_for(lambda: self.connections == 0, seconds)

    def _wait_for(self, condition: Callable[[], bool], seconds: float) -> list[Received]:
        with self._changed:
            if not self._changed.wait_for(condition, seconds):
                raise TimeoutError(f"{len(self.mails)} mails, {self.connections} connections after {seconds:g} s")
            return list(self.mails)

    def count(self, change: int) -> None:
        """A connection came or went."""
        with self._changed:
            self.connections += change
            self.opened += max(change, 0)
            self._changed.notify_all()

    async def hang_up(self) -> None:
        """End every conversation that is still going on (on the loop)."""
        for server in tuple(self.servers):
            server.abort()
        while self.connections:  # noqa: ASYNC110 - their ends are told by the transports, which know no event
            await asyncio.sleep(0)  # each is told in its turn
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    def take(self, mail: Received) -> None:
        """A mail came."""
        with self._changed:
            self.mails.append(mail)
            self._changed.notify_all()
        if self.told is not None:
            self.told(mail)

    # The names are aiosmtpd's hooks.

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        refusal = self.refusals.get(address)
        if refusal is not None:
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - as above
        data: object = session.auth_data
        login = data.login.decode() if isinstance(data, LoginPassword) else None
        raw = envelope.content
        assert isinstance(raw, bytes)
        tls = session.ssl is not None
        mail = Received(envelope.mail_from or "", tuple(envelope.rcpt_tos), raw, tls, login)
        self.take(mail)
        refusal = self.echoes.get(mail.to[0])
        return "250 OK" if refusal is None else f"{refusal} {' '.join(mail.text.split())}"


class _Server(SMTP):
    """aiosmtpd's protocol, counting connections."""

    def __init__(self, sink: Sink, implicit: ssl.SSLContext | None, *, auth: bool, **knobs: Any) -> None:
        super().__init__(sink, **knobs)
        self._sink, self._implicit = sink, implicit
        # Set here because its own arguments for this warn, and warnings are errors.
        self._auth_required, self._auth_require_tls = auth, not auth

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self not in self._sink.servers:  # else this is the same connection, under TLS now
            self._sink.servers.add(self)
            self._sink.count(1)
        super().connection_made(transport)
        if self._implicit is not None:
            assert self.session is not None
            self.session.ssl = transport.get_extra_info("ssl_object")

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        if self in self._sink.servers:
            self._sink.servers.remove(self)
            self._sink.count(-1)

    def abort(self) -> None:
        """Close the connection at once."""
        assert isinstance(self.transport, asyncio.Transport)
        self.transport.abort()


@contextmanager
def open_sink(
    *,
    starttls: ssl.SSLContext | None = None,
    implicit: ssl.SSLContext | None = None,
    logins: Mapping[str, str] | None = None,
    utf8: bool = True,
    port: int = 0,
    told: Callable[[Received], None] | None = None,
) -> Iterator[Sink]:
    """Serve on a thread until the end of the block; `logins` are the passwords by name, None: nobody need log in.

    With `starttls` no mail is taken before it.
    """

    def authenticate(_server: SMTP, _session: Session, _envelope: Envelope, _way: str, data: object) -> AuthResult:
        assert isinstance(data, LoginPassword)
        known = (logins or {}).get(data.login.decode())
        success = known is not None and known.encode() == data.password
        return AuthResult(success=success, handled=False, auth_data=data)

    sink = Sink(told=told)
    knobs: dict[str, Any] = {
        "loop": (loop := asyncio.SelectorEventLoop()),
        "enable_SMTPUTF8": utf8,
        "tls_context": starttls,
        "require_starttls": starttls is not None,
        "auth": logins is not None,
        "authenticator": authenticate if logins is not None else None,
        "hostname": "sink.test",
        "ident": "sink",
    }
    listening = loop.run_until_complete(
        loop.create_server(lambda: _Server(sink, implicit, **knobs), HOST, port, ssl=implicit)
    )
    sink.port = listening.sockets[0].getsockname()[1]
    thread = threading.Thread(target=_run, args=(loop, listening, sink), name="smtp sink")
    thread.start()
    try:
        yield sink
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def _run(loop: asyncio.AbstractEventLoop, listening: asyncio.Server, sink: Sink) -> None:
    try:
        loop.run_forever()
    finally:
        listening.close()
        loop.run_until_complete(sink.hang_up())
        loop.close()


def tls_pair(*names: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a server named `names` (default: this host) and a client that trusts its authority need."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or (HOST,))).configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Serve until standard input ends."""
    with open_sink(told=lambda mail: _tell(mail.to[0])) as sink:
        _tell(str(sink.port))
        sys.stdin.read()


if __name__ == "__main__":
    main()
