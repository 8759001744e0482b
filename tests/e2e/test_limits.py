"""Limits on real services: exactly what is allowed, over two processes too, and no limit at all without a store."""

import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import count, cycle
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import trio

from regsvc.store.embedded import Cluster
from tests import redis
from tests.e2e.people import client, new_email, on_database
from tests.e2e.provoking import MACHINE, basic
from tests.limits import told
from tests.postgres import dsn_of, temporary_database
from tests.service import Service
from tests.waiting import until, until_asked

STORES: Final = ("memory", "postgres", "redis")
LIMITS: Final = {"global": 12, "registration": 5, "login": 9, "login-account": 3, "activation": 2, "password": 3}
SETTINGS: Final = {
    "ENABLE_RATE_LIMITING": "true",
    "RATE_LIMIT_GLOBAL_PER_MINUTE": "12",
    "RATE_LIMIT_REGISTRATION_PER_HOUR": "5",
    "RATE_LIMIT_LOGIN_PER_MINUTE": "3",
    "RATE_LIMIT_ACTIVATION_PER_MINUTE": "2",
}
BEHIND_A_PROXY: Final = {**SETTINGS, "TRUSTED_PROXIES": "127.0.0.0/8"}
QUICK: Final = {name: 60 / number for name, number in LIMITS.items()}  # seconds until one more is good, at least
PASSWORD: Final = "correct horse battery staple"
TRIES: Final = 5  # a round counts only if the store heard all of it, and nothing was given back meanwhile
SLOW: Final = "the store was never quick enough"
_numbers = count(1)


@dataclass
class Town:
    """Services that share a store of limits, and clients of each in turn."""

    services: Sequence[Service]
    doors: Sequence[httpx.AsyncClient]
    postgres: Cluster
    database: str
    server: redis.Server | None

    async def at_once(self, asked: Sequence[dict[str, Any]]) -> list[httpx.Response]:
        """Ask all of this in parallel, each of another service than the one before."""
        answers: list[httpx.Response] = []

        async def ask(door: httpx.AsyncClient, how: dict[str, Any]) -> None:
            answers.append(await door.request(**how))

        async with trio.open_nursery() as nursery:
            for door, how in zip(cycle(self.doors), asked, strict=False):
                nursery.start_soon(ask, door, how, name="asks")
        return answers

    async def standing(self) -> list[dict[str, Any]]:
        """Return what each process says of its limits."""
        return [(await door.get("/v1/admin/limits", headers=MACHINE | somewhere())).json() for door in self.doors]

    async def unseen(self) -> int:
        """Return how many passed uncounted, because the store was slow for a moment or away."""
        return sum(one["unseen"] for told in await self.standing() for one in told["limits"])

    async def found_again(self) -> None:
        """Wait until each process has found the store again, and counts."""

        async def found() -> bool:
            return all(told["store_up"] for told in await self.standing())

        await until_asked(found)

    def outages(self) -> int:
        """Return how often a store was found away."""
        return sum(len(service.lines("rate_limit_store_down")) for service in self.services)

    def restored(self) -> int:
        """Return how often it was found back."""
        return sum(len(service.lines("rate_limit_store_up")) for service in self.services)


