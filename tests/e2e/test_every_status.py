"""Every success and every problem that the route table names, brought about over HTTP on a real service.

A route or a problem that is added to the table without a provocation beside it fails here.
"""

import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import httpx
import pytest
import trio

from regsvc.http import kinds
from regsvc.http.kinds import Kind
from regsvc.http.problems import BASIC, LEGACY_PREFIX
from regsvc.http.routes import ANY, JSON, Auth, Route
from regsvc.http.table import routes
from tests.e2e import scenes  # noqa: F401 - it notes its provocations
from tests.e2e.people import METRICS_TOKEN, Person, client, on_database, somebody
from tests.e2e.provoking import GOOD, MACHINE, NAME, PROVOCATIONS, Scene, Stage, ask, form, proof, provocation, stall
from tests.limits import told
from tests.postgres import psql, temporary_cluster
from tests.service import Service
from tests.waiting import until_asked

TABLE = routes(development=False)
AWAY = kinds.SERVICE_UNAVAILABLE
LAST = kinds.REQUEST_TIMEOUT  # their requests stall while the others are asked
UNREAD = (LAST, kinds.PAYLOAD_TOO_LARGE)  # the server refuses them before they come to a route
FEW = {"CODE_ATTEMPTS": "2", "CODE_FAILURES_PER_DAY": "3", "RESENDS_PER_HOUR": "1", "RATE_LIMIT_STORE": "memory"}
FULL = {**FEW, "HASH_QUEUE": "0", "COOKIES": "true"}
NO_MORE = {"DUPLICATE_POLICY": "claims", "RESENDS_PER_HOUR": "0"}
STRICT = {**NO_MORE, "RATE_LIMIT_STORE": "memory", "RATE_LIMIT_GLOBAL_PER_MINUTE": "1"}

# As if whoever is at work on a request died before it could free its key: then the key is in use for a while.
KEYS_STAY = """
    CREATE FUNCTION stay() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER keys_stay BEFORE DELETE ON idempotency_keys FOR EACH ROW EXECUTE FUNCTION stay()"""

SUCCESSES = [(route, None) for route in TABLE]
PROBLEMS = [(route, kind) for route in TABLE for kind in route.problems if kind is not AWAY]
PAIRS: list[tuple[Route, Kind | None]] = [*SUCCESSES, *sorted(PROBLEMS, key=lambda pair: pair[1] is LAST)]
WITH_DATABASE = [route for route in TABLE if AWAY in route.problems]

HINTS = {
    ("activate", "ActivationCodeExpired"): "POST /v1/users/resend-code",
    ("activate", "TooManyAttempts"): "POST /v1/users/resend-code",
    ("verify", "ActivationCodeExpired"): "POST /v1/auth/send-code",
    ("verify", "TooManyAttempts"): "POST /v1/auth/send-code",
    ("confirm_email", "CodeExpired"): "POST /v1/users/me/email",
    ("confirm_email", "TooManyAttempts"): "POST /v1/users/me/email",
    ("reset_password", "InvalidResetToken"): "POST /v1/auth/forgot-password",
    ("refresh", "InvalidRefreshToken"): "Log in",
    ("login", "NotActivated"): "POST /v1/users/activate",
    ("register", "UserAlreadyExists"): "",
}


def named(value: object) -> str:
    """Return how a test is called by its route and its kind."""
    return value.name if isinstance(value, Route | Kind) else GOOD


# ------------------------------------------------------------------------------------------------ the stage


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="regsvc ")))
        cluster = stack.enter_context(temporary_cluster())
        [here] = stack.enter_context(on_database(folder / "here", cluster.dsn, 1, **FEW, METRICS_TOKEN=METRICS_TOKEN))
        slow = [(route.method, path) for route in TABLE if LAST in route.problems for path in route.paths]
        stalled = {one: stack.enter_context(stall(here, *one)) for one in slow}
        psql(cluster, KEYS_STAY)
        [full] = stack.enter_context(on_database(folder / "full", cluster.dsn, 1, **FULL))
        [strict] = stack.enter_context(on_database(folder / "strict", cluster.dsn, 1, **STRICT))
        yield Stage(here, full, strict, cluster, trio.run(_people, here), stalled)


