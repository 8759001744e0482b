"""How passwords are hashed here: by which scheme, and with as many lanes as pay on this machine."""

from functools import partial
from typing import Final

import trio

from regsvc import observe
from regsvc.actors.hasher import Hasher
from regsvc.adapters.crypto import Keys, Scheme, choose
from regsvc.bcrypt_lanes import Engine, calibrate, open_engine
from regsvc.settings import Settings, cores

CALIBRATION: Final = 0.12  # seconds of every core that will hash, at each worker's start


async def open_hasher(settings: Settings, keys: tuple[Keys, Keys | None]) -> Hasher:
    """Return the hasher, not yet running, and tell the log what it computes with."""
    engine, why = open_engine(settings.hash_lanes)
    lanes, stretch = await _lanes_of(settings, engine)
    observe.emit("hashing_chosen", engine=engine.name, lanes=lanes, threads=settings.hash_threads, reason=why)
    return Hasher(
        scheme(settings, keys, engine),
        threads=settings.hash_threads,
        lanes=lanes,
        stretch=stretch,
        queue=settings.hash_queue,
        deadline=settings.hash_deadline,
    )


async def _lanes_of(settings: Settings, engine: Engine) -> tuple[int, float]:
    """Return how many bcrypts a thread does at once, and how much longer they take than one, where that is known.

    As many as it is told, or as pay; argon2id knows no lanes.
    """
    if settings.password_hash != "bcrypt" or engine.lanes == 1:  # noqa: S105 - the name of a scheme
        return 1, 1.0
    if settings.hash_lanes is not None:
        return engine.lanes, 1.0
    threads = min(cores(), settings.workers * settings.hash_threads)  # a worker that starts alone will not stay alone
    lanes, paces = await trio.to_thread.run_sync(
        partial(calibrate, engine, threads=threads, seconds=CALIBRATION), limiter=trio.CapacityLimiter(1)
    )
    return lanes, paces[lanes - 1].seconds / paces[0].seconds


def scheme(settings: Settings, keys: tuple[Keys, Keys | None], engine: Engine | None = None) -> Scheme:
    """Return how passwords are hashed, with the `engine` that fits here unless it is given."""
    computing = open_engine(settings.hash_lanes)[0] if engine is None else engine
    return choose(settings.password_hash, *keys, rounds=settings.password_rounds, engine=computing)
