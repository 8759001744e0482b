"""What operators ask: does it live, is it ready, how do its parts do."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import trio
from quart import Response

from regsvc import __version__, observe
from regsvc.http import kinds, models
from regsvc.http.problems import Told, tell
from regsvc.http.reply import View, reply, written
from regsvc.ports import Probe, Unavailable

Checks = Mapping[str, Callable[[], models.Check]]
"""How the parts of the service do, by name; called at each health request: cheap, and never raising."""

FRESH: Final = 1.0  # seconds that an answer of the database is believed
PATIENCE: Final = 0.9  # seconds; with FRESH, a database that froze is noticed within 2 s
AGAIN: Final = timedelta(seconds=1)
SILENT: Final = "The database does not answer."


@dataclass(eq=False, slots=True)
class Readiness:
    """Whether the database can be worked with, asked once a second at most, by whoever wants to know."""

    probe: Probe
    _why_not: str | None = None
    _asked_at: float = float("-inf")
    _asking: trio.Lock = field(default_factory=trio.Lock)

    async def check(self) -> str | None:
        """Return why it cannot be, or None. Never takes longer than `PATIENCE`: who comes later waits for the first."""
        async with self._asking:
            if trio.current_time() - self._asked_at >= FRESH:
                self._why_not = await self._ask()
                self._asked_at = trio.current_time()
            return self._why_not

    async def _ask(self) -> str | None:
        why_not: str | None = SILENT
        with trio.move_on_after(PATIENCE):
            try:
                why_not = None if await self.probe.migrated() else "The database lacks migrations."
            except Unavailable as outage:
                observe.database_away(outage.why)
                return "The database is away."
            observe.database_back()
        return why_not


def views(probe: Probe, checks: Checks, draining: Callable[[], bool]) -> Mapping[str, View]:
    """Return what answers the routes of this room, by the names in the table."""
    readiness = Readiness(probe)
    alive, ready = models.Alive().model_dump_json().encode(), models.Ready().model_dump_json().encode()

    async def livez() -> Response:  # noqa: ASYNC124 - views are async
        return written(alive)

    async def readyz() -> Response | Told:
        why_not = "The worker drains." if draining() else await readiness.check()
        return written(ready) if why_not is None else _away(why_not)

    async def health() -> Response:
        why_not = await readiness.check()
        database = models.Check(status="ok") if why_not is None else models.Check(status="down", detail=why_not)
        found = {"database": database, **{name: check() for name, check in checks.items()}}
        well = all(check.status in {"ok", "starting", "off"} for check in found.values())
        now = datetime.fromtimestamp(time.time(), UTC)
        return reply(
            models.Health(status="ok" if well else "degraded", version=__version__, timestamp=now, checks=found)
        )

    async def health_db() -> Response | Told:
        with trio.move_on_after(PATIENCE):
            took = await probe.ping()
            return reply(models.DatabaseHealth(latency_ms=round(took / timedelta(milliseconds=1), 3)))
        return _away(SILENT)

    return {"livez": livez, "readyz": readyz, "health": health, "health_db": health_db}


def _away(why: str) -> Told:
    return replace(tell(kinds.SERVICE_UNAVAILABLE, why), retry_after=AGAIN)
