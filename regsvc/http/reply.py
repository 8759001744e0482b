"""Answers that are no problems."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel
from quart import Response
from quart_trio.wrappers import TrioResponse

from regsvc.domain.refusals import Refused
from regsvc.http.problems import Dialect, Told, Writer, headers, told

Answer = Response | Refused | Told
View = Callable[..., Awaitable[Answer]]
"""What answers a route; a refusal is worded by the table of `problems`."""

HTML_POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; script-src 'self'; connect-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class Wording:
    """Makes responses of what views answer; `basic`: the names of the routes that take Basic."""

    writer: Writer
    basic: frozenset[str]

    def respond(self, answer: Response | Told, route: str | None, instance: str, dialect: Dialect) -> Response:
        """Return an answer of a route as a response; `instance` is the id of the request."""
        if isinstance(answer, Told):
            head = headers(answer, basic=route in self.basic)
            return TrioResponse(self.writer.body(answer, instance, dialect), answer.kind.status, head)
        return answer


def worded(answer: Answer) -> Response | Told:
    """Put a refusal in words."""
    return told(answer) if isinstance(answer, Refused) else answer


def reply(model: BaseModel, status: int = 200) -> Response:
    """Answer with a JSON object."""
    return written(model.model_dump_json().encode(), status)


def written(json: bytes, status: int = 200) -> Response:
    """Answer with a JSON object that is bytes already."""
    return TrioResponse(json, status, content_type="application/json")


def nothing(cookie: str | None = None) -> Response:
    """Answer 204: done, and there is nothing to say; `cookie` is a Set-Cookie."""
    answer = TrioResponse(b"", 204)
    del answer.headers["Content-Type"]
    del answer.headers["Content-Length"]  # RFC 9110, 8.6: never with a 204
    if cookie is not None:
        answer.headers["Set-Cookie"] = cookie
    return answer


def nothing_unless(refused: Refused | None) -> Answer:
    """Answer that it is done, unless it was refused."""
    return refused or nothing()


def page(html: str) -> Response:
    """Answer with a page that loads nothing from elsewhere, and that nobody frames."""
    answer = TrioResponse(html, 200, content_type="text/html; charset=utf-8")
    answer.headers["Content-Security-Policy"] = HTML_POLICY
    return answer
