"""What the verbs of the command line open: a part of the world, without a service around it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

from regsvc.adapters.crypto import Crypto
from regsvc.domain.values import Secret
from regsvc.ports import MailDesk
from regsvc.settings import Settings
from regsvc.store.migrations import migrate
from regsvc.world.building import keys_of, store_of


@asynccontextmanager
async def open_desk(settings: Settings, dsn: Secret) -> AsyncIterator[MailDesk]:
    """Open the outbox as an operator works on it."""
    crypto = Crypto(keys_of(settings), pii=settings.log_pii)
    async with store_of(settings.telling(database_url=dsn), crypto) as store:
        yield store.desk


def apply_migrations(dsn: Secret, *, report: Callable[[str], None]) -> list[str]:
    """Apply what is missing, and return it. Raises Unavailable, and MigrationError where a person has to look."""
    return [str(applied) for applied in trio.run(partial(migrate, dsn, report=report))]
