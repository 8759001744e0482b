"""Pages for people: where to begin, what a problem means, the documentation; nothing on them comes from elsewhere."""

from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files
from typing import Final

import trio
from quart import Response, render_template, request
from quart_trio.wrappers import TrioResponse

from regsvc import __version__
from regsvc.http import kinds, models
from regsvc.http.problems import Told, tell
from regsvc.http.reply import View, page, reply

SCRIPT: Final = "text/javascript; charset=utf-8"
STYLE: Final = "text/css; charset=utf-8"
ASSETS: Final[Mapping[str, tuple[str, str]]] = {
    "pages.css": ("pages.css", STYLE),
    "mailbox.css": ("mailbox.css", STYLE),
    "mailbox.js": ("mailbox.js", SCRIPT),
    "docs.js": ("docs.js", SCRIPT),
    "icon.svg": ("icon.svg", "image/svg+xml"),
    "swagger-ui.css": ("swagger-ui/swagger-ui.css", STYLE),
    "swagger-ui-bundle.js": ("swagger-ui/swagger-ui-bundle.js", SCRIPT),
}
"""What `/assets/{name}` serves, a closed list: file under `static/`, and its type."""


def views(document: bytes, example: Callable[[kinds.Kind], str], *, root: str, mailbox: bool) -> Mapping[str, View]:
    """Return what answers the routes of this room; `example` writes a problem of a kind as it looks on the wire."""
    static = trio.Path(str(files("regsvc.http") / "static"))
    by_slug = {kind.slug: kind for kind in kinds.KINDS.values()}

    async def index() -> Response:
        if request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
            return page(await render_template("index.html", version=__version__, root=root, mailbox=mailbox))
        return reply(_index(mailbox=mailbox))

    async def openapi() -> Response:
        return TrioResponse(document, 200, content_type="application/json")

    async def docs() -> Response:
        return page(await render_template("docs.html"))

    async def problem_index() -> Response:
        return page(await render_template("problems.html", kinds=kinds.KINDS.values()))

    async def problem(name: str) -> Response | Told:
        kind = by_slug.get(name)
        if kind is None:
            return tell(kinds.NOT_FOUND, "There is no problem of this name.")
        return page(await render_template("problem.html", kind=kind, example=example(kind)))

    async def asset(name: str) -> Response | Told:
        if name not in ASSETS:
            return tell(kinds.NOT_FOUND)
        path, media_type = ASSETS[name]
        return TrioResponse(await (static / path).read_bytes(), 200, content_type=media_type)

    found: dict[str, Callable[..., Awaitable[Response | Told]]] = {
        "index": index,
        "openapi": openapi,
        "docs": docs,
        "problem_index": problem_index,
        "problem": problem,
        "asset": asset,
    }
    return found


def _index(*, mailbox: bool) -> models.Index:
    return models.Index(
        service="regsvc",
        version=__version__,
        documentation="/docs",
        openapi="/openapi.json",
        problems="/problems",
        health="/v1/health",
        mailbox="/dev/mail" if mailbox else None,
    )
