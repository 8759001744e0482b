"""Who is let in, and who gives way when the house is full.

Rule 1. Before somebody new is turned away, whoever has had nothing to say for longest gives up his place.
Rule 2. Who finds no place is a guest: he may ask one thing, soon. Probes are answered, all else is told to come again;
        so a full house never silences a probe.
Rule 3. Guests' places are few. A guest who has not asked yet, or was told already, gives way to the next one: whoever
        would keep them all taken has to be quicker than a probe that asks as soon as it is let in.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import chain, islice
from typing import Final, Protocol

import trio

LOOKED_AT: Final = 8  # of the silent ones, for one that has not just begun to speak


class Client(Protocol):
    """A connection, as the server sees it."""

    @property
    def busy(self) -> bool:
        """Whether a request is being read, handled or answered."""
        ...

    def hurry(self) -> None:
        """Stop waiting for what may never come: the server drains."""
        ...

    def give_way(self) -> bool:
        """Leave at once for somebody else; False: it has begun to speak."""
        ...


class Place(Enum):
    """Where somebody is let in."""

    SEAT = auto()
    GUEST = auto()
    NONE = auto()


@dataclass(eq=False, slots=True)
class Crowd:
    """The connections of one server: `seats` of them, and `guests_max` more that may be there for a moment."""

    seats: int
    guests_max: int
    moment: float  # seconds that one may be silent before its place is another's
    seated: set[Client] = field(default_factory=set)
    silent: OrderedDict[Client, float] = field(default_factory=OrderedDict)  # of those seated, and since when
    guests: OrderedDict[Client, None] = field(default_factory=OrderedDict)

    def everybody(self) -> Iterable[Client]:
        """All who are there."""
        return chain(self.seated, self.guests)

    def enter(self, client: Client) -> Place:
        """Let one in, where there is a place for it."""
        if len(self.seated) < self.seats or self._free_a_seat():
            self.seated.add(client)
            return Place.SEAT
        if len(self.guests) < self.guests_max or self._see_a_guest_out():
            self.guests[client] = None
            return Place.GUEST
        return Place.NONE

    def leave(self, client: Client) -> None:
        """Have one less."""
        self.seated.discard(client)
        self.silent.pop(client, None)
        self.guests.pop(client, None)

    def falls_silent(self, client: Client, since: float) -> None:
        """Note that a connection waits for its client to ask; `speaks` ends it."""
        if client in self.seated:
            self.silent[client] = since

    def speaks(self, client: Client) -> None:
        """Note that it need not give way."""
        self.silent.pop(client, None)

    def _free_a_seat(self) -> bool:
        latest = trio.current_time() - self.moment
        return self._see_out([client for client, since in islice(self.silent.items(), LOOKED_AT) if since <= latest])

    def _see_a_guest_out(self) -> bool:
        return self._see_out([guest for guest in self.guests if not guest.busy][:1])

    def _see_out(self, clients: Iterable[Client]) -> bool:
        for client in clients:
            if client.give_way():
                self.leave(client)
                return True
        return False
