"""Where the buckets of rate limits are."""

from collections.abc import Sequence
from typing import Protocol

from regsvc.domain.quota import Level, Take


class Quotas(Protocol):
    """Buckets, by the arithmetic of `domain.quota`, on the store's own clock; as many processes as like share them.

    Each take is atomic by itself: of several at once on one bucket, exactly as many are allowed as it has room for.
    A refused one changes nothing.
    """

    @property
    def name(self) -> str:
        """Which store it is: memory, postgres or redis."""
        ...

    async def take(self, takes: Sequence[Take]) -> Sequence[Level]:
        """Take from each bucket, in one round trip; return the levels in the same order. No bucket occurs twice.

        Raises Unavailable("limits") when the store is away.
        """
        ...

    async def give_back(self, takes: Sequence[Take]) -> None:
        """Undo allowed takes: what they were for did not count after all. Raises Unavailable("limits")."""
        ...
