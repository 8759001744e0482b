"""Keys and secrets are exchanged while people work: nobody's request fails for it.

Two services on one database stand behind what a proxy would be: it knows which of them takes part, and a service is
taken out, and has answered what it was asked, before it is told to stop, as in every deployment behind one.
"""

import json
import tempfile
from base64 import urlsafe_b64decode
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.chaos.ledger import PLAIN
from tests.e2e.people import SECRET, Person, client, command, digits, mail_with, new_email, on_database, somebody
from tests.postgres import temporary_cluster
from tests.service import Service
from tests.waiting import until, until_asked

NEW_SECRET = "another secret that comes after the first one"
CLIENTS = 4


@pytest.fixture
def services() -> Iterator[list[Service]]:
    with (
        tempfile.TemporaryDirectory(prefix="regsvc ") as folder,
        temporary_cluster() as cluster,
        on_database(Path(folder), cluster.dsn, 2, DRAIN_SECONDS="10", CODE_TTL="600") as both,
    ):
        yield both


class Proxy(httpx.AsyncBaseTransport):
    """Sends each request to the next service that takes part, on a connection of its own."""

    def __init__(self, services: list[Service], under_way: Counter[int]) -> None:
        self._services = services
        self._under_way = under_way  # requests, by port
        self._turn = count()
        self._way = httpx.AsyncHTTPTransport(verify=PLAIN, limits=httpx.Limits(max_keepalive_connections=0))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        service = self._services[next(self._turn) % len(self._services)]
        request.url = request.url.copy_with(port=service.port)
        self._under_way[service.port] += 1
        try:
            return await self._way.handle_async_request(request)
        finally:
            self._under_way[service.port] -= 1


@dataclass
class Crowd:
    """People who sign up, log in, look and refresh, until they are told to stop."""

    failed: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    under_way: Counter[int] = field(default_factory=Counter)
    over: bool = False

    def has_heard_from(self, service: Service) -> bool:
        """Tell whether a service has answered all that it was asked."""
        return self.under_way[service.port] == 0

    async def live(self, services: list[Service], number: int) -> None:
        """Be one of them."""
        async with httpx.AsyncClient(
            base_url=services[0].url,
            transport=Proxy(services, self.under_way),
            timeout=30,
            headers={"Connection": "close"},
        ) as http:
            person = Person(http, new_email(f"crowd-{number}"))
            try:
                await person.sign_up()
                await person.log_in()
                for turn in count():
                    if self.over:
                        return
                    await self._work(person, turn)
            except (AssertionError, httpx.HTTPError, trio.TooSlowError) as error:
                self.failed.append(f"{type(error).__name__}: {error}"[:500])

    async def _work(self, person: Person, turn: int) -> None:
        me = await person.me()
        assert me.status_code == 200, me.text
        fresh = await person.again()
        assert fresh.status_code == 200, fresh.text
        person.keep(fresh.json())
        self.done["me and refresh"] += 1
        if turn % 10 == 0:
            await person.log_in()
            other = await Person(person.http, new_email("new")).sign_up()
            await other.log_in()
            self.done["sign up and log in"] += 1


def kid(token: str) -> str:
    """Return the name of the key that signed a token."""
    return str(json.loads(urlsafe_b64decode(token.partition(".")[0] + "=="))["kid"])


async def keys(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    return list((await http.get("/.well-known/jwks.json")).json()["keys"])


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_new_signing_key_under_load(services: list[Service], rounds: int | None) -> None:
    crowd = Crowd()
    async with client(services[0]) as here, client(services[1]) as there, trio.open_nursery() as nursery:
        for number in range(CLIENTS):
            nursery.start_soon(crowd.live, services, number, name=f"client {number}")
        bob = await somebody(here, "bob")
        for _ in range(rounds or 2):
            old = kid(bob.access)
            rotate = partial(command, services[0], "keys", "rotate", "--lead", "1")
            await trio.to_thread.run_sync(rotate)
            assert (await bob.me(there)).status_code == 200

            async def signs_anew(old: str = old) -> bool:
                fresh = await there.post("/v1/auth/refresh", json={"refresh_token": bob.refresh})
                bob.refresh = fresh.json()["refresh_token"]
                return kid(fresh.json()["access_token"]) != old

            await until_asked(signs_anew)
            assert {old} < {key["kid"] for key in await keys(here)}, "both are live"
            assert (await bob.me(here)).status_code == (await bob.me(there)).status_code == 200
            bob.keep((await bob.again()).json())
        listed = [json.loads(line) for line in command(services[0], "keys", "list", "--json").splitlines()]
        assert len(listed) == (rounds or 2) + 1
        crowd.over = True
    assert crowd.failed == []
    assert crowd.done["me and refresh"] > 20


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_new_secret_under_load(services: list[Service]) -> None:
    """First both take the new one too, then both use it and take the old one too, then the old one is forgotten."""
    crowd, part = Crowd(), list(services)
    steps = [
        {"SECRET": SECRET, "SECRET_PREVIOUS": NEW_SECRET},
        {"SECRET": NEW_SECRET, "SECRET_PREVIOUS": SECRET},
    ]
    async with client(services[0]) as here, trio.open_nursery() as nursery:
        bob = await somebody(here, "bob")
        asleep = await Person(here, new_email("asleep")).sign_up()
        pending = Person(here, new_email("pending"))
        assert (await pending.register()).status_code == 201
        code = await mail_with(here, pending.email, digits(4))
        for number in range(CLIENTS):
            nursery.start_soon(crowd.live, part, number, name=f"client {number}")
        await until(lambda: crowd.done["me and refresh"] > 5 or crowd.failed)
        for step in steps:
            for service in services:
                service.environ = {**service.environ, **{f"REGSVC_{name}": value for name, value in step.items()}}
                part.remove(service)
                await until(partial(crowd.has_heard_from, service))
                assert await trio.to_thread.run_sync(service.terminate) == 0
                await trio.to_thread.run_sync(service.start)
                part.append(service)
        # What the old secret made is good under the new one.
        assert (await bob.me()).status_code == 200
        bob.keep((await bob.again()).json())
        who = (pending.email, pending.password)
        assert (await here.post("/v1/users/activate", json={"code": code}, auth=who)).status_code == 200
        await pending.log_in()
        crowd.over = True
    assert crowd.failed == []
    for service in services:  # the old secret is forgotten
        service.environ = {name: value for name, value in service.environ.items() if name != "REGSVC_SECRET_PREVIOUS"}
        assert service.terminate() == 0
        service.start()
    async with client(services[1]) as there:
        assert (await bob.me(there)).status_code == 200
        assert (await Person(there, bob.email).try_login()).status_code == 401, "he did not log in meanwhile"
        assert (await Person(there, pending.email).try_login()).status_code == 200, (
            "his hash was made anew at his login"
        )
        assert (await Person(there, asleep.email).try_login()).status_code == 401
