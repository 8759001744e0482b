"""Secrets of a whole life on a real service that says all it can, and breaks: they are nowhere afterwards.

Codes have ten digits here, so that they can be searched for. Everything that clients were refused with, what operators
and administrators are shown, the logs of all processes and every row are searched, for every secret, in every form.
"""

import os
import re
import resource
import secrets
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from regsvc.http.cookies import NAME as COOKIE
from regsvc.http.routes import EVENTS, Route
from regsvc.http.table import routes
from regsvc.store.embedded import Cluster
from tests.canaries import KNOWN, assert_none
from tests.e2e.people import Person, client, eventually, new_email, on_database
from tests.e2e.provoking import basic
from tests.postgres import psql, temporary_cluster
from tests.service import Service
from tests.smtp_sink import Received, Sink, open_sink
from tests.waiting import until

CODE = re.compile(r"(?m)^\d{10}\r?$")
TOKEN = re.compile(r"#(?:token=)?([\w-]{43})\s*$", re.MULTILINE)
# Whatever their status:
SHOWN = ("/v1/admin/", "/v1/health", "/v1/metrics", "/metrics", "/readyz", "/v1/users/registration", "/v1/sessions")
CARRIED = "SELECT count(*) FROM outbox WHERE state = 'ready' AND not_before < clock_timestamp()"
TABLES = "SELECT format('%I', tablename) FROM pg_tables WHERE schemaname = 'public'"
BROKEN = ("users", "registrations", "addresses", "codes", "sessions", "events")
RELAY = {"MAIL_CHANNEL": "smtp", "SMTP_HOST": "127.0.0.1", "SMTP_USERNAME": "regsvc", "SMTP_TLS": "none"}


def canary() -> str:
    """Return a secret that was never anywhere."""
    text = f"c4nary {secrets.token_urlsafe(24)}"
    KNOWN.add("planted", text)
    return text


@dataclass
class Town:
    """A service, its database, its relay, and what clients of it heard that must not hold a secret."""

    service: Service
    cluster: Cluster
    sink: Sink
    admin: dict[str, str]
    heard: list[tuple[str, bytes]] = field(default_factory=list)

    async def hear(self, answer: httpx.Response) -> None:
        """Keep all of an answer that has no business with secrets; of the others, their headers."""
        head = [(name, value) for name, value in answer.headers.multi_items() if name.lower() != "set-cookie"]
        whole = answer.status_code >= 400 or answer.request.url.path.startswith(SHOWN)
        body = await answer.aread() if whole else b""
        where = f"{answer.status_code} of {answer.request.method} {answer.request.url.path}"
        self.heard.append((where, repr(head).encode() + b"\n" + body))

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        async with client(self.service, event_hooks={"response": [self.hear]}) as http:
            yield http

    async def mailed(self, email: str, pattern: re.Pattern[str], number: int = 1) -> str:
        """Wait for the `number`th letter to an address that has this; return its last group."""

        def found() -> list[str]:
            texts = [mail.text for mail in self.sink.mails if mail.to == (email,)]
            return [match[match.lastindex or 0].strip() for text in texts if (match := pattern.search(text))]

        await until(lambda: len(found()) >= number)
        return found()[number - 1]

    def sql(self, statement: str) -> str:
        return psql(self.cluster, statement)


def noted(mail: Received) -> None:
    """Note what a letter holds, as it comes."""
    for code in CODE.findall(mail.text):
        KNOWN.add_code(code.strip())
    for token in TOKEN.findall(mail.text):
        KNOWN.add("in a letter", token)


