"""Health, as probes and operators see it: quick whatever the database does."""

from collections.abc import Mapping
from datetime import datetime, timedelta

import pytest
import trio
import trio.testing

from regsvc import __version__
from regsvc.http.app import Knobs
from regsvc.http.models import Check
from regsvc.http.ops import FRESH, Readiness
from tests.http.doorstep import URL, Doorstep, Pulse
from tests.lines import Lines


async def test_livez_asks_nobody(door: Doorstep) -> None:
    door.pulse.silent = True
    answer = await door.ask("GET", "/livez")
    assert (answer.status, answer.json) == (200, {"status": "ok"})
    assert door.pulse.asked == 0


async def test_ready(door: Doorstep) -> None:
    answer = await door.ask("GET", "/readyz")
    assert (answer.status, answer.json) == (200, {"status": "ready"})


async def test_ready_is_asked_once_a_second(autojump_clock: trio.testing.MockClock) -> None:
    pulse = Pulse()
    readiness = Readiness(pulse)
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(readiness.check)
    assert pulse.asked == 1
    await trio.sleep(FRESH)
    assert await readiness.check() is None
    assert pulse.asked == 2


async def test_a_frozen_database_is_noticed_within_two_seconds(autojump_clock: trio.testing.MockClock) -> None:
    pulse = Pulse()
    readiness = Readiness(pulse)
    assert await readiness.check() is None
    pulse.silent = True
    frozen_at = trio.current_time()
    while True:
        asked_at = trio.current_time()
        why_not = await readiness.check()
        assert trio.current_time() - asked_at < 1
        if why_not is not None:
            break
        await trio.sleep(0.05)
    assert trio.current_time() - frozen_at < 2
    pulse.silent = False
    await trio.sleep(FRESH)
    assert await readiness.check() is None


async def test_everybody_who_waits_for_a_frozen_database_is_answered(autojump_clock: trio.testing.MockClock) -> None:
    readiness = Readiness(Pulse(silent=True))
    answers: list[str | None] = []

    async def ask() -> None:
        answers.append(await readiness.check())

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(ask)
    assert answers == ["The database does not answer."] * 10
    assert trio.current_time() < 1


async def test_not_ready_says_why(door: Doorstep, log: Lines) -> None:
    door.pulse.away = True
    answer = await door.ask("GET", "/readyz")
    found = answer.problem(503, "ServiceUnavailable")
    assert found["detail"] == "The database is away."
    assert answer.headers["Retry-After"] == "1"
    assert [line["reason"] for line in log.of("database_unavailable")] == ["it is not there"]
    lacking = Doorstep(pulse=Pulse(current=False))
    found = (await lacking.ask("GET", "/readyz")).problem(503, "ServiceUnavailable")
    assert found["detail"] == "The database lacks migrations."


async def test_a_draining_worker_is_not_ready_but_alive() -> None:
    door = Doorstep(knobs=Knobs(URL, draining=lambda: True))
    assert (await door.ask("GET", "/readyz")).problem(503, "ServiceUnavailable")["detail"] == "The worker drains."
    assert (await door.ask("GET", "/livez")).status == 200
    assert door.pulse.asked == 0


PARTS: list[tuple[Mapping[str, Check], str]] = [
    ({}, "ok"),
    ({"mailer": Check(status="ok"), "sweeper": Check(status="off"), "listener": Check(status="starting")}, "ok"),
    ({"mailer": Check(status="degraded", detail="The relay is away.")}, "degraded"),
    ({"mailer": Check(status="down")}, "degraded"),
]


@pytest.mark.parametrize("path", ["/v1/health", "/health", "/api/v1/health"])
@pytest.mark.parametrize(("parts", "status"), PARTS)
async def test_health_shows_every_part(path: str, parts: Mapping[str, Check], status: str) -> None:
    checks = {name: (lambda check=check: check) for name, check in parts.items()}
    answer = await Doorstep(knobs=Knobs(URL, checks=checks)).ask("GET", path)
    assert answer.status == 200
    found = answer.json
    assert found["checks"] == {"database": {"status": "ok", "detail": None}} | {
        name: {"status": check.status, "detail": check.detail} for name, check in parts.items()
    }
    assert (found["status"], found["version"]) == (status, __version__)
    assert datetime.fromisoformat(found["timestamp"]).utcoffset() == timedelta()


async def test_health_is_ok_to_ask_while_the_database_is_away(door: Doorstep) -> None:
    door.pulse.away = True
    answer = await door.ask("GET", "/v1/health")
    assert (answer.status, answer.json["status"]) == (200, "degraded")
    assert answer.json["checks"]["database"] == {"status": "down", "detail": "The database is away."}


@pytest.mark.parametrize("path", ["/v1/health/db", "/health/db", "/api/v1/health/db"])
async def test_health_db_is_a_real_query(door: Doorstep, path: str) -> None:
    answer = await door.ask("GET", path)
    assert (answer.status, answer.json) == (200, {"status": "ok", "latency_ms": 0.412})
    await door.ask("GET", path)
    assert door.pulse.asked == 2
    door.pulse.away = True
    (await door.ask("GET", path)).problem(503, "ServiceUnavailable")


async def test_health_db_does_not_wait_for_a_frozen_database(
    door: Doorstep, autojump_clock: trio.testing.MockClock
) -> None:
    door.pulse.silent = True
    (await door.ask("GET", "/v1/health/db")).problem(503, "ServiceUnavailable")
    assert trio.current_time() < 1
