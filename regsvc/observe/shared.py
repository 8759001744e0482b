"""Memory that all processes of one service share: each has a slab that it alone writes, and reads those of all.

What must be added up over the workers (metrics), or shown from all of them (the log's followers), lies here. Written by
hand because prometheus_client's multiprocess mode, the usual way, opens files by name that outlive a `kill -9`, adds a
set of them for each worker that is ever started, costs microseconds for each count, and parses text at each scrape; a
scrape here is a sum over arrays, and what a dead worker counted stays counted, since its successor counts on.

Rule 1. The file has no name: it is inherited, and gone with the last process that has it, however that ends.
Rule 2. One slab, one writer: nothing here is locked. Eight aligned octets are written at once on what we run on.
Rule 3. The layout of `cells` belongs to the version of the code. A fingerprint tells it: who takes a slab over from
        another version clears it, and who reads passes over those of another (a rolling replacement may mix them).
"""

import mmap
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

HEAD: Final = 4096  # octets: a page
CELLS: Final = 8192  # numbers (float64) of a slab
RING: Final = 256 * 1024  # octets of a slab for its latest log lines
SLAB: Final = HEAD + CELLS * 8 + RING

_FINGERPRINT: Final = 0  # where what is in the head, in words of eight octets
_PID: Final = 1
_WORKER: Final = 2
_WRITTEN: Final = 3
_LINES: Final = 4


class Slab:
    """A part of the shared memory: `cells` for numbers, `ring` for octets; both as memoryviews on it."""

    def __init__(self, memory: memoryview, number: int) -> None:
        whole = memory[number * SLAB : (number + 1) * SLAB]
        self.number = number
        self._head = whole[:HEAD].cast("Q")
        self.cells = whole[HEAD : HEAD + CELLS * 8].cast("d")
        self.ring = whole[HEAD + CELLS * 8 :]

    @property
    def fingerprint(self) -> int:
        """Which layout its cells have; 0: nobody ever took it."""
        return self._head[_FINGERPRINT]

    @property
    def pid(self) -> int:
        """The process that writes it; 0: nobody does."""
        return self._head[_PID]

    @property
    def worker(self) -> int:
        """The number of the worker that writes it, or wrote it last; 0: the supervisor."""
        return self._head[_WORKER]

    @property
    def written(self) -> int:
        """How many octets were ever written into its ring."""
        return self._head[_WRITTEN]

    @written.setter
    def written(self, octets: int) -> None:
        self._head[_WRITTEN] = octets

    @property
    def lines(self) -> int:
        """How many lines were ever meant for its ring."""
        return self._head[_LINES]

    @lines.setter
    def lines(self, lines: int) -> None:
        self._head[_LINES] = lines

    def take(self, *, fingerprint: int, worker: int) -> None:
        """Be its writer from now on; numbers of another layout are cleared."""
        if self.fingerprint != fingerprint:
            self._head[_FINGERPRINT] = 0  # whoever reads meanwhile passes over it
            self.cells[:] = memoryview(bytes(CELLS * 8)).cast("d")
        self._head[_WORKER] = worker
        self._head[_PID] = os.getpid()
        self._head[_FINGERPRINT] = fingerprint

    def leave(self) -> None:
        """Have no writer any more; its numbers stay. Also for the supervisor, of a worker that is gone."""
        self._head[_PID] = 0


@dataclass(frozen=True, slots=True)
class Shared:
    """The memory of one service, by the descriptor of its file, which is this object's own."""

    fd: int
    slabs: tuple[Slab, ...]

    @classmethod
    def create(cls, slabs: int) -> Self:
        """Make memory of so many slabs; pages that nobody writes cost nothing. Raises OSError."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("regsvc")
        else:
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.ftruncate(fd, slabs * SLAB)
        return cls.attach(fd)

    @classmethod
    def attach(cls, fd: int) -> Self:
        """Open the memory behind an inherited descriptor."""
        size = os.fstat(fd).st_size
        memory = memoryview(mmap.mmap(fd, size))
        return cls(fd, tuple(Slab(memory, number) for number in range(size // SLAB)))

    def taken(self, fingerprint: int) -> Iterator[Slab]:
        """Yield the slabs whose cells have this layout, those of processes that are gone among them."""
        return (slab for slab in self.slabs if slab.fingerprint == fingerprint)
