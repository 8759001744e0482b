"""What clients were told while things broke, held against the database and the mails afterwards (invariants I1–I7)."""

import math
import re
import ssl
import time
from collections import Counter
from dataclasses import dataclass, field
from uuid import UUID

import httpx
import trio

from regsvc import trio_asyncpg
from tests.service import Service
from tests.smtp_sink import Received, Sink
from tests.waiting import LOOK_EVERY, until, until_asked

PASSWORD = "a password of some length"
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # httpx would load every authority there is for each client
CODE_SECONDS = 45.0  # how long a delivered code must live (I6); clients that get theirs later say so

CARRIED = "SELECT count(*) = 0 FROM outbox WHERE state IN ('ready', 'leased')"
PARTIAL = {
    "claims without their address": """
        SELECT count(*) FROM registrations AS r LEFT JOIN addresses AS a USING (email_key) WHERE a.email_key IS NULL""",
    "claims without a mail": """
        SELECT count(*) FROM registrations AS r
        WHERE NOT EXISTS (SELECT 1 FROM outbox AS o WHERE o.subject_id = r.id)""",
    "claims without an event": """
        SELECT count(*) FROM registrations AS r
        WHERE NOT EXISTS (SELECT 1 FROM events AS e WHERE e.subject_id = r.id)""",
    "mails about nobody": """
        SELECT count(*) FROM outbox AS o WHERE NOT EXISTS (SELECT 1 FROM registrations AS r WHERE r.id = o.subject_id)
        AND NOT EXISTS (SELECT 1 FROM users AS u WHERE u.id = o.subject_id)""",
    "live codes of nobody": """
        SELECT count(*) FROM codes AS c WHERE c.used_at IS NULL
        AND NOT EXISTS (SELECT 1 FROM registrations AS r WHERE r.id = c.subject_id)""",
    "accounts without their event": """
        SELECT count(*) FROM users AS u WHERE NOT EXISTS (
            SELECT 1 FROM events AS e WHERE e.subject_id = u.id AND e.name = 'user.activated')""",
    "accounts beside claims to their address": """
        SELECT count(*) FROM users AS u JOIN registrations AS r USING (email_key)""",
}  # I7; each must count zero


@dataclass
class Ledger:
    """One run's record. `acknowledged` and `activated` hold what got its 201 and its 200."""

    acknowledged: dict[UUID, str] = field(default_factory=dict)
    activated: Counter[UUID] = field(default_factory=Counter)
    late_codes: list[str] = field(default_factory=list)
    refused_codes: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    lost_answers: int = 0
    refusals: int = 0
    slowest: float = 0.0
    codes: dict[str, tuple[str, float]] = field(default_factory=dict)  # by recipient: the newest, and when it came

    def take(self, mail: Received) -> None:
        """Note a mail as it comes; called on the sink's thread."""
        self.codes[mail.to[0]] = (mail.code, time.monotonic())

    async def client(self, service: Service, name: str) -> None:
        """Register new addresses one after the other and activate each; ends when cancelled."""
        number = 0
        async with httpx.AsyncClient(timeout=10, verify=PLAIN) as http:
            while True:
                number += 1
                email = f"{name}-{number}@example.test"
                registered = await self._ask(http, service, "register", json={"email": email, "password": PASSWORD})
                if registered is None or registered.status_code != 201:
                    continue
                claim = UUID(registered.json()["id"])
                self.acknowledged[claim] = email
                await self.activate(http, service, claim, email)

    async def crowd(self, service: Service, name: str, *, every: float, enough: trio.Event) -> None:
        """Register address after address until `enough`, without waiting for codes; ends when each was activated."""
        async with (
            httpx.AsyncClient(timeout=10, verify=PLAIN) as http,
            trio.open_nursery() as waiting,
        ):
            number = 0
            while not enough.is_set():
                number += 1
                email = f"{name}-{number}@example.test"
                registered = await self._ask(http, service, "register", json={"email": email, "password": PASSWORD})
                if registered is not None and registered.status_code == 201:
                    claim = UUID(registered.json()["id"])
                    self.acknowledged[claim] = email
                    waiting.start_soon(self.activate, http, service, claim, email, name=f"activate {email}")
                with trio.move_on_after(every):
                    await enough.wait()

    async def activate(self, http: httpx.AsyncClient, service: Service, claim: UUID, email: str) -> None:
        """Wait for the address's code and show it, until there is an answer."""
        await until(lambda: email in self.codes, math.inf)
        code, came_at = self.codes[email]
        answer = None
        while answer is None or answer.status_code == 503:
            answer = await self._ask(http, service, "activate", json={"code": code}, auth=(email, PASSWORD))
        if answer.status_code == 200:
            self.activated[claim] += 1
        elif time.monotonic() - came_at > CODE_SECONDS:
            self.late_codes.append(email)
        elif answer.status_code == 409:
            self.activated[claim] += 1  # the answer to an earlier try was lost
        elif answer.status_code == 400 and self.codes[email][0] != code:
            await self.activate(http, service, claim, email)  # carried twice: the newest code wins
        else:
            self.refused_codes.append(f"{email}: {answer.status_code} {answer.text}")

    async def _ask(self, http: httpx.AsyncClient, service: Service, verb: str, **how: object) -> httpx.Response | None:
        began = trio.current_time()
        try:
            answer = await http.post(f"{service.url}/v1/users/{verb}", **how)  # type: ignore[arg-type]  # httpx's own
        except httpx.TransportError:
            self.lost_answers += 1
            await trio.sleep(LOOK_EVERY)
            return None
        self.slowest = max(self.slowest, trio.current_time() - began)
        if answer.status_code == 503:
            self.refusals += 1
            await trio.sleep(min(1.0, float(answer.headers["retry-after"])))
        elif answer.status_code >= 500:
            self.unexpected.append(f"{verb}: {answer.status_code} {answer.text}")
        return answer


