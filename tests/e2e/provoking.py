"""What brings each success and each problem of the contract about, on a real service.

A provocation is looked up by its kind and its route, else by its kind alone: those are the same for every route. It
returns the answers which have to be what it is for. `GOOD` stands for the kind of a success.
"""

import re
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from http.client import HTTPResponse
from typing import Any, Final
from uuid import uuid4

import httpx
import trio

from regsvc.http.routes import Auth, Route, Tag
from regsvc.store.embedded import Cluster
from tests.chaos.ledger import PASSWORD
from tests.e2e.people import ADMIN_TOKEN, METRICS_TOKEN, Person, answer_of, new_email, somebody
from tests.postgres import psql
from tests.service import Service

GOOD: Final = "success"
NAME: Final = "alice.of.the.stage"
WRONG: Final = "not this one at all"
MACHINE: Final = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
SCRAPER: Final = {"Authorization": f"Bearer {METRICS_TOKEN}"}
TOO_LARGE: Final = b'{"long": "' + b"x" * 16 * 1024 + b'"}'
CODES: Final = {"activate": "0428", "verify": "042813", "confirm_email": "042813"}


@dataclass(frozen=True)
class Stage:
    """Services that stand while scenes are played, and people whom the scenes leave as they are.

    `full` has the database of `here` and no room for a hash, `strict` hears a client once a minute, mails an
    address once an hour, and allows several claims to it. `stalled`: requests, by method and path, whose body has been
    on its way for ever.
    """

    here: Service
    full: Service
    strict: Service
    cluster: Cluster
    people: Mapping[str, Person]
    stalled: Mapping[tuple[str, str], socket.socket]


@dataclass(frozen=True)
class Scene:
    """The stage as one test sees it: `http` is a client of `here`, `full` and `strict` of those services."""

    stage: Stage
    http: httpx.AsyncClient
    full: httpx.AsyncClient
    strict: httpx.AsyncClient

    def known(self, name: str) -> Person:
        """Return alice, who has a username; bob, who has asked for no other address; root, who administers alone."""
        return replace(self.stage.people[name], http=self.http)

    def proof(self, route: Route) -> dict[str, str]:
        """Return the headers that let somebody in."""
        return proof(route, self.known("alice"))

    def sql(self, statement: str) -> str:
        """Change what no request can: let time pass, or a mail die."""
        return psql(self.stage.cluster, statement)


Answers = Sequence[httpx.Response]
Provocation = Callable[[Scene, Route], Awaitable[Answers]]
PROVOCATIONS: Final[dict[tuple[str, str | None], Provocation]] = {}


def brings(kind: str, *routes: str) -> Callable[[Provocation], Provocation]:
    """Note what brings `kind` about on these routes; on every one that has nothing of its own, if none is named."""

    def note(provocation: Provocation) -> Provocation:
        for route in routes or (None,):
            assert PROVOCATIONS.setdefault((kind, route), provocation) is provocation
        return provocation

    return note


def provocation(kind: str, route: Route) -> Provocation | None:
    """Return what brings `kind` about there, if it is known."""
    return PROVOCATIONS.get((kind, route.name)) or PROVOCATIONS.get((kind, None))


def proof(route: Route, who: Person) -> dict[str, str]:
    """Return the headers that let somebody in: a machine where administrators are asked for."""
    if route.auth is Auth.BASIC:
        return basic(who.email)
    if route.auth is Auth.METRICS:
        return SCRAPER
    if route.auth is not Auth.BEARER:
        return {}
    return MACHINE if route.tag is Tag.ADMINISTRATION else who.bearer


def basic(email: str, password: str = PASSWORD) -> dict[str, str]:
    """Return the header of HTTP Basic."""
    request = httpx.Request("GET", "http://nobody.test")
    return {"Authorization": next(httpx.BasicAuth(email, password).auth_flow(request)).headers["Authorization"]}


def form(route: Route, who: Person, **parts: object) -> dict[str, object] | None:
    """Return a body that the route takes, of somebody who is known; None where it takes none."""
    if route.body is None:
        return None
    said = dict(route.body_example or {})
    said |= {name: new_email() for name in said.keys() & {"email", "new_email"}}
    said |= dict.fromkeys(said.keys() & {"password", "current_password"}, PASSWORD)
    said |= dict.fromkeys(said.keys() & {"identifier"}, who.email)
    said |= {name: f"n{uuid4().hex[:20]}" for name in said.keys() & {"username"}}
    return said | ({"code": CODES[route.name]} if route.name in CODES else {}) | parts


