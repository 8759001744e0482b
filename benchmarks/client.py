"""A bare HTTP/1.1 client: what a load generator spends is taken from the service on the same cores.

Written by hand for that reason alone: httpx takes two milliseconds a request, as long as the service takes to answer.
It knows answers with a Content-Length, and connections that the server closes between requests.
"""

import json
from dataclasses import dataclass

import trio


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, header fields by lower-case name, body."""

    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One connection at a time to a port of this host; for one task."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stream: trio.SocketStream | None = None

    async def ask(self, method: str, path: str, form: object = None, headers: str = "") -> Answer:
        """Send a request, with `form` as JSON; once more on a new connection if the old one was closed meanwhile."""
        body = b"" if form is None else json.dumps(form).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\n{headers}"
        if form is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        request = head.encode() + b"\r\n" + body
        if self._stream is not None:
            try:
                return await self._exchange(self._stream, request)
            except (trio.BrokenResourceError, ConnectionError):
                await self.close()
        self._stream = await trio.open_tcp_stream("127.0.0.1", self._port)
        return await self._exchange(self._stream, request)

    async def _exchange(self, stream: trio.SocketStream, request: bytes) -> Answer:
        await stream.send_all(request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += await _some(stream)
        head, _, body = data.partition(b"\r\n\r\n")
        first, *fields = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        while len(body) < int(headers["content-length"]):
            body += await _some(stream)
        if headers.get("connection") == "close":
            await self.close()
        return Answer(int(first.split()[1]), headers, body)

    async def close(self) -> None:
        """Hang up."""
        if self._stream is not None:
            await self._stream.aclose()
            self._stream = None


async def _some(stream: trio.SocketStream) -> bytes:
    data = bytes(await stream.receive_some())
    if not data:
        raise ConnectionError("the server hung up")
    return data
