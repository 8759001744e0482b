"""What a worker is made of: every part built from the settings, none of them running yet."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from sys import stderr
from typing import assert_never

import trio

from regsvc import observe
from regsvc.actors import courier, listener
from regsvc.actors.hasher import Hasher
from regsvc.actors.tally import Tally
from regsvc.adapters.crypto import Crypto, Keyring, Keys, Seals, Tokens, common_passwords
from regsvc.adapters.mail import Both, Boxed, Channel, Console, Letters, Login, Relay, Smtp, Tls
from regsvc.adapters.memory import MemoryQuotas
from regsvc.domain import quota, session
from regsvc.domain.account import DuplicatePolicy, Rules
from regsvc.domain.values import PasswordRules
from regsvc.flows.account import Accounts
from regsvc.flows.profile import Profiles
from regsvc.flows.quota import Limits
from regsvc.flows.recovery import Recovery
from regsvc.flows.session import Sessions
from regsvc.flows.staff import Staff
from regsvc.http.app import Flows
from regsvc.http.receipt import Receipts
from regsvc.observe.shared import Shared
from regsvc.ports import Passwords, Quotas
from regsvc.settings import Settings
from regsvc.store import Store, open_store
from regsvc.world.hashing import open_hasher


@dataclass(frozen=True, slots=True)
class Bell:
    """Wakes an actor: one end to ring, one to hear it."""

    rope: trio.MemorySendChannel[None]
    heard: trio.MemoryReceiveChannel[None]

    @classmethod
    def hung(cls) -> "Bell":
        """Return a new one; one ring waits in it."""
        return cls(*trio.open_memory_channel[None](1))

    @property
    def ring(self) -> Callable[[], None]:
        """What rings it, without waiting."""
        return courier.bell_rope(self.rope)


@dataclass(frozen=True, slots=True)
class World:
    """Everything a worker is made of, not yet running."""

    settings: Settings
    store: Store
    crypto: Crypto
    channel: Channel
    hasher: Hasher
    keyring: Keyring
    tokens: Tokens
    newsroom: listener.Newsroom
    flows: Flows
    limits: Limits
    mail_bell: Bell
    keys_bell: Bell
    shared: Shared
    tally: Tally = field(default_factory=Tally)


@asynccontextmanager
async def open_world(settings: Settings, shared: Shared) -> AsyncIterator[World]:
    """Build everything; the store's connections and the relay's end with the block. `shared`: all workers have it.

    Raises Unavailable when the database is away.
    """
    crypto = crypto_of(settings)
    async with (
        store_of(settings, crypto) as store,
        _channel(settings, store) as channel,
        _quotas(settings, store) as quotas,
    ):
        hasher = await open_hasher(settings, keys_of(settings))
        ring, newsroom, bell = keyring(settings, store), listener.Newsroom(), Bell.hung()
        tokens = Tokens(
            ring,
            new_id=crypto.new_id,
            issuer=settings.issuer,
            audience=settings.jwt_audience,
            lifetime=settings.access_ttl,
        )
        flows = _flows(settings, store, crypto, hasher, tokens, newsroom, bell.ring)
        if settings.otlp_endpoint is not None:
            flows = _traced(flows)
        counted = limits(settings, quotas, crypto)
        keys_bell = Bell.hung()
        yield World(
            settings, store, crypto, channel, hasher, ring, tokens, newsroom, flows, counted, bell, keys_bell, shared
        )


def _flows(
    settings: Settings,
    store: Store,
    crypto: Crypto,
    hasher: Hasher,
    tokens: Tokens,
    newsroom: listener.Newsroom,
    wake: Callable[[], None],
) -> Flows:
    limits, strength, patience = rules(settings), passwords(settings), settings.database_timeout
    begin, members, directory = store.begin, store.members, store.directory
    return Flows(
        Accounts(begin, directory, hasher, crypto, newsroom, wake, limits, patience),
        Sessions(begin, members, directory, hasher, crypto, tokens, wake, session_rules(settings), limits, patience),
        Recovery(begin, members, hasher, crypto, wake, limits, strength, patience),
        Profiles(begin, hasher, crypto, wake, limits, strength, patience),
        staff(settings, store, crypto, hasher),
    )


def _traced(flows: Flows) -> Flows:
    """Return the same flows, each of whose methods is a span."""
    return Flows(
        observe.traced(flows.accounts, "account"),
        observe.traced(flows.sessions, "session"),
        observe.traced(flows.recovery, "recovery"),
        observe.traced(flows.profiles, "profile"),
        observe.traced(flows.staff, "staff"),
    )


def staff(settings: Settings, store: Store, crypto: Crypto, hashing: Passwords) -> Staff:
    """Return what administrators can do."""
    return Staff(
        begin=store.begin,
        roster=store.roster,
        members=store.members,
        desk=store.desk,
        passwords=hashing,
        crypto=crypto,
        password_rules=passwords(settings),
        patience=settings.database_timeout,
    )


def keys_of(settings: Settings) -> tuple[Keys, Keys | None]:
    """Return what is derived from the secret, and from the other one that is good too."""
    assert settings.secret is not None, "with_secret comes before any of this"  # noqa: S101 - a bug of ours, no value
    previous = settings.secret_previous
    return Keys.derive(settings.secret), Keys.derive(previous) if previous is not None else None


def crypto_of(settings: Settings) -> Crypto:
    """Return what makes codes, tokens and digests."""
    return Crypto(*keys_of(settings), pii=settings.log_pii)


def receipts(settings: Settings, store: Store) -> Receipts:
    """Return what answers requests with an Idempotency-Key."""
    lease = settings.request_deadline + settings.database_timeout  # which its last transaction may go beyond it
    return Receipts(store.tickets, Seals(*keys_of(settings)), lease)


def keyring(settings: Settings, store: Store) -> Keyring:
    """Return the signing keys, not yet loaded."""
    return Keyring(store.keys, *keys_of(settings), algorithm=settings.jwt_algorithm, lifetime=settings.access_ttl)


def session_rules(settings: Settings) -> session.Rules:
    """Return the knobs of sessions."""
    return session.Rules(settings.refresh_ttl, settings.session_max, settings.refresh_grace)


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


def limits(settings: Settings, quotas: Quotas, crypto: Crypto) -> Limits:
    """Return what clients may do, counted in `quotas`."""
    policies = quota.policies(
        registrations=settings.rate_limit_registration_per_hour,
        activations=settings.rate_limit_activation_per_minute,
        logins=settings.rate_limit_login_per_minute,
        requests=settings.rate_limit_global_per_minute,
    )
    return Limits(quotas, policies, crypto.hidden, enabled=settings.enable_rate_limiting)


def _quotas(settings: Settings, store: Store) -> AbstractAsyncContextManager[Quotas]:
    """Choose where limits are counted."""
    match settings.rate_limit_store:
        case "memory":
            return nullcontext(MemoryQuotas())
        case "postgres":
            return nullcontext(store.quotas)
        case "redis":
            from regsvc.adapters.redis import open_redis  # noqa: PLC0415 - it needs an extra

            assert settings.redis_url is not None, "the settings see to it"  # noqa: S101 - a bug of ours, no value
            return open_redis(settings.redis_url)
        case _:
            assert_never(settings.rate_limit_store)


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
        events_kept=settings.events_kept,
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
