"""The composition root: the only file that names concrete classes, and the order in which they live and end.

Rule 1. Nothing is built at import. `open_world` builds, `live` runs, `run_worker` is a process.
Rule 2. Whoever is used lives in an outer nursery of whoever uses it, so everything ends before what it stands on:
        log writer > store and transport > listener > hasher > mailer, sweeper > HTTP.
Rule 3. One deadline for the whole drain, from the moment we are told.
"""

import gc
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from sys import stderr
from typing import Final, assert_never

import trio

from regsvc import observe
from regsvc.actors import courier, listener, sweeper
from regsvc.actors.hasher import Hasher
from regsvc.actors.keeper import Actor, KeeperGaveUp, keep
from regsvc.actors.tally import Drained as MailDrained
from regsvc.actors.tally import Pace, Tally
from regsvc.adapters.crypto import Bcrypt, Crypto, Keys, common_passwords
from regsvc.adapters.mail import Both, Boxed, Channel, Console, Letters, Login, Relay, Smtp, Tls
from regsvc.domain.account import DuplicatePolicy, Rules
from regsvc.domain.values import PasswordRules, Secret
from regsvc.flows.account import Accounts
from regsvc.http import models
from regsvc.http.app import Knobs, describe, make_app
from regsvc.http.server import Cut, Drained, Server, serve
from regsvc.ports import MailDesk, Unavailable
from regsvc.settings import Settings
from regsvc.store import Store, open_store
from regsvc.store.migrations import migrate

MAIL_SHARE: Final = 0.8  # of the drain is for requests in flight; what is left, for the mails they cause


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
    keys = _keys(settings)
    crypto = Crypto(keys, pii=settings.log_pii)
    async with _store(settings, crypto) as store, _channel(settings, store) as channel:
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


def _keys(settings: Settings) -> Keys:
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


def _store(settings: Settings, crypto: Crypto) -> AbstractAsyncContextManager[Store]:
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


# ------------------------------------------------------------------------------------------------------------- running


@dataclass(slots=True)
class Life:
    """One run of a world: when it is told to stop, by when it must be over, and how it ended."""

    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    stop: trio.Event = field(default_factory=trio.Event)
    server: Server | None = None
    told_at: float | None = None
    http: Drained | None = None

    def end(self, reason: str, *, within: float) -> None:
        """Drain, and be over `within` seconds; told again: at once."""
        now = trio.current_time()
        if self.told_at is not None:
            self.scope.cancel(reason=f"told twice: {reason}")
            return
        self.told_at = now
        self.scope.deadline = now + within
        in_flight = self.server.statistics().in_flight if self.server is not None else 0
        observe.emit("drain_started", reason=reason, in_flight=in_flight)
        self.stop.set()


async def live(world: World, sockets: Sequence[int], life: Life, *, ready: Callable[[], None]) -> None:
    """Run the roles that the settings name until `life` ends; `ready` is called once they all stand.

    Errors: Unavailable or KeeperGaveUp, in groups, when an actor could not start or did not stay up.
    """
    store, ring = world.store, world.accounts.ring
    with life.scope:
        async with trio.open_nursery() as standing:
            await _keep(standing, "listener", partial(listener.run, store.notices, world.newsroom, ring))
            await _keep(standing, "hasher", world.hasher.run)
            if "sweeper" in world.settings.roles:
                await _keep(standing, "sweeper", partial(sweeper.run, store.housekeeping))
            async with trio.open_nursery() as mailing:
                if "mailer" in world.settings.roles:
                    await _keep(mailing, "mailer", _mailer(world))
                if "http" in world.settings.roles:
                    life.http = await _serve(world, sockets, life, ready)
                else:
                    ready()
                    await life.stop.wait()
                world.bell.close()  # nobody can ring any more: the mailer empties what it holds, and returns
            standing.cancel_scope.cancel(reason="nobody needs them any more")


async def _keep(nursery: trio.Nursery, name: str, run: Actor[None, None]) -> None:
    await nursery.start(partial(keep, run, name=name), name=name)


def _mailer(world: World) -> Actor[None, None]:
    settings = world.settings
    pace = Pace(
        concurrency=settings.mail_concurrency,
        timeout=settings.mail_timeout,
        code_digits=settings.code_length,
        code_lifetime=settings.code_ttl,
        attempts_max=settings.mail_attempts,
    )
    return partial(
        courier.run, world.heard, world.store.mailbag, world.channel, world.crypto, pace=pace, tally=world.tally
    )


async def _serve(world: World, sockets: Sequence[int], life: Life, ready: Callable[[], None]) -> Drained:
    """Serve HTTP until `life` ends, then drain."""
    settings, how = world.settings, knobs(world.settings)
    how = replace(how, draining=life.stop.is_set, checks=checks(world))
    mailbox = world.store.mailbox if settings.profile == "dev" else None
    app = make_app(world.accounts, probe=world.store.probe, mailbox=mailbox, knobs=how)

    class Started(trio.TaskStatus[Server]):
        def started(self, value: Server | None = None) -> None:
            life.server = value
            ready()

    return await serve(
        app,
        sockets,
        shutdown=life.stop.wait,
        observe=Doorman(),
        refuse=how.writer.refuse,
        grace=settings.drain_seconds.total_seconds() * MAIL_SHARE,
        task_status=Started(),
    )


def knobs(settings: Settings) -> Knobs:
    """Return what the front needs of the settings."""
    return Knobs(settings.public_url, settings.code_length, passwords(settings), settings.trusted_proxies)


def openapi_document(settings: Settings) -> bytes:
    """Return the OpenAPI document of a service with these settings."""
    return describe(knobs(settings), mailbox=settings.profile == "dev")


