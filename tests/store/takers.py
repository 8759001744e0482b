"""A process that takes from buckets it shares with others: `python -m tests.store.takers postgres|redis ADDRESS`.

Each line of its input is a round: {"at": seconds of the monotonic clock, "calls": [[limit, most, key], …] …}. All calls
begin at that time, each in a task of its own; the answer is a line with how many takes of each key were allowed.
"""

import json
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import trio

from regsvc.adapters.redis import open_redis
from regsvc.domain.quota import Limit, Policy, Take
from regsvc.domain.values import Secret
from regsvc.ports import Quotas
from regsvc.store import open_store, quota
from tests.store.scenes import new_id

DAY = timedelta(days=1)  # nothing is paid off while a round goes on
PATIENCE = timedelta(seconds=15)  # a busy machine is not what this is about


@asynccontextmanager
async def opened(name: str, address: str) -> AsyncIterator[Quotas]:
    if name == "redis":
        async with open_redis(Secret(address), timeout=PATIENCE) as quotas:
            yield quotas
    else:
        quota.PATIENCE = PATIENCE.total_seconds()  # type: ignore[misc]  # in this process alone
        async with open_store(Secret(address), new_id=new_id, pool_min=6, pool_max=6) as store:
            yield store.quotas


async def play(quotas: Quotas, at: float, calls: list[list[tuple[str, int, str]]]) -> dict[str, Any]:
    """Do each call in a task of its own, all at once; tell what was allowed, and when it began and ended."""
    allowed: Counter[str] = Counter()
    began: list[float] = []

    async def call(buckets: list[tuple[str, int, str]]) -> None:
        takes = [Take(Policy(Limit(limit), most, DAY), key) for limit, most, key in buckets]
        random.shuffle(takes)
        await trio.sleep(max(0, at - time.monotonic()))
        began.append(time.monotonic())
        levels = await quotas.take(takes)
        assert [level.policy for level in levels] == [take.policy for take in takes]
        allowed.update(take.key for take, level in zip(takes, levels, strict=True) if level.allowed)

    async with trio.open_nursery() as nursery:
        for number, buckets in enumerate(calls):
            nursery.start_soon(call, buckets, name=f"call {number}")
    return {"allowed": allowed, "began": min(began), "ended": time.monotonic()}


async def main(name: str, address: str) -> None:
    async with opened(name, address) as quotas:
        await quotas.take([])  # connected
        say("ready")
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            say(json.dumps(await play(quotas, **json.loads(line))))


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
