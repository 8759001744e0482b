"""Which pages of other origins may call from a browser (Fetch, 3.2 "CORS protocol"): those of a list.

Nothing here keeps anybody out: it tells browsers what pages may read. Who asks is never a matter of `Origin`, but for
cookies (see `cookies`), which a browser sends along only where this is told to it (`Allow-Credentials`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from werkzeug.datastructures import Headers

MAX_AGE: Final = 600  # seconds that a browser keeps the answer to a preflight
REQUEST_HEADERS: Final = "Authorization, Content-Type, Idempotency-Key, X-Request-ID, traceparent"
EXPOSED: Final = (
    "X-Request-ID, traceparent, Retry-After, RateLimit, RateLimit-Policy, X-RateLimit-Limit, X-RateLimit-Remaining, "
    "X-RateLimit-Reset, Idempotency-Replayed"
)
VARY: Final = ("Vary", "Origin")  # said to every client: what is stored for one origin is not another's

Lines = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Cors:
    """What pages of `origins` may do, as browsers write an origin; with `credentials`, cookies come along."""

    origins: frozenset[str]
    credentials: bool = False

    def admits(self, origins: Sequence[str]) -> bool:
        """Tell whether what a request says of its origin is one, and listed."""
        return len(origins) == 1 and origins[0] in self.origins

    def headers(self, origins: Sequence[str]) -> Lines:
        """Return what an answer says to a page, whatever it is an answer to; `origins`: the request's `Origin`."""
        if not self.admits(origins):
            return [VARY]
        return [*self._allowed(origins[0]), ("Access-Control-Expose-Headers", EXPOSED)]

    def preflight(self, head: Headers, methods: str) -> Lines:
        """Return what an OPTIONS is answered beside `Allow`; nothing if no page asks, or none that is listed."""
        origins = head.getlist("Origin")
        if not self.admits(origins) or "Access-Control-Request-Method" not in head:
            return []
        return [
            *self._allowed(origins[0]),
            ("Access-Control-Allow-Methods", methods),
            ("Access-Control-Allow-Headers", REQUEST_HEADERS),
            ("Access-Control-Max-Age", str(MAX_AGE)),
        ]

    def _allowed(self, origin: str) -> Lines:
        credentials = [("Access-Control-Allow-Credentials", "true")] if self.credentials else []
        return [VARY, ("Access-Control-Allow-Origin", origin), *credentials]
