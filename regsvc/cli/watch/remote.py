"""A running service, asked over HTTP: its log as a stream, its numbers, and who may read them.

With the stdlib's client on a thread, and not httpx, which only tests need: a console waits for one connection, and
`http.client` follows no redirect, so that a token goes where it was meant to and nowhere else.
"""

import http.client
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from regsvc.domain.values import Secret

SILENCE: Final = 40.0  # seconds; the service says something every 15
PATIENCE: Final = 5.0  # seconds for an answer that is no stream
LINE_MAX: Final = 1 << 20  # octets of a line of the stream
BODY_MAX: Final = 1 << 22  # octets of another answer
STREAM: Final = "/v1/admin/logs/stream"
METRICS: Final = "/v1/metrics"


class Denied(Exception):  # noqa: N818 - it says what is the matter
    """The service says no, and would say so again."""


class Stale(Denied):
    """It no longer knows who asks; a login may be renewed."""


class Away(Exception):  # noqa: N818 - as above
    """There is no service now, or none that answers; it may come."""


@dataclass(frozen=True, slots=True)
class Message:
    """An event of the stream."""

    event: str
    data: Mapping[str, Any]


@dataclass(slots=True)
class Remote:
    """A service by its base address; `token` is what is shown to it. Raises Denied and Away from every question."""

    url: str
    token: Secret | None = None
    renewal: Secret | None = field(default=None, repr=False)  # the refresh token of a login of ours

    def messages(self, level: str) -> Iterator[Message]:
        """Yield what the log's stream says, from now until it ends."""
        with self._asking("GET", f"{STREAM}?level={level}", None, SILENCE) as answer:
            self._judge(answer, STREAM)
            kind = answer.getheader("Content-Type", "")
            if not kind.startswith("text/event-stream"):
                raise Denied(f"{self.url}{STREAM} is no stream: is that the address of the service?")
            yield from _messages(answer)

    def metrics(self) -> Mapping[str, Any] | None:
        """Return the numbers of the service; None where it does not show them."""
        try:
            return self._ask("GET", METRICS)
        except Denied:
            return None

    def log_in(self, email: str, password: Secret) -> None:
        """Get a token for an administrator's account."""
        form = {"email": email, "password": password.reveal()}
        try:
            self._keep(self._ask("POST", "/v1/auth/login", form))
        except Stale:
            raise Denied("address or password is wrong") from None

    def renew(self) -> bool:
        """Get a new token for a login of ours; False: there is none, or it has ended."""
        if self.renewal is None:
            return False
        try:
            self._keep(self._ask("POST", "/v1/auth/refresh", {"refresh_token": self.renewal.reveal()}))
        except Denied:
            return False
        return True

    def log_out(self) -> None:
        """End a login of ours, if there is one and the service is there."""
        if self.renewal is not None:
            with suppress(Denied, Away):
                self._ask("POST", "/v1/auth/logout")
            self.renewal = None

    def _keep(self, admitted: Mapping[str, Any]) -> None:
        self.token, self.renewal = Secret(admitted["access_token"]), Secret(admitted["refresh_token"])

    def _ask(self, method: str, path: str, form: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        with self._asking(method, path, form, PATIENCE) as answer:
            self._judge(answer, path)
            return _object(answer.read(BODY_MAX))

    @contextmanager
    def _asking(
        self, method: str, path: str, form: Mapping[str, Any] | None, timeout: float
    ) -> Iterator[http.client.HTTPResponse]:
        parts = urlsplit(self.url)
        body = None if form is None else json.dumps(form).encode()
        head = {"Accept": "text/event-stream, application/json"}
        if body is not None:
            head["Content-Type"] = "application/json"
        elif self.token is not None:
            head["Authorization"] = f"Bearer {self.token.reveal()}"
        connection, answers = _connection(self.url, timeout), _Answers()
        connection.response_class = answers  # type: ignore[assignment]  # what makes one will do
        try:
            connection.request(method, parts.path.rstrip("/") + path, body, head)
            yield connection.getresponse()
        except ssl.SSLCertVerificationError as why:
            raise Denied(f"{self.url}: its certificate is not good: {why.verify_message}") from why
        except TimeoutError as why:
            raise Away(f"{self.url} said nothing for {timeout:g} s") from why
        except http.client.HTTPException as why:
            raise Away(f"{self.url} does not speak HTTP, or stopped in the middle ({type(why).__name__})") from why
        except OSError as why:
            raise Away(f"{self.url} cannot be reached: {why.strerror or why}") from why
        finally:
            answers.close()
            connection.close()

    def _judge(self, answer: http.client.HTTPResponse, path: str) -> None:
        """Raise what a status means."""
        match answer.status:
            case status if 200 <= status < 300:
                return
            case HTTPStatus.UNAUTHORIZED:
                raise Stale(f"{self.url} does not take this token: is it the service's REGSVC_ADMIN_TOKEN?")
            case HTTPStatus.FORBIDDEN:
                raise Denied(f"{self.url} says that this account is no administrator's")
            case HTTPStatus.NOT_FOUND | HTTPStatus.METHOD_NOT_ALLOWED:
                raise Denied(f"{self.url} has no {path}: is that the address of the service?")
            case status if 300 <= status < 400:
                raise Denied(f"{self.url} is elsewhere ({status}): name the address that it redirects to")
            case status if status >= 500 or status == HTTPStatus.TOO_MANY_REQUESTS:
                raise Away(f"{self.url} answers {status}")
            case status:
                raise Denied(f"{self.url} answers {status} to {path}")


class _Answers:
    """Makes answers, and closes them: the client forgets one that did not come, and its socket with it."""

    def __init__(self) -> None:
        self._made: list[http.client.HTTPResponse] = []

    def __call__(self, sock: socket.socket, debuglevel: int = 0, method: str | None = None) -> http.client.HTTPResponse:
        self._made.append(http.client.HTTPResponse(sock, debuglevel, method))
        return self._made[-1]

    def close(self) -> None:
        for one in self._made:
            one.close()


def _connection(url: str, timeout: float) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https":
        return http.client.HTTPSConnection(host, parts.port, timeout=timeout, context=ssl.create_default_context())
    return http.client.HTTPConnection(host, parts.port, timeout=timeout)


def _messages(answer: http.client.HTTPResponse) -> Iterator[Message]:
    event, data = "message", ""
    while line := answer.readline(LINE_MAX):
        name, _, value = line.decode("utf-8", "replace").rstrip("\r\n").partition(":")
        match name:
            case "event":
                event = value.strip()
            case "data":
                data += value.strip()
            case "" if data and not value:
                yield Message(event, _object(data))
                event, data = "message", ""


def _object(text: str | bytes) -> Mapping[str, Any]:
    """Read a JSON object; what is none is an empty one."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
