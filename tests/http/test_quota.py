"""Limits as a client meets them: who is counted, what is refused, and what every answer says of how one stands."""

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from regsvc.domain.quota import Limit
from regsvc.domain.session import Role
from regsvc.http.caller import client_key
from regsvc.http.quota import LIMITED, PER
from regsvc.http.routes import Route
from regsvc.http.staff_models import StaffHashing
from regsvc.http.table import routes
from tests.flows.quota_fakes import FEW, FREE, SECOND, Buckets, limited
from tests.http.doorstep import EMAIL, PASSWORD, Answer, Doorstep
from tests.limits import Told, told
from tests.lines import Lines

REGISTER = {"email": EMAIL, "password": PASSWORD}
TABLE = routes(development=True)
FREE_ROUTES = [route for route in TABLE if route.tag not in LIMITED and not route.path.endswith("/events")]
WITH_PASSWORDS = [route for route in TABLE if Limit.PASSWORD in route.limits]


@pytest.fixture
def buckets() -> Buckets:
    return Buckets()


@pytest.fixture
def strict(buckets: Buckets) -> Doorstep:
    """The app with the limits that are the default."""
    return Doorstep(limits=limited(buckets))


def name(route: Route) -> str:
    return route.name


# ------------------------------------------------------------------------------------------------ what is told


async def test_every_answer_tells_the_tightest_policy_of_its_request(strict: Doorstep, buckets: Buckets) -> None:
    made = await strict.register()
    assert made.status == 201
    assert told(made.headers) == Told("registration", limit=5, window=3600, remaining=4, reset=720)
    assert made.headers["RateLimit-Policy"] == '"registration";q=5;w=3600'
    assert made.headers["RateLimit"] == '"registration";r=4;t=720'
    buckets.now += 720 * SECOND - 1
    again = await strict.ask("POST", "/api/v1/registration", REGISTER)
    again.problem(409, "UserAlreadyExists")
    assert told(again.headers) == Told("registration", 5, 3600, remaining=3, reset=int(again.headers["Retry-After"]))
    nobody = await strict.ask("GET", "/v1/users/me")
    nobody.problem(401, "InvalidAccessToken")
    assert told(nobody.headers) == Told("global", 1000, 60, remaining=999, reset=1)
    alice = await strict.ask("POST", "/v1/auth/login", REGISTER)
    assert told(alice.headers) == Told("login-account", 10, 60, remaining=9, reset=6)


async def test_one_too_many_is_a_problem_whose_seconds_agree_everywhere(
    strict: Doorstep, buckets: Buckets, log: Lines
) -> None:
    for _ in range(5):
        await strict.register()
    buckets.now += 1
    for path, body in (("/v1/users/register", b"{nonsense"), ("/api/v1/users/register", b"")):
        answer = await strict.ask("POST", path, raw=body)
        found = answer.problem(429, "RateLimitExceeded")
        assert found["retry_after_seconds"] == 720, "rounded up"
        assert answer.headers["Retry-After"] == "720"
        assert told(answer.headers) == Told("registration", 5, 3600, remaining=0, reset=720)
    assert log.of("http_request")[-1]["refusal"] == "rate_limited"
    assert not log.of("request_unreadable"), "nobody looked at it"


async def test_where_something_else_says_when_to_come_again_all_headers_say_that(strict: Doorstep) -> None:
    await strict.register()
    answer = await strict.ask("POST", "/v1/users/resend-code", who=f"{EMAIL}:{PASSWORD}")
    answer.problem(429, "ResendTooSoon")
    found = told(answer.headers)
    assert found is not None
    assert (found.name, found.remaining, found.reset) == ("password", 10, 30)


@pytest.mark.parametrize(("error", "status"), [(ZeroDivisionError, 500), (None, 413)])
async def test_a_request_that_fails_tells_it_too(strict: Doorstep, error: type[Exception] | None, status: int) -> None:
    if error is not None:
        strict.shelf.error, strict.shelf.fail_at = error, 1
    raw = b"x" * 20_000 if error is None else None
    answer = await strict.ask("POST", "/v1/users/register", None if raw else REGISTER, raw=raw)
    assert (answer.status, told(answer.headers)) == (status, Told("registration", 5, 3600, 4, 720))


@pytest.mark.parametrize("route", FREE_ROUTES, ids=name)
async def test_probes_pages_and_the_mailbox_are_never_limited(strict: Doorstep, buckets: Buckets, route: Route) -> None:
    assert not route.limits
    answer = await strict.ask(route.method, route.path)
    assert (told(answer.headers), buckets.trips) == (None, [])


@pytest.mark.parametrize(("method", "path"), [("OPTIONS", "/v1/users/me"), ("PUT", "/v1/sessions"), ("GET", "/no")])
async def test_what_comes_to_no_route_is_not_counted(
    strict: Doorstep, buckets: Buckets, method: str, path: str
) -> None:
    answer = await strict.ask(method, path)
    assert (told(answer.headers), buckets.trips) == (None, [])


async def test_all_paths_of_a_route_are_one(strict: Doorstep, buckets: Buckets) -> None:
    paths = ("/v1/users/register", "/api/v1/registration", "/users/register", "/v1/registration")
    answers = [await strict.ask("POST", path) for path in paths]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["4", "3", "2", "1"]
    assert len({tuple(trip) for trip in buckets.trips}) == 1


async def test_without_its_store_it_says_nothing_and_lets_everybody_pass(strict: Doorstep, buckets: Buckets) -> None:
    buckets.away = True
    answers = [await strict.ask("POST", "/v1/users/register", REGISTER) for _ in range(8)]
    assert [answer.status for answer in answers] == [201] + [409] * 7
    assert [told(answer.headers) for answer in answers] == [None] * 8