async def ask(
    http: httpx.AsyncClient, route: Route, headers: Mapping[str, str], body: object = None, **how: Any
) -> httpx.Response:
    """Ask a route; an id in its path is `known`, or one that nobody has."""
    target = re.sub(r"\{\w+\}", how.pop("known", str(uuid4())), how.pop("path", route.path))
    if isinstance(body, bytes):
        how["content"], headers = body, {"Content-Type": "application/json", **headers}
    elif body is not None:
        how["json"] = body
    return await answer_of(http, route.method, target, headers=headers, **how)


async def everywhere(scene: Scene, route: Route, body: object, **headers: str) -> Answers:
    """Ask the route at all its paths, as somebody who is let in."""
    shown = scene.proof(route) | headers
    return [await ask(scene.http, route, shown, body, path=path) for path in route.paths]


# ------------------------------------------------------------------------------------------------ of every route


@brings(GOOD)
async def look(scene: Scene, route: Route) -> Answers:
    assert (route.method, route.body) == ("GET", None), "this one needs a provocation of its own"
    return [await ask(scene.http, route, scene.proof(route), path=path) for path in route.paths]


@brings("MalformedRequest")
async def not_readable(scene: Scene, route: Route) -> Answers:
    if route.keyed:
        keys = await everywhere(scene, route, None, **{"Idempotency-Key": '"no end'})
        return [*keys, *(await everywhere(scene, route, b'{"twice": 1, "twice": 2}') if route.body is not None else [])]
    if route.body is not None:
        return await everywhere(scene, route, b'{"twice": 1, "twice": 2}')
    texts = [one.name for one in route.parameters if one.place == "query" and one.free]
    return [await ask(scene.http, route, scene.proof(route), params={name: "\0"}) for name in texts]


@brings("IdempotencyKeyInUse")
async def at_the_same_time(scene: Scene, route: Route) -> Answers:
    key, (headers, body), nobody = a_key(), refused(scene, route), str(uuid4())
    await ask(scene.http, route, headers | key, body, known=nobody)
    return [await ask(scene.http, route, headers | key, body, path=path, known=nobody) for path in route.paths]


@brings("IdempotencyKeyReused")
async def something_else(scene: Scene, route: Route) -> Answers:
    key, (headers, body) = a_key(), refused(scene, route)
    await ask(scene.http, route, headers | key, body)
    return [await ask(scene.http, route, headers | key, b'{"other": 1}', path=path) for path in route.paths]


def a_key() -> dict[str, str]:
    """Return the header with a new key."""
    return {"Idempotency-Key": f'"{uuid4()}"'}


def refused(scene: Scene, route: Route) -> tuple[dict[str, str], object]:
    """Return headers and a body that are refused; on the stage the key of such a request stays (see KEYS_STAY)."""
    if route.body is None:
        return {"Authorization": "Bearer not-a-token"}, None
    return scene.proof(route), {"nobody_knows": True}


@brings("RequestTimeout")
async def stalling(scene: Scene, route: Route) -> Answers:
    begun = [(route.method, path) for path in route.paths]
    return [await trio.to_thread.run_sync(_read, one, scene.stage.stalled[one]) for one in begun]


def stall(service: Service, method: str, path: str) -> socket.socket:
    """Begin a request that never ends."""
    sock = socket.create_connection(("127.0.0.1", service.port), timeout=15)
    head = f"{method} {re.sub('{.*}', str(uuid4()), path)} HTTP/1.1\r\nHost: stalled.test\r\n"
    sock.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
    return sock


def _read(begun: tuple[str, str], sock: socket.socket) -> httpx.Response:
    with sock, HTTPResponse(sock) as answer:
        answer.begin()
        asked = httpx.Request(begun[0], f"http://stalled.test{begun[1]}")
        return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read(), request=asked)


@brings("PayloadTooLarge")
async def too_much(scene: Scene, route: Route) -> Answers:
    return await everywhere(scene, route, TOO_LARGE)


@brings("UnsupportedMediaType")
async def a_form(scene: Scene, route: Route) -> Answers:
    return await everywhere(scene, route, b"a=b", **{"Content-Type": "application/x-www-form-urlencoded"})


@brings("ValidationError")
async def what_nobody_knows(scene: Scene, route: Route) -> Answers:
    if route.body is not None:
        return await everywhere(scene, route, {"nobody_knows": True})
    name = {"standing": "wait", "staff_log_stream": "event"}.get(route.name, "limit")
    return [await ask(scene.http, route, scene.proof(route), params={name: wrong}) for wrong in ("-1", "x", "1001")]


