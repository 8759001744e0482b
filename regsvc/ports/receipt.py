"""What makes a request that is sent again one request: whoever comes first does it, all get its answer.

Nothing that is stored of a request tells anything to whoever lacks the request: digests, and an answer that is sealed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Slot:
    """Where the answer to a request is kept, and what keeps it shut.

    `place` is a keyed digest of route, credentials and Idempotency-Key, `content` one of all that and of what was sent;
    `key` is made of the same, and stored nowhere.
    """

    place: bytes
    content: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right to do what a request asks; only its holder's answer is kept."""

    place: bytes
    holder: UUID


@dataclass(frozen=True, slots=True)
class Finished:
    """It was done before; `answer` is what was kept, sealed."""

    answer: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Running:
    """It is being done; `retry_after` is worth waiting."""

    retry_after: timedelta


@dataclass(frozen=True, slots=True)
class Different:
    """The key belongs to something else that was sent."""


class Tickets(Protocol):
    """Who may do what a request asks, decided outside of any transaction."""

    async def take(self, slots: Sequence[Slot], lease: timedelta) -> Ticket | Finished | Running | Different:
        """Take the right to do it, for as long as the lease; or say why it is not to be had.

        `slots`: of the secret, then of the previous one, where an answer may still be; of two workers with different
        secrets that are asked at the very same moment, both may have the right. Somebody whose lease is over is taken
        to be dead; should he live, what he does is undone (see `Receipts.keep`). A key that comes with other content
        again and again is burnt: it answers nobody any more. Raises Unavailable.
        """
        ...

    async def give_back(self, ticket: Ticket) -> bool:
        """Free the key again, unless an answer was kept: nothing was done. Raises Unavailable.

        False: the lease was over, and somebody else has done it, or is at work on it.
        """
        ...


class Receipts(Protocol):
    """The answers, inside the transaction whose work they tell of."""

    async def keep(self, ticket: Ticket, answer: bytes) -> None:
        """Keep the answer, sealed. Raises Unavailable when the ticket is no longer the holder's: all is undone then."""
        ...


class Seals(Protocol):
    """What makes slots, and shuts and opens answers."""

    def slots(self, route: str, credentials: bytes, key: str, content: bytes) -> Sequence[Slot]:
        """Return the slot of a request under the secret, then under the previous one, where there is one."""
        ...

    def close(self, slot: Slot, answer: bytes) -> bytes:
        """Seal an answer."""
        ...

    def open(self, slots: Sequence[Slot], sealed: bytes) -> bytes:
        """Open an answer by one of the slots. Raises ValueError for what none of them sealed."""
        ...
