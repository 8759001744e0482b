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
ALWAYS: Final = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
YEAR: Final = 31_536_000  # seconds
BY_TLS: Final = ("Strict-Transport-Security", f"max-age={YEAR}; includeSubDomains")


@dataclass(frozen=True, slots=True)
class Protection:
    """What every answer of a service has; `cors`: None where no other origin is listed."""

    always: tuple[tuple[str, str], ...] = ALWAYS
    cors: Cors | None = None

    @classmethod
    def of(cls, public_url: str, origins: Iterable[str] = (), *, credentials: bool = False) -> "Protection":
        """Return that of a service which is known by this address, for pages of these origins."""
        listed = frozenset(origins)
        always = (*ALWAYS, BY_TLS) if public_url.startswith("https://") else ALWAYS
        return cls(always, Cors(listed, credentials) if listed else None)

    def cover(self, answer: Headers, asked: Headers) -> None:
        """Put it on an answer."""
        answer.extend(self.always)
        if CSP not in answer:
            answer[CSP] = NO_PAGE
        if self.cors is not None and "Access-Control-Allow-Origin" not in answer:  # a preflight has its own
            answer.extend(self.cors.headers(asked.getlist("Origin")))


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
        self.protection.cover(head, Headers([("Origin", origin.decode("latin-1")) for origin in origins]))
        body = self.writer.body(problem, instance, Dialect.of(path))
        return [(key.lower().encode(), value.encode()) for key, value in head], body
