"""A worker process: the world, its signals, and how its end is told."""

import gc
import os
import signal
from collections.abc import Sequence
from functools import partial
from typing import Final

import trio

from regsvc import observe
from regsvc.actors.keeper import KeeperGaveUp
from regsvc.actors.tally import Drained as MailDrained
from regsvc.observe.shared import Shared
from regsvc.ports import Unavailable
from regsvc.settings import Settings
from regsvc.store.migrations import migrate
from regsvc.world import counting
from regsvc.world.building import World, open_world
from regsvc.world.running import Life, live

# With 3,000 connections open a full collection stops the loop for 150 ms, and with the interpreter's own thresholds one
# came each second, because nearly nothing is old once the start is frozen. The younger generations find the cycles of
# connections that end early; a full one comes after some 16 million objects more than went.
COLLECT: Final = (2000, 20, 400)

REPLACED: Final = signal.SIGUSR1  # another worker has its place; SIGTERM says that the service ends


def run_worker(settings: Settings, sockets: Sequence[int], *, lifeline: int, ready: int, shared: Shared) -> int:
    """Be a worker until SIGTERM or until `lifeline` ends; return the exit status.

    `lifeline` is a pipe whose other end the supervisor holds, `ready` one that gets an octet once all roles stand;
    `shared` is what all workers write and read.
    """
    return trio.run(partial(_worker, settings, sockets, lifeline, ready, shared))


async def _worker(settings: Settings, sockets: Sequence[int], lifeline: int, ready: int, shared: Shared) -> int:
    status = os.EX_OK
    async with trio.open_nursery() as outermost:
        await outermost.start(observe.run_log_writer, name="log writer")
        if settings.enable_metrics:
            observe.start_counting(counting.layout(settings))
        observe.emit("worker_started", pid=os.getpid())
        try:
            await _run_to_the_end(settings, sockets, lifeline, ready, shared)
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


async def _run_to_the_end(
    settings: Settings, sockets: Sequence[int], lifeline: int, ready: int, shared: Shared
) -> None:
    life = Life()

    def tell_ready() -> None:
        # What stands now stands to the end: the collector need not walk it again and again (47 ms each time).
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECT)
        gc.enable()  # `regsvc worker` begins without
        os.write(ready, b"\n")
        os.close(ready)

    async with (
        observe.open_tracing(settings.otlp_endpoint, left=lambda: life.scope.deadline - trio.current_time()),
        open_world(settings, shared) as world,
        trio.open_nursery() as watching,
    ):
        await watching.start(_watch_signals, life, settings, name="signals")
        watching.start_soon(life.run, name="lame duck")
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
    life: Life, settings: Settings, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    within, lame_duck = settings.drain_seconds.total_seconds(), settings.lame_duck_seconds.total_seconds()
    with trio.open_signal_receiver(signal.SIGTERM, REPLACED) as told:
        task_status.started()
        async for number in told:
            if number == REPLACED:
                life.end("another worker has its place", within=within, replaced=True)
            else:
                life.end(signal.Signals(number).name, within=within, lame_duck=lame_duck)


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
        lost=life.server.statistics().lost if life.server else None,
        handed_over=mail.handed_over if mail else None,
        left=mail.left if mail else None,
        took_s=round(trio.current_time() - told_at, 3) if told_at is not None else None,
    )
