"""One Idempotency-Key, one effect, one answer: sent by twenty at once, to two services, killed at whatever moment."""

import contextlib
import random
import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx
import pytest
import trio

from regsvc.store.embedded import Cluster
from regsvc.trio_asyncpg import Connection, open_connection
from tests.chaos.ledger import PASSWORD
from tests.e2e.people import SECRET, TOKEN, Person, client, digits, mail_with, new_email, on_database
from tests.postgres import psql, temporary_cluster
from tests.service import Service
from tests.waiting import until, until_asked

AT_ONCE: Final = 20
CLIENTS: Final = 6
OF_EACH: Final = {"date", "x-request-id", "traceparent", "idempotency-replayed", "connection"}  # one ends now and then
LAPSE: Final = "UPDATE idempotency_keys SET lease_until = clock_timestamp() WHERE answer IS NULL"
Told = tuple[int, tuple[tuple[str, str], ...], bytes]

pytestmark = [
    # httpx leaves the body it was sending to the garbage collector when the server dies in the middle of it.
    pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object ByteStream:pytest.PytestWarning"),
]


@dataclass(frozen=True)
class Stage:
    """Two services on one database."""

    services: list[Service]
    cluster: Cluster

    def count(self, table: str, where: str = "true") -> int:
        """Count rows."""
        return int(psql(self.cluster, f"SELECT count(*) FROM {table} WHERE {where}"))  # noqa: S608 - words of ours

    def mails(self, topic: str, email: str) -> int:
        """Count the mails of a kind that were caused for an address."""
        subjects = f"""(SELECT id FROM registrations WHERE email = '{email}'
                        UNION SELECT id FROM users WHERE email = '{email}')"""  # noqa: S608 - an address of ours
        return self.count("outbox", f"kind = 'mail' AND topic = '{topic}' AND subject_id IN {subjects}")


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with (
        tempfile.TemporaryDirectory(prefix="regsvc ") as folder,
        temporary_cluster() as cluster,
        on_database(Path(folder), cluster.dsn, 2, REQUEST_DEADLINE="5") as services,
    ):
        yield Stage(services, cluster)


@pytest.fixture
async def clients(stage: Stage) -> AsyncIterator[list[httpx.AsyncClient]]:
    async with client(stage.services[0]) as one, client(stage.services[1]) as other:
        yield [one, other]


