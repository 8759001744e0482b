"""Following the log of all processes of the service: their rings read, what nobody asked for left out, one order.

Who follows has no buffer here: lines that he does not take wait in the rings, and what is overwritten there is lost to
him alone. So a slow reader costs nothing, and each one is told exactly what he has missed.

Lines are not parsed. Their first three fields are `ts`, `level` and `event`, in this order (a test holds the log to
it), and a quote within a value is escaped, so that `"route":"` is a key wherever it stands.
"""

import re
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from heapq import nlargest
from itertools import chain
from typing import Final, get_args

from regsvc.observe.events import Event, Level
from regsvc.observe.lines import Clock
from regsvc.observe.ring import CHUNK_MAX, Reader
from regsvc.observe.shared import Slab

LOOK_MAX: Final = 64 * 1024  # octets that one look reads, about 160 lines: less than a millisecond of the loop
RINGS_MAX: Final = LOOK_MAX // CHUNK_MAX  # rings that one look reads
HOLD: Final = 50_000_000  # ns; a line that young waits for older ones, which other processes have still to write
_STAMP: Final = slice(len('{"ts":"'), len('{"ts":"2026-11-21T09:00:00.000000Z'))
_END: Final = b"\xff"  # after every moment
_ROUTE: Final = re.compile(rb'"route":"([^"]*)"')
_METHOD: Final = re.compile(rb'"method":"([^"]*)"')

Methods = Collection[str] | None


@dataclass(frozen=True)
class Wanted:
    """Which lines somebody wants; what is empty asks for nothing.

    `least`: the least level. `routes`: as lines have them, each with the methods that are wanted, None: any.
    """

    least: Level = "debug"
    events: Collection[Event] = ()
    routes: Mapping[str, Methods] = field(default_factory=dict)

    def of(self, block: bytes) -> list[bytes]:
        """Return the wanted ones of whole lines, without their newlines."""
        found = [line[0] for line in self._head.finditer(block)]
        return [line for line in found if self._is_of_a_route(line)] if self.routes else found

    @cached_property
    def _head(self) -> re.Pattern[bytes]:
        levels: Sequence[str] = get_args(Level)[get_args(Level).index(self.least) :]
        events = "|".join(self.events) or "[a-z_]+"
        head = rf'^{{"ts":"[^"]*","level":"(?:{"|".join(levels)})","event":"(?:{events})".*$'
        return re.compile(head.encode(), re.MULTILINE)

    def _is_of_a_route(self, line: bytes) -> bool:
        found = _ROUTE.search(line)
        if found is None or (route := found[1].decode()) not in self.routes:
            return False
        methods, method = self.routes[route], _METHOD.search(line)
        return methods is None or (method is not None and method[1].decode() in methods)


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at the rings found: wanted lines, the oldest first; lines of any kind that were `lost` since the
    last look; and whether there is more already.
    """

    lines: Sequence[bytes]
    lost: int
    more: bool


@dataclass(eq=False, slots=True)
class _Ring:
    """What was read of one ring and is not told yet: wanted `lines`, and up to when all lines were read."""

    reader: Reader
    lines: list[bytes] = field(default_factory=list)
    upto: bytes = b""

    @property
    def due(self) -> bool:
        return self.reader.waiting > 0 and sum(map(len, self.lines)) < CHUNK_MAX

    def read(self, most: int, wanted: Wanted) -> int:
        """Read on; return how many lines were lost."""
        block, lost = self.reader.read(most)
        if block:
            self.lines += wanted.of(block)
            self.upto = _stamp(block[block.rfind(b"\n", 0, -1) + 1 :])
        return lost

    def until(self, moment: bytes) -> list[bytes]:
        """Take the lines up to a moment."""
        taken = [line for line in self.lines if _stamp(line) <= moment]
        self.lines = [line for line in self.lines if _stamp(line) > moment]
        return taken


class Follower:
    """Reads on in the rings of `slabs`, from where they end now, whoever writes them."""

    def __init__(self, slabs: Iterable[Slab], wanted: Wanted) -> None:
        self._rings = [_Ring(Reader(slab)) for slab in slabs]
        self._wanted = wanted
        self._seen = b""  # the youngest line that the last look kept back
        self._clock = Clock()

    def look(self, *, last: bool = False) -> Look:
        """Read what has come, LOOK_MAX octets at most; `last`: keep nothing back for another look."""
        due = nlargest(RINGS_MAX, (ring for ring in self._rings if ring.due), key=_waiting)
        lost = sum(ring.read(LOOK_MAX // len(due), self._wanted) for ring in due)
        moment = _END if last else self._moment()
        found = sorted(chain.from_iterable(ring.until(moment) for ring in self._rings), key=_stamp)
        self._seen = max((_stamp(line) for ring in self._rings for line in ring.lines), default=b"")
        return Look(found, lost, any(_waiting(ring) > CHUNK_MAX for ring in self._rings))

    def _moment(self) -> bytes:
        """Return up to when all lines are there: where a ring is not read to its end, up to its last line that is.

        Else all but the young ones; none is kept back for more than one look because of its age, whatever its clock.
        """
        old = self._clock.stamp(time.time_ns() - HOLD).encode()
        return min([max(old, self._seen), *(ring.upto for ring in self._rings if ring.reader.waiting)])


def _waiting(ring: _Ring) -> int:
    return ring.reader.waiting


def _stamp(line: bytes) -> bytes:
    return line[_STAMP]
