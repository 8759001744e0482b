"""What is left when a run is over: the database's rows, the mails as they came, the log, the metrics, the answers."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import httpx

from regsvc import trio_asyncpg
from tests.canaries import KNOWN, Canaries
from tests.chaos.ledger import PLAIN, Ledger
from tests.service import Service
from tests.smtp_sink import Received

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
FAMILIES = {
    "sessions with two unused tokens": """
        SELECT count(*) FROM (
            SELECT session_id FROM refresh_tokens WHERE used_at IS NULL GROUP BY 1 HAVING count(*) > 1) AS x""",
    "sessions that ended and have tokens": """
        SELECT count(*) FROM sessions AS s WHERE s.ended_at IS NOT NULL
        AND EXISTS (SELECT 1 FROM refresh_tokens AS t WHERE t.session_id = s.id)""",
    "sessions that live and have no unused token": """
        SELECT count(*) FROM sessions AS s WHERE s.ended_at IS NULL
        AND NOT EXISTS (SELECT 1 FROM refresh_tokens AS t WHERE t.session_id = s.id AND t.used_at IS NULL)""",
    "used tokens without a successor in a session that lives": """
        SELECT count(*) FROM refresh_tokens AS t JOIN sessions AS s ON s.id = t.session_id
        WHERE s.ended_at IS NULL AND t.used_at IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM refresh_tokens AS c WHERE c.parent = t.hash)""",
}  # I8; each must count zero
TABLES = "SELECT format('%I', tablename) FROM pg_tables WHERE schemaname = 'public' AND tablename != 'migrations'"


@dataclass(frozen=True, slots=True)
class Copy:
    """A mail as the relay took it: Message-ID, recipient, when (seconds of the epoch), whether it has a code."""

    message_id: str
    to: str
    at: float
    has_code: bool = True

    @classmethod
    def of(cls, mail: Received) -> "Copy":
        # The header alone: parsing whole messages takes longer than all else in a long run.
        found = re.search(rb"(?im)^message-id:\s*(\S+)", mail.raw)
        assert found is not None
        return cls(found[1].decode(), mail.to[0], mail.at, bool(mail.numbers))


@dataclass(frozen=True, slots=True)
class Code:
    """A row of `codes` for an activation."""

    minted_at: datetime
    expires_at: datetime
    used_at: datetime | None


@dataclass
class Rows:
    """What the database holds."""

    claims: dict[UUID, str] = field(default_factory=dict)
    users: dict[UUID, tuple[str, str]] = field(default_factory=dict)  # address as typed, and its canonical form
    codes: dict[UUID, Code] = field(default_factory=dict)
    activations: Counter[UUID] = field(default_factory=Counter)
    partial: dict[str, int] = field(default_factory=dict)
    families: dict[str, int] = field(default_factory=dict)
    dead: int = 0
    dump: bytes = b""

    @property
    def known(self) -> dict[UUID, str]:
        """Whoever registered and is there, by id."""
        return self.claims | {user: email for user, (email, _) in self.users.items()}


@dataclass
class Evidence:
    """All that the invariants are checked on. `told`: how often a process was told to end, by whatever signal."""

    ledger: Ledger
    copies: list[Copy]
    rows: Rows
    said: str = ""
    metrics: str = ""
    interruptions: int = 0
    told: int = 0
    secrets: Canaries = field(default_factory=lambda: KNOWN)

    @property
    def duplicates(self) -> int:
        """Mails that came again."""
        return len(self.copies) - len({copy.message_id for copy in self.copies})


def windows(copies: Sequence[Copy], cuts: Sequence[float]) -> list[float]:
    """Return how long before a cut each mail that came again was taken first, in seconds; negative: after it.

    `cuts`: when something was killed, in seconds of the epoch. What had left by then may be taken a moment later. Of
    the cuts before the second copy, that is meant which was nearest to the first; inf where there is none.
    """
    first: dict[str, Copy] = {}
    found = []
    for copy in copies:
        if (before := first.get(copy.message_id)) is not None:
            gaps = [cut - before.at for cut in cuts if cut <= copy.at]
            found.append(min(gaps, key=abs, default=math.inf))
        first[copy.message_id] = copy
    return found


async def read_rows(where: str) -> Rows:
    """Read everything, in one look."""
    async with (
        trio_asyncpg.open_connection(where, command_timeout=60) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        rows = Rows()
        rows.claims = {row["id"]: row["email"] for row in await connection.fetch("SELECT * FROM registrations")}
        users = await connection.fetch("SELECT id, email, email_key FROM users")
        rows.users = {row["id"]: (row["email"], row["email_key"]) for row in users}
        codes = await connection.fetch("SELECT * FROM codes WHERE purpose = 'activate'")
        rows.codes = {row["subject_id"]: Code(row["minted_at"], row["expires_at"], row["used_at"]) for row in codes}
        events = await connection.fetch("SELECT subject_id FROM events WHERE name = 'user.activated'")
        rows.activations = Counter(row["subject_id"] for row in events)
        rows.partial = {what: await connection.fetchval(query) for what, query in PARTIAL.items()}
        rows.families = {what: await connection.fetchval(query) for what, query in FAMILIES.items()}
        rows.dead = await connection.fetchval("SELECT count(*) FROM outbox WHERE state = 'dead'")
        for (table,) in await connection.fetch(TABLES):
            texts = await connection.fetch(f"SELECT t::text AS row FROM {table} AS t")  # noqa: S608 - its own name
            rows.dump += "\n".join([table, *(row["row"] for row in texts), ""]).encode()
        return rows


async def metrics_of(service: Service) -> str:
    """Return what the service shows of its metrics."""
    async with httpx.AsyncClient(base_url=service.url, timeout=10, verify=PLAIN) as http:
        return (await http.get("/metrics")).text


async def gather(
    ledger: Ledger, mails: Sequence[Received], where: str, service: Service, *, interruptions: int = 0, told: int = 0
) -> Evidence:
    """Collect what a run left; the service still runs."""
    # The mails first: a client that hung up may still be registered, and mailed, while we look.
    copies = [Copy.of(mail) for mail in tuple(mails)]
    rows = await read_rows(where)
    return Evidence(ledger, copies, rows, service.said(), await metrics_of(service), interruptions, told)
