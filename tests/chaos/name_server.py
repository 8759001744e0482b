"""A name server that does what it is told, on an address of this machine's loopback, and a way to ask it alone.

Needs root: for port 53, and for mounts that only the asking program sees.
"""

import os
import shutil
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import trio

ADDRESS: Final = "127.0.0.77"
PORT: Final = 53
HERE: Final = bytes((127, 0, 0, 1))
A: Final = 1  # RFC 1035, 3.2.2
SERVER_FAILURE: Final = 0x8182  # RFC 1035, 4.1.1: an answer, recursion desired and available, code 2
NO_ERROR: Final = 0x8180
MOUNT: Final = 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'

Mood = Literal["silent", "failing", "right"]


def missing() -> str | None:
    """Say what keeps this from working here; None: nothing."""
    if os.geteuid() != 0:
        return "needs root: for port 53, and to mount a resolv.conf"
    if shutil.which("unshare") is None or shutil.which("mount") is None:
        return "needs unshare and mount"
    return None if Path("/etc/resolv.conf").is_file() else "there is no /etc/resolv.conf to mount over"


def asking(folder: Path) -> Sequence[str]:
    """Return the words of a command that has what follows it ask this name server and no other."""
    conf = folder / "resolv.conf"
    conf.write_text(f"nameserver {ADDRESS}\noptions timeout:1 attempts:2\n")
    return ("unshare", "--mount", "--propagation", "private", "sh", "-c", MOUNT, "sh", str(conf))


@dataclass
class NameServer:
    """Every name is this machine, when it is right; `asked` counts questions."""

    mood: Mood = "silent"
    asked: int = 0

    def answer(self, question: bytes) -> bytes | None:
        """Answer a question; None: nothing."""
        self.asked += 1
        if self.mood == "silent":
            return None
        number = question[:2]
        end = question.index(0, 12) + 5  # the name ends with an empty label; type and class follow
        asked, (kind,) = question[12:end], struct.unpack("!H", question[end - 4 : end - 2])
        found = self.mood == "right" and kind == A
        head = struct.pack("!5H", SERVER_FAILURE if self.mood == "failing" else NO_ERROR, 1, int(found), 0, 0)
        record = struct.pack("!HHHIH", 0xC00C, A, 1, 1, len(HERE)) + HERE if found else b""
        return number + head + asked + record


@asynccontextmanager
async def open_name_server() -> AsyncIterator[NameServer]:
    """Serve until the end of the block. Raises OSError where another is there already."""
    server = NameServer()
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as sock:
        await sock.bind((ADDRESS, PORT))

        async def hear() -> None:
            while True:
                question, whose = await sock.recvfrom(512)
                if (answer := server.answer(question)) is not None:
                    await sock.sendto(answer, whose)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear, name="name server")
            yield server
            nursery.cancel_scope.cancel(reason="the test is over")
