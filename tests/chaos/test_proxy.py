"""Two instances behind the proxy of compose.yml, as it is configured there: nobody notices that one is replaced.

Needs Caddy on the PATH. People come from 127.0.0.2, and the proxy from 127.0.0.1, so that the two can be told apart.
"""

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
import pytest
import trio

from regsvc.store.embedded import Cluster
from tests.e2e.people import ADMIN_TOKEN, Person, client, new_email, on_database, somebody
from tests.house.test_settings_documented import compose
from tests.postgres import temporary_database, temporary_folder
from tests.service import Service, free_port
from tests.waiting import until, until_asked

RATE: Final = 50  # requests a second
SOMEBODY: Final = "127.0.0.2"
PROXY: Final = "127.0.0.1/32"

pytestmark = pytest.mark.skipif(shutil.which("caddy") is None, reason="Caddy is not here")


@contextmanager
def proxy(folder: Path, services: Sequence[Service]) -> Iterator[str]:
    """Run the proxy of compose.yml before these services; yield its address."""
    text: str = compose()["configs"]["proxy"]["content"]
    port = free_port()
    for number, service in enumerate(services, 1):
        assert f"app{number}:8000" in text
        text = text.replace(f"app{number}:8000", f"127.0.0.1:{service.port}")
    text, changed = re.subn(r"^:80 \{$", f"http://127.0.0.1:{port} {{", text, flags=re.MULTILINE)
    assert changed == 1
    (folder / "Caddyfile").write_text(text)
    with (folder / "proxy.log").open("wb") as log:
        process = subprocess.Popen(
            ["caddy", "run", "--adapter", "caddyfile", "--config", folder / "Caddyfile"],
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@dataclass
class Crowd:
    """People who ask without a pause, by way of the proxy; and what they were told."""

    http: httpx.AsyncClient
    person: Person
    told: Counter[str] = field(default_factory=Counter)

    async def come(self) -> None:
        """Ask, so many a second, whether or not those before were answered; until cancelled."""
        async with trio.open_nursery() as nursery:
            began = trio.current_time()
            for number in range(1_000_000):
                nursery.start_soon(self._ask, number, name="somebody asks")
                await trio.sleep_until(began + number / RATE)

    async def _ask(self, number: int) -> None:
        try:
            if number % 5:
                answer = await self.person.me(self.http)
            else:
                form = {"email": new_email("crowd"), "password": "correct horse battery"}
                answer = await self.http.post("/v1/users/register", json=form)
        except httpx.HTTPError as error:
            self.told[f"{type(error).__name__} {number % 5 and 'me'}"] += 1
        else:
            # A 503 of the service's own words says which: what a busy machine cannot hash in time is no failed deploy.
            own = answer.status_code == 503 and answer.headers.get("content-type") == "application/problem+json"
            self.told[answer.json()["error"] if own else str(answer.status_code)] += 1

    @property
    def failed(self) -> dict[str, int]:
        return {told: count for told, count in self.told.items() if told not in {"200", "201", "Overloaded"}}


@asynccontextmanager
async def scene(cluster: Cluster) -> AsyncIterator[tuple[list[Service], Crowd]]:
    """Two services, the proxy, and people before it who have asked something."""
    settings = compose()["services"]["app1"]["environment"]
    duck = settings["REGSVC_LAME_DUCK_SECONDS"]
    with (
        temporary_folder("regsvc-proxy-") as folder,
        temporary_database(cluster, f"proxy_{os.getpid()}") as dsn,
        on_database(folder, dsn, 2, LAME_DUCK_SECONDS=duck, TRUSTED_PROXIES=PROXY, DRAIN_SECONDS="5") as services,
        proxy(folder, services) as url,
    ):
        transport = httpx.AsyncHTTPTransport(local_address=SOMEBODY)
        async with httpx.AsyncClient(base_url=url, transport=transport, timeout=10) as http:
            await until_asked(lambda: answered(http))
            yield services, Crowd(http, await somebody(http))


async def answered(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/readyz")).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.timeout(0)
async def test_instances_are_replaced_one_after_the_other_and_nobody_notices(
    postgres: Cluster, rounds: int | None
) -> None:
    if rounds is None:
        pytest.skip("in the large form: the small one, behind a balancer of ours, is tests/e2e/test_rolling.py")
    async with scene(postgres) as (services, crowd), trio.open_nursery() as nursery:
        nursery.start_soon(crowd.come, name="crowd")
        for number in range(max(1, rounds // 3)):  # each is as long as its lame duck, and a start
            service = services[number % 2]
            await asked_again(service)
            assert await trio.to_thread.run_sync(service.terminate) == os.EX_OK
            await trio.to_thread.run_sync(service.start)
            await asked_again(service)
        nursery.cancel_scope.cancel(reason="enough")
    assert crowd.failed == {}, f"of {crowd.told.total()}"
    assert crowd.told["200"] > RATE


async def asked_again(service: Service) -> None:
    """Wait until the proxy sends it requests."""
    before = served(service)
    await until(lambda: served(service) > before)


def served(service: Service) -> int:
    return sum(line["route"] == "/v1/users/me" for line in service.lines("http_request"))


@pytest.mark.timeout(0)
async def test_the_proxy_says_whom_a_request_comes_from_and_passes_a_stream_on(postgres: Cluster) -> None:
    async with scene(postgres) as (services, crowd):
        forged = {"X-Forwarded-For": "203.0.113.9"}
        assert (await crowd.http.get("/v1/health", headers=forged)).status_code == 200
        await until(lambda: any(health(service) for service in services))
        assert {line["client"] for service in services for line in health(service)} == {SOMEBODY}
        asked = (
            f"GET /v1/admin/logs/stream?route=/v1/health HTTP/1.1\r\nHost: {crowd.http.base_url.netloc.decode()}\r\n"
        )
        asked += f"Authorization: Bearer {ADMIN_TOKEN}\r\n\r\n"
        async with await trio.open_tcp_stream("127.0.0.1", crowd.http.base_url.port or 0) as stream:
            await stream.send_all(asked.encode())
            await heard(stream, "event: hello")
            for service in services:  # whichever it is: the proxy would ask the one without a stream
                async with client(service) as direct:
                    await direct.get("/v1/health")
            await heard(stream, "event: line")  # now, not when the stream ends: it never does


async def heard(stream: trio.SocketStream, wanted: str) -> None:
    """Read until this was said."""
    said = ""
    with trio.fail_after(10):
        while wanted not in said:
            piece = await stream.receive_some()
            assert piece, said
            said += piece.decode()


def health(service: Service) -> list[dict[str, object]]:
    return [line for line in service.lines("http_request") if line["route"] == "/v1/health"]
