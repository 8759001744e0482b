"""The one way in which a flow writes: a transaction that a client who hangs up does not stop half way."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import TypeVar

import trio

from regsvc.domain.delivery import Effect, Mail
from regsvc.ports import Unavailable, Unit

U = TypeVar("U", bound=Unit)


@asynccontextmanager
async def transaction(begin: Callable[[], AbstractAsyncContextManager[U]], patience: timedelta) -> AsyncIterator[U]:
    """Open a transaction: all of it, or nothing; shielded, and an outage when it takes longer than `patience`.

    Left without an error, it was committed. A client that hangs up cancels the flow at its next checkpoint, so nothing
    after that may matter.
    """
    with trio.move_on_after(patience.total_seconds(), shield=True) as scope:
        async with begin() as unit:
            yield unit
    if scope.cancelled_caught:
        raise Unavailable("database", f"a transaction took longer than {patience.total_seconds():g} s")


def ring_for(effects: Sequence[Effect], ring: Callable[[], None]) -> None:
    """Wake the mailer if there is mail: it saves it one poll of waiting, so this comes after the commit."""
    if any(isinstance(effect, Mail) for effect in effects):
        ring()
