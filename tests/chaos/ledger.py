"""What clients were told while things broke: the record that `invariants` is held against.

Each client is a person with a password of his own. Some do what the invariants forbid: they show another's code with a
wrong password (I3), or register an address again in another spelling while it is held (I4).
"""

import math
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import httpx
import trio

from regsvc import trio_asyncpg
from tests.canaries import KNOWN
from tests.service import Service, lines_of, plain
from tests.smtp_sink import Received
from tests.waiting import LOOK_EVERY, until, until_asked

PASSWORD = "a password of some length"
CLIENTS = 8  # of a crowd
PLAIN = plain()
CODE_SECONDS: Final = 45.0  # how long a delivered code must live (I6); clients that get theirs later say so
AGAIN_SECONDS: Final = 20.0  # within which a mail that is carried twice comes again
CODE_DIGITS: Final = 10  # as many as there can be: these can be searched for in logs
CODES_SEARCHED: Final = 300  # of so many codes: among all the digits of a long run, some would be there by chance
MISCHIEF_EVERY: Final = 5  # each n-th client shows a wrong password first, and each n-th registers again

CARRIED = "SELECT count(*) = 0 FROM outbox WHERE state IN ('ready', 'leased')"


@dataclass(frozen=True, slots=True)
class Refused:
    """An answer of 400 or more: to which verb, its status, its media type, its Retry-After, and its body."""

    verb: str
    status: int
    media: str
    retry_after: str
    body: bytes = field(repr=False)

    @classmethod
    def of(cls, verb: str, answer: httpx.Response) -> "Refused":
        media = answer.headers.get("Content-Type", "").partition(";")[0]
        return cls(verb, answer.status_code, media, answer.headers.get("Retry-After", ""), answer.content)


