"""The primary is gone with its machine, and its synchronous standby takes over: what was acknowledged is there.

`--rounds N`: so many failovers, to and fro between the two.
"""

import random
from collections.abc import Callable
from functools import partial

import pytest
import trio

from tests.chaos.invariants import hold
from tests.chaos.ledger import Ledger, wait_carried
from tests.chaos.recording import Counted
from tests.chaos.standby import NAME, pair
from tests.service import Service
from tests.smtp_sink import Sink
from tests.waiting import until, until_more

CLIENTS = 8
BACK = 30.0  # seconds from the loss of the primary to the next activation
Make = Callable[..., Service]
pytestmark = [
    pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object ByteStream:pytest.PytestWarning"),
]


@pytest.mark.timeout(240)
async def test_a_standby_that_takes_over_has_all_that_was_acknowledged(
    service: Make, ledger: Ledger, sink: Sink, rounds: int | None, counted: Counted
) -> None:
    number, away = rounds or 1, 0.0
    async with pair() as nodes:
        primary, standby = nodes
        hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
        way = f"postgresql://{NAME}@{hosts}/{NAME}?target_session_attrs=read-write&sslmode=disable"
        one = service(DATABASE_URL=way, PROFILE="dev")
        await trio.to_thread.run_sync(one.start)
        async with trio.open_nursery() as nursery:
            for client in range(CLIENTS):
                nursery.start_soon(ledger.client, one, f"c{client}", name=f"client {client}")
            await until(lambda: len(ledger.activated) >= CLIENTS)
            for turn in range(number):
                await trio.sleep(random.uniform(0.2, 0.8))
                lost = trio.current_time()
                primary.kill()
                await standby.promote()
                await until_more(partial(len, ledger.activated), seconds=BACK - (trio.current_time() - lost))
                away = max(away, trio.current_time() - lost)
                primary, standby = standby, primary
                if turn + 1 < number:
                    await standby.follow(primary)
            await trio.sleep(0.3)
            nursery.cancel_scope.cancel(reason="enough was seen")
        await wait_carried(primary.dsn)
        figures = await hold(ledger, sink.mails, primary.dsn, one)
        assert figures["dead"] == 0
        told = {"most ms from the loss to the next activation": round(1000 * away)}
        counted(number, figures["acknowledged"] + figures["activated"], figures | told)
        assert await trio.to_thread.run_sync(one.terminate) == 0