async def _people(service: Service) -> dict[str, Person]:
    async with client(service) as http:
        people = {name: await somebody(http, name) for name in ("alice", "bob", "root")}
        alice, root = people["alice"], people["root"]
        done = [
            await http.patch("/v1/users/me", json={"username": NAME}, headers=alice.bearer),
            await http.patch(f"/v1/admin/users/{root.id}", json={"role": "admin"}, headers=MACHINE),
        ]
        assert [answer.status_code for answer in done] == [200, 200]
    return people


@pytest.fixture
async def scene(stage: Stage) -> AsyncIterator[Scene]:
    async with client(stage.here) as http, client(stage.full) as full, client(stage.strict) as strict:
        yield Scene(stage, http, full, strict)


@pytest.fixture(scope="module")
def widowed() -> Iterator[tuple[Service, Person]]:
    """A service whose database is gone, and somebody it had let in before."""
    with (
        tempfile.TemporaryDirectory(prefix="regsvc ") as folder,
        temporary_cluster() as cluster,
        on_database(Path(folder), cluster.dsn, DRAIN_SECONDS="1", METRICS_TOKEN=METRICS_TOKEN) as [service],
    ):
        person = trio.run(_somebody, service)
        os.kill(cluster.pid, signal.SIGINT)
        trio.run(_until_away, service)
        yield service, person


async def _somebody(service: Service) -> Person:
    async with client(service) as http:
        return await somebody(http)


async def _until_away(service: Service) -> None:
    async with client(service) as http:

        async def away() -> bool:
            return (await http.get("/readyz")).status_code == 503

        await until_asked(away)


# ------------------------------------------------------------------------------------------------ what is told


def assert_good(route: Route, answer: httpx.Response) -> None:
    """Check a success: its status, and that its body is what the table says."""
    assert answer.status_code == route.success.status, answer.text
    told = answer.headers.get("Content-Type", "").partition(";")[0]
    if route.success.status == 204:
        assert (answer.content, told) == (b"", "")
    else:
        assert route.success.media_type in (told, ANY)
    if route.success.model is not None:
        route.success.model.model_validate_json(answer.content)
    elif told == JSON:
        assert isinstance(answer.json(), dict)


def assert_problem(route: Route, kind: Kind, answer: httpx.Response) -> None:
    """Check a problem: its status and name, and every member and header that belong to it."""
    assert (answer.status_code, answer.headers["Content-Type"]) == (kind.status, "application/problem+json"), (
        answer.text
    )
    told = answer.json()
    assert told["error"] == kind.name, told
    assert (told["title"], told["status"]) == (kind.title, kind.status)
    assert told["type"].endswith(f"/problems/{kind.slug}")
    assert told["instance"] == answer.headers["X-Request-ID"]
    assert_detail(told, legacy=answer.request.url.path.startswith(LEGACY_PREFIX))
    assert ("WWW-Authenticate" in answer.headers) == (kind.status == 401)
    if kind.status == 401:
        assert (answer.headers["WWW-Authenticate"] == BASIC) == (route.auth is Auth.BASIC)
        assert answer.headers["WWW-Authenticate"].startswith(("Basic ", "Bearer "))
    fields = kind.status == 422 and kind is not kinds.IDEMPOTENCY_KEY_REUSED
    assert ("errors" in told) == (fields or told["message"] == "This username is taken.")
    assert all(fault.keys() == {"field", "message", "code"} for fault in told.get("errors", ()))
    assert_when(kind, answer)
    if kind.name == "InvalidCode" or (route.name, kind.name) == ("activate", "InvalidActivationCode"):
        assert told["attempts_left"] >= 0
    if (route.name, kind.name) in HINTS or kind is kinds.INVALID_ACCESS_TOKEN:
        assert HINTS.get((route.name, kind.name), "POST /v1/auth/refresh") in told["hint"]