@dataclass
class Ledger:
    """One run's record. `acknowledged` and `activated` hold what got its 201 and its 200."""

    acknowledged: dict[UUID, str] = field(default_factory=dict)
    activated: Counter[UUID] = field(default_factory=Counter)
    late_codes: list[str] = field(default_factory=list)
    refused_codes: list[str] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    intruders: list[str] = field(default_factory=list)  # who activated with a wrong password
    twins: list[str] = field(default_factory=list)  # addresses that were registered while they were held
    lost_answers: int = 0
    cut_off: int = 0  # of these: refused or cut connections, the others took too long
    unavailable: int = 0
    asked: int = 0
    slowest: float = 0.0
    codes: dict[str, tuple[str, float]] = field(default_factory=dict)  # by recipient: the newest, and when it came

    def take(self, mail: Received) -> None:
        """Note a mail as it comes, if it has a code; called on the sink's thread."""
        if not mail.numbers:
            return
        self.codes[mail.to[0]] = (mail.code, time.monotonic())
        if len(mail.code) == CODE_DIGITS and len(KNOWN.codes) < CODES_SEARCHED:
            KNOWN.add_code(mail.code)

    async def client(self, service: Service, name: str) -> None:
        """Register new addresses one after the other and activate each; ends when cancelled."""
        number = 0
        async with httpx.AsyncClient(timeout=20, verify=PLAIN, limits=lines_of()) as http:
            while True:
                number += 1
                email = f"{name}-{number}@example.test"
                claim = await self.register(http, service, email)
                if claim is None:
                    continue
                if number % MISCHIEF_EVERY == 1:
                    await self._again(http, service, email)
                await self.activate(http, service, claim, email, mischief=number % MISCHIEF_EVERY == 2)

    async def crowd(self, service: Service, name: str, *, every: float, enough: trio.Event) -> None:
        """Register address after address until `enough`, without waiting for codes; ends when each was activated."""
        async with (
            httpx.AsyncClient(timeout=20, verify=PLAIN, limits=lines_of()) as http,
            trio.open_nursery() as waiting,
        ):
            number = 0
            while not enough.is_set():
                number += 1
                email = f"{name}-{number}@example.test"
                claim = await self.register(http, service, email)
                if claim is not None:
                    waiting.start_soon(self.activate, http, service, claim, email, name=f"activate {email}")
                with trio.move_on_after(every):
                    await enough.wait()

    async def register(self, http: httpx.AsyncClient, service: Service, email: str) -> UUID | None:
        """Register; return the claim's id where that was acknowledged."""
        answer = await self.ask(http, service, "register", json={"email": email, "password": PASSWORD})
        if answer is None or answer.status_code != 201:
            return None
        claim = UUID(answer.json()["id"])
        self.acknowledged[claim] = email
        return claim

    async def _again(self, http: httpx.AsyncClient, service: Service, email: str) -> None:
        local, _, domain = email.partition("@")
        other = f"{local.upper()}@{domain.title()}"
        answer = await self.ask(http, service, "register", json={"email": other, "password": f"another {PASSWORD}"})
        if answer is not None and answer.status_code == 201:
            self.twins.append(other)

    async def activate(
        self, http: httpx.AsyncClient, service: Service, claim: UUID, email: str, *, mischief: bool = False
    ) -> None:
        """Wait for the address's code and show it, until there is an answer."""
        await until(lambda: email in self.codes, math.inf)
        code, came_at = self.codes[email]
        if mischief:
            wrong = (email, f"no {PASSWORD}")
            answer = await self.ask(http, service, "activate", json={"code": code}, auth=wrong)
            if answer is not None and answer.status_code == 200:
                self.intruders.append(email)
        answer = None
        while answer is None or answer.status_code == 503:
            answer = await self.ask(http, service, "activate", json={"code": code}, auth=(email, PASSWORD))
        if answer.status_code == 200:
            self.activated[claim] += 1
        elif time.monotonic() - came_at > CODE_SECONDS:
            self.late_codes.append(email)
        elif answer.status_code == 409:
            self.activated[claim] += 1  # the answer to an earlier try was lost
        elif answer.status_code == 400 and await self._another(email, code):
            await self.activate(http, service, claim, email)  # carried twice: the newest code wins
        else:
            self.refused_codes.append(f"{email}: {answer.status_code} {answer.text}")

    async def _another(self, email: str, code: str) -> bool:
        """Wait whether the mail comes again, with another code; that it did is counted by I5."""
        with trio.move_on_after(AGAIN_SECONDS):
            await until(lambda: self.codes[email][0] != code, math.inf)
            return True
        return False

    async def ask(self, http: httpx.AsyncClient, service: Service, verb: str, **how: object) -> httpx.Response | None:
        """Ask; None where no answer came. Whoever is told to come again waits for as long, or for a second."""
        began = trio.current_time()
        self.asked += 1
        try:
            answer = await http.post(f"{service.url}/v1/users/{verb}", **how)  # type: ignore[arg-type]  # httpx's own
        except httpx.TransportError as error:
            self.lost_answers += 1
            self.cut_off += not isinstance(error, httpx.TimeoutException)
            await trio.sleep(LOOK_EVERY)
            return None
        self.slowest = max(self.slowest, trio.current_time() - began)
        if answer.status_code >= 400:
            self.refused.append(Refused.of(verb, answer))
        if answer.status_code == 503:
            self.unavailable += 1
            await trio.sleep(min(1.0, float(answer.headers.get("retry-after", "1"))))
        return answer


@asynccontextmanager
async def clients(ledger: Ledger, one: Service) -> AsyncIterator[None]:
    """People who register and activate while the block runs."""
    async with trio.open_nursery() as nursery:
        for number in range(CLIENTS):
            nursery.start_soon(ledger.client, one, f"c{number}", name=f"client {number}")
        await until(lambda: len(ledger.activated) >= CLIENTS)
        yield
        nursery.cancel_scope.cancel(reason="enough was seen")


def dsn(service: Service) -> str:
    """Return the way to the embedded database of a service that runs."""
    return f"postgresql://regsvc@/regsvc?host={service.folder / 'data' / 'postgres'}&port=5432"


async def wait_carried(where: str, seconds: float = 30.0) -> None:
    """Wait until the outbox holds nothing that has still to leave (I1: within 30 s of health)."""
    async with trio_asyncpg.open_connection(where) as connection:
        try:
            await until_asked(lambda: connection.fetchval(CARRIED), seconds)
        except trio.TooSlowError:
            raise AssertionError(f"I1: mail is still in the outbox after {seconds:g} s of health") from None
