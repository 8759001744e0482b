"""What every answer tells a browser not to do with it: in one place, so that no answer is without.

- `Cache-Control: no-store`: answers hold tokens and addresses; neither browser nor proxy keeps them.
- `X-Content-Type-Options: nosniff`: JSON in which somebody wrote HTML stays JSON.
- `Content-Security-Policy`: opened by itself an answer loads nothing, runs nothing, and is framed by nobody. Pages
  have a policy of their own (`reply.HTML_POLICY`), which allows what comes from here.
- `Referrer-Policy: no-referrer`: paths have ids of people's sessions in them, which no other site is told.
- `Cross-Origin-Resource-Policy: same-origin`: no page elsewhere embeds an answer, and so gets it into its process.
  Pages of listed origins fetch by CORS (see `cors`), which this leaves alone.
- `Strict-Transport-Security`, where the service is known by an https address: a browser that came once comes by TLS
  from then on. Sub-domains are included, as OWASP ASVS 5.0, 3.4.1 has it: a cookie could be set from any of them.

Not sent: `Server` and anything else with a version; `X-Frame-Options` and `X-XSS-Protection`, which browsers that know
`frame-ancestors` ignore; `Cross-Origin-Opener-Policy`, which would keep a mailed link from opening where a webmail has
its letters in a sandbox, for pages that hold nothing of anybody's.
"""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from werkzeug.datastructures import Headers

from regsvc.http import kinds
from regsvc.http.cors import Cors
from regsvc.http.problems import Dialect, Writer, headers, tell

CSP: Final = "Content-Security-Policy"
NO_PAGE: Final = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'"  # base-uri has no default
Lines = Sequence[tuple[bytes, bytes]]
"""Headers as they go over the wire: to have each of these checked and encoded again for every answer costs a tenth of
what the app does for a light one."""
ALWAYS: Final[Lines] = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
YEAR: Final = 31_536_000  # seconds
UNFRAMED: Final = (CSP.lower().encode(), NO_PAGE.encode())
BY_TLS: Final = (b"strict-transport-security", b"max-age=%d; includeSubDomains" % YEAR)


@dataclass(frozen=True, slots=True)
class Protection:
    """What every answer of a service has; `cors`: None where no other origin is listed."""

    always: Lines = ALWAYS
    cors: Cors | None = None

    @classmethod
    def of(cls, public_url: str, origins: Iterable[str] = (), *, credentials: bool = False) -> "Protection":
        """Return that of a service which is known by this address, for pages of these origins."""
        listed = frozenset(origins)
        always = (*ALWAYS, BY_TLS) if public_url.startswith("https://") else ALWAYS
        return cls(always, Cors(listed, credentials) if listed else None)

    def lines(self, answer: Headers, asked: Headers) -> list[tuple[bytes, bytes]]:
        """Return the headers that are added to an `answer` of these headers; `asked`: those of its request."""
        lines = [*self.always]
        if not answer.getlist(CSP):
            lines.append(UNFRAMED)
        if self.cors is not None and "Access-Control-Allow-Origin" not in answer:  # a preflight has its own
            allowed = self.cors.headers(asked.getlist("Origin"))
            lines += [(name.lower().encode(), value.encode()) for name, value in allowed]
        return lines


@dataclass(frozen=True, slots=True)
class AtTheDoor:
    """Words what the server refuses before there is a request to speak of (http.door.Refuse)."""

    writer: Writer
    protection: Protection

    def __call__(
        self, status: int, name: str, detail: str, path: str, origins: Sequence[bytes], /
    ) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Return the headers and the body of a problem; `origins`: what the request said of its origin."""
        kind = kinds.KINDS.get(name, kinds.INTERNAL_ERROR if status >= 500 else kinds.MALFORMED_REQUEST)
        problem = tell(kind, detail)
        if kind is kinds.OVERLOADED:
            problem = replace(problem, retry_after=timedelta(seconds=1))
        instance = secrets.token_hex(16)
        head = Headers({**headers(problem), "X-Request-ID": instance})
        lines = self.protection.lines(head, Headers([("Origin", origin.decode("latin-1")) for origin in origins]))
        body = self.writer.body(problem, instance, Dialect.of(path))
        return [*((key.lower().encode(), value.encode()) for key, value in head), *lines], body
