"""Who shows an access token: read to the letter, refused alike, and asked before anything else is looked at."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from regsvc.domain.values import Secret
from regsvc.http.kinds import KINDS
from regsvc.http.metrics import nothing_counted
from regsvc.http.routes import Auth, Route
from regsvc.http.table import routes
from tests.http.doorstep import EMAIL, PASSWORD, Doorstep, basic

BASIC = 'Basic realm="regsvc", charset="UTF-8"'
PLAIN = 'Bearer realm="regsvc"'
SHOWN = f'{PLAIN}, error="invalid_token"'
ROUTES = routes(development=False)
PRIVATE = [route for route in ROUTES if route.auth is Auth.BEARER]


def at(route: Route, path: str | None = None) -> str:
    return (path or route.path).replace("{session_id}", "nonsense").replace("{user_id}", "x").replace("{mail_id}", "x")


@pytest.mark.parametrize("line", ["Bearer TOKEN", "bearer TOKEN", "BEARER   TOKEN", "Bearer TOKEN  "])
async def test_a_token_is_shown_so(door: Doorstep, line: str) -> None:
    door.member()
    token = (await door.login())["access_token"]
    answer = await door.ask("GET", "/v1/users/me", headers={"Authorization": line.replace("TOKEN", token)})
    assert answer.status == 200


@pytest.mark.parametrize(
    ("lines", "challenge"),
    [
        ([], PLAIN),
        ([basic(f"{EMAIL}:{PASSWORD}")], PLAIN),
        ([""], PLAIN),
        (["Digest x"], PLAIN),
        (["TOKEN"], PLAIN),
        (["Bearer"], SHOWN),
        (["Bearer "], SHOWN),
        (["Bearer x"], SHOWN),
        (["Bearer\tTOKEN"], PLAIN),
        (["Bearer TOKEN TOKEN"], SHOWN),
        (["Bearer TOKEN,TOKEN"], SHOWN),
        (['Bearer "TOKEN"'], SHOWN),
        (["Bearer TOKEN=x"], SHOWN),
        (["Bearer TOKENé"], SHOWN),
        (["Bearer " + "x" * 4097], SHOWN),
        (["Bearer TOKEN", "Bearer TOKEN"], SHOWN),
        (["Bearer TOKEN", "Basic x"], SHOWN),
    ],
)
async def test_a_token_is_not_shown_so(door: Doorstep, lines: list[str], challenge: str) -> None:
    door.member()
    token = (await door.login())["access_token"]
    pairs = [("Authorization", line.replace("TOKEN", token)) for line in lines]
    answer = await door.ask("GET", "/v1/users/me", headers=pairs)
    found = answer.problem(401, "InvalidAccessToken")
    assert found["hint"] == "Get a new one with POST /v1/auth/refresh, or log in."
    assert answer.headers.getlist("WWW-Authenticate") == [challenge]


async def test_a_token_is_good_for_so_long(door: Doorstep) -> None:
    door.member()
    token = (await door.login())["access_token"]
    door.shelf.now += timedelta(minutes=30)
    answer = await door.ask("GET", "/v1/users/me", bearer=token)
    answer.problem(401, "InvalidAccessToken")
    assert answer.headers["WWW-Authenticate"] == SHOWN


@pytest.mark.parametrize("route", PRIVATE, ids=lambda route: f"{route.method} {route.path}")
async def test_nobody_comes_in_without_one(door: Doorstep, route: Route) -> None:
    """Whatever else is sent, at each of its paths: neither the body nor the id in the path is looked at."""
    for path in route.paths:
        told = set()
        for raw in (b"", b"{nonsense", b"x" * 100):
            answer = await door.ask(
                route.method, at(route, path), raw=raw, bearer="x.y.z", headers={"X-Request-ID": "r"}
            )
            answer.problem(401, "InvalidAccessToken")
            assert answer.headers["WWW-Authenticate"] == SHOWN
            told.add(answer.body)
        assert len(told) == 1


ANY: dict[str, Any] = {
    "login": {"email": EMAIL, "password": "wrong horse"},
    "refresh": {"refresh_token": "x"},
    "activate": {"code": "0428"},
}


@pytest.mark.parametrize(
    "route",
    [route for route in ROUTES if any(kind.status == 401 for kind in route.problems)],
    ids=lambda route: f"{route.method} {route.path}",
)
async def test_only_routes_that_take_basic_ask_for_it(door: Doorstep, route: Route) -> None:
    door.knobs = replace(door.knobs, metrics=replace(nothing_counted(), token=Secret("what a scraper shows")))
    answer = await door.ask(route.method, at(route), ANY.get(route.name))
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == (BASIC if route.auth is Auth.BASIC else PLAIN)


def test_what_may_be_refused_is_written_in_the_table() -> None:
    for route in ROUTES:
        asked = route.auth in (Auth.BASIC, Auth.BEARER)
        expected = KINDS["InvalidAccessToken" if route.auth is Auth.BEARER else "InvalidCredentials"]
        assert not asked or expected in route.problems, route.name
