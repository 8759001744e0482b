"""What a worker is gauged by, and that nothing is counted where nobody wants it."""

from dataclasses import dataclass
from typing import Any, cast

import trio
from hypercorn.config import Config

from regsvc import world
from regsvc.http.door import Door, Limits
from regsvc.http.server import Server, plain_refusal
from regsvc.observe.catalogue import GAUGES
from regsvc.observe.shared import Shared
from regsvc.world import counting
from tests.worker import settings


@dataclass(eq=False)
class Client:
    """A connection."""

    busy: bool = False

    def hurry(self) -> None:
        raise NotImplementedError("nobody drains")

    def give_way(self) -> bool:
        raise NotImplementedError("there is room")


async def test_the_parts_of_a_worker_are_gauged_with_a_server_and_without() -> None:
    busy = Server(Door(cast("Any", None), Config(), Limits(), plain_refusal, world.Doorman()), ())
    busy._door.crowd.seated |= {Client(), Client(busy=True)}
    async with world.open_world(settings(MAIL_CHANNEL="mailbox"), Shared.create(1)) as built:
        alone = counting.look(built, lambda: None)
        serving = counting.look(built, lambda: busy)
    assert set(alone) <= set(GAUGES)
    assert {alone[name] for name in ("hash_queue_waiting", "pool_in_use", "connections", "requests_in_hand")} == {0}
    assert (serving["connections"], serving["requests_in_hand"]) == (2, 1)


async def test_where_metrics_are_off_there_are_none() -> None:
    await trio.lowlevel.checkpoint()
    told = settings()
    off = told.telling(enable_metrics=False)
    assert counting.metrics(told, Shared.create(1)) is not None
    assert counting.metrics(off, Shared.create(1)) is None
    assert b'"/metrics"' in world.openapi_document(told)
    assert b'"/metrics"' not in world.openapi_document(off)


def test_all_workers_of_a_service_lay_their_numbers_out_alike() -> None:
    dev = settings()
    assert counting.layout(dev).fingerprint == counting.layout(dev.telling(workers=5)).fingerprint
    assert counting.layout(dev).fingerprint != counting.layout(dev.telling(profile="production")).fingerprint
