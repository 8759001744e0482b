"""A client that sends exactly the bytes it is told, over a connection that is kept as long as the service keeps it."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, Self

import trio

from tests.http.tiny import Answer, Caller, calling

WORKERS = 4

Lines = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Asking:
    """One request."""

    method: str
    target: bytes
    headers: Lines = ()
    body: bytes | None = None

    def data(self) -> bytes:
        """Return it as it is sent."""
        length = [] if self.body is None else [(b"Content-Length", b"%d" % len(self.body))]
        lines = [name + b": " + value for name, value in [(b"Host", b"x"), *self.headers, *length]]
        head = b"\r\n".join([self.method.encode() + b" " + self.target + b" HTTP/1.1", *lines, b"", b""])
        return head + (self.body or b"")


@dataclass(slots=True)
class Plain:
    """A client of one service."""

    port: int
    _held: AsyncExitStack = field(default_factory=AsyncExitStack)
    _caller: Caller | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._held.aclose()

    async def ask(self, asking: Asking) -> Answer:
        """Send a request, whole, and return its answer."""
        if self._caller is None:
            self._caller = await self._held.enter_async_context(calling(self.port))
        with suppress(trio.BrokenResourceError):  # it may have said no before it heard all of it
            await self._caller.say(asking.data())
        answer = await self._caller.answer(body=asking.method != "HEAD")
        if answer.headers.get("connection") == "close":
            assert await self._caller.rest() == b"", "nothing comes behind a last answer"
            await self._held.aclose()
            self._caller = None
        return answer


async def ask_all(port: int, askings: Iterator[Asking], judge: Callable[[Asking, Answer], None]) -> None:
    """Ask them, a few at a time, and have each answer judged."""

    async def work() -> None:
        async with Plain(port) as client:
            for asking in askings:
                judge(asking, await client.ask(asking))

    async with trio.open_nursery() as nursery:
        for number in range(WORKERS):
            nursery.start_soon(work, name=f"asking {number}")


def problem(answer: Answer) -> dict[str, Any]:
    """Return the problem that an answer is; fail unless it is a whole one."""
    assert answer.headers["content-type"] == "application/problem+json", answer
    found: dict[str, Any] = json.loads(answer.body)
    assert found["status"] == answer.status
    assert found["instance"] == answer.headers["x-request-id"]
    assert all(isinstance(found[name], str) and found[name] for name in ("type", "title", "error", "message"))
    return found
