"""Every store of buckets answers as the arithmetic does, whoever takes at once; run against memory, PostgreSQL, Redis.

`--rounds 100`: limit + 1 takes at once, a hundred times, from two processes.
"""

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import coredis
import pytest
import trio

from regsvc.adapters.memory import MemoryQuotas
from regsvc.adapters.redis import PREFIX, open_redis
from regsvc.domain import quota
from regsvc.domain.quota import HOUR, Level, Limit, Policy, Take, policies
from regsvc.domain.values import Secret
from regsvc.ports import Quotas
from regsvc.store import open_store
from regsvc.store import quota as postgres_quota
from regsvc.trio_asyncpg import Connection, open_connection
from tests.store.scenes import new_id, together

PATIENCE = timedelta(seconds=10)  # a busy machine is not what this is about
SECOND = 1_000_000  # microseconds
SMALL = policies(registrations=5, activations=3, logins=10, requests=40)  # as a service has them, but for the requests


class Memory:
    """The three of them: how to open, and to look past, a store."""

    def __init__(self) -> None:
        self.quotas = MemoryQuotas()

    async def clock(self) -> int:
        return int(trio.current_time() * SECOND)

    async def read(self, bucket: str) -> int:
        return self.quotas._buckets[bucket].whole_at

    async def write(self, bucket: str, whole_at: int) -> None:
        self.quotas._buckets[bucket] = self.quotas._buckets[bucket]._replace(whole_at=whole_at)


@dataclass
class Postgres:
    quotas: Quotas
    raw: Connection

    async def clock(self) -> int:
        return int(await self.raw.fetchval("SELECT (extract(EPOCH FROM clock_timestamp()) * 1000000)::bigint"))

    async def read(self, bucket: str) -> int:
        return int(await self.raw.fetchval("SELECT whole_at FROM rate_limits WHERE bucket = $1", bucket))

    async def write(self, bucket: str, whole_at: int) -> None:
        await self.raw.execute("UPDATE rate_limits SET whole_at = $2 WHERE bucket = $1", bucket, whole_at)


@dataclass
class Redis:
    quotas: Quotas
    raw: coredis.Redis[str]

    async def clock(self) -> int:
        seconds, micros = str(await self.raw.eval("local t = redis.call('TIME') return t[1] .. ' ' .. t[2]")).split()
        return int(seconds) * SECOND + int(micros)  # coredis' own `time` knows milliseconds

    async def read(self, bucket: str) -> int:
        return int(await self.raw.get(PREFIX + bucket) or 0)

    async def write(self, bucket: str, whole_at: int) -> None:
        await self.raw.set(PREFIX + bucket, str(whole_at), keepttl=True)


Place = Memory | Postgres | Redis


@pytest.fixture(params=["memory", "postgres", "redis"])
def address(request: pytest.FixtureRequest) -> Secret:
    """Where a store is; for one in memory, nowhere."""
    return Secret(address_of(request.param, request))


def address_of(kind: str, request: pytest.FixtureRequest) -> str:
    fixture = {"postgres": "migrated", "redis": "redis"}.get(kind)
    return str(request.getfixturevalue(fixture)) if fixture is not None else "memory:"


