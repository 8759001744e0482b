"""Where load may go: an address that was looked up once, and is of this machine unless somebody says that it is his.

It is looked up once for both reasons: a name that is elsewhere the second time is attacked by mistake, and a resolver
asked at each connection is measured too.
"""

import ipaddress
import os
import socket
import ssl
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

PORTS: Final = {"http": 80, "https": 443}


class Cannot(Exception):  # noqa: N818 - it says what is the matter
    """There can be no run, and why; `status` is what to exit with."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Target:
    """A service: `url` as it was given, `host` for the Host header, `base` in front of every path."""

    url: str
    host: str
    base: str
    family: socket.AddressFamily
    address: tuple[Any, ...]
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    name: str = ""  # that the certificate has to have


def target(url: str, *, mine: bool) -> Target:
    """Look up a base address. Raises Cannot: it is none, it is nowhere, or it is neither of this machine nor `mine`."""
    text = url.rstrip("/")
    try:
        parts = urlsplit(text)
        port = parts.port or PORTS.get(parts.scheme, 0)
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme not in PORTS or not parts.hostname or parts.query or parts.fragment or parts.username is not None:
        raise Cannot(f"{url} is no web address: http(s)://host:port", 2)
    if not text.isascii() or not text.isprintable() or " " in text:
        raise Cannot(f"{url!r} has characters that a web address has not", 2)
    family, address = _look_up(parts.hostname, port)
    if not (mine or _is_loopback(address)):
        raise Cannot(
            f"{parts.hostname} ({address[0]}) is not this machine, and load on what is not yours is an attack. "
            "If it is yours, say so with --i-own-this-host",
            2,
        )
    context = ssl.create_default_context() if parts.scheme == "https" else None
    return Target(text, parts.netloc, parts.path, family, address, context, parts.hostname)


def _look_up(host: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    """Return one address: the first of this machine, where a name has several; else the first."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as why:
        raise Cannot(f"{host} is not known here: {getattr(why, 'strerror', None) or why}", os.EX_TEMPFAIL) from why
    addresses = [(family, tuple(address)) for family, _, _, _, address in found]
    if len(addresses) > 1 and all(_is_loopback(address) for _, address in addresses):
        # A name like localhost has two, and a service may listen on one of them only.
        return next(((family, it) for family, it in addresses if _listens(family, it)), addresses[0])
    return addresses[0]


def _listens(family: socket.AddressFamily, address: tuple[Any, ...]) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(1)
        return sock.connect_ex(address) == 0


def _is_loopback(address: tuple[Any, ...]) -> bool:
    return ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback
