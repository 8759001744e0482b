"""The composition root: what is built from which settings, in which order it lives and ends, what ends a worker.

A worker runs here on the main thread, as in its process, with a real database; another thread asks it things.
"""

import gc
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import trio

from regsvc import observe, world
from regsvc.adapters.mail import Both, Boxed, Console, Smtp, Tls
from regsvc.domain.account import DuplicatePolicy
from regsvc.domain.values import Secret
from regsvc.http.server import Cut
from regsvc.observe.shared import Shared
from regsvc.world import building, running, verbs
from regsvc.world import hashing as hashing_world
from tests.lines import Lines
from tests.worker import QUICK, Scene, settings, tell

# ------------------------------------------------------------------------------------------------------------ building


def test_the_rules_are_those_of_the_settings() -> None:
    found = world.rules(
        settings(
            CODE_ATTEMPTS="3",
            CODE_FAILURES_PER_DAY="7",
            RESEND_COOLDOWN="11",
            RESENDS_PER_HOUR="2",
            PENDING_TTL="700",
            DUPLICATE_POLICY="claims",
            ENABLE_RATE_LIMITING="false",
        )
    )
    assert (found.code_attempts, found.code_failures_per_day, found.resends_per_hour) == (3, 7, 2)
    assert (found.resend_cooldown, found.pending_ttl) == (timedelta(seconds=11), timedelta(seconds=700))
    assert (found.duplicates, found.limit_mails) == (DuplicatePolicy.CLAIMS, False)


@pytest.mark.parametrize(
    ("channel", "kind"), [("smtp", Smtp), ("console", Console), ("mailbox", Boxed), ("console+mailbox", Both)]
)
async def test_mail_goes_the_way_that_is_named(channel: str, kind: type) -> None:
    relay = {"SMTP_HOST": "relay", "MAIL_FROM": "no-reply@example.org"}
    async with world.open_world(settings(MAIL_CHANNEL=channel, **relay), Shared.create(1)) as built:
        assert isinstance(built.channel, kind)


def test_the_relay_is_as_told() -> None:
    told = {
        "SMTP_PORT": "465",
        "SMTP_TLS": "implicit",
        "SMTP_USERNAME": "me",
        "SMTP_PASSWORD": "xyzzy",
        "MAIL_TIMEOUT": "3",
    }
    relay = world.relay(settings(SMTP_HOST="relay", **told))
    assert (relay.host, relay.port, relay.tls, relay.timeout) == ("relay", 465, Tls.IMPLICIT, timedelta(seconds=3))
    assert relay.login is not None
    assert (relay.login.username, relay.login.password) == ("me", Secret("xyzzy"))
    assert world.relay(settings(SMTP_HOST="relay")).login is None


def test_a_new_password_is_held_to_the_settings() -> None:
    rules = world.passwords(settings(PASSWORD_MIN="10", PASSWORD_MAX="20"))
    assert rules.flaw(Secret("short one")) is not None
    assert rules.flaw(Secret("long enough here")) is None
    assert rules.flaw(Secret("far too long for what is told here")) is not None
    assert rules.flaw(Secret("1234567890")) is not None  # a common one


def test_what_the_server_tells_is_logged() -> None:
    lines, doorman = Lines(), world.Doorman()
    with observe.open_log(lines, level="debug"):
        doorman.connection_contained(ZeroDivisionError("here"))
        doorman.connection_cut(Cut.SLOW_HEAD)
        doorman.request_refused(400, "MalformedRequest", "no host")
        doorman.handler_failed(ZeroDivisionError("there"))
    assert [(line["event"], line.get("reason")) for line in lines.all] == [
        ("connection_contained", "here"),
        ("connection_cut", "slow_head"),
        ("request_unreadable", "MalformedRequest: no host"),
        ("http_bug", "there"),
    ]


async def test_a_relay_that_is_away_degrades_the_mailer() -> None:
    async with world.open_world(settings(MAIL_CHANNEL="mailbox"), Shared.create(1)) as built:
        check = world.checks(built)["mailer"]
        assert check().status == "ok"
        built.tally.note(outages=3)
        assert (check().status, check().detail) == ("degraded", "the relay failed 3 times in a row")


def test_importing_builds_nothing() -> None:
    script = "import threading, regsvc.world; print(threading.active_count())"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout == "1\n"


# ------------------------------------------------------------------------------------------------------------- running


@pytest.fixture
def scene(database: str) -> Iterator[Scene]:
    with socket.create_server(("127.0.0.1", 0)) as door:
        yield Scene(database, door)


def test_a_worker_migrates_serves_and_drains(scene: Scene) -> None:
    def actor() -> None:
        assert httpx.get(f"{scene.url}/readyz").status_code == 200
        health = httpx.get(f"{scene.url}/v1/health").json()
        assert health["status"] == "ok"
        assert {name: check["status"] for name, check in health["checks"].items()} == {
            "database": "ok",
            "mailer": "ok",
            "hasher": "ok",
            "sweeper": "ok",
        }
        assert scene.register().status_code == 201
        scene.await_line("mail_sent")
        tell(signal.SIGTERM)

    assert scene.run(actor, MAIL_CHANNEL="mailbox") == os.EX_OK
    assert [line["migration"] for line in scene.lines.of("migration_applied")] == [1, 2, 3, 4, 5]
    order = [scene.lines.events.index(event) for event in ("worker_started", "drain_started", "drain_completed")]
    assert order == sorted(order)
    drained = scene.lines.of("drain_completed")[0]
    assert (drained["in_flight"], drained["cut"], drained["left"]) == (0, 0, 0)


@contextmanager
def silent_relay() -> Iterator[int]:
    """A relay that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as relay:
        yield relay.getsockname()[1]


@pytest.mark.parametrize(("drain", "times"), [("0.3", 1), ("30", 2)])
def test_a_drain_ends_at_its_deadline_or_when_told_twice(scene: Scene, drain: str, times: int) -> None:
    took: list[float] = []

    def actor() -> None:
        assert scene.register().status_code == 201
        scene.await_line("code_minted")  # so it is being handed over, to somebody who never answers
        took.append(time.monotonic())
        for _ in range(times):
            tell(signal.SIGTERM)
            scene.await_line("drain_started")

    with silent_relay() as port:
        relay = {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(port), "SMTP_TLS": "none", "MAIL_FROM": "a@example.org"}
        assert scene.run(actor, MAIL_CHANNEL="smtp", DRAIN_SECONDS=drain, **relay) == os.EX_OK
    assert time.monotonic() - took[0] < QUICK
    assert scene.lines.of("drain_completed")
    assert not scene.lines.of("mail_sent")


def test_garbage_is_collected_again_once_a_worker_is_ready(scene: Scene) -> None:
    seen: list[bool] = []

    def actor() -> None:
        seen.append(gc.isenabled())
        tell(signal.SIGTERM)

    gc.disable()  # as the command does before it imports
    try:
        assert scene.run(actor) == os.EX_OK
    finally:
        gc.enable()
    assert seen == [True]


def test_a_worker_ends_with_its_supervisor(scene: Scene) -> None:
    assert scene.run(lambda: os.close(scene.lifeline)) == os.EX_OK
    assert scene.lines.events[-1] == "drain_completed"


def test_without_a_foundation_a_worker_asks_to_be_started_again(scene: Scene) -> None:
    scene.dsn = "postgresql://nobody@127.0.0.1:1/x"
    assert scene.run(lambda: None) == os.EX_TEMPFAIL
    assert scene.lines.of("database_unavailable")


def test_an_actor_that_does_not_stay_up_ends_its_worker(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    async def crash(  # noqa: ASYNC114 - started by the keeper
        *_: object, task_status: trio.TaskStatus[None], **__: object
    ) -> None:
        task_status.started()
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    monkeypatch.setattr("regsvc.actors.sweeper.run", crash)
    monkeypatch.setattr("regsvc.actors.keeper.FIRST_WAIT", 0.001)
    monkeypatch.setattr("regsvc.actors.keeper.LONGEST_WAIT", 0.001)
    assert scene.run(lambda: None) == os.EX_TEMPFAIL
    assert len(scene.lines.of("actor_crashed")) == 10


def test_a_bug_in_the_open_ends_the_worker_with_a_traceback_in_the_log(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(running, "make_app", bug)
    assert scene.run(lambda: None) == os.EX_SOFTWARE
    assert "ZeroDivisionError" in scene.lines.of("actor_crashed")[0]["traceback"]


def test_a_mailer_of_its_own_carries_what_a_front_registered(scene: Scene) -> None:
    def front() -> None:
        health = httpx.get(f"{scene.url}/v1/health").json()["checks"]
        assert (health["mailer"]["status"], health["sweeper"]["status"]) == ("off", "off")
        assert scene.register().status_code == 201
        tell(signal.SIGTERM)

    def mailer() -> None:
        scene.await_line("mail_sent")
        tell(signal.SIGTERM)

    assert scene.run(front, ROLES="http") == os.EX_OK
    assert not scene.lines.of("mail_sent")
    assert scene.run(mailer, ROLES="mailer", MAIL_CHANNEL="mailbox") == os.EX_OK
    assert "actor_crashed" not in scene.lines.events


PRODUCTION = {
    "PROFILE": "production",
    "PUBLIC_URL": "https://example.org",
    "MAIL_CHANNEL": "mailbox",
    "PASSWORD_ROUNDS": "10",
}


def test_in_production_a_worker_waits_for_who_migrates(scene: Scene) -> None:
    assert scene.run(lambda: None, **PRODUCTION) == os.EX_TEMPFAIL
    assert "regsvc migrate" in scene.lines.of("database_unavailable")[0]["reason"]
    assert not scene.lines.of("migration_applied")


def test_in_production_nobody_reads_mail(scene: Scene) -> None:
    statuses: list[int] = []

    def actor() -> None:
        statuses.extend(httpx.get(f"{scene.url}{path}").status_code for path in ("/readyz", "/dev/mail"))
        tell(signal.SIGTERM)

    world.apply_migrations(Secret(scene.dsn), report=lambda _: None)
    assert scene.run(actor, **PRODUCTION) == os.EX_OK
    assert statuses == [200, 404]


def test_the_openapi_document_is_the_one_that_is_served(scene: Scene) -> None:
    served: list[bytes] = []

    def actor() -> None:
        served.append(httpx.get(f"{scene.url}/openapi.json").content)
        tell(signal.SIGTERM)

    scene.run(actor, PUBLIC_URL="https://example.org")
    assert served == [world.openapi_document(settings(PUBLIC_URL="https://example.org"))]


def test_sql_and_the_package_s_data_lie_where_an_editable_install_finds_them() -> None:
    assert (Path(world.__file__).parents[2] / "sql" / "migrations").is_dir()


async def test_a_verb_hashes_as_the_service_does() -> None:
    passwords = verbs.OneByOne(hashing_world.scheme(settings(), building.keys_of(settings())))
    stored = await passwords.hash(Secret("a password"))
    assert await passwords.check(Secret("a password"), [stored, "!"]) == [True, False]
    assert await passwords.check(Secret("a password"), []) == []
    assert not passwords.outdated(stored)
    assert passwords.outdated("!")
