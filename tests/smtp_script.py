"""An SMTP server that does what it is told, on Trio: it refuses, hangs, drips or goes away at any stage.

A script maps a stage to what happens there instead of the good answer. The stages are, in their order: greeting, ehlo,
starttls, auth, mail, rcpt, data, dot (the letter was read whole), rset, noop, quit.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import trio

Act = Callable[[trio.SocketStream], Awaitable[None]]
Script = Mapping[str, Act]
ForRecipient = Callable[[str], Script]
GOOD = {
    "greeting": "220 script",
    "ehlo": "250-script\r\n250-AUTH PLAIN\r\n250 SMTPUTF8",
    "helo": "250 script",
    "starttls": "220 go on",
    "auth": "235 welcome",
    "mail": "250 OK",
    "rcpt": "250 OK",
    "data": "354 go on",
    "dot": "250 taken",
    "rset": "250 OK",
    "noop": "250 OK",
    "quit": "221 bye",
}


class Gone(Exception):  # noqa: N818 - what happened, not a mistake
    """The server let go of the connection."""


def say(text: str) -> Act:
    """Answer with this."""

    async def act(stream: trio.SocketStream) -> None:
        await stream.send_all(text.encode() + b"\r\n")

    return act


async def hang(stream: trio.SocketStream) -> None:
    """Never answer, until the client goes."""
    while await stream.receive_some():
        pass
    raise Gone


async def drop(_stream: trio.SocketStream) -> None:
    """Close the connection."""
    await trio.lowlevel.checkpoint()
    raise Gone


async def half_close(stream: trio.SocketStream) -> None:
    """Say that nothing more will be said, and go on listening."""
    await stream.send_eof()
    await hang(stream)


def drip(text: str, pause: float = 0.01) -> Act:
    """Answer one byte at a time, each in time for a timeout that starts anew with each byte; then start again."""

    async def act(stream: trio.SocketStream) -> None:
        while True:
            for byte in text.encode():
                await stream.send_all(bytes([byte]))
                await trio.sleep(pause)

    return act


async def flood(stream: trio.SocketStream) -> None:
    """Answer without end."""
    while True:
        await stream.send_all(b"250-and another thing\r\n" * 100)


@dataclass(slots=True)
class Scripted:
    """What it heard (commands, all connections), the letters it read to the dot, who is connected now."""

    port: int = 0
    heard: list[str] = field(default_factory=list)
    letters: list[bytes] = field(default_factory=list)
    opened: int = 0
    connections: int = 0
    told: Callable[[str, bytes], None] | None = None  # of each letter that was read to the dot: its recipient, and it
    _changed: trio.Condition = field(default_factory=trio.Condition)

    async def wait(self, condition: Callable[["Scripted"], bool], seconds: float = 20) -> None:
        """Wait until `condition` holds; it is looked at whenever something was heard or somebody came or went."""
        with trio.fail_after(seconds):
            async with self._changed:
                while not condition(self):
                    await self._changed.wait()

    async def changed(self) -> None:
        """Something changed."""
        async with self._changed:
            self._changed.notify_all()


@asynccontextmanager
async def open_script(*scripts: Script, by_recipient: ForRecipient | None = None) -> AsyncIterator[Scripted]:
    """Serve until the end of the block; the n-th connection gets the n-th script, later ones the last.

    `by_recipient` says by which script a mail goes on from its RCPT, instead of by its connection's.
    """
    relay = Scripted()
    serve = partial(_serve, relay, scripts or ({},), by_recipient)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        relay.port = listeners[0].socket.getsockname()[1]
        yield relay
        nursery.cancel_scope.cancel(reason="the test is over")


async def _serve(
    relay: Scripted, scripts: Sequence[Script], by_recipient: ForRecipient | None, stream: trio.SocketStream
) -> None:
    script = scripts[min(relay.opened, len(scripts) - 1)]
    relay.opened += 1
    relay.connections += 1
    try:
        await relay.changed()
        await _converse(relay, script, by_recipient, stream)
    except (Gone, trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    finally:
        relay.connections -= 1
        await stream.aclose()
        with trio.move_on_after(1, shield=True):
            await relay.changed()


async def _converse(
    relay: Scripted, script: Script, by_recipient: ForRecipient | None, stream: trio.SocketStream
) -> None:
    buffer, recipient = bytearray(), ""
    await _answer(script, "greeting", stream)
    while line := await _until(b"\r\n", buffer, stream):
        relay.heard.append(line.decode().strip())
        await relay.changed()
        verb = line.decode().split()[0].lower()
        if verb == "rcpt":
            recipient = line.decode().partition("<")[2].partition(">")[0]
            script = script if by_recipient is None else by_recipient(recipient)
        await _answer(script, verb, stream)
        if verb == "data" and "data" not in script:
            letter = await _until(b"\r\n.\r\n", buffer, stream)
            if not letter:
                return
            relay.letters.append(bytes(letter))
            if relay.told is not None:
                relay.told(recipient, letter.removesuffix(b".\r\n"))
            await relay.changed()
            await _answer(script, "dot", stream)
        if verb == "quit":
            return


async def _answer(script: Script, stage: str, stream: trio.SocketStream) -> None:
    await script.get(stage, say(GOOD.get(stage, "500 what?")))(stream)


async def _until(end: bytes, buffer: bytearray, stream: trio.SocketStream) -> bytes:
    """Read to `end`; nothing when the client goes first."""
    while end not in buffer:
        more = await stream.receive_some()
        if not more:
            return b""
        buffer += more
    found = bytes(buffer[: buffer.index(end) + len(end)])
    del buffer[: len(found)]
    return found
