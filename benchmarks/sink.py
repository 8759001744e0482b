"""A relay that takes every mail and throws it away: `python -m benchmarks.sink` says its port, then a line a mail.

On Trio, by hand: the tests' sink, aiosmtpd, spends more on a mail than the mailer that is measured. A line has the
recipient and when the 250 of its mail was handed to the kernel, on the system's monotonic clock.
"""

import os
import re
import sys
import time
from functools import partial
from typing import Final

import trio

GOOD: Final = {b"EHLO": b"250-sink\r\n250 SMTPUTF8\r\n", b"DATA": b"354 go on\r\n", b"QUIT": b"221 bye\r\n"}
RECIPIENT: Final = re.compile(rb"(?i)^RCPT TO:<([^>]*)>")


class _Gone(Exception):  # noqa: N818 - what happened, not a mistake
    """The client hung up."""


class _Conversation:
    """One connection, from the greeting to its end."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream, self._data = stream, b""

    async def run(self) -> None:
        """Answer until the client goes."""
        await self._stream.send_all(b"220 sink\r\n")
        to = b""
        while True:
            line = await self._until(b"\r\n")
            verb = line[:4].upper()
            if found := RECIPIENT.match(line):
                to = found[1]
            await self._stream.send_all(GOOD.get(verb, b"250 OK\r\n"))
            if verb == b"QUIT":
                return
            if verb == b"DATA":
                await self._until(b"\r\n.\r\n")
                await self._stream.send_all(b"250 taken\r\n")
                os.write(1, b"%s %.6f\n" % (to, time.monotonic()))

    async def _until(self, end: bytes) -> bytes:
        while (at := self._data.find(end)) < 0:
            some = bytes(await self._stream.receive_some())
            if not some:
                raise _Gone
            self._data += some
        found, self._data = self._data[:at], self._data[at + len(end) :]
        return found


async def _answer(stream: trio.SocketStream) -> None:
    try:
        await _Conversation(stream).run()
    except (_Gone, trio.BrokenResourceError):
        return


async def main() -> None:
    """Serve until standard input ends."""
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(partial(trio.serve_listeners, _answer, [listener]), name="sink")
        os.write(1, b"%d\n" % listener.socket.getsockname()[1])
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel(reason="nobody listens any more")


if __name__ == "__main__":
    trio.run(main)
