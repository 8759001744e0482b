"""Pages for people: where to begin, what a problem means, the documentation; nothing on them comes from elsewhere."""

from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Final

import trio
from quart import Response, render_template, request
from quart_trio.wrappers import TrioResponse

from regsvc import __version__, observe
from regsvc.http import kinds, models
from regsvc.http.forms import Rules
from regsvc.http.kinds import Kind
from regsvc.http.problems import Told, tell
from regsvc.http.reply import View, page, reply, written

SCRIPT: Final = "text/javascript; charset=utf-8"
STYLE: Final = "text/css; charset=utf-8"
OPS: Final = (
    "ops.js",
    "ops-charts.js",
    "ops-letters.js",
    "ops-log.js",
    "ops-metrics.js",
    "ops-panels.js",
    "ops-session.js",
    "ops-sse.js",
)
"""The modules of the page for operators; each names those it needs."""

ASSETS: Final[Mapping[str, tuple[str, str]]] = {
    "pages.css": ("pages.css", STYLE),
    "mailbox.css": ("mailbox.css", STYLE),
    "mailbox.js": ("mailbox.js", SCRIPT),
    "docs.js": ("docs.js", SCRIPT),
    "reset.css": ("reset.css", STYLE),
    "reset.js": ("reset.js", SCRIPT),
    "activate.js": ("activate.js", SCRIPT),
    "ops.css": ("ops.css", STYLE),
    **{name: (name, SCRIPT) for name in OPS},
    "icon.svg": ("icon.svg", "image/svg+xml"),
    "swagger-ui.css": ("swagger-ui/swagger-ui.css", STYLE),
    "swagger-ui-bundle.js": ("swagger-ui/swagger-ui-bundle.js", SCRIPT),
}
"""What `/assets/{name}` serves, a closed list: file under `static/`, and its type."""


def views(
    describe: Callable[[], bytes], example: Callable[[Kind], str], rules: Rules, *, root: str, mailbox: bool
) -> Mapping[str, View]:
    """Return what answers the routes of this room.

    `describe` makes the OpenAPI document; that takes a tenth of a second, so it waits until somebody asks.
    `example` writes a problem as it looks on the wire.
    """
    return {
        "index": _index_view(root, mailbox=mailbox),
        "openapi": _openapi_view(describe),
        "docs": _docs,
        "problem_index": _problem_index,
        "problem": _problem_view(example),
        "reset_page": _reset_view(rules),
        "activate_page": _activate_page,
        "ops_page": _ops_page,
        "asset": _asset_view(trio.Path(str(files("regsvc.http") / "static"))),
    }


def _index_view(root: str, *, mailbox: bool) -> View:
    async def index() -> Response:
        if request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
            return page(await render_template("index.html", version=__version__, root=root, mailbox=mailbox))
        return reply(_index(mailbox=mailbox))

    return index


def _openapi_view(describe: Callable[[], bytes]) -> View:
    document: list[bytes] = []
    one_at_a_time = trio.CapacityLimiter(1)

    async def openapi() -> Response:
        if not document:
            document.append(await trio.to_thread.run_sync(describe, limiter=one_at_a_time))
        return written(document[0])

    return openapi


async def _docs() -> Response:
    return page(await render_template("docs.html"))


async def _problem_index() -> Response:
    return page(await render_template("problems.html", kinds=kinds.KINDS.values()))


def _problem_view(example: Callable[[Kind], str]) -> View:
    by_slug = {kind.slug: kind for kind in kinds.KINDS.values()}

    async def problem(name: str) -> Response | Told:
        kind = by_slug.get(name)
        if kind is None:
            return tell(kinds.NOT_FOUND, "There is no problem of this name.")
        return page(await render_template("problem.html", kind=kind, example=example(kind)))

    return problem


async def _activate_page() -> Response:
    return page(await render_template("activate.html"))


async def _ops_page() -> Response:
    return page(await render_template("ops.html", events=sorted(observe.EVENTS)))


def _reset_view(rules: Rules) -> View:
    async def reset_page() -> Response:
        return page(await render_template("reset.html", passwords=rules.passwords))

    return reset_page


def _asset_view(static: trio.Path) -> View:
    read: dict[str, bytes] = {}  # 2 MB in all, once: whoever is slow to take one shares it with all others who are

    async def asset(name: str) -> Response | Told:
        if name not in ASSETS:
            return tell(kinds.NOT_FOUND)
        path, media_type = ASSETS[name]
        if name not in read:
            data = await (static / path).read_bytes()
            read.setdefault(name, data)
        return TrioResponse(read[name], 200, content_type=media_type)

    return asset


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
