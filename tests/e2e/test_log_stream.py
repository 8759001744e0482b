"""The log of three workers and their supervisor, followed over one connection of a real service."""

import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests import canaries
from tests.e2e.people import ADMIN_TOKEN, client, new_email, somebody
from tests.http.tiny import Caller, calling
from tests.service import Service, running
from tests.waiting import until, until_asked

FLOOD = 3000  # requests
BATCH = 250  # of them on their way at once


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(
        tmp_path_factory.mktemp("streams"),
        WORKERS="3",
        PASSWORD_ROUNDS="4",
        MAIL_CHANNEL="mailbox",
        ADMIN_TOKEN=ADMIN_TOKEN,
        REQUEST_DEADLINE="3",
    ) as one:
        yield one


@dataclass
class Follower:
    """Reads a stream; `events` are what has come, by name and data."""

    service: Service
    caller: Caller
    heard: bytearray = field(default_factory=bytearray)
    events: list[tuple[str, Any]] = field(default_factory=list)
    ended: bool = False

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [data for name, data in self.events if name == "line"]

    def of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]

    @property
    def lost(self) -> int:
        return sum(data["lines"] for name, data in self.events if name == "lost")

    @property
    def worker(self) -> int:
        """The process at the other end."""
        port = self.caller.stream.socket.getsockname()[1]
        ends = f":{self.service.port:04X}", f":{port:04X}"
        rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()]
        [inode] = [row[9] for row in rows if (row[1][-5:], row[2][-5:]) == ends]
        return next(pid for pid in workers(self.service).values() if f"socket:[{inode}]" in files(pid))

    async def read(self) -> None:
        """Read to the end."""
        self._take()
        while data := await self.caller.stream.receive_some(65536):
            self.heard += data
            self._take()
            if self.heard == b"0\r\n\r\n":  # the connection itself goes on
                break
        self.ended = True

    def _take(self) -> None:
        while (found := self._piece()) is not None:
            canaries.assert_none(found, "the stream")
            for block in found.decode().split("\n\n"):
                fields = dict(row.partition(": ")[::2] for row in block.splitlines() if not row.startswith(":"))
                if "event" in fields:
                    self.events.append((fields["event"], json.loads(fields["data"])))

    def _piece(self) -> bytes | None:
        """Take the next chunk (RFC 9112, 7.1), which is of whole events."""
        size, mark, rest = bytes(self.heard).partition(b"\r\n")
        length = int(size, 16) if mark else 0
        if not length or len(rest) < length + 2:
            return None
        del self.heard[: len(size) + 2 + length + 2]
        return rest[:length]


def files(pid: int) -> list[str]:
    """Return what a process has open; nothing of one that has ended."""
    found = []
    with suppress(FileNotFoundError):
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed since
                found.append(str(file.readlink()))
    return found


def workers(service: Service) -> dict[int, int]:
    """Return the newest process of each worker, by its number."""
    return {int(str(line["worker"])): int(str(line["pid"])) for line in service.lines("worker_started")}


