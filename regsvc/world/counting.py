"""What is counted and gauged in a worker, and where its numbers are read."""

import socket
import time
from collections.abc import Callable, Mapping
from functools import partial

from regsvc import observe
from regsvc.actors import gauger
from regsvc.actors.keeper import Actor
from regsvc.http.metrics import Metrics, labels_of
from regsvc.http.server import Server
from regsvc.http.table import routes
from regsvc.observe import Gauge, Layout
from regsvc.observe.shared import Shared
from regsvc.settings import Settings
from regsvc.world.building import World, rules


def layout(settings: Settings) -> Layout:
    """Return where the numbers of a service with these settings lie: in all of its workers alike."""
    table = routes(development=settings.profile == "dev", uniform=rules(settings).uniform)
    return observe.layout_of(labels_of(table))


def metrics(settings: Settings, shared: Shared) -> Metrics | None:
    """Return what shows the numbers of all workers; None where nothing is counted."""
    if not settings.enable_metrics:
        return None
    read = partial(observe.read_figures, layout(settings), shared)
    return Metrics(read, settings.metrics_token, socket.gethostname())


def gauging(world: World, server: Callable[[], Server | None]) -> Actor[None, None]:
    """Return the actor that gauges a worker; `server` is asked each time, since it comes and goes."""
    laid, shared = layout(world.settings), world.shared
    census_at = laid.gauges["census_at"]

    def newest() -> float:
        taken = (*shared.taken(laid.fingerprint),)
        return max((slab.cells[census_at] for slab in taken), default=0.0)

    return partial(
        gauger.run,
        partial(look, world, server),
        world.store.probe,
        world.store.census,
        gauger.Calendar(time.monotonic, newest),
    )


def look(world: World, server: Callable[[], Server | None]) -> Mapping[Gauge, float]:
    """Return how the parts of a worker stand."""
    hashing, pool, serving = world.hasher.statistics(), world.store.statistics(), server()
    found = serving.statistics() if serving is not None else None
    return {
        "hash_queue_waiting": hashing.waiting,
        "hash_queue_running": hashing.running,
        "hash_lanes": hashing.lanes,
        "pool_idle": pool.idle,
        "pool_in_use": pool.in_use,
        "pool_waiting": pool.waiting,
        "connections": found.connections if found is not None else 0,
        "requests_in_hand": found.in_flight if found is not None else 0,
    }
