"""The one listening socket, and where a person finds what behind it."""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from regsvc.settings import Settings

BACKLOG: Final = 2048  # connections the kernel holds for the workers; it cuts it to net.core.somaxconn


class CannotListen(Exception):  # noqa: N818 - it says what is the matter
    """There is no listening where the settings say; `again`: it may work later."""

    def __init__(self, message: str, *, again: bool) -> None:
        super().__init__(message)
        self.again = again


@contextmanager
def listening(settings: Settings) -> Iterator[socket.socket | None]:
    """Open the one listening socket of the service, for its workers to inherit; None where no worker serves HTTP.

    Raises CannotListen, with what to do about it.
    """
    if "http" not in settings.roles:
        yield None
        return
    where = f"{settings.host}:{settings.port}"
    try:
        [(family, _, _, _, address), *_] = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        door = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        raise _explained(where, error) from error
    with door:
        # Accepted sockets inherit it; Hypercorn sets it only on those it opens itself.
        door.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield door


def _explained(where: str, error: OSError) -> CannotListen:
    if isinstance(error, socket.gaierror):
        return CannotListen(f"REGSVC_HOST: cannot listen on {where}: {error.strerror}", again=False)
    hint = {
        "EADDRINUSE": "another program listens there: stop it, or set REGSVC_PORT to another port (0: any free one)",
        "EADDRNOTAVAIL": "this machine has no such address: set REGSVC_HOST to one it has, or to 0.0.0.0 for all",
        "EACCES": "ports under 1024 are for root: set REGSVC_PORT to a higher one",
    }.get(_name(error), error.strerror or str(error))
    return CannotListen(f"cannot listen on {where}: {hint}", again=_name(error) == "EADDRINUSE")


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "")


def port_of(door: socket.socket | None) -> int:
    """Return the port of the listening socket; 0 without one."""
    return 0 if door is None else int(door.getsockname()[1])


def addresses(settings: Settings, port: int) -> dict[str, str]:
    """Return where a person finds what, from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(settings.host, settings.host)  # noqa: S104 - read
    base = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    found = {"service": base, "docs": f"{base}/docs"}
    return found | ({"mailbox": f"{base}/dev/mail"} if settings.profile == "dev" else {})