@pytest.fixture
async def place(address: Secret, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    url = address.reveal()
    if url.startswith("memory:"):
        yield Memory()
    elif url.startswith("redis"):
        redis = coredis.Redis.from_url(url, decode_responses=True)
        async with open_redis(address, timeout=PATIENCE) as quotas, redis as raw:
            yield Redis(quotas, raw)
    else:
        monkeypatch.setattr(postgres_quota, "PATIENCE", PATIENCE.total_seconds())
        async with open_store(address, new_id=new_id, pool_max=8) as store, open_connection(url) as raw:
            yield Postgres(store.quotas, raw)


def fresh(limit: Limit = Limit.LOGIN, most: int = 5, window: timedelta = HOUR) -> Take:
    """A bucket of nobody else, whatever else uses this Redis."""
    return Take(Policy(limit, most, window), uuid4().hex)


async def one(place: Place, take: Take) -> Level:
    (level,) = await place.quotas.take([take])
    return level


async def test_a_store_says_which_it_is(place: Place) -> None:  # noqa: ASYNC124 - its fixture is async
    assert place.quotas.name == type(place).__name__.lower()


async def test_exactly_the_limit_is_good_at_once(place: Place) -> None:
    take = fresh()
    levels = [await one(place, take) for _ in range(8)]
    assert [level.allowed for level in levels] == [True] * 5 + [False] * 3
    assert [level.remaining for level in levels] == [4, 3, 2, 1, 0, 0, 0, 0]
    assert levels[0] == Level(take.policy, allowed=True, debt=take.policy.interval)


@pytest.mark.parametrize("owed", [-(10**9), -1, 0, 1, 719, 2159, 2160, 2879, 2881, 3600, 10**9])
async def test_a_store_answers_as_the_arithmetic_does(place: Place, owed: int) -> None:
    take = fresh()
    await one(place, take)
    asked = await place.clock()
    before = asked + owed * SECOND
    await place.write(take.bucket, before)
    level = await one(place, take)
    now = await place.read(take.bucket) - level.debt
    assert asked <= now <= await place.clock()
    assert level == quota.take(take.policy, before - now)


async def test_each_bucket_has_its_own_level_in_the_order_asked(place: Place) -> None:
    takes = [fresh(Limit.LOGIN, 1), fresh(Limit.GLOBAL, 3), fresh(Limit.REGISTRATION, 2)]
    random.shuffle(takes)
    for times in range(3):
        levels = await place.quotas.take(takes)
        assert [level.policy for level in levels] == [take.policy for take in takes]
        assert [level.allowed for level in levels] == [times < take.policy.limit for take in takes]
    assert list(await place.quotas.take([])) == []


@pytest.mark.parametrize("key", ["2001:db8::/64", "GET /v1/users/{id} 192.0.2.1", "ü ☃ '\"\\ \n{}", "x" * 2000, ""])
async def test_a_key_is_any_text(place: Place, key: str) -> None:
    takes = [Take(Policy(Limit.LOGIN, 2, HOUR), uuid4().hex + key) for _ in range(2)]
    assert [level.remaining for level in await place.quotas.take(takes)] == [1, 1]
    assert (await one(place, takes[0])).remaining == 0


async def test_what_is_given_back_was_never_taken(place: Place) -> None:
    takes = [fresh(), fresh(Limit.GLOBAL, 2)]
    for _ in range(2):
        await place.quotas.take(takes)
    await place.quotas.give_back([*reversed(takes), fresh()])
    levels = await place.quotas.take(takes)
    assert [(level.allowed, level.remaining) for level in levels] == [(True, 3), (True, 0)]
    await place.write(takes[1].bucket, await place.clock() - SECOND)
    await place.quotas.give_back([takes[1]])
    assert (await one(place, takes[1])).remaining == 1  # a whole bucket is not made more than whole
    await place.quotas.give_back([])


async def test_of_takes_at_once_exactly_the_limit_is_allowed(place: Place, rounds: int | None) -> None:
    for _ in range(rounds or 5):
        takes = [fresh(policy.limit_of, policy.limit, timedelta(days=1)) for policy in SMALL.values()]
        jobs = [take for take in takes for _ in range(take.policy.limit + 1)]
        random.shuffle(jobs)
        allowed: Counter[str] = Counter()

        async def job(number: int) -> None:
            level = await one(place, jobs[number])  # noqa: B023 - done before the next round
            allowed[jobs[number].key] += level.allowed  # noqa: B023

        await together(len(jobs), job)
        assert allowed == {take.key: take.policy.limit for take in takes}


async def test_takes_and_givings_back_at_once_add_up(place: Place) -> None:
    """In any order of the buckets, and of the calls: nothing is lost, nobody waits for one who waits for him."""
    takes = [fresh(most=1000) for _ in range(12)]
    await place.quotas.take(takes)
    before = [await place.read(take.bucket) for take in takes]

    async def job(number: int) -> None:
        mine = random.sample(takes, len(takes))
        await place.quotas.take(mine)
        if number % 2:
            await place.quotas.give_back(mine[::-1])

    await together(40, job)
    after = [await place.read(take.bucket) for take in takes]
    interval = takes[0].policy.interval
    assert [now - then for now, then in zip(after, before, strict=True)] == [20 * interval] * 12


# Two processes.


@pytest.mark.parametrize("kind", ["postgres", "redis"])
def test_of_takes_at_once_in_two_processes_exactly_the_limit_is_allowed(
    request: pytest.FixtureRequest, kind: str, rounds: int | None
) -> None:
    """Each policy of a service, limit + 1 takes of one bucket, all of them beginning at the same moment."""
    with takers(kind, request) as processes:
        overlapped = 0
        for number in range(rounds or 5):
            buckets = [(limit.value, policy.limit, f"{limit.value} {uuid4().hex}") for limit, policy in SMALL.items()]
            calls = [[bucket] for bucket in buckets for _ in range(bucket[1] + 1)]
            random.shuffle(calls)
            allowed, together = play(processes, calls)
            assert allowed == {key: most for _, most, key in buckets}, f"round {number}"
            overlapped += together
        sys.stdout.write(f"{kind}: {rounds or 5} rounds, in {overlapped} of which both processes took at once\n")
        assert overlapped > 0, "the processes never took at once"


@pytest.mark.parametrize("kind", ["postgres", "redis"])
def test_takes_of_many_buckets_in_two_processes_never_wait_for_each_other(
    request: pytest.FixtureRequest, kind: str, rounds: int | None
) -> None:
    with takers(kind, request) as processes:
        for _ in range(rounds or 5):
            buckets = [(limit.value, policy.limit, uuid4().hex) for limit, policy in SMALL.items()]
            allowed, _ = play(processes, [buckets] * 31)
            assert allowed == {key: min(most, 31) for _, most, key in buckets}


@contextmanager
def takers(kind: str, request: pytest.FixtureRequest) -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes that share a store."""
    command = [sys.executable, "-m", "tests.store.takers", kind, address_of(kind, request)]
    with ExitStack() as stack:
        processes = []
        for _ in range(2):
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.enter_context(process)
            processes.append(process)
        assert [said(process) for process in processes] == ["ready\n"] * 2
        yield processes


def play(processes: list[subprocess.Popen[str]], calls: list[Any]) -> tuple[Counter[str], bool]:
    """Have the processes do half of the calls each, at the same moment; what was allowed, and whether they met."""
    at = time.monotonic() + 0.05
    for share, process in enumerate(processes):
        assert process.stdin is not None
        process.stdin.write(json.dumps({"at": at, "calls": calls[share::2]}) + "\n")
        process.stdin.flush()
    told = [json.loads(said(process)) for process in processes]
    allowed = sum((Counter[str](one["allowed"]) for one in told), Counter[str]())
    return allowed, max(one["began"] for one in told) < min(one["ended"] for one in told)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()
