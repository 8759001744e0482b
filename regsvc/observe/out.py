"""Where the lines of a log go: to the stream, as JSON or for people, and always as JSON into the ring of this process.

The ring comes first: who follows the log sees a line also where the stream is full, gone, or a pipe that nobody reads.
"""

import select
from typing import Protocol

import orjson

from regsvc.observe.lines import Pretty
from regsvc.observe.ring import Ring
from regsvc.observe.shared import Slab


class Stream(Protocol):
    """An unbuffered binary stream: `io.FileIO(1, "wb", closefd=False)`, `io.BytesIO()`."""

    def write(self, data: bytes, /) -> int | None:
        """Write what fits; return how many bytes did, None when none do now."""
        ...

    def isatty(self) -> bool:
        """Tell whether a person is looking."""
        ...

    def fileno(self) -> int:
        """Return the descriptor; asked for only after `write` returned None."""
        ...


class Out:
    """Takes lines of JSON; `pretty` renders them for people, where people read the stream."""

    def __init__(self, stream: Stream, pretty: Pretty | None, slab: Slab | None) -> None:
        self._stream = stream
        self._pretty = pretty
        self._ring = Ring(slab) if slab is not None else None

    def write(self, chunk: bytes, lines: int) -> None:
        """Write whole lines, so many; one caller at a time. Blocks as the stream does. Raises OSError."""
        if self._ring is not None:
            self._ring.write(chunk, lines)
        if self._pretty is None:
            self._write(chunk)
        else:
            for line in chunk.splitlines():
                self._write(self._pretty(orjson.loads(line)))

    def _write(self, data: bytes) -> None:
        while data:
            written = self._stream.write(data)
            if written is None:  # somebody else made the pipe non-blocking
                select.select([], [self._stream], [])
            else:
                data = data[written:]
