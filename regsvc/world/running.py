"""The order in which the parts of a worker live and end.

Rule 1. Whoever is used lives in an outer nursery of whoever uses it, so everything ends before what it stands on:
        log writer > store and transport > listener > locksmith, hasher, gauger > mailer, sweeper > HTTP.
Rule 2. One deadline for the whole drain, from the moment we are told.
"""

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import trio

from regsvc import observe
from regsvc.actors import courier, listener, locksmith, sweeper
from regsvc.actors.keeper import Actor, keep
from regsvc.actors.tally import Pace
from regsvc.http import models
from regsvc.http.app import Knobs, always_answered, describe, make_app
from regsvc.http.logs import Source
from regsvc.http.server import Cut, Drained, Server, serve
from regsvc.http.staff_models import StaffHashing
from regsvc.settings import Settings
from regsvc.world import counting
from regsvc.world.building import World, passwords, receipts, rules
from regsvc.world.files import room

MAIL_SHARE: Final = 0.8  # of the drain is for requests in flight; what is left, for the mails they cause


@dataclass(slots=True)
class Life:
    """One run of a world: when it is told to stop, by when it must be over, and how it ended.

    `told`: it is known that it ends; `stop`: it takes nothing new any more, which may be later. `replaced`: another
    worker has its place, so the service is as ready as ever.
    """

    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    told: trio.Event = field(default_factory=trio.Event)
    stop: trio.Event = field(default_factory=trio.Event)
    server: Server | None = None
    told_at: float | None = None
    replaced: bool = False
    serves_until: float = 0.0
    http: Drained | None = None

    def end(self, reason: str, *, within: float, lame_duck: float = 0.0, replaced: bool = False) -> None:
        """Serve on for `lame_duck` seconds, then drain, and be over `within` seconds; told again: at once.

        Who was replaced is told once more when the service ends: it goes on with its drain, without patience.
        """
        now = trio.current_time()
        if self.told_at is not None and not (self.replaced and not replaced):
            self.scope.cancel(reason=f"told twice: {reason}")
            return
        first, self.replaced = self.told_at is None, replaced
        if self.server is not None:
            self.server.part(patient=replaced)
        if not first:
            return
        self.told_at, self.serves_until = now, now + lame_duck
        self.scope.deadline = self.serves_until + within
        in_flight = self.server.statistics().in_flight if self.server is not None else 0
        observe.emit("drain_started", reason=reason, in_flight=in_flight)
        self.told.set()

    def leaving(self) -> bool:
        """Tell whether no more should be asked here, because the service ends."""
        return self.told.is_set() and not self.replaced

    async def run(self) -> None:
        """Have it stop when it is time."""
        await self.told.wait()
        await trio.sleep_until(self.serves_until)
        self.stop.set()


async def live(world: World, sockets: Sequence[int], life: Life, *, ready: Callable[[], None]) -> None:
    """Run the roles that the settings name until `life` ends; `ready` is called once they all stand.

    Errors: Unavailable or KeeperGaveUp, in groups, when an actor could not start or did not stay up.
    """
    store = world.store
    hear = partial(listener.run, store.notices, world.newsroom, world.mail_bell.ring, world.keys_bell.ring)
    with life.scope:
        async with trio.open_nursery() as standing:
            await _keep(standing, "listener", hear)
            if "http" in world.settings.roles:
                await _keep(standing, "locksmith", partial(locksmith.run, world.keys_bell.heard, world.keyring))
            await _keep(standing, "hasher", world.hasher.run)
            if world.settings.enable_metrics:
                await _keep(standing, "gauger", counting.gauging(world, lambda: life.server))
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
                world.mail_bell.rope.close()  # nobody can ring any more: the mailer empties what it holds, and returns
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
        link_lifetime=settings.link_ttl,
        verify_digits=settings.verify_code_length,
        verify_lifetime=settings.verify_code_ttl,
        reset_lifetime=settings.reset_ttl,
        attempts_max=settings.mail_attempts,
    )
    return partial(
        courier.run,
        world.mail_bell.heard,
        world.store.mailbag,
        world.channel,
        world.crypto,
        pace=pace,
        tally=world.tally,
    )


async def _serve(world: World, sockets: Sequence[int], life: Life, ready: Callable[[], None]) -> Drained:
    """Serve HTTP until `life` ends, then drain."""
    settings, how = world.settings, knobs(world.settings)
    how = replace(how, draining=life.leaving, checks=checks(world), hashing=partial(hashing, world))
    how = replace(how, metrics=counting.metrics(settings, world.shared))
    how = replace(how, logs=Source(world.shared.slabs, socket.gethostname(), settings.workers))
    mailbox = world.store.mailbox if settings.profile == "dev" else None
    app = make_app(
        world.flows,
        tokens=world.tokens,
        probe=world.store.probe,
        receipts=receipts(settings, world.store),
        limits=world.limits,
        mailbox=mailbox,
        knobs=how,
    )

    class Started(trio.TaskStatus[Server]):
        def started(self, value: Server | None = None) -> None:
            life.server = value
            if value is not None and life.told_at is not None:
                value.part(patient=life.replaced)
            ready()

    return await serve(
        app,
        sockets,
        shutdown=life.stop.wait,
        observe=Doorman(),
        refuse=how.at_the_door,
        limits=room(settings),
        probes=always_answered(),
        grace=settings.drain_seconds.total_seconds() * MAIL_SHARE,
        task_status=Started(),
    )


def knobs(settings: Settings) -> Knobs:
    """Return what the front needs of the settings."""
    return Knobs(
        settings.public_url,
        code_digits=settings.code_length,
        passwords=passwords(settings),
        trusted_proxies=settings.trusted_proxies,
        verify_digits=settings.verify_code_length,
        cookies=settings.cookies,
        admin_token=settings.admin_token,
        uniform=rules(settings).uniform,
        cors_origins=settings.cors_origins,
        requests_max=settings.requests_max,
        request_deadline=settings.request_deadline,
    )


def openapi_document(settings: Settings) -> bytes:
    """Return the OpenAPI document of a service with these settings."""
    how = knobs(settings)
    how = how if settings.enable_metrics else replace(how, metrics=None)
    return describe(how, mailbox=settings.profile == "dev")


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


def hashing(world: World) -> StaffHashing:
    """Return how many passwords this worker has to hash."""
    found = world.hasher.statistics()
    return StaffHashing(waiting=found.waiting, running=found.running)


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
