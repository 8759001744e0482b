"""How a worker ends: what is in flight is finished, a lame duck serves on, one that was replaced stays ready."""

import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence

import httpx
import pytest

from regsvc.adapters.crypto import Bcrypt
from regsvc.adapters.crypto.work import Work
from regsvc.world import building, process
from regsvc.world import hashing as hashing_world
from regsvc.world.building import World
from tests.waiting import until as until_seen
from tests.worker import QUICK, Scene, settings, tell, until


@pytest.fixture
def scene(database: str) -> Iterator[Scene]:
    with socket.create_server(("127.0.0.1", 0)) as door:
        yield Scene(database, door)


def test_a_request_in_flight_is_finished_and_its_mail_handed_over(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashing, go_on = threading.Event(), threading.Event()

    class Slow(Bcrypt):
        def do(self, works: Sequence[Work]) -> list[object]:
            hashing.set()
            assert go_on.wait(QUICK)
            return super().do(works)

    keys, previous = building.keys_of(settings())
    slow = Slow(keys, previous, rounds=4)
    monkeypatch.setattr(hashing_world, "scheme", lambda *_: slow)
    answers: list[int] = []

    def actor() -> None:
        asking = threading.Thread(target=lambda: answers.append(scene.register().status_code))
        asking.start()
        assert hashing.wait(QUICK)
        tell(signal.SIGTERM)
        assert scene.await_line("drain_started")["in_flight"] == 1
        until(lambda: silent(scene))  # the door stopped accepting; nobody takes it from the queue
        go_on.set()
        asking.join()

    assert scene.run(actor, MAIL_CHANNEL="mailbox") == os.EX_OK
    assert answers == [201]
    drained = scene.lines.of("drain_completed")[0]
    assert (drained["in_flight"], drained["cut"], drained["lost"]) == (1, 0, 0)
    assert drained["finished"] >= 1, "those who came before the door was closed are among them"
    assert (drained["handed_over"], drained["left"]) == (1, 0)
    assert len(scene.lines.of("mail_sent")) == 1


def test_a_lame_duck_says_that_it_is_not_ready_and_serves_on(scene: Scene) -> None:
    told: list[tuple[int, int, str, int]] = []

    def actor() -> None:
        tell(signal.SIGTERM)
        scene.await_line("drain_started")
        ready, alive = (httpx.get(f"{scene.url}/{probe}", timeout=QUICK) for probe in ("readyz", "livez"))
        registered = scene.register().status_code
        told.append((ready.status_code, alive.status_code, alive.headers["connection"], registered))

    assert scene.run(actor, LAME_DUCK_SECONDS="3") == os.EX_OK
    assert told == [(503, 200, "close", 201)]
    [drained] = scene.lines.of("drain_completed")
    assert drained["took_s"] >= 3
    assert (drained["in_flight"], drained["lost"], drained["cut"]) == (0, 0, 0)


def test_who_was_replaced_says_that_the_service_is_ready_until_it_ends_too(scene: Scene) -> None:
    """Whoever asks on a connection that was open asks about the service, which is there as ever."""

    def actor() -> None:
        with httpx.Client(base_url=scene.url, timeout=QUICK) as kept, httpx.Client(base_url=scene.url) as idle:
            kept.get("/livez")
            idle.get("/livez")
            tell(process.REPLACED)
            scene.await_line("drain_started")
            answer = kept.get("/readyz")
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")
            tell(signal.SIGTERM)  # it would wait for the idle one for 5 s
            until(lambda: scene.lines.of("drain_completed"), 4)

    assert scene.run(actor) == os.EX_OK
    [drained] = scene.lines.of("drain_completed")
    assert (drained["finished"], drained["lost"], drained["cut"]) == (1, 0, 0)
    [started] = scene.lines.of("drain_started")
    assert started["reason"] == "another worker has its place"


def test_told_before_it_serves_it_ends_all_the_same(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    found = process._found

    async def told_meanwhile(built: World) -> None:
        tell(signal.SIGTERM)
        await until_seen(lambda: scene.lines.of("drain_started"))
        await found(built)

    monkeypatch.setattr(process, "_found", told_meanwhile)
    assert scene.run(lambda: None) == os.EX_OK
    assert scene.lines.of("drain_completed")[0]["lost"] == 0


def silent(scene: Scene) -> bool:
    try:
        httpx.get(f"{scene.url}/livez", timeout=0.2)
    except httpx.TransportError:
        return True
    return False