async def test_switched_off_there_is_nothing_to_tell() -> None:
    door = Doorstep(limits=limited(Buckets(), enabled=False))
    answers = [await door.ask("POST", "/v1/users/register") for _ in range(8)]
    assert {(answer.status, told(answer.headers)) for answer in answers} == {(400, None)}


# ------------------------------------------------------------------------------------------------ who is counted


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("no address", "no address"),
        (None, None),
    ],
)
def test_an_ipv6_client_is_its_64(address: str | None, key: str | None) -> None:
    assert client_key(address) == key


async def from_each(door: Doorstep, addresses: Sequence[str]) -> list[int]:
    """Ask to register as each of these; return what remained."""
    answers = [
        await door.ask("POST", "/v1/users/register", headers={"X-Forwarded-For": address}, peer="10.0.0.9")
        for address in addresses
    ]
    return [int(answer.headers["X-RateLimit-Remaining"]) for answer in answers]


async def test_what_an_untrusted_peer_says_of_itself_changes_nothing(strict: Doorstep) -> None:
    assert await from_each(strict, [f"203.0.113.{n}" for n in range(5)]) == [4, 3, 2, 1, 0]


async def test_what_a_trusted_proxy_says_is_who_is_counted(strict: Doorstep) -> None:
    net = ("2001:db8:0:1::1", "2001:db8:0:1:ffff::9", "2001:db8:0:2::1")
    strict.knobs = replace(strict.knobs, trusted_proxies=[ip_network("10.0.0.0/8")])
    assert await from_each(strict, ["203.0.113.1", "203.0.113.2", "203.0.113.1", *net]) == [4, 4, 3, 4, 3, 4]
    assert await from_each(strict, ["203.0.113.3, 203.0.113.1", "203.0.113.4, 203.0.113.1"]) == [2, 1]


# ------------------------------------------------------------------------------------------------ the table


def test_every_route_of_people_and_staff_is_limited_by_client() -> None:
    for route in TABLE:
        assert (Limit.GLOBAL in route.limits) == (route.tag in LIMITED), route.name
        assert len(set(route.limits)) == len(route.limits)
        assert bool(route.limits) == ("RateLimitExceeded" in [kind.name for kind in route.problems])
    found = {limit: {route.name for route in TABLE if limit in route.limits} for limit in Limit}
    assert found[Limit.REGISTRATION] == {"register"}
    assert found[Limit.LOGIN] == found[Limit.LOGIN_ACCOUNT] == {"login"}
    assert found[Limit.ACTIVATION] == {"activate"}
    assert found[Limit.PASSWORD] >= {"activate", "resend", "standing"}
    assert found[Limit.PASSWORD] >= {"remove_me", "change_password", "propose_email"}
    assert found[Limit.GUESSING] == set()


async def ask_with(door: Doorstep, route: Route, password: str) -> Answer:
    """Ask a route that wants a password, with this one."""
    if route.body_example is not None and "password" in " ".join(route.body_example):
        body: dict[str, Any] = dict(route.body_example)
        body[next(name for name in ("current_password", "password") if name in body)] = password
        bearer = (await door.login())["access_token"]
        return await door.ask(route.method, route.path, body, bearer=bearer)
    form = {"code": "0428"} if route.name == "activate" else None
    return await door.ask(route.method, route.path, form, who=f"{EMAIL}:{password}")


@pytest.mark.parametrize("route", WITH_PASSWORDS, ids=name)
async def test_where_the_table_says_so_wrong_passwords_are_few(route: Route) -> None:
    door = Doorstep(limits=limited(Buckets(), {**FREE, Limit.PASSWORD: FEW[Limit.PASSWORD]}))
    door.member()
    answers = [await ask_with(door, route, "wrong password") for _ in range(11)]
    for answer in answers[:10]:
        answer.problem(401, "InvalidCredentials")
    answers[10].problem(429, "RateLimitExceeded")
    assert told(answers[10].headers) == Told("password", 10, 60, remaining=0, reset=6)


# ------------------------------------------------------------------------------------------------ administrators


async def test_administrators_see_how_the_limits_stand(strict: Doorstep, buckets: Buckets) -> None:
    strict.knobs = replace(strict.knobs, hashing=lambda: StaffHashing(waiting=3, running=2))
    strict.member(role=Role.ADMIN)
    bearer = (await strict.login())["access_token"]
    for _ in range(7):
        await strict.ask("POST", "/v1/users/register")
    buckets.away = True
    await strict.ask("POST", "/v1/users/register")
    answer = await strict.ask("GET", "/v1/admin/limits", bearer=bearer)
    assert answer.status == 200
    found = answer.json
    assert (found["enabled"], found["store"], found["store_up"]) == (True, "memory", False)
    assert found["hashing"] == {"waiting": 3, "running": 2}
    assert [one["name"] for one in found["limits"]] == [limit.value for limit in Limit]
    by_name = {one["name"]: one for one in found["limits"]}
    assert by_name["registration"] == {
        "name": "registration",
        "limit": 5,
        "window_seconds": 3600,
        "per": "client",
        "routes": ["POST /v1/users/register"],
        "taken": 7,
        "refused": 2,
        "unseen": 1,
    }
    assert len(by_name["global"]["routes"]) > 30
    assert (by_name["global"]["taken"], by_name["global"]["unseen"]) == (8, 2)
    assert PER.keys() == set(Limit)
