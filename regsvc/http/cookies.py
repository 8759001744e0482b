"""The refresh token in a cookie that no script can read, for pages of the service's own origin.

A cookie comes along whoever caused the request, so a request that leans on it has to come from a page of ours. Three
things see to that, each enough by itself: `SameSite=Lax`, the body that has to be `application/json`, and the
`Origin` that browsers name with each POST. `__Host-` keeps sibling hosts from setting one of the name (RFC 6265bis).
Pages of sibling hosts whose origins are listed (see `cors`) may use it too; `SameSite` keeps those farther off from it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

from werkzeug.datastructures import Headers

from regsvc.domain.values import Secret

NAME: Final = "__Host-regsvc_refresh"
_VALUE: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")  # base64url
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Cookies:
    """The cookie of a service whose pages have this `origin`, as browsers write one, or one that is `listed`."""

    origin: str
    listed: frozenset[str] = frozenset()

    @classmethod
    def of(cls, url: str, listed: Iterable[str] = ()) -> "Cookies":
        """Return that of a public URL."""
        parts = urlsplit(url.lower())
        default = parts.port is None or parts.port == _PORTS.get(parts.scheme)
        host = parts.hostname or ""
        named = f"[{host}]" if ":" in host else host
        origin = f"{parts.scheme}://{named}" if default else f"{parts.scheme}://{named}:{parts.port}"
        return cls(origin, frozenset(listed))

    def written(self, token: Secret, until: timedelta) -> str:
        """Return the `Set-Cookie` that hands out a token."""
        return f"{NAME}={token.reveal()}; Max-Age={int(until.total_seconds())}; {_ATTRIBUTES}"

    def read(self, headers: Headers) -> Secret | None:
        """Return the token; None when there is none, or more than one, or what the service never set."""
        found = values(headers)
        return Secret(found[0]) if len(found) == 1 and _VALUE.fullmatch(found[0]) else None

    def foreign(self, headers: Headers) -> bool:
        """Tell whether another page than ours and those listed made it; programs that are no browsers name none."""
        origins, sites = set(headers.getlist("Origin")), headers.getlist("Sec-Fetch-Site")
        if origins - self.listed - {self.origin}:
            return True
        return "cross-site" in sites or ("same-site" in sites and not origins & self.listed)


def values(headers: Headers) -> list[str]:
    """Return what the cookies of our name hold, unread."""
    pairs = (pair.partition("=") for line in headers.getlist("Cookie") for pair in line.split(";"))
    return [value.strip() for name, _, value in pairs if name.strip() == NAME]


def cleared(cookies: Cookies | None) -> str | None:
    """Return the `Set-Cookie` that takes the token back; None where there are no cookies."""
    return None if cookies is None else f"{NAME}=; Max-Age=0; {_ATTRIBUTES}"


_ATTRIBUTES: Final = "Path=/; Secure; HttpOnly; SameSite=Lax"
