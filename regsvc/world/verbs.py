"""What the verbs of the command line open: a part of the world, without a service around it."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field

import trio

from regsvc.adapters.crypto import Crypto, Forms, Keyring, Scheme
from regsvc.domain.values import Secret
from regsvc.flows.staff import Staff
from regsvc.ports import MailDesk, Transfer, Unavailable
from regsvc.settings import Settings
from regsvc.store import Store
from regsvc.store.migrations import Migration, fallen, migrate
from regsvc.store.transfer import open_roll
from regsvc.world.building import crypto_of, keyring, keys_of, staff, store_of
from regsvc.world.hashing import scheme


@asynccontextmanager
async def open_desk(settings: Settings, dsn: Secret) -> AsyncIterator[MailDesk]:
    """Open the outbox as an operator works on it."""
    async with _at(settings, dsn) as (_, store):
        yield store.desk


@asynccontextmanager
async def open_keys(settings: Settings, dsn: Secret) -> AsyncIterator[Keyring]:
    """Open the signing keys as an operator works on them."""
    async with _at(settings, dsn) as (_, store):
        yield keyring(settings, store)


@asynccontextmanager
async def open_staff(settings: Settings, dsn: Secret) -> AsyncIterator[Staff]:
    """Open what administrators can do, for somebody at the command line. Raises Unavailable without migrations."""
    async with _at(settings, dsn) as (crypto, store):
        if not await store.probe.migrated():
            raise Unavailable("database", "it lacks migrations: run `regsvc migrate`")
        yield staff(settings, store, crypto, OneByOne(scheme(settings, keys_of(settings))))


@asynccontextmanager
async def open_transfer(settings: Settings, dsn: Secret) -> AsyncIterator[Transfer]:
    """Open all accounts, for who moves many at once. Raises Unavailable, where migrations are missing too."""
    async with open_roll(dsn, new_id=crypto_of(settings).new_id) as roll:
        yield Transfer(roll, Forms(*keys_of(settings)))


@asynccontextmanager
async def _at(settings: Settings, dsn: Secret) -> AsyncIterator[tuple[Crypto, Store]]:
    crypto = crypto_of(settings)
    async with store_of(settings.telling(database_url=dsn), crypto) as store:
        yield crypto, store


@dataclass(frozen=True, slots=True)
class OneByOne:
    """ports.Passwords for a verb, which hashes once or twice: on a thread, without a queue."""

    scheme: Scheme
    limiter: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1))

    def announced(self, client: str | None = None) -> AbstractContextManager[None]:
        """Refuse nobody."""
        return nullcontext()

    async def hash(self, password: Secret, client: str | None = None) -> str:
        """Return a tagged hash to store."""
        return await trio.to_thread.run_sync(self.scheme.hash, password, limiter=self.limiter)

    async def check(self, password: Secret, stored: Sequence[str], client: str | None = None) -> Sequence[bool]:
        """Check against each; for nobody the same work is done, as everywhere."""
        if not stored:
            await trio.to_thread.run_sync(self.scheme.waste, password, limiter=self.limiter)
        return [await trio.to_thread.run_sync(self.scheme.check, password, one, limiter=self.limiter) for one in stored]

    def outdated(self, stored: str) -> bool:
        """Tell whether a hash should be made anew."""
        return self.scheme.outdated(stored)


def apply_migrations(dsn: Secret, *, report: Callable[[str], None]) -> list[str]:
    """Apply what is missing, and return it. Raises Unavailable, and MigrationError where a person has to look."""
    return [str(applied) for applied in trio.run(_apply_migrations, dsn, report)]


async def _apply_migrations(dsn: Secret, report: Callable[[str], None]) -> list[Migration]:
    applied = await migrate(dsn, report=report)
    if await fallen(dsn):
        report("the default partition of the audit trail has rows: a sweeper should move them within minutes")
    return applied
