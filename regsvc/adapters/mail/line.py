"""A connection to a relay, and how it is brought to where mail may be said: greeting, TLS, AUTH. Runs on threads.

smtplib knows the words of SMTP; `Line` adds what it lacks: a conversation that can be cut from outside, and replies of
bounded length.
"""

import base64
import re
import smtplib
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Final

from regsvc.domain.delivery import ERROR_MAX
from regsvc.domain.values import Secret

REPLY_LINE_MAX: Final = 4096  # octets; RFC 5321 4.5.3.1.5 allows 512, relays write more
REPLY_LINES_MAX: Final = 200
_REPLY: Final = re.compile(rb"(\d{3})(?:([ -])(.*?))?\r?\n", re.DOTALL)


class Tls(Enum):
    """How a relay's port is secured; the value is the word in the settings."""

    NONE = "none"
    STARTTLS = "starttls"
    IMPLICIT = "implicit"


@dataclass(frozen=True, slots=True)
class Login:
    """Who we are, to a relay that wants to know."""

    username: str
    password: Secret

    def forms(self) -> tuple[str, ...]:
        """Return what must not be in an error text: the password, and how AUTH encodes it."""
        password = self.password.reveal()
        encoded = (password, f"\0{self.username}\0{password}")
        return password, *(base64.b64encode(form.encode()).decode("ascii") for form in encoded)


class Line(smtplib.SMTP):
    """A connection to a relay. All methods block, and belong to one thread at a time, but for `cut` and `hang_up`."""

    def __init__(self, connected: socket.socket, host: str) -> None:
        super().__init__(local_hostname=_own_name(connected))
        # What cuts has a descriptor of its own: closing the other one on the thread cannot turn it into a stranger's,
        # and an SSLSocket's own shutdown() would make it forget its TLS while the thread still talks.
        self._cord = connected.dup()
        self.sock = connected
        self.host = host
        self.usable = True
        self.carried = 0

    def cut(self) -> None:
        """End whatever is being said, from any thread, at once; the line is of no use afterwards."""
        self.usable = False
        with suppress(OSError):  # it was not connected any more
            self._cord.shutdown(socket.SHUT_RDWR)

    def hang_up(self) -> None:
        """Let go of the connection without a word."""
        self.usable = False
        self.close()
        self._cord.close()

    def secure(self, context: ssl.SSLContext) -> None:
        """Shake hands for TLS and check whom the certificate names; nothing that was said before counts after it."""
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected("not connected")
        self.sock = context.wrap_socket(self.sock, server_hostname=self.host)
        # Replies that were already buffered came from whoever stood in the middle (CVE-2011-0411).
        self.file = None
        self.ehlo_resp = self.helo_resp = None
        self.esmtp_features = {}
        self.does_esmtp = False

    def getreply(self) -> tuple[int, bytes]:
        """Read one reply. Raises SMTPServerDisconnected, also for what is no reply or has no end."""
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected("not connected")
        if self.file is None:
            self.file = self.sock.makefile("rb")
        texts: list[bytes] = []
        while len(texts) < REPLY_LINES_MAX:
            line = self.file.readline(REPLY_LINE_MAX)
            read = _REPLY.fullmatch(line)
            if read is None:
                self.close()
                raise smtplib.SMTPServerDisconnected("it does not speak SMTP" if line else "it closed the connection")
            texts.append((read[3] or b"").strip())
            if read[2] != b"-":
                return int(read[1]), b"\n".join(texts)
        self.close()
        raise smtplib.SMTPServerDisconnected("its reply has no end")


@dataclass(slots=True)
class Progress:
    """How far a conversation is: what was said last, and why nothing more could be said, if so."""

    stage: str = "connecting"
    lost: str = ""


@dataclass(slots=True)
class Opening:
    """Brings a new line to where mail may be said."""

    tls: Tls
    context: ssl.SSLContext
    login: Login | None
    progress: Progress

    def run(self, line: Line) -> None:
        """Greet, secure, log in; what fails makes the line unusable. Never raises for what a relay does."""
        try:
            self._steps(line)
        except ssl.SSLCertVerificationError as why:
            self._fail(line, f"the certificate is not good for {line.host}: {why.verify_message}")
        except ssl.SSLError as why:
            self._fail(line, f"TLS failed ({why.reason or why}); is SMTP_TLS={self.tls.value} right for this port?")
        except (OSError, ValueError) as why:  # smtplib's own are OSErrors; ValueError: what it cannot decode
            self._fail(line, reason(why))

    def _steps(self, line: Line) -> None:
        if self.tls is Tls.IMPLICIT:
            self._secure(line)
        self.progress.stage = "greeting"
        code, reply = line.getreply()
        if code != 220:
            return self._fail(line, said(code, reply))
        self._ehlo(line)
        if self.tls is Tls.STARTTLS:
            self.progress.stage = "STARTTLS"
            if not line.has_extn("starttls"):
                return self._fail(line, "the relay does not offer it; is SMTP_TLS=starttls right for this port?")
            code, reply = line.docmd("STARTTLS")
            if code != 220:
                return self._fail(line, said(code, reply))
            self._secure(line)
            self._ehlo(line)
        return None if self.login is None else self._log_in(line, self.login)

    def _secure(self, line: Line) -> None:
        self.progress.stage = "TLS handshake"
        line.secure(self.context)

    def _ehlo(self, line: Line) -> None:
        self.progress.stage = "EHLO"
        line.ehlo_or_helo_if_needed()

    def _log_in(self, line: Line, login: Login) -> None:
        self.progress.stage = "AUTH"
        if not (login.username + login.password.reveal()).isascii():
            return self._fail(line, "SMTP_USERNAME and SMTP_PASSWORD can have ASCII characters only")
        if not line.has_extn("auth"):
            return self._fail(line, "the relay takes no log-in here; with SMTP_TLS=none most do not")
        try:
            line.login(login.username, login.password.reveal())
        except smtplib.SMTPAuthenticationError as why:
            self._fail(line, f"{reason(why)}; are SMTP_USERNAME and SMTP_PASSWORD right?")
        finally:
            line.user = line.password = ""  # smtplib would keep them
        return None

    def _fail(self, line: Line, why: str) -> None:
        line.usable = False
        self.progress.lost = plain(why, () if self.login is None else self.login.forms())


def reason(error: BaseException) -> str:
    """Say an error in few words: the relay's own, where it had any."""
    match error:
        case smtplib.SMTPResponseException(smtp_code=int(code), smtp_error=bytes(reply)):
            return said(code, reply)
        case OSError(strerror=str(text)):
            return text
        case _:
            return str(error) or type(error).__name__


def said(code: int, reply: bytes) -> str:
    """Say what the relay said."""
    return f"{code} {reply.decode('utf-8', 'replace')}".strip()


def plain(text: str, hidden: tuple[str, ...]) -> str:
    """Make words of a relay's fit for a log: one line, printable, short, and without what is `hidden`."""
    for words in hidden:
        text = re.sub(re.escape(words), "…", text, flags=re.IGNORECASE) if words else text
    return "".join(c if c.isprintable() else " " for c in text)[:ERROR_MAX].rstrip()


def _own_name(connected: socket.socket) -> str:
    """Return what EHLO calls us: the machine's name if it is a whole one, else our address (RFC 5321 4.1.4).

    Without a look into the DNS, which is what smtplib would do, on whatever thread it is.
    """
    name = socket.gethostname()
    if "." in name and name.isascii():
        return name
    address = connected.getsockname()[0]
    return f"[IPv6:{address.partition('%')[0]}]" if ":" in address else f"[{address}]"