@contextmanager
def town_hall(
    store: str, postgres: Cluster, **environ: str
) -> Iterator[tuple[list[Service], str, redis.Server | None]]:
    """Run the services of a town: two, where a store can be shared."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="regsvc ")))
        database = f"limits_{next(_numbers)}"
        dsn = stack.enter_context(temporary_database(postgres, database))
        server = stack.enter_context(redis.running()) if store == "redis" else None
        told = {"RATE_LIMIT_STORE": store, **({"REDIS_URL": server.url} if server is not None else {}), **environ}
        yield stack.enter_context(on_database(folder, dsn, 1 if store == "memory" else 2, **told)), database, server


@pytest.fixture(scope="module", params=STORES)
def hall(request: pytest.FixtureRequest, postgres: Cluster) -> Iterator[Callable[[], Any]]:
    with town_hall(request.param, postgres, **BEHIND_A_PROXY) as (services, database, server):
        yield lambda: opened(services, postgres, database, server)


@asynccontextmanager
async def opened(
    services: list[Service], postgres: Cluster, database: str, server: redis.Server | None
) -> AsyncIterator[Town]:
    async with AsyncExitStack() as stack:
        doors = [await stack.enter_async_context(client(service)) for service in services]
        yield Town(services, doors, postgres, database, server)


@pytest.fixture
async def town(hall: Callable[[], Any]) -> AsyncIterator[Town]:
    async with hall() as found:
        yield found


# ------------------------------------------------------------------------------------------------ exactly the limit


def somewhere() -> dict[str, str]:
    """Return the headers of a client that nobody has seen: half of them come by IPv6."""
    number = next(_numbers)
    octets = f"{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return {"X-Forwarded-For": f"10.{octets}" if number % 2 else f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1"}


def getting(path: str, **headers: str) -> dict[str, Any]:
    return {"method": "GET", "url": path, "headers": headers}


def posting(path: str, form: object, **headers: str) -> dict[str, Any]:
    return {"method": "POST", "url": path, "json": form, "headers": headers}


def registering(**headers: str) -> dict[str, Any]:
    return posting("/v1/users/register", {"email": new_email(), "password": PASSWORD}, **headers)


def logging_in(email: str, **headers: str) -> dict[str, Any]:
    return posting("/v1/auth/login", {"email": email, "password": "wrong password"}, **headers)


async def round_of(policy: str, town: Town) -> list[dict[str, Any]]:
    """Return one request more than the policy allows, each good by every other one."""
    number, here = LIMITS[policy] + 1, somewhere()
    match policy:
        case "global":
            return [getting("/v1/users/me", **here) for _ in range(number)]
        case "registration":
            return [registering(**here) for _ in range(number)]
        case "login":
            return [logging_in(new_email(), **here) for _ in range(number)]
        case "login-account":
            email = new_email()
            return [logging_in(email, **somewhere()) for _ in range(number)]
        case "password":
            who = basic(new_email(), "wrong password")
            return [getting("/v1/users/registration", **here, **who) for _ in range(number)]
    form = registering(**here)
    assert (await town.doors[0].request(**form)).status_code == 201
    who = basic(form["json"]["email"], PASSWORD)
    return [posting("/v1/users/activate", {"code": "0000"}, **here, **who) for _ in range(number)]


def spent(policy: str, answers: Sequence[httpx.Response]) -> int:
    """Return how many passed; each of the others has to say why, and when to come again, in all its ways."""
    passed = 0
    for answer in answers:
        found = told(answer.headers)  # Retry-After, t and X-RateLimit-Reset are the same second, or it fails
        if answer.status_code != 429 or answer.json()["error"] != "RateLimitExceeded":
            passed += 1
            continue
        assert found is not None
        assert (found.name, found.limit, found.remaining) == (policy, LIMITS[policy], 0)
        assert answer.json()["retry_after_seconds"] == found.reset
        assert 0 < found.reset <= found.window // found.limit + 1
    return passed


@pytest.mark.timeout(180)  # a store that others keep from its CPU is asked TRIES times
@pytest.mark.parametrize("policy", LIMITS)
async def test_of_one_more_than_the_limit_at_once_exactly_the_limit_passes(
    town: Town, policy: str, rounds: int | None
) -> None:
    for _ in range(rounds or 2):
        for _ in range(TRIES):
            asked, before, began = await round_of(policy, town), await town.unseen(), trio.current_time()
            passed = spent(policy, await town.at_once(asked))
            quick = trio.current_time() - began < QUICK[policy]
            if await town.unseen() == before and quick:
                break
            await town.found_again()
        else:
            pytest.fail(SLOW)
        assert passed == LIMITS[policy]


async def test_administrators_see_it_in_each_process(town: Town) -> None:
    async def registrations() -> tuple[int, int]:
        found = [one for told in await town.standing() for one in told["limits"] if one["name"] == "registration"]
        return sum(one["taken"] for one in found), sum(one["refused"] for one in found)

    for _ in range(TRIES):
        taken, refused = await registrations()
        before = await town.unseen()
        await town.at_once(await round_of("registration", town))
        if await town.unseen() == before:
            break
        await town.found_again()
    else:
        pytest.fail(SLOW)
    assert await registrations() == (taken + LIMITS["registration"] + 1, refused + 1)


# ------------------------------------------------------------------------------------------------ without a store


async def passing(town: Town) -> None:
    """Ask far too often: everybody has to pass, and nobody to be told of limits; one waited, the others did not."""
    here = somewhere()
    began = trio.current_time()
    answers = await town.at_once([getting("/v1/users/me", **here) for _ in range(3 * LIMITS["global"])])
    assert {answer.status_code for answer in answers} == {401}
    assert trio.current_time() - began < 5
    assert {told(answer.headers) for answer in answers} == {None}


async def limited_again(town: Town) -> None:
    """Wait until each process has found the store again, and see that they count."""
    await town.found_again()
    for _ in range(TRIES):
        before = await town.unseen()
        passed = spent("global", await town.at_once(await round_of("global", town)))
        if await town.unseen() == before:
            break
        await town.found_again()
    else:
        pytest.fail(SLOW)
    assert passed == LIMITS["global"]


@contextmanager
def locked(town: Town) -> Iterator[None]:
    """Let somebody hold the table of limits."""
    dsn = dsn_of(town.postgres, town.database)
    session = subprocess.Popen(
        [town.postgres.binaries / "psql", "-XqAtd", dsn], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert session.stdin is not None
    assert session.stdout is not None
    with session:
        session.stdin.write(b"BEGIN; LOCK TABLE rate_limits; SELECT 'held';\n")
        session.stdin.flush()
        assert session.stdout.readline() == b"held\n"
        yield


@contextmanager
def killed(town: Town) -> Iterator[None]:
    """Let Redis be away."""
    assert town.server is not None
    town.server.stop()
    yield
    town.server.start()


@pytest.mark.parametrize("hall", STORES[1:], indirect=True)
async def test_while_the_store_is_away_traffic_passes_and_the_log_says_so_once(town: Town) -> None:
    await town.found_again()
    await until(lambda: town.restored() == town.outages())
    before = town.outages()
    with killed(town) if town.server is not None else locked(town):
        await passing(town)
        await trio.sleep(1.1)  # so that it is asked again, and found away still
        await passing(town)
        await until(lambda: town.outages() - before >= len(town.services))
        assert town.outages() - before == len(town.services)
        answer = await town.doors[0].get("/v1/admin/limits", headers=MACHINE)
        assert (answer.json()["store_up"], answer.status_code) == (False, 200)
    await limited_again(town)
    await until(lambda: town.restored() == town.outages() >= before + len(town.services))


# ------------------------------------------------------------------------------------------------ who is counted


async def test_what_a_client_says_of_its_address_is_believed_of_trusted_proxies_only(postgres: Cluster) -> None:
    with town_hall("memory", postgres, **SETTINGS) as (services, database, _):
        async with opened(services, postgres, database, None) as town:
            answers = [await town.doors[0].request(**registering(**somewhere())) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [201] * 5 + [429]
    assert spent("registration", answers) == 5


async def test_behind_a_trusted_proxy_a_client_is_its_address_or_its_64(town: Town) -> None:
    for _ in range(TRIES):
        before, number = await town.unseen(), f"2001:db8:ffff:{next(_numbers):x}"
        addresses = [f"{number}::{host:x}" for host in range(6)]
        answers = [await town.doors[0].request(**registering(**{"X-Forwarded-For": one})) for one in addresses]
        if await town.unseen() == before:
            break
        await town.found_again()
    else:
        pytest.fail(SLOW)
    assert spent("registration", answers) == 5
    other = await town.doors[0].request(**registering(**{"X-Forwarded-For": number.replace("ffff", "fffe") + "::1"}))
    assert other.status_code == 201
