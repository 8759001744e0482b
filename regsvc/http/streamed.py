"""An answer in pieces that goes on until its source, its client or the server ends it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from quart_trio.wrappers import TrioResponse


class Streamed(TrioResponse):
    """A stream that has something to say when the server ends it, and something to do when it is over."""

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        *,
        content_type: str,
        headers: Mapping[str, str],
        farewell: Callable[[], Awaitable[bytes]],
    ) -> None:
        super().__init__(pieces, 200, dict(headers), content_type=content_type)
        self._farewell = farewell
        self._at_the_end: list[Callable[[int], object]] = []

    async def farewell(self) -> bytes:
        """Return the last piece of a stream that the server ends; nobody may be left to read it."""
        return await self._farewell()

    def at_the_end(self, do: Callable[[int], object]) -> None:
        """Have something done when the stream is over, whatever ended it; it is told how many octets were sent."""
        self._at_the_end.append(do)

    def end(self, octets: int) -> None:
        """Be over; for the connection."""
        for do in self._at_the_end:
            do(octets)