@dataclass(frozen=True)
class Asking:
    """A request that is sent over and over; without a client of its own, the caller names one."""

    path: str
    body: dict[str, object] | None = None
    auth: tuple[str, str] | None = None
    key: str = ""

    @classmethod
    def of(cls, path: str, body: dict[str, object] | None = None, auth: tuple[str, str] | None = None) -> "Asking":
        """Return one with a new key."""
        return cls(path, body, auth, f'"{uuid4()}"')

    async def __call__(self, http: httpx.AsyncClient, **other: Any) -> httpx.Response:
        how: dict[str, Any] = {"json": self.body, "auth": self.auth, **other}
        return await http.post(self.path, headers={"Idempotency-Key": self.key}, **how)

    async def settled(self, ask: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
        """Ask until it is answered, whatever becomes of the service meanwhile."""
        last: list[httpx.Response] = []

        async def is_settled() -> bool:
            with contextlib.suppress(httpx.TransportError):
                last[:] = [await ask()]
            return bool(last) and last[0].status_code != 503 and not in_use(last[0])

        await until_asked(is_settled)
        return last[0]


def in_use(answer: httpx.Response) -> bool:
    return answer.status_code == 409 and "IdempotencyKeyInUse" in answer.text


def told(answer: httpx.Response) -> Told:
    """Return all of an answer but what is said of each request."""
    own = [(name.lower(), value) for name, value in answer.headers.items()]
    said = sorted(one for one in own if one[0] not in OF_EACH and "ratelimit" not in one[0])
    return answer.status_code, tuple(said), answer.content


def replayed(answer: httpx.Response) -> bool:
    return "Idempotency-Replayed" in answer.headers


# ------------------------------------------------------------------------------------------------ twenty at once


async def registers(_: Stage, __: httpx.AsyncClient) -> tuple[Asking, str]:  # noqa: ASYNC124 - stories are async
    email = new_email()
    return Asking.of("/v1/users/register", {"email": email, "password": PASSWORD}), email


async def resends(_: Stage, http: httpx.AsyncClient) -> tuple[Asking, str]:
    person = Person(http, new_email())
    assert (await person.register()).status_code == 201
    return Asking.of("/v1/users/resend-code", None, (person.email, PASSWORD)), person.email


async def activates(_: Stage, http: httpx.AsyncClient) -> tuple[Asking, str]:
    person = Person(http, new_email())
    assert (await person.register()).status_code == 201
    code = await mail_with(http, person.email, digits(4))
    return Asking.of("/v1/users/activate", {"code": code}, (person.email, PASSWORD)), person.email


async def misses(stage: Stage, http: httpx.AsyncClient) -> tuple[Asking, str]:
    asking, email = await activates(stage, http)
    assert asking.body is not None
    wrong = f"{(int(str(asking.body['code'])) + 1) % 10_000:04}"
    return Asking.of(asking.path, {"code": wrong}, asking.auth), email


async def logs_in(_: Stage, http: httpx.AsyncClient) -> tuple[Asking, str]:
    person = await Person(http, new_email()).sign_up()
    return Asking.of("/v1/auth/login", {"email": person.email, "password": PASSWORD}), person.email


async def resets(_: Stage, http: httpx.AsyncClient) -> tuple[Asking, str]:
    person = await Person(http, new_email()).sign_up()
    await http.post("/v1/auth/forgot-password", json={"email": person.email})
    token = await mail_with(http, person.email, TOKEN)
    return Asking.of(
        "/v1/auth/reset-password", {"token": token, "new_password": "another of some length"}
    ), person.email


OWN: Final = "user_id = (SELECT id FROM users WHERE email = '{email}')"
STORIES: Final[dict[str, tuple[Callable[[Stage, httpx.AsyncClient], Awaitable[tuple[Asking, str]]], int, Any]]] = {
    "register": (registers, 201, lambda stage, email: (stage.mails("activation", email), 1)),
    "resend": (resends, 202, lambda stage, email: (stage.mails("activation", email), 2)),
    "activate": (activates, 200, lambda stage, email: (stage.count("users", f"email = '{email}'"), 1)),
    "miss": (misses, 400, lambda stage, email: (_failures(stage, email), 1)),
    "login": (logs_in, 200, lambda stage, email: (stage.count("sessions", OWN.format(email=email)), 1)),
    "reset": (resets, 204, lambda stage, email: (stage.mails("password_changed", email), 1)),
}


def _failures(stage: Stage, email: str) -> int:
    return int(psql(stage.cluster, f"SELECT failures FROM addresses WHERE email_key = '{email}'"))  # noqa: S608


@pytest.mark.parametrize("name", STORIES)
async def test_of_twenty_at_once_one_does_it_and_all_get_its_answer(
    stage: Stage, clients: list[httpx.AsyncClient], name: str, rounds: int | None
) -> None:
    story, status, effect = STORIES[name]
    for _ in range(rounds or 1):
        ask, email = await story(stage, clients[0])
        answers: list[httpx.Response] = []

        async def one(number: int, ask: Asking = ask, answers: list[httpx.Response] = answers) -> None:
            answers.append(await ask(clients[number % 2]))

        async with trio.open_nursery() as nursery:
            for number in range(AT_ONCE):
                nursery.start_soon(one, number, name=f"client {number}")
        done = {told(answer) for answer in answers if not in_use(answer)}
        assert len(done) == 1
        assert sum(not replayed(answer) for answer in answers if not in_use(answer)) == 1
        for http in clients:
            again = await ask(http)
            assert replayed(again)
            assert {told(again)} == done
        assert {one[0] for one in done} == {status}
        found, expected = effect(stage, email)
        assert found == expected


async def test_nothing_that_was_sent_or_answered_is_in_a_row(stage: Stage, clients: list[httpx.AsyncClient]) -> None:
    ask, email = await logs_in(stage, clients[0])
    answer = (await ask(clients[0])).json()
    rows = psql(stage.cluster, "SELECT idempotency_keys::text FROM idempotency_keys")
    assert rows
    octets = b"".join(bytes.fromhex(one) for one in re.findall(r"\\x([0-9a-f]+)", rows))
    secrets = (email, PASSWORD, ask.key.strip('"'), answer["access_token"], answer["refresh_token"])
    assert [one for one in secrets if one in rows or one.encode() in octets] == []


# ------------------------------------------------------------------------------------------------ what a key is of


async def test_other_content_other_credentials_and_the_next_day(stage: Stage, clients: list[httpx.AsyncClient]) -> None:
    http = clients[0]
    ask, email = await logs_in(stage, http)
    first = await ask(http)
    other = await ask(clients[1], json={"email": email, "password": "another of some length"})
    assert (other.status_code, other.json()["error"]) == (422, "IdempotencyKeyReused")
    assert told(await ask(http)) == told(first)
    psql(stage.cluster, "UPDATE idempotency_keys SET expires_at = clock_timestamp() WHERE answer IS NOT NULL")
    anew = await ask(http)
    assert not replayed(anew)
    assert anew.json()["access_token"] != first.json()["access_token"]
    assert told(await ask(clients[1])) == told(anew)


async def test_what_was_answered_under_the_previous_secret_is_answered_again(
    stage: Stage, clients: list[httpx.AsyncClient]
) -> None:
    ask, _ = await registers(stage, clients[0])
    first = await ask(clients[0])
    turned = {"SECRET": "the next secret of all the services of a test", "SECRET_PREVIOUS": SECRET}
    with (
        tempfile.TemporaryDirectory(prefix="regsvc ") as folder,
        on_database(Path(folder), stage.cluster.dsn, 1, **turned) as [next_one],
    ):
        async with client(next_one) as http:
            again = await ask(http)
            assert replayed(again)
            assert told(again) == told(first)


async def test_who_hangs_up_gets_the_answer_when_he_asks_again(stage: Stage, clients: list[httpx.AsyncClient]) -> None:
    ask, email = await registers(stage, clients[0])
    async with holding(stage.cluster, email), client(stage.services[0]) as gone:
        with trio.move_on_after(20) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, gone, name="who hangs up")
                await until_asked(lambda: waiting(stage, 1))
                nursery.cancel_scope.cancel(reason="it hangs up")
        assert not scope.cancelled_caught
    again = await ask.settled(lambda: ask(clients[1]))
    assert (again.status_code, replayed(again), stage.mails("activation", email)) == (201, True, 1)


