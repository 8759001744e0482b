"""What a request brings along besides its content: who sends it, what it may still do, and where its answer is kept.

Every flow of a request is handed one; whoever calls a flow otherwise (a verb, a test) need not.
"""

from dataclasses import dataclass
from typing import Final, Protocol

from regsvc.domain.quota import Limit
from regsvc.domain.refusals import Refused
from regsvc.ports import Unit


class Meter(Protocol):
    """The limits of one request; what it took is told in the answer's headers."""

    async def take(self, limit: Limit, subject: str) -> Refused | None:
        """Count one against `subject` (an address's key, an id); return the refusal when there were too many."""
        ...

    async def give_back(self, limit: Limit, subject: str) -> None:
        """Count it no more: it was right."""
        ...

    async def failed_activation(self) -> None:
        """Count a failed activation for the alarm; nobody is refused for it."""
        ...


class Receipt(Protocol):
    """Where the outcome of a request with an Idempotency-Key is kept."""

    async def keep(self, unit: Unit, outcome: object) -> None:
        """Write the answer that `outcome` gets, in the transaction that brought it about.

        Raises Unavailable when the request is somebody else's by now: nothing of the transaction may stand then.
        """
        ...


class Unmetered:
    """The meter of whoever is not limited."""

    async def take(self, limit: Limit, subject: str) -> Refused | None:
        """Allow it."""

    async def give_back(self, limit: Limit, subject: str) -> None:
        """Do nothing."""

    async def failed_activation(self) -> None:
        """Do nothing."""


UNMETERED: Final = Unmetered()


@dataclass(frozen=True, slots=True)
class Errand:
    """A request, as a flow sees it. `client` is whom limits and fairness count: an IPv4 address, or an IPv6 /64."""

    client: str | None = None
    meter: Meter = UNMETERED
    receipt: Receipt | None = None

    async def keep(self, unit: Unit, outcome: object, *, changed: bool = True) -> None:
        """Keep the outcome of this request, where it has an Idempotency-Key; the last thing in its transaction.

        A refusal that `changed` nothing is not kept: whoever waits as it says and sends the same again is let in.
        """
        if self.receipt is not None and (changed or not isinstance(outcome, Refused)):
            await self.receipt.keep(unit, outcome)


PLAIN: Final = Errand()