def dsn(service: Service) -> str:
    """Return the way to the embedded database of a service that runs."""
    return f"postgresql://regsvc@/regsvc?host={service.folder / 'data' / 'postgres'}&port=5432"


async def wait_carried(where: str, seconds: float = 30.0) -> None:
    """Wait until the outbox holds nothing that has still to leave (I1: within 30 s of health)."""
    async with trio_asyncpg.open_connection(where) as connection:
        await until_asked(lambda: connection.fetchval(CARRIED), seconds)


async def check(ledger: Ledger, sink: Sink, where: str, *, interruptions: int, said: str) -> dict[str, int]:
    """Hold the record against the database, the mails and the log; return the counts worth publishing."""
    assert ledger.unexpected == [], f"I10, an answer that is a bug: {ledger.unexpected[:3]} {bugs(said)}"
    assert ledger.refused_codes == [], "I6: a code that did not work in its life"
    async with trio_asyncpg.open_connection(where) as connection:
        rows = await connection.fetch("SELECT id, email FROM registrations UNION ALL SELECT id, email FROM users")
        known = {row["id"]: row["email"] for row in rows}
        users = {row["id"] for row in await connection.fetch("SELECT id FROM users")}
        partial = {what: await connection.fetchval(query) for what, query in PARTIAL.items()}
        dead = await connection.fetchval("SELECT count(*) FROM outbox WHERE state = 'dead'")
    carried = Counter(mail.message["Message-ID"] for mail in sink.mails)
    mailed = {mail.to[0] for mail in sink.mails}
    assert {claim for claim in ledger.acknowledged if claim not in known} == set(), "I1: acknowledged and gone"
    assert {email for email in ledger.acknowledged.values() if email not in mailed} == set(), "I1: never mailed"
    assert mailed - set(known.values()) == set(), "I2: a mail without a committed registration"
    assert [claim for claim, times in ledger.activated.items() if times > 1] == [], "I3: activated twice"
    assert set(ledger.activated) <= users, "I3: acknowledged and not activated"
    assert {what: count for what, count in partial.items() if count} == {}, "I7: rows without their others"
    duplicates = sum(times - 1 for times in carried.values())
    assert duplicates <= interruptions, "I5: more duplicates than interruptions"
    assert PASSWORD not in said, "I9: a password in the log"
    assert not re.search(r'"code"\s*:', said), "I9: a code in the log"
    return {
        "acknowledged": len(ledger.acknowledged),
        "activated": len(ledger.activated),
        "mails": len(sink.mails),
        "duplicates": duplicates,
        "dead": dead,
        "answers lost": ledger.lost_answers,
        "refused with 503": ledger.refusals,
        "codes too late to try": len(ledger.late_codes),
        "slowest answer ms": round(1000 * ledger.slowest),
    }


def bugs(said: str) -> list[str]:
    """Return the lines that tell of bugs."""
    return [line for line in said.splitlines() if '"http_bug"' in line or '"actor_crashed"' in line][:3]
