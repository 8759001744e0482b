"""The numbers over HTTP: for whom, in which form, and never waiting for anybody."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from regsvc import __version__, observe
from regsvc.domain.session import Role
from regsvc.domain.values import Secret
from regsvc.http import kinds
from regsvc.http.app import Knobs, describe
from regsvc.http.metrics import Metrics, labels_of, wants_plain
from regsvc.http.table import routes
from regsvc.observe import layout_of, open_log, read_figures
from regsvc.observe.shared import Shared
from tests.canaries import KNOWN
from tests.flows.fakes import Members
from tests.http.doorstep import URL, Doorstep
from tests.lines import Lines
from tests.observe.counted import openmetrics

TOKEN = "what-the-scraper-shows-and-nobody-else"
ADMIN = "what-a-machine-shows-to-administer"
PATHS = ("/metrics", "/v1/metrics", "/api/v1/metrics")
LAYOUT = layout_of(labels_of(routes(development=True)))


def guarded() -> Doorstep:
    """The app where the metrics have a token."""
    KNOWN.add("metrics token", TOKEN)
    knobs = Knobs(URL, admin_token=Secret(ADMIN))
    assert knobs.metrics is not None
    return Doorstep(knobs=replace(knobs, metrics=replace(knobs.metrics, token=Secret(TOKEN))))


@pytest.mark.parametrize("path", PATHS)
async def test_without_a_token_everybody_reads_them(door: Doorstep, path: str) -> None:
    assert (await door.ask("GET", path)).status == 200
    assert (await door.ask("GET", path, bearer="whatever")).status == 200
    assert door.pulse.asked == 0


@pytest.mark.parametrize("path", PATHS)
async def test_with_a_token_they_are_for_whoever_shows_it(path: str) -> None:
    door = guarded()
    assert (await door.ask("GET", path, bearer=TOKEN)).status == 200
    for wrong in (TOKEN[:-1], TOKEN + "x", "nobody's"):
        (await door.ask("GET", path, bearer=wrong)).problem(401, "InvalidAccessToken")
    answer = await door.ask("GET", path)
    answer.problem(401, "InvalidAccessToken")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="regsvc"'


async def test_administrators_read_the_json_too() -> None:
    door = guarded()
    door.member("root@example.com", role=Role.ADMIN)
    door.member("bob@example.com")
    root, bob = [(await door.login(email))["access_token"] for email in ("root@example.com", "bob@example.com")]
    for path in PATHS[1:]:
        for token in (root, ADMIN):
            assert (await door.ask("GET", path, bearer=token)).status == 200
        (await door.ask("GET", path, bearer=bob)).problem(403, "Forbidden")
    for token in (root, bob, ADMIN):
        (await door.ask("GET", "/metrics", bearer=token)).problem(401, "InvalidAccessToken")


async def test_a_stuck_database_is_not_waited_for(mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    door = guarded()
    door.member("root@example.com", role=Role.ADMIN)
    root = (await door.login("root@example.com"))["access_token"]

    async def stuck(*_: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(Members, "visit", stuck)
    door.pulse.silent = True
    mock_clock.autojump_threshold = 0
    answer = await door.ask("GET", "/v1/metrics", bearer=root)
    answer.problem(503, "ServiceUnavailable")
    assert (answer.headers["Retry-After"], trio.current_time() < 1) == ("1", True)
    assert (await door.ask("GET", "/v1/metrics", bearer=ADMIN)).status == 200


@pytest.mark.parametrize(
    ("accept", "plain"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", True),
        ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", True),
        ("text/html,application/xhtml+xml,*/*;q=0.8", True),
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", False),
    ],
)
async def test_the_text_is_the_one_that_is_taken(door: Doorstep, accept: str, *, plain: bool) -> None:
    assert wants_plain(accept) is plain
    answer = await door.ask("GET", "/metrics", headers=[("Accept", accept)] if accept else [])
    kind = answer.headers["Content-Type"]
    assert kind == (
        "text/plain; version=0.0.4; charset=utf-8"
        if plain
        else "application/openmetrics-text; version=1.0.0; charset=utf-8"
    )
    assert answer.body.endswith(b"# EOF\n") is not plain


async def test_where_nothing_is_counted_there_is_nothing_to_see() -> None:
    door = Doorstep(knobs=Knobs(URL, metrics=None))
    for path in PATHS:
        (await door.ask("GET", path)).problem(404, "NotFound")
    assert b'"/v1/metrics"' not in describe(door.knobs, mailbox=True)
    assert len(routes(development=True)) == len(routes(development=True, metrics=False)) + 2


async def test_what_is_asked_is_counted_by_route_and_by_refusal() -> None:
    shared, lines = Shared.create(1), Lines()
    knobs = Knobs(URL, metrics=Metrics(lambda: read_figures(LAYOUT, shared), None, "here"))
    with open_log(lines, fmt="json", slab=shared.slabs[0]):
        observe.start_counting(LAYOUT)
        door = Doorstep(knobs=knobs)
        await door.register()
        await door.register()
        for method, path in (("GET", "/livez"), ("HEAD", "/livez"), ("OPTIONS", "/livez"), ("GET", "/nowhere/at/all")):
            await door.ask(method, path)
        await door.ask("POST", "/api/v1/users/register", {"email": "x"})
        told = (await door.ask("GET", "/v1/metrics")).json
        text = (await door.ask("GET", "/metrics")).body.decode()
    assert told["request_counts"] == {"GET /livez": 3, "POST /v1/users/register": 3, "none": 1}
    assert told["status_counts"] == {"200": 2, "201": 1, "204": 1, "404": 1, "409": 1, "422": 1}
    assert told["refusals"] == {"registration_pending": 1, "not_found": 1, "validation_error": 1}
    assert told["business_metrics"]["registrations"] == 1
    assert (told["version"], told["instance"], told["uptime_s"], told["error_count"]) == (__version__, "here", 0.0, 0)
    assert told["latencies"].keys() == told["request_counts"].keys()
    found = {family.name: family for family in openmetrics(text)}
    counted = [(*sample.labels.values(), sample.value) for sample in found["regsvc_http_requests"].samples]
    assert sorted(counted) == [
        ("GET /livez", "2xx", 3),
        ("GET /v1/metrics", "2xx", 1),
        ("POST /v1/users/register", "2xx", 1),
        ("POST /v1/users/register", "4xx", 2),
        ("none", "4xx", 1),
    ]


def test_every_path_of_the_table_is_a_route_s() -> None:
    labels = labels_of(routes(development=True))
    asked: Mapping[tuple[str, str], str] = {one: route.name for route in labels.routes for one in route.asked}
    for route in routes(development=True):
        for path in route.paths:
            assert asked[route.method, path] == f"{route.method} {route.path}"
            assert ("OPTIONS", path) in asked
            assert route.method != "GET" or asked["HEAD", path] == f"GET {route.path}"
    assert len(asked) == sum(len(route.asked) for route in labels.routes)
    assert {kind.word for kind in kinds.KINDS.values()} <= set(labels.refusals)
    assert {route.room for route in labels.routes} <= set(LAYOUT.rooms)
