"""Answers that are no problems."""

from collections.abc import Awaitable, Callable
from typing import Final

from pydantic import BaseModel
from quart import Response
from quart_trio.wrappers import TrioResponse

from regsvc.domain.refusals import Refused
from regsvc.http.problems import Told

View = Callable[..., Awaitable[Response | Refused | Told]]
"""What answers a route; a refusal is worded by the table of `problems`."""

HTML_POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; script-src 'self'; connect-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


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


def page(html: str) -> Response:
    """Answer with a page that loads nothing from elsewhere, and that nobody frames."""
    answer = TrioResponse(html, 200, content_type="text/html; charset=utf-8")
    answer.headers["Content-Security-Policy"] = HTML_POLICY
    answer.headers["Referrer-Policy"] = "no-referrer"
    return answer
