"""Who waits, and whose turn it is: a line for each client, and round robin over the lines.

Rule 1. A client that comes to wait gets its turn after all who wait already have had one; nobody's turn comes twice
        before everybody else's came once. So however much one client asks, another one waits a round, not its line.
Rule 2. Nothing here waits or locks: it is for one task, which says what is in which line.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

Client = str | None
T = TypeVar("T", bound=Hashable)


class Turns(Generic[T]):
    """Lines of things that wait, each thing in one line only."""

    def __init__(self) -> None:
        self._lines: OrderedDict[Client, OrderedDict[T, None]] = OrderedDict()  # whose turn is next comes first
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def clients(self) -> Iterable[Client]:
        """Those who wait, in the order of their turns."""
        return self._lines.keys()

    def of(self, client: Client) -> int:
        """Return how long the line of a client is."""
        return len(self._lines.get(client, ()))

    def add(self, client: Client, thing: T) -> None:
        """Put a thing at the end of a client's line."""
        self._lines.setdefault(client, OrderedDict())[thing] = None
        self._size += 1

    def next(self) -> T:
        """Take out the thing whose turn it is. Raises KeyError when nothing waits."""
        client = next(iter(self._lines), None)
        line = self._lines[client]
        thing, _ = line.popitem(last=False)
        self._size -= 1
        if line:
            self._lines.move_to_end(client)
        else:
            del self._lines[client]
        return thing

    def last(self) -> T:
        """Return, and leave there, the thing whose turn comes after all others'. Raises KeyError when nothing waits."""
        return self.newest(max(reversed(self._lines), key=self.of, default=None))  # of the longest lines, the last one

    def newest(self, client: Client) -> T:
        """Return, and leave there, what came last of a client. Raises KeyError where nothing of it waits."""
        return next(reversed(self._lines[client]))

    def remove(self, client: Client, thing: T) -> bool:
        """Take a thing out of a client's line, whose turn stays; False when it is not there."""
        line = self._lines.get(client)
        if line is None or thing not in line:
            return False
        del line[thing]
        self._size -= 1
        if not line:
            del self._lines[client]
        return True

    def before(self, client: Client, more: int) -> int:
        """Return how many things have their turn before the last of `more` new ones of a client."""
        own = self.of(client) + more
        if own == 1:  # everybody else once: true of most, and known at a glance
            return len(self._lines)
        total, rounds = own - 1, own  # of the lines up to this client's, one turn more than of those behind it
        for other, line in self._lines.items():
            if other == client:
                rounds = own - 1
            else:
                total += min(len(line), rounds)
        return total
