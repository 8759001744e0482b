"""The service killed while people refresh and change their passwords: what was acknowledged holds, the rest is whole.

Small here; `nox -s chaos` sets `--rounds`.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import httpx
import pytest
import trio

from tests.chaos.invariants import hold
from tests.chaos.ledger import PASSWORD, PLAIN, Ledger, dsn, wait_carried
from tests.chaos.recording import Counted
from tests.service import Service, lines_of
from tests.smtp_sink import Sink
from tests.waiting import until

Make = Callable[..., Service]
CLIENTS = 6
pytestmark = [
    pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object ByteStream:pytest.PytestWarning"),
]


@dataclass
class Diary:
    """What one client was told: its tokens, and which of its passwords is in force."""

    email: str
    passwords: list[str] = field(default_factory=lambda: [PASSWORD])
    token: str = ""
    access: str = ""
    refreshes: int = 0
    changes: int = 0
    lost: int = 0
    wrong: list[str] = field(default_factory=list)

    async def ask(self, http: httpx.AsyncClient, path: str, form: dict[str, str]) -> httpx.Response | None:
        """Ask; None when the answer was lost or is to come again."""
        try:
            bearer = {"Authorization": f"Bearer {self.access}"} if self.access else {}
            answer = await http.post(path, json=form, headers=bearer)
        except httpx.TransportError:
            self.lost += 1
            return None
        if answer.status_code >= 500 and answer.status_code != 503:
            self.wrong.append(f"{path}: {answer.status_code} {answer.text}")
        return None if answer.status_code == 503 else answer

    async def live(self, service: Service) -> None:
        """Refresh again and again, change the password now and then; ends when cancelled."""
        async with httpx.AsyncClient(base_url=service.url, timeout=10, verify=PLAIN, limits=lines_of()) as http:
            if not self.token:
                await self._log_in(http)
            for turn in count():
                await self._refresh(http)
                if turn % 5 == 4:
                    await self._change(http, f"{PASSWORD} {random.random()}")

    async def _log_in(self, http: httpx.AsyncClient) -> None:
        answer = None
        while answer is None:
            # Where the answer to a change was lost, either password may be in force.
            for password in self.passwords:
                answer = await self.ask(http, "/v1/auth/login", {"email": self.email, "password": password})
                if answer is not None and answer.status_code == 200:
                    self.passwords = [password]
                    break
        if answer.status_code != 200:
            self.wrong.append(f"login: {answer.status_code} {answer.text}")
            await trio.sleep_forever()
        self.token, self.access = answer.json()["refresh_token"], answer.json()["access_token"]

    async def _refresh(self, http: httpx.AsyncClient) -> None:
        answer = await self.ask(http, "/v1/auth/refresh", {"refresh_token": self.token})
        if answer is None:
            return  # the next turn shows the same token: within the grace it gets the answer that was lost
        if answer.status_code != 200:
            self.wrong.append(f"refresh: {answer.status_code} {answer.text}")
            await trio.sleep_forever()
        self.token, self.access = answer.json()["refresh_token"], answer.json()["access_token"]
        self.refreshes += 1

    async def _change(self, http: httpx.AsyncClient, new: str) -> None:
        for current in self.passwords:
            form = {"current_password": current, "new_password": new}
            self.passwords = [*self.passwords, new]
            answer = await self.ask(http, "/v1/users/me/password", form)
            if answer is not None and answer.status_code == 204:
                self.passwords = [new]
                self.changes += 1
                return


@pytest.mark.timeout(0)
async def test_killed_while_tokens_rotate_no_acknowledged_one_is_lost(
    service: Make, ledger: Ledger, sink: Sink, rounds: int | None, counted: Counted
) -> None:
    cycles = rounds or 2
    one = service(REFRESH_GRACE="60")  # a start takes a second or two, on a busy machine more
    await trio.to_thread.run_sync(one.start)
    async with trio.open_nursery() as nursery:
        for number in range(CLIENTS):
            nursery.start_soon(ledger.client, one, f"person-{number}", name=f"person {number}")
        await until(lambda: len(ledger.activated) >= CLIENTS)
        nursery.cancel_scope.cancel(reason="there are enough people")
    await wait_carried(dsn(one))
    people = [Diary(ledger.acknowledged[claim]) for claim in ledger.activated]
    for cycle in range(cycles):
        async with trio.open_nursery() as nursery:
            for person in people:
                nursery.start_soon(person.live, one, name=person.email)
            await trio.sleep(random.uniform(0.1, 1.2))
            if cycle + 1 == cycles:  # where nothing was acknowledged, nothing can be lost
                await until(lambda: sum(person.refreshes for person in people) > cycles)
            one.kill()
            nursery.cancel_scope.cancel(reason="the service was killed")
        await trio.to_thread.run_sync(one.start)
    async with httpx.AsyncClient(base_url=one.url, timeout=10, verify=PLAIN) as http:
        for person in people:
            if person.token:
                await _holds(http, person)
    assert [line for person in people for line in person.wrong] == []
    figures = {what: sum(getattr(person, what) for person in people) for what in ("refreshes", "changes", "lost")}
    assert figures["refreshes"] > cycles
    # Each change of a password is told by mail.
    await hold(ledger, sink.mails, dsn(one), one, interruptions=cycles * CLIENTS, told=cycles)
    counted(cycles, figures["refreshes"] + figures["changes"], figures)
    assert one.terminate() == 0


async def _holds(http: httpx.AsyncClient, person: Diary) -> None:
    """The newest acknowledged token works, and so does one of the passwords that may be in force."""
    answer = await http.post("/v1/auth/refresh", json={"refresh_token": person.token})
    assert answer.status_code == 200, answer.text
    statuses = []
    for password in person.passwords:
        login = await http.post("/v1/auth/login", json={"email": person.email, "password": password})
        statuses.append(login.status_code)
    assert statuses.count(200) == 1, statuses
