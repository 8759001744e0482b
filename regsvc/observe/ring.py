"""The latest lines of each process, in memory that all of them share: one writes, any number read, nobody waits.

Rule 1. A chunk of lines is copied first and `written` is moved after it, so a line is there whole or not at all,
        whatever kills the writer and whenever. What it left beyond `written` its successor writes over.
Rule 2. The writer never looks at its readers. One that is too slow is overtaken: it finds out by reading `written`
        again after its copy, and throws away what may have been overwritten under it.
Rule 3. Each chunk begins with a mark, `#` and the number of its first line. A reader that was overtaken goes on at the
        next mark, and so knows exactly how many lines it has missed.
Rule 4. A mark is never part of a line, nor a line of a mark: a line is JSON, and has no newline but its last octet.
"""

import re
from typing import Final

from regsvc.observe.shared import RING, Slab

CHUNK_MAX: Final = 8 * 1024  # octets of a chunk with its mark; a line has half of that at most
KEPT: Final = RING - CHUNK_MAX  # octets behind `written` that cannot be under the writer's hand
_MARK: Final = re.compile(rb"^#([0-9a-f]{16})\n", re.MULTILINE)


class Ring:
    """The writer's side, of the one process that has the slab."""

    def __init__(self, slab: Slab) -> None:
        self._slab = slab

    def write(self, chunk: bytes, lines: int) -> None:
        """Write so many whole lines; what is too long for a chunk is missed by everybody, and counted by them."""
        slab = self._slab
        first = slab.lines
        slab.lines = first + lines  # before `written`: a line that is counted and never seen is told of as lost
        data = b"#%016x\n%b" % (first, chunk)
        if len(data) > CHUNK_MAX:
            return
        written = slab.written
        place = written % RING
        room = RING - place
        if len(data) <= room:
            slab.ring[place : place + len(data)] = data
        else:
            slab.ring[place:] = data[:room]
            slab.ring[: len(data) - room] = data[room:]
        slab.written = written + len(data)


class Reader:
    """A reader's place in the ring of a slab, whoever writes that: at its end to begin with."""

    def __init__(self, slab: Slab) -> None:
        self._slab = slab
        self._at = slab.written
        self._next = slab.lines  # the number of the line that comes next
        self._lost_its_place = False  # somewhere within a line

    @property
    def waiting(self) -> int:
        """How many octets there are to read; more than the ring has, if it was overtaken."""
        return self._slab.written - self._at

    def read(self, most: int) -> tuple[bytes, int]:
        """Return the next whole lines, and how many were lost before the last of them.

        `most`: octets to look at, CHUNK_MAX at least; what is beyond them is for the next time.
        """
        data = self._copy(most)
        end = data.rfind(b"\n") + 1
        if data and not end:  # no writer of ours does this; whatever it is, the next mark is behind it
            end, self._lost_its_place = len(data), True
        self._at += end
        rest, *marked = _MARK.split(data[:end])
        lines, lost = [], 0
        if not self._lost_its_place:
            lines.append(rest)
            self._next += rest.count(b"\n")
        for number, chunk in zip(marked[::2], marked[1::2], strict=True):
            first = int(number, 16)
            # Less, where the reader began just between the writer's two counts.
            lost += max(0, first - self._next)
            self._next = first + chunk.count(b"\n")
            self._lost_its_place = False
            lines.append(chunk)
        return b"".join(lines), lost

    def _copy(self, most: int) -> bytes:
        """Return what can be relied on of the next octets; moves on past what cannot."""
        slab, written = self._slab, self._slab.written
        self._skip_to(written - KEPT)
        here, length = self._at % RING, min(most, written - self._at)
        data = bytes(slab.ring[here : here + length])
        data += bytes(slab.ring[: length - len(data)])
        oldest = slab.written - KEPT
        overwritten = max(0, oldest - self._at)
        self._skip_to(oldest)
        return data[overwritten:]

    def _skip_to(self, oldest: int) -> None:
        if self._at < oldest:
            self._at = oldest
            self._lost_its_place = True
