"""The one listening socket, and where a person finds what behind it."""

import ctypes
import errno
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from regsvc.settings import Settings

BACKLOG: Final = 2048  # connections the kernel holds for the workers; it cuts it to net.core.somaxconn

SO_ATTACH_FILTER: Final = 26  # asm-generic/socket.h
NO_NEWCOMERS: Final = (  # linux/filter.h: (code, jump if true, jump if false, operand)
    (0x30, 0, 0, 13),  # load the octet with the flags of the TCP header
    (0x45, 0, 1, 0x02),  # if it has SYN
    (0x06, 0, 0, 0),  # then pass over the packet
    (0x06, 0, 0, 0xFFFFFFFF),  # else take all of it
)


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


def shut(door: socket.socket) -> None:
    """Let nobody begin a connection any more, and let go of the socket; the workers take those that have begun.

    The kernel resets every connection that nobody has taken when the last process closes the socket, and a connection
    is begun, for its client, before anybody can take it. So the packets that begin one are passed over first: who sends
    one does so again after a second, is refused then, with nothing sent, and goes elsewhere. The filter is that of the
    socket, so it holds for the workers' handles too. Without it (not on Linux) a moment is left in which one is reset.
    """
    with suppress(OSError):
        if sys.platform == "linux":
            steps = b"".join(struct.pack("HBBI", *step) for step in NO_NEWCOMERS)
            program = ctypes.create_string_buffer(steps, len(steps))
            door.setsockopt(
                socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(NO_NEWCOMERS), ctypes.addressof(program))
            )
    door.close()


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