@pytest.fixture
def cores() -> Iterator[None]:
    """Let what is started from here leave cores, as machines do where people look for bugs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


@pytest.fixture
def town(cores: None) -> Iterator[Town]:
    told = {
        name: canary().replace(" ", "-") for name in ("SECRET", "ADMIN_TOKEN", "SMTP_PASSWORD", "DATABASE_PASSWORD")
    }
    with (
        tempfile.TemporaryDirectory(prefix="regsvc ") as folder,
        open_sink(told=noted, logins={"regsvc": told["SMTP_PASSWORD"]}) as sink,
        temporary_cluster() as cluster,
    ):
        dsn = cluster.dsn.replace("regsvc@", f"regsvc:{told.pop('DATABASE_PASSWORD')}@")
        knobs = {**RELAY, **told, "SMTP_PORT": str(sink.port), "MAIL_FROM": "no-reply@regsvc.test"}
        knobs |= {"CODE_LENGTH": "10", "VERIFY_CODE_LENGTH": "10", "REFRESH_GRACE": "0"}
        with on_database(Path(folder), dsn, 1, **knobs) as [service]:
            service.environ = {**service.environ, "PYTHONFAULTHANDLER": "1"}  # from its next start
            yield Town(service, cluster, sink, {"Authorization": f"Bearer {told['ADMIN_TOKEN']}"})


# ------------------------------------------------------------------------------------------------ what people do


async def ask(http: httpx.AsyncClient, what: str, body: object = None, **how: Any) -> int:
    """Ask; return the status."""
    method, path = what.split()
    if body is not None:
        how["json"] = body
    return (await http.request(method, path, **how)).status_code


async def signs_up(town: Town, http: httpx.AsyncClient) -> Person:
    """Register, be wrong in every way, activate, log in."""
    person = Person(http, new_email("canary"), canary())
    form = {"email": person.email, "password": person.password}
    key = {"Idempotency-Key": f'"{canary()}"'}
    for body, status in ((form, 201), (form, 201), ({**form, "password": canary()}, 422)):
        assert await ask(http, "POST /v1/users/register", body, headers=key) == status
    code = await town.mailed(person.email, CODE)
    shown = basic(person.email, person.password)
    assert await ask(http, "POST /v1/users/activate", {"code": code}, headers=basic(person.email, canary())) == 401
    for proof in ({"code": code[::-1]}, {"token": secrets.token_urlsafe(32)}):
        assert await ask(http, "POST /v1/users/activate", proof, headers=shown) in {200, 400}  # a palindrome, one day
    assert await ask(http, "GET /v1/users/registration", headers=shown) == 200
    assert await ask(http, "POST /v1/users/resend-code", headers=shown) == 202
    assert await ask(http, "POST /v1/auth/login", form) == 403
    code = await town.mailed(person.email, CODE, 2)
    for status in (200, 409):
        assert await ask(http, "POST /v1/users/activate", {"code": code}, headers=shown) == status
    await person.log_in()
    return person


async def uses_the_link(town: Town, http: httpx.AsyncClient) -> None:
    person = Person(http, new_email("canary"), canary())
    await person.register()
    token = await town.mailed(person.email, TOKEN)
    assert await ask(http, "POST /v1/users/activate", {"token": token}, headers=basic(person.email, canary())) == 401
    shown = basic(person.email, person.password)
    assert await ask(http, "POST /v1/users/activate", {"token": token}, headers=shown) == 200


async def needs_no_password(town: Town, http: httpx.AsyncClient) -> None:
    email = new_email("canary")
    await Person(http, email, canary()).register()
    await town.mailed(email, CODE)
    assert await ask(http, "POST /v1/auth/send-code", {"email": email}) == 202
    code = await town.mailed(email, CODE, 2)
    for shown, status in ((code[::-1], 400), (code, 200), (code, 400)):
        assert await ask(http, "POST /v1/auth/verify", {"email": email, "code": shown}) == status


async def recovers(town: Town, person: Person) -> None:
    """Forget the password, choose another and one more, change the address, refresh twice with one token."""
    http = person.http
    await ask(http, "POST /v1/auth/forgot-password", {"email": person.email})
    token = await town.mailed(person.email, re.compile(r"#token=([\w-]{43})"))
    person.password = canary()
    for shown, new, status in (
        (secrets.token_urlsafe(32), person.password, 400),
        (token, "short", 422),
        (token, person.password, 204),
        (token, canary(), 400),
    ):
        assert await ask(http, "POST /v1/auth/reset-password", {"token": shown, "new_password": new}) == status
    await person.log_in()
    old, person.password = person.password, canary()
    for current, status in ((canary(), 401), (old, 204)):
        body = {"current_password": current, "new_password": person.password}
        assert await ask(http, "POST /v1/users/me/password", body, headers=person.bearer) == status
    for password, status in ((canary(), 401), (person.password, 202)):
        body = {"new_email": (new := new_email("canary")), "password": password}
        assert await ask(http, "POST /v1/users/me/email", body, headers=person.bearer) == status
    code = await town.mailed(new, CODE)
    for shown, status in ((code[::-1], 400), (code, 200)):
        assert await ask(http, "POST /v1/users/me/email/confirm", {"code": shown}, headers=person.bearer) == status
    person.email = new
    spent = person.refresh
    person.keep((await person.again()).json())
    assert (await person.again(spent)).status_code == 401  # and the session is over
    await person.log_in()


# ------------------------------------------------------------------------------------------------ what they do wrong


def wrong_requests(route: Route) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield requests that hold secrets where they cannot be read, or where none belongs; in both dialects of errors."""
    text = canary()
    legacy = next((path for path in route.aliases if path.startswith("/api/v1")), route.path)
    targets = [re.sub(r"\{\w+\}", text.replace(" ", "-"), path) for path in (route.path, legacy)]
    names = ("email", "identifier", "username", "locale", "password", "new_password", "current_password", "new_email")
    said: tuple[dict[str, Any], ...] = (
        {"json": {"password": [text], "email": {"x": text}, "code": text, "token": text, "refresh_token": [text]}},
        {"json": dict.fromkeys((*names, "role", "code"), text)},
        {"json": text},
        {"content": f'{{"password": "{text}'.encode()},
        {"content": f'{{"password": "{text}", "password": "{text}"}}'.encode()},
        {"content": f'{{"password": "{text}"}}'.encode() + b"\xff"},
        {"data": {"password": text, "refresh_token": text}},
        {"params": {"access_token": text, "cursor": text, "limit": text, "wait": text, "state": text}},
    )
    shown: tuple[dict[str, str], ...] = (
        {"Authorization": f"Bearer {text}", "Cookie": f"{COOKIE}={text.replace(' ', '-')}"},
        {"Authorization": f"Bearer {text.replace(' ', '-')}", "Idempotency-Key": text},
        {"Authorization": f"Basic {text}", "Idempotency-Key": f'"{text}'},
        {"Authorization": f"{text}", "X-Request-ID": text, "traceparent": text},
        basic(new_email("canary"), text),
        basic("no address", text),
    )
    for number in range(max(len(said), len(shown))):
        how = {"headers": {"Content-Type": "application/json"}, **said[number % len(said)]}
        if "data" in how:
            del how["headers"]["Content-Type"]
        how["headers"] = {**how["headers"], **shown[number % len(shown)]}
        yield targets[number % 3 % 2], how