# ------------------------------------------------------------------------------------------------ killed


@asynccontextmanager
async def holding(cluster: Cluster, email: str) -> AsyncIterator[Connection]:
    """Hold the lock of an address for the time of the block."""
    async with open_connection(cluster.dsn) as connection, connection.transaction():
        await connection.execute("INSERT INTO addresses (email_key) VALUES ($1)", email)
        yield connection


async def waiting(stage: Stage, number: int) -> bool:  # noqa: ASYNC124 - stories are async
    """Tell whether so many of the services' connections wait for a lock."""
    return stage.count("pg_stat_activity", "wait_event_type = 'Lock'") >= number


@pytest.fixture
def mortal(stage: Stage) -> Iterator[Service]:
    """A service that a test may kill."""
    with (
        tempfile.TemporaryDirectory(prefix="regsvc ") as folder,
        on_database(Path(folder), stage.cluster.dsn, 1, ROLES="http") as [one],
    ):
        yield one


async def asks_and_never_hears(ask: Asking, service: Service) -> None:
    async with client(service) as http:
        with pytest.raises(httpx.TransportError):
            await ask(http)


async def test_killed_before_the_commit_it_did_nothing_and_another_does_it(
    stage: Stage, clients: list[httpx.AsyncClient], mortal: Service
) -> None:
    ask, email = await registers(stage, clients[0])
    async with holding(stage.cluster, email), trio.open_nursery() as nursery:
        nursery.start_soon(asks_and_never_hears, ask, mortal, name="whose service dies")
        await until_asked(lambda: waiting(stage, 1))
        mortal.kill()
    early = await ask(clients[0])
    assert in_use(early)
    assert early.headers["Retry-After"] == "1"
    assert stage.mails("activation", email) == 0
    psql(stage.cluster, LAPSE)
    first = await ask(clients[0])
    assert (first.status_code, replayed(first)) == (201, False)
    assert told(await ask(clients[1])) == told(first)
    assert stage.mails("activation", email) == 1


