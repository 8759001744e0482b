"""The numbers of a real service with three workers: exact, whole when one is killed, and few whatever is asked.

`--rounds 1000`: 10,000 paths that nobody knows.
"""

import os
import random
import signal
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
import pytest
import trio

from regsvc.http.routes import EVENTS
from regsvc.http.table import routes
from tests import canaries
from tests.e2e.people import Person, client, new_email, on_database, somebody
from tests.observe.counted import openmetrics, series
from tests.postgres import temporary_cluster
from tests.service import Service
from tests.waiting import until, until_asked

SERIES_MAX: Final = 500
WORKERS: Final = 3
CLIENTS: Final = 12
METHODS: Final = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")
LETTERS: Final = "abcXYZ019/-_.~%{}<>\"'\\éß\u2028 \n\r\t\x1b?#&=+;:,@"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with (
        tempfile.TemporaryDirectory(prefix="regsvc ") as folder,
        temporary_cluster() as cluster,
        on_database(Path(folder), cluster.dsn, WORKERS=str(WORKERS)) as [one],
    ):
        yield one


@pytest.fixture
async def http(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with client(service) as one:
        yield one


async def numbers(http: httpx.AsyncClient) -> dict[str, Any]:
    """Read the JSON."""
    answer = await http.get("/v1/metrics")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def shown(http: httpx.AsyncClient) -> dict[tuple[str, ...], float]:
    """Read what Prometheus reads."""
    answer = await http.get("/metrics")
    assert answer.status_code == 200, answer.text
    canaries.assert_none(answer.content, "the metrics")
    return series(openmetrics(answer.text))


async def counted(http: httpx.AsyncClient, route: str) -> int:
    """Return how often a route was answered, by both views."""
    told = await numbers(http)
    found = await shown(http)
    by_class = [value for name, value in found.items() if name[:2] == ("regsvc_http_requests_total", f"route={route}")]
    assert sum(by_class) == told["request_counts"].get(route, 0) == told["latencies"].get(route, {"count": 0})["count"]
    return int(sum(by_class))


async def test_n_requests_are_counted_n_times(service: Service, http: httpx.AsyncClient, rounds: int | None) -> None:
    """Each over a connection of its own, so that all workers have some."""
    each = rounds or 25
    before = await numbers(http)

    async def ask(number: int) -> None:
        async with client(service, headers={"Connection": "close"}) as one:
            for turn in range(each):
                assert (await one.get("/v1/health" if (turn + number) % 5 else "/health")).status_code == 200
                assert (await one.get(f"/v1/nowhere/{number}/{turn}")).status_code == 404

    async with trio.open_nursery() as nursery:
        for number in range(CLIENTS):
            nursery.start_soon(ask, number, name=f"client {number}")
    after = await numbers(http)
    grown = {
        name: Counter(after[name]) - Counter(before[name])
        for name in ("request_counts", "status_counts", "refusals", "events")
    }
    n = each * CLIENTS
    late = grown["request_counts"].pop("GET /readyz", 0)  # what the start asked, and gave up waiting for
    assert grown["request_counts"] == {"GET /v1/health": n, "none": n, "GET /v1/metrics": 1}
    assert grown["status_counts"] == {"200": n + 1 + late, "404": n}
    assert grown["refusals"] == {"not_found": n}
    assert grown["events"]["http_request"] == 2 * n + 1 + late
    assert after["error_count"] == before["error_count"]
    assert await counted(http, "GET /v1/health") == after["request_counts"]["GET /v1/health"]
    lines = [line for line in service.lines("http_request") if line["route"] in {"/v1/health", "/health"}]
    assert len({line["worker"] for line in lines}) == WORKERS, "or else it was no test of three"


async def test_people_are_counted(service: Service, http: httpx.AsyncClient) -> None:
    before = (await numbers(http))["business_metrics"]
    person = await somebody(http)
    await person.again()
    await Person(http, person.email, "not the one").try_login()
    late = await http.post("/v1/users/activate", json={"code": "0000"}, auth=(person.email, person.password))
    assert late.status_code in {400, 401, 409}

    async def mailed() -> bool:  # the mailer counts what the mailbox has, once it has it
        return bool((await numbers(http))["business_metrics"]["mails_sent"] > before["mails_sent"])

    await until_asked(mailed)
    told = await numbers(http)
    after = told["business_metrics"]
    assert {name: after[name] - before[name] for name in ("registrations", "activations", "logins", "refreshes")} == {
        "registrations": 1,
        "activations": 1,
        "logins": 1,
        "refreshes": 1,
    }
    assert told["refusals"]["invalid_credentials"] >= 1
    assert {"hash_wait", "hash_duration", "mail_accept_to_sent"} == told["timings"].keys()
    assert told["latencies"]["POST /v1/users/register"]["min"] > 0


@dataclass
class Crowd:
    """Clients that ask without end, and lose a connection now and then; and one that reads the numbers meanwhile."""

    service: Service
    asked: int = 0
    answered: int = 0
    readings: list[int] = field(default_factory=list)
    over: trio.Event = field(default_factory=trio.Event)

    async def ask(self) -> None:
        while not self.over.is_set():
            async with client(self.service) as one:
                with suppress(httpx.TransportError):
                    for _ in range(20):
                        self.asked += 1
                        answer = await one.get("/livez")
                        self.answered += answer.status_code == 200

    async def look(self) -> None:
        while not self.over.is_set():
            if told := await self.numbers():
                self.readings.append(told["request_counts"].get("GET /livez", 0))

    async def numbers(self) -> dict[str, Any]:
        """Read them over a new connection; nothing if the worker on its other end is killed meanwhile."""
        async with client(self.service) as one:
            with suppress(httpx.TransportError):
                return await numbers(one)
        return {}


async def test_a_worker_that_is_killed_takes_no_number_with_it(service: Service, http: httpx.AsyncClient) -> None:
    crowd, before = Crowd(service), await counted(http, "GET /livez")
    whole = {**(await numbers(http))["workers"]}
    whole["restarts"] += 1

    async def replaced() -> bool:
        return (await crowd.numbers()).get("workers") == whole

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(crowd.ask, name="asks")
        nursery.start_soon(crowd.look, name="looks")
        await until(lambda: crowd.answered > 100)
        victim = service.lines("worker_started")[-1]["pid"]
        assert isinstance(victim, int)
        os.kill(victim, signal.SIGKILL)
        await until_asked(replaced)
        more = crowd.answered + 100
        await until(lambda: crowd.answered > more)
        crowd.over.set()
    async with client(service) as one:
        found = await counted(one, "GET /livez") - before
    assert crowd.answered <= found <= crowd.asked
    assert crowd.asked - crowd.answered <= 8, "those that were under way, and no more"
    assert crowd.readings == sorted(crowd.readings), "counters do not go back"
    assert len(crowd.readings) > 10


async def test_what_is_asked_does_not_make_the_metrics_grow(http: httpx.AsyncClient, rounds: int | None) -> None:
    dice, paths = random.Random(7), 10 * (rounds or 50)
    for number in range(paths):
        path = "".join(dice.choice(LETTERS) for _ in range(dice.randrange(1, 40)))
        target = dice.choice(("/", "/v1/users/", "/v1/admin/users/", "/problems/", "/assets/")) + quote(
            path, safe="/?&=%"
        )
        headers = {"User-Agent": f"fuzz {number}", "X-Request-ID": f"fuzz-{number}"}
        try:
            await http.request(dice.choice(METHODS), target, headers=headers)
        except httpx.InvalidURL:
            continue
    found = await shown(http)
    assert len(found) <= SERIES_MAX
    assert {label for name in found for label in name if "fuzz" in label} == set()


async def test_the_whole_table_makes_no_more_series_than_promised(http: httpx.AsyncClient) -> None:
    person = await somebody(http)
    for route in routes(development=True):
        if route.success.media_type == EVENTS:
            continue  # it is answered without end
        for headers in ({}, person.bearer):
            target = route.path.replace("{", "").replace("}", "")
            body = None if route.body is None else dict(route.body_example or {}) | {"email": new_email()}
            await http.request(route.method, target, json=body, headers=headers)
    found = await shown(http)
    print(f"{len(found)} series after every route was asked")  # noqa: T201 - `pytest -s` shows how many
    assert len(found) <= SERIES_MAX
    asked = {name[1] for name in found if name[0] == "regsvc_http_requests_total"}
    assert len(asked) >= len(routes(development=True)) - 4


async def test_each_worker_is_gauged(http: httpx.AsyncClient) -> None:
    async def gauged() -> bool:
        return bool((await numbers(http))["gauges"]["database_up"])

    await until_asked(gauged)
    gauges = (await numbers(http))["gauges"]
    assert gauges["database_up"] == 1
    assert gauges["resident_memory_bytes"] > WORKERS * 20_000_000
    assert gauges["connections"] >= 1