async def is_wrong_everywhere(http: httpx.AsyncClient) -> None:
    """Ask every route with what it cannot take."""
    for route in routes(development=True):
        if route.success.media_type == EVENTS:
            continue  # it is answered without end
        for target, how in wrong_requests(route):
            answer = await http.request(route.method, target, **how)
            assert answer.status_code < 500, (route.name, how, answer.text)
    for path in (f"/v1/{canary()}", f"/v1/users/me/{canary()}"):
        assert await ask(http, f"GET {path.replace(' ', '-')}") == 404


# ------------------------------------------------------------------------------------------------ what breaks


@contextmanager
def broken(town: Town, table: str, how: Callable[[str], tuple[str, str]]) -> Iterator[None]:
    begin, end = how(table)
    town.sql(begin)
    try:
        yield
    finally:
        town.sql(end)


def gone(table: str) -> tuple[str, str]:
    return f"ALTER TABLE {table} RENAME TO away", f"ALTER TABLE away RENAME TO {table}"


def refusing(table: str) -> tuple[str, str]:
    """As a check that fails, so that the database says the whole row in its error."""
    check = f"ALTER TABLE {table} ADD CONSTRAINT never CHECK (false) NOT VALID"
    return check, f"ALTER TABLE {table} DROP CONSTRAINT never"


async def meets_bugs(town: Town, person: Person) -> None:
    """Do all that a person does while the database is not what the service takes it for."""
    http, told = person.http, len(town.service.lines("http_bug"))
    for how in (gone, refusing):
        for table in BROKEN:
            with broken(town, table, how):
                shown = basic(person.email, person.password)
                form = {"email": new_email("canary"), "password": canary()}
                await ask(http, "POST /v1/users/register", form, headers={"Idempotency-Key": f'"{canary()}"'})
                await ask(http, "POST /v1/users/activate", {"code": "0123456789"}, headers=shown)
                await ask(http, "POST /v1/auth/login", {"email": person.email, "password": person.password})
                await ask(http, "POST /v1/auth/refresh", {"refresh_token": person.refresh})
                body = {"current_password": person.password, "new_password": person.password}  # it may work
                await ask(http, "POST /v1/users/me/password", body, headers=person.bearer)
                body = {"token": secrets.token_urlsafe(32), "new_password": canary()}
                await ask(http, "POST /v1/auth/reset-password", body)
    await until(lambda: len(town.service.lines("http_bug")) >= told + 2 * len(BROKEN))
    assert all(line["traceback"] for line in town.service.lines("http_bug"))