AT_THE_COMMIT: Final = """
    CREATE OR REPLACE FUNCTION wait_at_the_commit() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NULL; END';
    CREATE CONSTRAINT TRIGGER wait_at_the_commit AFTER UPDATE ON idempotency_keys
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait_at_the_commit()"""


async def test_killed_in_the_commit_it_did_all_and_its_answer_is_there(
    stage: Stage, clients: list[httpx.AsyncClient], mortal: Service
) -> None:
    ask, email = await registers(stage, clients[0])
    psql(stage.cluster, AT_THE_COMMIT)
    try:
        async with open_connection(stage.cluster.dsn) as connection, trio.open_nursery() as nursery:
            await connection.execute("SELECT pg_advisory_lock(4711)")
            nursery.start_soon(asks_and_never_hears, ask, mortal, name="whose service dies")
            await until_asked(lambda: waiting(stage, 1))
            mortal.kill()
    finally:
        psql(stage.cluster, "DROP TRIGGER wait_at_the_commit ON idempotency_keys")
    first = await ask(clients[0])
    assert (first.status_code, replayed(first)) == (201, True)
    assert told(await ask(clients[1])) == told(first)
    assert stage.mails("activation", email) == 1
    assert stage.count("registrations", f"email = '{email}'") == 1


@dataclass
class Keyed:
    """A registration with a key, and every answer to it that was heard."""

    ask: Asking
    email: str
    heard: set[Told] = field(default_factory=set)

    async def hear(self, http: httpx.AsyncClient) -> None:
        """Ask until it is answered."""
        self.heard.add(told(await self.ask.settled(lambda: self.ask(http))))


async def somebody_who_asks_twice(stage: Stage, service: Service, sent: list[Keyed]) -> None:
    async with client(service) as http:
        while True:
            sent.append(Keyed(*await registers(stage, http)))
            mine = sent[-1]
            for _ in range(2):
                await mine.hear(http)


@pytest.mark.timeout(0)
async def test_killed_at_random_moments_each_key_has_one_effect_and_one_answer(
    stage: Stage, mortal: Service, rounds: int | None
) -> None:
    sent: list[Keyed] = []
    for round_ in range(rounds or 2):
        if round_:
            await trio.to_thread.run_sync(mortal.start)
        before = len(sent)
        async with trio.open_nursery() as nursery:
            for number in range(CLIENTS):
                nursery.start_soon(somebody_who_asks_twice, stage, mortal, sent, name=f"client {number}")
            await until(lambda before=before: len(sent) > before + CLIENTS)  # type: ignore[misc]
            await trio.sleep(random.uniform(0.01, 0.3))
            mortal.kill()
            nursery.cancel_scope.cancel(reason="the service was killed")
        psql(stage.cluster, LAPSE)
    unheard = sum(not one.heard for one in sent)
    async with client(stage.services[0]) as http:
        for one in sent:
            await one.hear(http)
    assert [one for one in sent if len(one.heard) > 1 or {heard[0] for heard in one.heard} != {201}] == []
    emails = ", ".join(f"'{one.email}'" for one in sent)
    assert stage.count("registrations", f"email IN ({emails})") == len(sent)
    theirs = f"subject_id IN (SELECT id FROM registrations WHERE email IN ({emails}))"  # noqa: S608 - ours
    assert stage.count("outbox", f"kind = 'mail' AND topic = 'activation' AND {theirs}") == len(sent)
    print(f"\n{rounds or 2} kills: {len(sent)} keys, {unheard} of them unheard")  # noqa: T201 - the figure to publish
