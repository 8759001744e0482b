"""What docs/ shows works: the client against a real service, and the page of recipes as it is printed."""

import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from docs.client import Client, Problem
from regsvc.http.table import routes
from tests import recipes
from tests.cookbook import BOOK
from tests.letters import code_for
from tests.service import Service, free_port, running

PASSWORD = "a password of some length"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), **recipes.SETTINGS) as one:
        yield one


@pytest.fixture
def client(service: Service, request: pytest.FixtureRequest) -> Iterator[Client]:
    """Somebody new who is logged in."""
    email = f"{request.node.name}@example.test"
    with Client(service.url) as found:
        found.register(email, PASSWORD)
        found.activate(email, PASSWORD, code_for(service.url, email))
        assert found.login(email, PASSWORD)["email"] == email
        yield found


def test_changes_a_password(client: Client, service: Service) -> None:
    email = client.me()["email"]
    with Client(service.url) as elsewhere:
        elsewhere.login(email, PASSWORD)
        assert [session["current"] for session in elsewhere.sessions()] == [True, False]
        client.change_password(PASSWORD, "another of some length")
        assert [session["current"] for session in client.sessions()] == [True]
        with pytest.raises(Problem, match="refresh token") as ended:
            elsewhere.me()
        assert (ended.value.status, ended.value.error) == (401, "InvalidRefreshToken")
        elsewhere.login(email, "another of some length")


def test_gets_new_tokens_once_when_they_are_good_no_more(client: Client) -> None:
    bearer = client.bearer
    assert bearer is not None
    first = bearer.tokens["refresh_token"]
    bearer.tokens["access_token"] = "stale"
    user = client.me()
    assert bearer.tokens["refresh_token"] != first
    assert client.me() == user
    bearer.tokens |= {"access_token": "stale", "refresh_token": "stale"}
    with pytest.raises(Problem) as refused:
        client.me()
    assert (refused.value.error, refused.value.hint) == ("InvalidRefreshToken", "Log in again.")


def test_a_wrong_password_costs_no_refresh_token(client: Client) -> None:
    assert client.bearer is not None
    tokens = client.bearer.tokens
    with pytest.raises(Problem) as refused:
        client.change_password("not this one", "another of some length")
    assert (refused.value.status, refused.value.error) == (401, "InvalidCredentials")
    assert client.bearer.tokens is tokens


def test_logs_out(client: Client) -> None:
    bearer = client.bearer
    client.logout()
    assert client.bearer is None
    client.bearer = bearer
    with pytest.raises(Problem):
        client.me()


def test_reads_what_was_wrong(client: Client) -> None:
    with pytest.raises(Problem) as refused:
        client.register("nobody", "short")
    assert (refused.value.status, refused.value.error) == (422, "ValidationError")
    assert {fault["field"] for fault in refused.value.members["errors"]} == {"email", "password"}


class Lossy(httpx.HTTPTransport):
    """Carries requests to the service, and loses the first answer to each path, or what `instead` makes of it."""

    def __init__(self, instead: httpx.Response | None = None) -> None:
        super().__init__()
        self.instead, self.asked = instead, Counter[str]()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = super().handle_request(request)
        self.asked[request.url.path] += 1
        if self.asked[request.url.path] > 1:
            return answer
        answer.read()
        if self.instead is None:
            raise httpx.ReadError("the answer was lost", request=request)
        return self.instead


@pytest.mark.parametrize("instead", [None, httpx.Response(503, headers={"Retry-After": "0"})], ids=["lost", "busy"])
def test_does_once_what_is_sent_again(service: Service, instead: httpx.Response | None) -> None:
    email = f"again-{'lost' if instead is None else 'busy'}@example.test"
    lossy = Lossy(instead)
    with Client(service.url, lossy) as client:
        client.register(email, PASSWORD)  # which would be refused if it were another registration
        code = code_for(service.url, email)
        client.activate(email, PASSWORD, code)
        client.login(email, PASSWORD)
        assert [session["current"] for session in client.sessions()] == [True]
    assert set(lossy.asked.values()) == {2}


def test_gives_up_where_nobody_answers() -> None:
    with Client(f"http://127.0.0.1:{free_port()}") as client, pytest.raises(httpx.ConnectError):
        client.register("nobody@example.test", PASSWORD)


def test_the_recipes_answer_as_printed(service: Service) -> None:
    again = "\n".join(recipes.sections(BOOK, service))
    printed = re.split(r"(?m)^(?=##)", recipes.PAGE.read_text("utf-8"))
    assert [recipes.plain(part) for part in printed] == [
        recipes.plain(part) for part in re.split(r"(?m)^(?=##)", again)
    ]


def test_every_route_has_a_recipe() -> None:
    asked = {(recipe.method, recipe.path.partition("?")[0]) for chapter in BOOK.values() for recipe in chapter}
    for route in routes(development=False):
        pattern = re.compile(re.sub(r"\\\{\w+\\\}", r"[^/]+", re.escape(route.path)))
        assert any(method == route.method and pattern.fullmatch(path) for method, path in asked), route.name
