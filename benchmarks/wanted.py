"""What is measured, row by row, and what is to be reached: the one place that has the names and the bounds."""

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Wanted:
    """A row: its key, the part that measures it, what it is, its unit, and the bound on ours or on the ratio."""

    key: str
    part: str
    what: str
    unit: str = ""
    sign: Literal["≤", "≥", ""] = ""
    bound: float = 0.0
    judged: Literal["ours", "ratio"] = "ours"

    @property
    def goal(self) -> str:
        """What is to be reached, in words."""
        if not self.sign:
            return "–"
        unit = self.unit if self.judged == "ours" else "× theirs"
        return f"{self.sign} {self.bound:g} {unit}".rstrip()

    def holds(self, value: float) -> bool:
        """Whether `value` is good enough; without a bound everything is."""
        return not self.sign or (value <= self.bound if self.sign == "≤" else value >= self.bound)


DEADLINE: Final = 5.0  # seconds; REGSVC_HASH_DEADLINE

ROWS: Final = (
    Wanted(
        "registrations.package",
        "registrations",
        "registrations/s ÷ (cores ÷ one bcrypt), 64 clients, by the package",
        sign="≥",
        bound=0.95,
    ),
    Wanted(
        "registrations.lanes",
        "registrations",
        "registrations/s ÷ (cores ÷ one bcrypt), 64 clients, with lanes",
        sign="≥",
        bound=2.4,
    ),
    Wanted(
        "registrations.probe.package",
        "registrations",
        "`/livez` or `/v1/health` meanwhile, the slower, p99, by the package",
        "ms",
        "≤",
        20,
    ),
    Wanted(
        "registrations.probe.lanes",
        "registrations",
        "`/livez` or `/v1/health` meanwhile, the slower, p99, with lanes",
        "ms",
        "≤",
        20,
    ),
    Wanted(
        "registrations.accepted.package",
        "registrations",
        "a registration accepted, 64 clients, p99, by the package",
        "s",
        "≤",
        DEADLINE + 1,
    ),
    Wanted(
        "registrations.accepted.lanes",
        "registrations",
        "a registration accepted, 64 clients, p99, with lanes",
        "s",
        "≤",
        DEADLINE + 1,
    ),
    Wanted(
        "registrations.refused",
        "registrations",
        "a registration refused (503), 64 clients, p99, by the package",
        "ms",
        "≤",
        50,
    ),
    Wanted(
        "registrations.lone",
        "registrations",
        "a lone registration with lanes, p50; beside the package",
        "ms",
        "≤",
        1.05,
        "ratio",
    ),
    Wanted(
        "overload.goodput",
        "overload",
        "registrations done within 6 s, offered at 3 × capacity, open loop ÷ the most at any load",
        sign="≥",
        bound=0.95,
    ),
    Wanted("overload.accepted", "overload", "a registration accepted, at any load, p99", "s", "≤", DEADLINE + 1),
    Wanted("overload.refused", "overload", "a registration refused (503), at any load, p99", "ms", "≤", 50),
    Wanted("overload.livez", "overload", "`/livez`, at any load, p99", "ms", "≤", 20),
    Wanted("overload.me", "overload", "`GET /v1/users/me`, at any load, p99", "ms", "≤", 50),
    Wanted(
        "adapter.uvloop",
        "adapter",
        "a `SELECT` by primary key through the pool, 10 at once; beside asyncpg on uvloop",
        "µs",
        "≤",
        0.8,
        "ratio",
    ),
    Wanted(
        "adapter.unreset",
        "adapter",
        "such a `SELECT` beside asyncpg on uvloop without its reset round trip",
        "µs",
        "≤",
        1.2,
        "ratio",
    ),
    Wanted("adapter.asyncio", "adapter", "such a `SELECT` beside asyncpg on asyncio", "µs"),
    Wanted("adapter.trio_asyncio", "adapter", "such a `SELECT` beside asyncpg through trio-asyncio", "µs"),
    Wanted("light.me", "light", "`GET /v1/users/me` by one worker", "/s", "≥", 1.0, "ratio"),
    Wanted("light.livez", "light", "`GET /livez` by one worker", "/s"),
    Wanted("mail.accept.p50", "mail", "from the 201 to the relay's 250 of its mail, idle, p50", "ms", "≤", 50),
    Wanted("mail.accept.p99", "mail", "from the 201 to the relay's 250 of its mail, idle, p99", "ms", "≤", 500),
    Wanted("mail.rate", "mail", "mails/s through one mailer to a local relay", "/s", "≥", 300),
    Wanted(
        "full.register",
        "full",
        "a registration among 10^6 users and 10^6 registrations, bcrypt 4, p99; beside none",
        "ms",
        "≤",
        1.2,
        "ratio",
    ),
    Wanted("memory.pss", "memory", "memory of an idle worker, with its part of what is shared (PSS)", "MB", "≤", 80),
    Wanted("memory.rss", "memory", "memory of an idle worker, with all that is shared (RSS)", "MB"),
    Wanted("memory.connections", "memory", "1,000 idle keep-alive connections", "MB", "≤", 30),
    Wanted("starting.first", "starting", "process start to `/readyz`, bare, the first time", "s", "≤", 5),
    Wanted("starting.warm", "starting", "process start to `/readyz`, warm", "s", "≤", 2),
    Wanted("telling.share", "telling", "logging and metrics, share of a light request's CPU", "%", "≤", 15),
    Wanted("transfer.import", "transfer", "`regsvc user import`, people a second; beside COPY", "/s"),
    Wanted("transfer.export", "transfer", "`regsvc user export`, people a second; beside COPY", "/s"),
    Wanted("agreement.rate", "agreement", "`regsvc bench` and wrk on `/livez`: requests/s apart by", "%", "≤", 10),
    Wanted("agreement.time", "agreement", "`regsvc bench` and wrk on `/livez`: p50 apart by", "%", "≤", 10),
)
"""In the order of the table. The bounds are those that the project set itself before anything was built."""


def rows_of(part: str) -> tuple[Wanted, ...]:
    """Return the rows that a part measures."""
    return tuple(row for row in ROWS if row.part == part)