class Doorman:
    """Logs what the HTTP server tells (http.server.ServerEvents)."""

    def connection_contained(self, error: BaseException, /) -> None:
        """Log an error that was kept from ending the process."""
        observe.exception("connection_contained", error)

    def connection_cut(self, why: Cut, /) -> None:
        """Log a connection that met a deadline."""
        observe.emit("connection_cut", reason=why.value)

    def request_refused(self, status: int, name: str, detail: str, /) -> None:
        """Log a request that reached no handler."""
        observe.emit("request_unreadable", status=status, reason=f"{name}: {detail}")

    def handler_failed(self, error: BaseException, /) -> None:
        """Log a bug."""
        observe.exception("http_bug", error)


def checks(world: World) -> Mapping[str, Callable[[], models.Check]]:
    """Return how the parts of this worker do, for /v1/health."""
    roles = world.settings.roles

    def mailer() -> models.Check:
        if "mailer" not in roles:
            return models.Check(status="off")
        outages = world.tally.statistics().outages
        if outages:
            return models.Check(status="degraded", detail=f"the relay failed {outages} times in a row")
        return models.Check(status="ok")

    def hasher() -> models.Check:
        waiting = world.hasher.statistics().waiting
        full = waiting >= world.settings.hash_queue > 0
        return models.Check(status="degraded" if full else "ok", detail=f"{waiting} waiting")

    def sweeper_() -> models.Check:
        return models.Check(status="ok" if "sweeper" in roles else "off")

    return {"mailer": mailer, "hasher": hasher, "sweeper": sweeper_}


# ----------------------------------------------------------------------------------------------------------- processes


def run_worker(settings: Settings, sockets: Sequence[int], *, lifeline: int, ready: int) -> int:
    """Be a worker until SIGTERM or until `lifeline` ends; return the exit status.

    `lifeline` is a pipe whose other end the supervisor holds, `ready` one that gets an octet once all roles stand.
    """
    return trio.run(partial(_worker, settings, sockets, lifeline, ready))


async def _worker(settings: Settings, sockets: Sequence[int], lifeline: int, ready: int) -> int:
    status = os.EX_OK
    async with trio.open_nursery() as outermost:
        await outermost.start(observe.run_log_writer, name="log writer")
        observe.emit("worker_started", pid=os.getpid())
        try:
            await _run_to_the_end(settings, sockets, lifeline, ready)
        except* Unavailable as away:
            observe.database_away(str(away.exceptions[0]))
            status = os.EX_TEMPFAIL
        except* KeeperGaveUp:  # each of the crashes was logged
            status = os.EX_TEMPFAIL
        except* Exception as bugs:  # noqa: BLE001 - the root: what nobody expected is told, and ends the worker
            observe.exception("actor_crashed", bugs)
            status = os.EX_SOFTWARE
        outermost.cancel_scope.cancel(reason="the worker ends")
    return status


async def _run_to_the_end(settings: Settings, sockets: Sequence[int], lifeline: int, ready: int) -> None:
    life = Life()

    def tell_ready() -> None:
        # What stands now stands to the end: the collector need not walk it again and again (47 ms each time).
        gc.collect()
        gc.freeze()
        os.write(ready, b"\n")
        os.close(ready)

    async with open_world(settings) as world, trio.open_nursery() as watching:
        await watching.start(_watch_signals, life, settings.drain_seconds.total_seconds(), name="signals")
        watching.start_soon(_watch_supervisor, life, lifeline, name="lifeline")
        await _found(world)
        await live(world, sockets, life, ready=tell_ready)
        watching.cancel_scope.cancel(reason="the worker ends")
    _tell_of_drain(life, world.tally.statistics().drained)


async def _found(world: World) -> None:
    """Make sure of the foundation. Raises Unavailable."""
    if world.settings.profile == "dev" and world.settings.dsn is not None:
        for applied in await migrate(world.settings.dsn, report=lambda _: None):
            observe.emit("migration_applied", migration=applied.version, name=applied.name)
    if not await world.store.probe.migrated():
        raise Unavailable("database", "it lacks migrations: run `regsvc migrate`")


async def _watch_signals(  # noqa: ASYNC114 - started here, with `start`
    life: Life, drain: float, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as told:
        task_status.started()
        async for number in told:
            life.end(signal.Signals(number).name, within=drain)


async def _watch_supervisor(life: Life, lifeline: int) -> None:
    await trio.lowlevel.wait_readable(lifeline)  # nothing more is ever written to it: this is its end
    life.scope.cancel(reason="the supervisor is gone")


def _tell_of_drain(life: Life, mail: MailDrained | None) -> None:
    http, told_at = life.http, life.told_at
    observe.emit(
        "drain_completed",
        in_flight=http.in_flight if http else None,
        finished=http.finished if http else None,
        cut=http.cut if http else None,
        handed_over=mail.handed_over if mail else None,
        left=mail.left if mail else None,
        took_s=round(trio.current_time() - told_at, 3) if told_at is not None else None,
    )


# ------------------------------------------------------------------------------------------------------ for the verbs


@asynccontextmanager
async def open_desk(settings: Settings, dsn: Secret) -> AsyncIterator[MailDesk]:
    """Open the outbox as an operator works on it."""
    crypto = Crypto(_keys(settings), pii=settings.log_pii)
    async with _store(settings.telling(database_url=dsn), crypto) as store:
        yield store.desk


def apply_migrations(dsn: Secret, *, report: Callable[[str], None]) -> list[str]:
    """Apply what is missing, and return it. Raises Unavailable, and MigrationError where a person has to look."""
    return [str(applied) for applied in trio.run(partial(migrate, dsn, report=report))]
