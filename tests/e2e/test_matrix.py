"""Every route as every kind of caller, on a real service: who may, who may not, and what those learn by it."""

import json
import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from regsvc.http.routes import Auth, Route, Tag
from regsvc.http.table import routes
from tests.e2e.people import ADMIN_TOKEN, Person, answer_of, client, command, new_email, on_database, somebody
from tests.postgres import temporary_cluster
from tests.service import Service

OWN = re.compile(r'"instance":"[^"]+"')  # differs by nature
PASSWORD = "a password for the administrator"
PROTECTED = [route for route in routes(development=False) if route.auth is Auth.BEARER]
STAFF = [route for route in PROTECTED if route.tag is Tag.ADMINISTRATION]
SESSION = [route for route in PROTECTED if "{session_id}" in route.path]
ALL_PATHS = [(route, path) for route in PROTECTED for path in route.paths]


def told(value: object) -> str:
    return f"{value.method} {value.path}" if isinstance(value, Route) else str(value)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with (
        tempfile.TemporaryDirectory(prefix="regsvc ") as folder,
        temporary_cluster() as cluster,
        on_database(Path(folder), cluster.dsn) as [one],
    ):
        command(one, "user", "create", "root@example.test", "--admin", "--password-stdin", given=PASSWORD)
        yield one


@pytest.fixture
async def http(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with client(service) as one:
        yield one


@pytest.fixture
async def bob(http: httpx.AsyncClient) -> Person:
    return await somebody(http, "bob")


@pytest.fixture
async def root(http: httpx.AsyncClient) -> Person:
    return await Person(http, "root@example.test", PASSWORD).log_in()


async def ask(
    http: httpx.AsyncClient, route: Route, headers: dict[str, str], known: UUID | None = None, path: str | None = None
) -> httpx.Response:
    """Ask a route with its example; its id is `known`, or one that nobody has."""
    target = re.sub(r"\{\w+\}", str(known or uuid4()), path or route.path)
    body = None if route.body is None else json.dumps(route.body_example or {}).encode()
    typed = {} if body is None else {"Content-Type": "application/json"}
    return await answer_of(http, route.method, target, content=body, headers=headers | typed)


def bare(answer: httpx.Response) -> tuple[int, str]:
    """What an answer tells, but for the id of its request."""
    return answer.status_code, OWN.sub("", answer.text)


def test_there_is_something_to_ask() -> None:
    assert len(PROTECTED) > 20
    assert len(STAFF) >= 10
    assert len(SESSION) == 2


@pytest.mark.parametrize(("route", "path"), ALL_PATHS, ids=told)
async def test_nobody_is_let_in_and_learns_nothing(http: httpx.AsyncClient, route: Route, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer not-a-token"}, {"Authorization": "Basic YTpi"}):
        answer = await ask(http, route, headers, path=path)
        assert (answer.status_code, answer.json()["error"]) == (401, "InvalidAccessToken")
        assert answer.headers["www-authenticate"].startswith('Bearer realm="regsvc"')


@pytest.mark.parametrize("route", STAFF, ids=told)
async def test_an_administrator_s_route_tells_others_only_that_it_is_one(
    http: httpx.AsyncClient, bob: Person, root: Person, route: Route
) -> None:
    answers = {bare(await ask(http, route, bob.bearer, known)) for known in (UUID(bob.id), UUID(root.id), None)}
    [(status, body)] = answers
    assert status == 403
    assert json.loads(body.replace(",,", ","))["error"] == "Forbidden"


@pytest.mark.parametrize("route", STAFF, ids=told)
async def test_administrators_and_machines_with_the_token_are_let_in(
    http: httpx.AsyncClient, root: Person, route: Route
) -> None:
    for headers in (root.bearer, {"Authorization": f"Bearer {ADMIN_TOKEN}"}):
        answer = await ask(http, route, headers)
        assert answer.status_code not in {401, 403}, answer.text
        assert answer.status_code < 500


async def test_a_machine_s_token_is_no_person(http: httpx.AsyncClient) -> None:
    for route in PROTECTED:
        if route.tag is not Tag.ADMINISTRATION:
            answer = await ask(http, route, {"Authorization": f"Bearer {ADMIN_TOKEN}"})
            assert answer.status_code == 401, told(route)


@pytest.mark.parametrize("route", SESSION, ids=told)
async def test_a_session_of_another_is_as_unknown_as_one_that_never_was(
    http: httpx.AsyncClient, bob: Person, route: Route
) -> None:
    alice = await somebody(http, "alice")
    [hers] = (await http.get("/v1/sessions", headers=alice.bearer)).json()["sessions"]
    answers = {bare(await ask(http, route, bob.bearer, known)) for known in (UUID(hers["id"]), None)}
    [(status, _)] = answers
    assert status == 404
    assert (await alice.me()).status_code == 200


async def test_what_somebody_was_is_not_what_he_is(http: httpx.AsyncClient, bob: Person, root: Person) -> None:
    async def status() -> int:
        return (await http.get("/v1/admin/users", headers=bob.bearer)).status_code

    async def change(**what: Any) -> None:
        done = await http.patch(f"/v1/admin/users/{bob.id}", json=what, headers=root.bearer)
        assert done.status_code == 200, done.text

    assert await status() == 403
    await change(role="admin")
    assert await status() == 200, "the same token: what counts is the account"
    await change(role="user")
    assert await status() == 403
    await change(role="admin")
    await change(disabled=True)
    assert await status() == 401
    await change(disabled=False)
    assert await status() == 401, "his session has ended"
    events = (await http.get("/v1/admin/events", params={"subject": bob.id}, headers=root.bearer)).json()["events"]
    assert [event["actor_id"] for event in events if event["name"].startswith("admin.")] == [root.id] * 5


async def test_nobody_takes_the_last_administrator_away(service: Service, http: httpx.AsyncClient) -> None:
    for line in command(service, "user", "list", "--state", "admin", "--json").splitlines():
        if json.loads(line)["email"] != "root@example.test":
            command(service, "user", "demote", json.loads(line)["id"])
    root = await Person(http, "root@example.test", PASSWORD).log_in()
    for what in ({"role": "user"}, {"disabled": True}):
        answer = await http.patch(f"/v1/admin/users/{root.id}", json=what, headers=root.bearer)
        assert (answer.status_code, answer.json()["error"]) == (409, "LastAdmin")
    gone = await http.request("DELETE", "/v1/users/me", json={"password": PASSWORD}, headers=root.bearer)
    assert (gone.status_code, gone.json()["error"]) == (409, "LastAdmin")
    command(service, "user", "delete", "--yes", "root@example.test", status=1)
    assert (await root.me()).status_code == 200
    assert (await Person(http, new_email()).try_login()).status_code == 401