@brings("InvalidEmail")
async def no_address(scene: Scene, route: Route) -> Answers:
    name = "new_email" if route.name == "propose_email" else "email"
    return await everywhere(scene, route, form(route, scene.known("alice"), **{name: "nobody at all"}))


@brings("WeakPassword")
async def too_short(scene: Scene, route: Route) -> Answers:
    name = "password" if route.name == "register" else "new_password"
    return await everywhere(scene, route, form(route, scene.known("alice"), **{name: "short"}))


@brings("InvalidCredentials")
async def wrong_password(scene: Scene, route: Route) -> Answers:
    alice = scene.known("alice")
    body = form(route, alice)
    if route.auth is Auth.BASIC:
        shown: tuple[dict[str, str], ...] = ({}, alice.bearer, basic(alice.email, WRONG), basic(new_email()))
        return [await ask(scene.http, route, headers, body) for headers in shown]
    name = "current_password" if route.name == "change_password" else "password"
    return await everywhere(scene, route, form(route, alice, **{name: WRONG}))


@brings("InvalidAccessToken")
async def no_token(scene: Scene, route: Route) -> Answers:
    shown: tuple[dict[str, str], ...] = ({}, basic(scene.known("alice").email), {"Authorization": "Bearer not-a-token"})
    return [await ask(scene.http, route, headers, form(route, scene.known("alice"))) for headers in shown]


@brings("Forbidden")
async def no_administrator(scene: Scene, route: Route) -> Answers:
    alice = scene.known("alice")
    return [await ask(scene.http, route, alice.bearer, form(route, alice), path=path) for path in route.paths]


@brings("NotFound")
async def nobodys(scene: Scene, route: Route) -> Answers:
    body = form(route, scene.known("alice"))
    return [await ask(scene.http, route, scene.proof(route), body, known=id_) for id_ in (str(uuid4()), "no-id")]


@brings("RateLimitExceeded")
async def once_more(scene: Scene, route: Route) -> Answers:
    """Ask as nobody: whoever asks too often hears so before anything of his request is looked at."""
    answers = [await ask(scene.strict, route, {}, path=path) for path in (route.path, *route.paths)]
    assert answers[0].status_code != 429
    return answers[1:]


@brings("Overloaded")
async def no_room(scene: Scene, route: Route) -> Answers:
    return [await ask(scene.full, route, scene.proof(route), form(route, scene.known("alice")))]


# ------------------------------------------------------------------------------------------------ administrators


@brings(GOOD, "staff_user", "staff_sessions")
async def sees_somebody(scene: Scene, route: Route) -> Answers:
    root, bob = scene.known("root"), scene.known("bob")
    return [await ask(scene.http, route, shown, known=bob.id) for shown in (root.bearer, MACHINE)]


@brings(GOOD, "staff_change_user", "staff_delete_user", "staff_end_sessions")
async def acts_on_somebody(scene: Scene, route: Route) -> Answers:
    bob = await somebody(scene.http)
    body = {"disabled": True} if route.body is not None else None
    answer = await ask(scene.http, route, scene.known("root").bearer, body, known=bob.id)
    assert (await bob.me()).status_code == 401
    return [answer]


@brings("LastAdmin", "staff_change_user")
async def keeps_one(scene: Scene, route: Route) -> Answers:
    root = scene.known("root")
    said = ({"role": "user"}, {"disabled": True})
    return [await ask(scene.http, route, root.bearer, one, known=root.id) for one in said]


@brings("LastAdmin", "staff_delete_user")
async def keeps_the_last(scene: Scene, route: Route) -> Answers:
    root = scene.known("root")
    return [await ask(scene.http, route, shown, known=root.id) for shown in (root.bearer, MACHINE)]


@brings(GOOD, "staff_retry_mail", "staff_discard_mail")
async def settles_a_dead_mail(scene: Scene, route: Route) -> Answers:
    dead = f"""
        INSERT INTO outbox (id, kind, topic, subject_id, state, not_before, not_after, created_at)
        SELECT gen_random_uuid(), 'mail', 'activation', '{scene.known("bob").id}', 'dead', now, now, now
        FROM clock_timestamp() AS now RETURNING id"""  # noqa: S608 - an id of ours
    bodies: tuple[object, ...] = (None, {})
    return [await ask(scene.http, route, MACHINE, body, known=scene.sql(dead)) for body in bodies]


# ------------------------------------------------------------------------------------------------ pages


@brings(GOOD, "problem", "asset")
async def reads_a_page(scene: Scene, route: Route) -> Answers:
    name = "not-found" if route.name == "problem" else "docs.js"
    return [await ask(scene.http, route, {}, known=name)]