async def meets_a_relay_that_repeats_all_it_hears(town: Town, http: httpx.AsyncClient) -> None:
    for says, event in (("554 5.6.0 we do not take this:", "mail_dead"), ("451 4.3.0 later perhaps:", "mail_deferred")):
        person = Person(http, new_email("canary"), canary())
        town.sink.echoes[person.email] = says
        await person.register()
        await town.mailed(person.email, CODE)
        await until(partial(town.service.lines, event))


async def is_killed(town: Town) -> None:
    """Kill it while it works, once so that it leaves a trace; it comes back each time."""
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        for _ in range(8):
            person = Person(await stack.enter_async_context(town.client()), new_email("canary"), canary())
            nursery.start_soon(_registers, person, name=f"registers {person.email}")
        already = len(town.service.lines("registration_created"))
        await until(lambda: len(town.service.lines("registration_created")) > already)
        town.service.kill()
    await trio.to_thread.run_sync(town.service.start)
    pid = town.service.lines("worker_started")[-1]["pid"]
    assert isinstance(pid, int)
    assert resource.prlimit(pid, resource.RLIMIT_CORE)[0] == 0, "a core holds all that it knew"
    os.kill(pid, signal.SIGABRT)
    await until(lambda: "Fatal Python error: Aborted" in town.service.said())
    async with town.client() as http:
        await eventually(lambda: http.get("/readyz"), 200)


async def _registers(person: Person) -> None:
    try:
        await person.register()
    except httpx.TransportError:
        return  # it was killed meanwhile


async def is_administered(town: Town, person: Person) -> None:
    http = person.http
    await http.patch(f"/v1/admin/users/{person.id}", json={"role": canary()}, headers=town.admin)
    for path in ("users?state=pending", "users", "mails", "mails?state=dead", "events", "limits", f"users/{person.id}"):
        assert await ask(http, f"GET /v1/admin/{path}", headers=town.admin) == 200
    dead = (await http.get("/v1/admin/mails?state=dead", headers=town.admin)).json()["mails"]
    assert dead
    assert await ask(http, f"POST /v1/admin/mails/{dead[0]['id']}/discard", headers=town.admin) == 204
    for path in ("/v1/health", "/readyz", "/v1/sessions", "/metrics", "/v1/metrics"):
        assert await ask(http, f"GET {path}", headers=person.bearer) == 200


# ------------------------------------------------------------------------------------------------ and then


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_no_secret_is_anywhere_afterwards(town: Town) -> None:
    async with town.client() as http:
        person = await signs_up(town, http)
        await uses_the_link(town, http)
        await needs_no_password(town, http)
        await recovers(town, person)
        await is_wrong_everywhere(http)
        await meets_bugs(town, person)
        await meets_a_relay_that_repeats_all_it_hears(town, http)
    await is_killed(town)
    async with town.client() as http:
        person.http = http
        await person.log_in()
        await is_administered(town, person)
        assert await ask(http, "DELETE /v1/users/me", {"password": canary()}, headers=person.bearer) == 401
    await until(lambda: town.sql(CARRIED) == "0")
    for where, what in town.heard:
        assert_none(what, where)
    for table in town.sql(TABLES).split():
        assert_none(town.sql(f"SELECT t::text FROM {table} AS t").encode(), f"table {table}")  # noqa: S608 - its name
    assert_none(town.cluster.log.read_bytes(), "PostgreSQL's log")
    town.service.look()
    assert "@example.test" not in town.service.said(), "an address is logged as its keyed hash"
    assert {len(code) for code in KNOWN.codes} == {10}
    assert {"planted", "in a letter", "access_token", "refresh_token", "code"} <= {
        one.kind for one in KNOWN.all.values()
    }

    # And would it have been seen? What the service said, with one more line.
    with town.service.log.open("a") as log:
        log.write(f'{{"event": "planted", "reason": "tried {person.password!r}"}}\n')
    with pytest.raises(AssertionError, match=r"1 secrets in .*stdout.log"):
        town.service.end()
    town.service.log.write_text("")
