"""What a worker is made of: every part built from the settings, none of them running yet."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from sys import stderr
from typing import assert_never

import trio

from regsvc.actors import courier, listener
from regsvc.actors.hasher import Hasher
from regsvc.actors.tally import Tally
from regsvc.adapters.crypto import Bcrypt, Crypto, Keys, common_passwords
from regsvc.adapters.mail import Both, Boxed, Channel, Console, Letters, Login, Relay, Smtp, Tls
from regsvc.domain.account import DuplicatePolicy, Rules
from regsvc.domain.values import PasswordRules
from regsvc.flows.account import Accounts
from regsvc.settings import Settings
from regsvc.store import Store, open_store


@dataclass(frozen=True, slots=True)
class World:
    """Everything a worker is made of, not yet running."""

    settings: Settings
    store: Store
    crypto: Crypto
    channel: Channel
    hasher: Hasher
    newsroom: listener.Newsroom
    accounts: Accounts
    bell: trio.MemorySendChannel[None]
    heard: trio.MemoryReceiveChannel[None]
    tally: Tally = field(default_factory=Tally)


@asynccontextmanager
async def open_world(settings: Settings) -> AsyncIterator[World]:
    """Build everything; the store's connections and the relay's end with the block.

    Raises Unavailable when the database is away.
    """
    keys = keys_of(settings)
    crypto = Crypto(keys, pii=settings.log_pii)
    async with store_of(settings, crypto) as store, _channel(settings, store) as channel:
        hasher = Hasher(
            Bcrypt(keys, rounds=settings.password_rounds),
            threads=settings.hash_threads,
            queue=settings.hash_queue,
            deadline=settings.hash_deadline,
        )
        bell, heard = trio.open_memory_channel[None](1)
        newsroom = listener.Newsroom()
        accounts = Accounts(
            begin=store.begin,
            directory=store.directory,
            passwords=hasher,
            crypto=crypto,
            news=newsroom,
            ring=courier.bell_rope(bell),
            rules=rules(settings),
            patience=settings.database_timeout,
        )
        yield World(settings, store, crypto, channel, hasher, newsroom, accounts, bell, heard)


def keys_of(settings: Settings) -> Keys:
    """Return what is derived from the secret."""
    assert settings.secret is not None, "with_secret comes before any of this"  # noqa: S101 - a bug of ours, no value
    return Keys.derive(settings.secret)


def rules(settings: Settings) -> Rules:
    """Return the knobs of the machine that decides about addresses."""
    return Rules(
        code_attempts=settings.code_attempts,
        code_failures_per_day=settings.code_failures_per_day,
        resend_cooldown=settings.resend_cooldown,
        resends_per_hour=settings.resends_per_hour,
        pending_ttl=settings.pending_ttl,
        duplicates=DuplicatePolicy(settings.duplicate_policy),
        limit_mails=settings.enable_rate_limiting,
    )


def store_of(settings: Settings, crypto: Crypto) -> AbstractAsyncContextManager[Store]:
    """Return the store, not yet open."""
    dsn = settings.dsn
    assert dsn is not None, "the supervisor names the embedded database"  # noqa: S101 - a bug of ours, not a value
    return open_store(
        dsn,
        new_id=crypto.new_id,
        pool_min=settings.database_pool_min,
        pool_max=settings.database_pool_max,
        timeout=settings.database_timeout,
        statement_cache=settings.database_statement_cache,
    )


def _channel(settings: Settings, store: Store) -> Channel:
    """Choose the way mail goes."""
    letters = Letters(sender=settings.mail_from, public_url=settings.public_url, service="regsvc")
    match settings.mail_channel:
        case "smtp":
            return Smtp(relay(settings), letters)
        case "console":
            return Console(stderr, letters)  # the log has stdout to itself
        case "mailbox":
            return Boxed(store.mailbox, letters)
        case "console+mailbox":
            # The mailbox first: what it did not take is tried again, and would be printed twice.
            return Both(Boxed(store.mailbox, letters), Console(stderr, letters))
        case _:
            assert_never(settings.mail_channel)


def relay(settings: Settings) -> Relay:
    """Return where mail goes by SMTP."""
    username, password = settings.smtp_username, settings.smtp_password
    return Relay(
        settings.smtp_host or "",
        settings.smtp_port,
        Tls(settings.smtp_tls),
        Login(username, password) if username is not None and password is not None else None,
        timeout=settings.mail_timeout,
        concurrency=settings.mail_concurrency,
    )


def passwords(settings: Settings) -> PasswordRules:
    """Return what a new password is held to."""
    return PasswordRules(settings.password_min, settings.password_max, common_passwords())