def assert_detail(told: dict[str, object], *, legacy: bool) -> None:
    """Check that it is said in a sentence, and how `/api/v1` writes it."""
    message = told["message"]
    assert isinstance(message, str)
    assert message.endswith(".")
    if legacy:
        hint = {"hint": told["hint"]} if "hint" in told else {}
        assert told["detail"] == {"error": told["error"], "message": message, **hint}
    else:
        assert told["detail"] == message


def assert_when(kind: Kind, answer: httpx.Response) -> None:
    """Check when to come again, with what says so."""
    told = answer.json()
    if kind.status in {429, 503}:
        assert int(answer.headers["Retry-After"]) >= 1
    assert answer.headers.get("Retry-After") == (str(seconds) if (seconds := told.get("retry_after_seconds")) else None)
    assert ("resend_available_at" in told) == (kind is kinds.RESEND_TOO_SOON)
    if "resend_available_at" in told:
        assert datetime.fromisoformat(told["resend_available_at"]).tzinfo is not None


def assert_limits(route: Route, kind: Kind | None, answer: httpx.Response) -> None:
    """Check that the client is told where he stands, on every answer of a route with limits and no other."""
    found = told(answer.headers)
    assert (found is not None) == bool(route.limits)
    if found is not None:
        assert found.name in [limit.value for limit in route.limits]
    if kind is kinds.RATE_LIMIT_EXCEEDED and answer.json()["detail"] == kind.detail:
        assert found is not None
        assert (found.name, found.limit, found.remaining) == ("global", 1, 0)


# ------------------------------------------------------------------------------------------------ the tests


@pytest.mark.parametrize(("route", "kind"), PAIRS, ids=named)
async def test_what_the_table_names_comes_about(scene: Scene, route: Route, kind: Kind | None) -> None:
    provoke = provocation(named(kind), route)
    assert provoke is not None, f"nothing is known that brings {named(kind)} about on {route.name}"
    answers = await provoke(scene, route)
    assert answers
    for answer in answers:
        if kind not in UNREAD:
            assert_limits(route, kind, answer)
        if kind is None:
            assert_good(route, answer)
        else:
            assert_problem(route, kind, answer)


@pytest.mark.parametrize("route", WITH_DATABASE, ids=named)
async def test_without_its_database_it_says_when_to_come_again(widowed: tuple[Service, Person], route: Route) -> None:
    service, person = widowed
    async with client(service) as http:
        for path in route.paths:
            # A machine is let in without a database, and the limits, the log and the numbers are shown without one.
            alone = route.name in {"staff_limits", "staff_log_stream", "metrics_report"}
            shown = person.bearer if alone else proof(route, person)
            answer = await ask(http, route, shown, form(route, person), path=path)
            assert_problem(route, AWAY, answer)


def test_no_provocation_is_left_over() -> None:
    named_there = {(named(kind), route.name) for route, kind in PAIRS}
    assert {pair for pair in PROVOCATIONS if pair[1] is not None} <= named_there
    assert {kind for kind, route in PROVOCATIONS if route is None} <= {kind for kind, _ in named_there}


async def test_every_path_names_its_methods_to_who_comes_with_another(scene: Scene) -> None:
    table = routes(development=True)
    methods: dict[str, set[str]] = {}
    for route in table:
        for path in route.paths:
            methods.setdefault(path, {"OPTIONS"}).update({"GET": ("GET", "HEAD")}.get(route.method, (route.method,)))
    for route in table:
        for path in route.paths:
            method = next(one for one in ("PUT", "POST", "DELETE") if one not in methods[path])
            answer = await ask(scene.http, replace(route, method=method), {}, path=path)
            assert_problem(route, kinds.METHOD_NOT_ALLOWED, answer)
            assert answer.headers["Allow"] == ", ".join(sorted(methods[path]))
            nowhere = await ask(scene.http, route, {}, path=f"{path.rstrip('/')}/nowhere/at/all")
            assert_problem(route, kinds.NOT_FOUND, nowhere)
