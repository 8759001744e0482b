"""Who asks: the client's address past trusted proxies, and the ids that follow the request everywhere.

Written by hand because Hypercorn's ProxyFixMiddleware believes `X-Forwarded-For` from anyone.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, cast

from quart import request
from quart_trio.wrappers import TrioRequest
from werkzeug.datastructures import Headers

from regsvc.flows.errand import PLAIN, Errand
from regsvc.flows.quota import RequestMeter
from regsvc.http.overload import Hold
from regsvc.http.problems import Dialect

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

_TEMPLATE: Final = str.maketrans("<>", "{}")  # from werkzeug's way of writing a parameter to OpenAPI's
_SANE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_PORT: Final = re.compile(r"\[(?P<v6>[^\]]*)\](:\d{1,5})?|(?P<v4>[0-9.]+):\d{1,5}")  # what some proxies append


@dataclass(slots=True)
class Caller:
    """What is known of a request besides itself; handlers add what they learn for its log line."""

    request_id: str
    address: str | None
    bytes_in: int | None = None
    refusal: str | None = None
    user_id: str | None = None
    errand: Errand = PLAIN
    meter: RequestMeter | None = None  # of a route with limits
    hold: Hold | None = None  # its place and its time, while it is answered

    def wait(self, longer: timedelta) -> None:
        """Say that the request will only wait for so long, as it asked to."""
        if self.hold is not None:
            self.hold.wait(longer)


class Asked(TrioRequest):
    """A request, with who asks it."""

    caller: Caller
    lines: Sequence[tuple[bytes, bytes]] = ()  # headers of its answer, beside those of the response

    @property
    def dialect(self) -> Dialect:
        """How problems are written where this request went."""
        return Dialect.of(self.path)

    @property
    def template(self) -> str:
        """The route as the table has it, never the path itself; `unmatched` where there is none."""
        rule = self.url_rule
        return "unmatched" if rule is None else rule.rule.translate(_TEMPLATE)


def asked() -> Asked:
    """Return the request at hand."""
    return cast("Asked", request)


def request_id(headers: Headers) -> str:
    """Return the client's id for its request if it is a sane one, else a new one."""
    given = headers.getlist("X-Request-Id")
    if len(given) == 1 and _SANE_ID.fullmatch(given[0]):
        return given[0]
    return secrets.token_hex(16)


def client_address(peer: str | None, forwarded: Sequence[str], trusted: Sequence[Network]) -> str | None:
    """Return the address of the client: the rightmost hop that is not a trusted proxy; None on a unix socket.

    `forwarded`: the `X-Forwarded-For` lines in order. A hop that is no address ends the search at the one before it.
    """
    if not trusted or peer is None:
        return peer
    here = _address(peer)
    hops = [hop for line in forwarded for hop in line.split(",")]
    while here is not None and hops and _within(here, trusted):
        there = _address(hops.pop().strip(" \t"))
        if there is None:
            break
        here = there
    return peer if here is None else str(here)


@lru_cache(maxsize=4096)
def client_key(address: str | None) -> str | None:
    """Return whom limits and fairness count: an IPv4 address, or the /64 that one has of IPv6; None without one."""
    read = _address(address) if address is not None else None
    if isinstance(read, IPv6Address):
        return f"{IPv6Address(int(read) >> 64 << 64)}/64"
    return address if read is None else str(read)


def _address(text: str) -> Address | None:
    found = _PORT.fullmatch(text)
    try:
        address = ip_address((found["v6"] or found["v4"]) if found else text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