@asynccontextmanager
async def asking(service: Service, query: str = "", token: str = ADMIN_TOKEN) -> AsyncIterator[Follower]:
    """Ask for a stream, and read its head."""
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that one who does not read is soon noticed
    await sock.connect(("127.0.0.1", service.port))
    async with trio.SocketStream(sock) as stream:
        caller = Caller(stream)
        ask = f"GET /v1/admin/logs/stream{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
        await caller.say(ask.encode())
        assert (await caller.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        yield Follower(service, caller, caller.heard)


@asynccontextmanager
async def following(service: Service, query: str = "", token: str = ADMIN_TOKEN) -> AsyncIterator[Follower]:
    async with asking(service, query, token) as follower, trio.open_nursery() as nursery:
        nursery.start_soon(follower.read, name="reader of a stream")
        await until(lambda: follower.events)
        yield follower
        nursery.cancel_scope.cancel(reason="the test is done")


async def heard_from_all(follower: Follower) -> None:
    """Ask, over new connections, until each worker has told of it."""

    async def all_told() -> bool:
        async with client(follower.service) as http:
            await http.get("/livez")
        return {line["worker"] for line in follower.of("http_request")} == {1, 2, 3}

    await until_asked(all_told)


async def test_all_processes_are_heard_and_one_that_is_killed_goes_on_as_another(service: Service) -> None:
    began = trio.current_time()
    async with following(service) as follower:
        [(name, hello)] = follower.events[:1]
        assert (name, hello["workers"]) == ("hello", 3)
        await heard_from_all(follower)
        victim = next(pid for pid in workers(service).values() if pid != follower.worker)
        os.kill(victim, signal.SIGKILL)
        # A process that gets no turn of the machine for longer than lines are held back is heard after the others.
        said = ("worker_exited", "worker_restarted", "worker_started")
        await until(lambda: all(follower.of(event) for event in said))
        [gone], [come] = follower.of("worker_exited"), follower.of("worker_started")
        assert (gone["pid"], gone["exit_status"]) == (victim, -signal.SIGKILL)
        assert "worker" not in gone, "it is the supervisor who says so"

        async def told() -> bool:
            async with client(service) as http:
                await http.get("/livez")
            return come["worker"] in {line["worker"] for line in follower.of("http_request")[-3:]}

        await until_asked(told)
        assert not follower.ended
        assert follower.lost == 0
        await trio.sleep(3.1 - (trio.current_time() - began))
        assert not follower.ended, "though a request may take no longer"

        def written() -> bool:
            logged = service.lines()
            return all(line in logged for line in follower.lines)

        await until(written)


async def test_only_what_is_asked_for_is_heard(service: Service) -> None:
    async with (
        following(service, "?event=login_refused,registration_created&event=registration_refused") as some,
        following(service, "?level=info&route=POST%20/v1/auth/login") as routed,
        client(service) as http,
    ):
        email = new_email()
        for _ in range(2):
            await http.post("/v1/users/register", json={"email": email, "password": "a password of some length"})
        await http.get("/v1/sessions")
        await http.post("/v1/auth/login", json={"email": email, "password": "another of some length"})
        await until(lambda: some.of("login_refused") and len(some.lines) >= 3)
        await until(lambda: routed.of("http_request"))
        assert {line["event"] for line in some.lines} <= {
            "login_refused",
            "registration_created",
            "registration_refused",
        }
        assert len(some.lines) == 3
        assert {(line["method"], line["route"]) for line in routed.lines} == {("POST", "/v1/auth/login")}


async def test_a_worker_that_drains_says_bye(service: Service) -> None:
    async with following(service) as follower:
        os.kill(follower.worker, signal.SIGTERM)
        await until(lambda: follower.ended)
        assert follower.events[-1] == ("bye", {})
        assert follower.of("drain_started"), "and why"
    await until(lambda: service.lines("drain_completed"))
    [told] = service.lines("drain_completed")
    assert (told["in_flight"], told["finished"], told["cut"]) == (1, 1, 0)


async def test_a_stream_ends_with_its_session(service: Service) -> None:
    async with client(service) as http:
        root = await somebody(http, "root")
        made = await http.patch(
            f"/v1/admin/users/{root.id}", json={"role": "admin"}, headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}
        )
        assert made.status_code == 200, made.text
        async with following(service, token=root.access) as follower:
            assert (await http.post("/v1/auth/logout", headers=root.bearer)).status_code == 204
            await until(lambda: follower.ended)
            assert "bye" not in {name for name, _ in follower.events}


async def test_who_stops_reading_loses_lines_and_is_told_how_many(service: Service) -> None:
    async with asking(service) as asleep:
        for first in range(0, FLOOD, BATCH):
            async with calling(service.port) as caller:
                numbers = range(first, first + BATCH)
                told = (b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Request-ID: flood-%d\r\n\r\n" % n for n in numbers)
                await caller.say(b"".join(told))
                for _ in numbers:
                    assert (await caller.answer()).status == 200
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asleep.read, name="reader who was asleep")
            await until(lambda: asleep.lost)
            last = f"flood-{FLOOD - 1}"
            await until(lambda: last in {line.get("request_id") for line in asleep.lines[-50:]})
            nursery.cancel_scope.cancel(reason="the test is done")
    flood = [line for line in asleep.lines if str(line.get("request_id")).startswith("flood-")]
    numbers_of = [
        [int(str(line["request_id"]).rpartition("-")[2]) for line in flood if line["worker"] == worker]
        for worker in {line["worker"] for line in flood}
    ]
    assert len({line["request_id"] for line in flood}) == len(flood)
    assert all(numbers == sorted(numbers) for numbers in numbers_of), "each process's lines are in their order"
    assert len(flood) + asleep.lost >= FLOOD
    assert FLOOD // 20 < asleep.lost < FLOOD * 1.1


async def test_a_bad_query_names_its_field(service: Service) -> None:
    async with client(service) as http:
        answer = await http.get(
            "/v1/admin/logs/stream?event=mail_snt", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}
        )
        assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY
        assert answer.json()["errors"][0]["field"] == "event"
