"""The link of an activation letter on a real service: what it needs, what it does, and what it does not."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trio

from regsvc.store.embedded import Cluster
from tests import letters
from tests.chaos.ledger import PASSWORD
from tests.e2e.people import Person, client, digits, link_for, mail_with, new_email, on_database
from tests.postgres import psql, temporary_cluster
from tests.service import Service

BASE = "http://accounts.example.test"
LIMITS = {
    "ENABLE_RATE_LIMITING": "true",
    "RATE_LIMIT_STORE": "memory",
    "RATE_LIMIT_ACTIVATION_PER_MINUTE": "1",
    "RATE_LIMIT_REGISTRATION_PER_HOUR": "1000",
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with temporary_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def service(cluster: Cluster) -> Iterator[Service]:
    with (
        tempfile.TemporaryDirectory(prefix="regsvc ") as folder,
        on_database(Path(folder), cluster.dsn, 1, **LIMITS) as [one],
    ):
        yield one


async def registered(http: httpx.AsyncClient) -> tuple[Person, str, str]:
    """Register; return who did, the code and the token that were mailed."""
    person = Person(http, new_email("linked"))
    made = await person.register()
    assert made.status_code == 201, made.text
    return person, await mail_with(http, person.email, digits(4)), await link_for(http, person.email)


async def show(person: Person, password: str = PASSWORD, **proof: str) -> httpx.Response:
    return await person.http.post("/v1/users/activate", json=proof, auth=(person.email, password))


def error(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


async def test_the_link_is_under_the_public_address_whatever_host_is_asked_and_no_server_learns_its_token(
    service: Service, cluster: Cluster
) -> None:
    evil = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"}
    async with client(service) as http:
        person = Person(http, new_email("linked"))
        form = {"email": person.email, "password": PASSWORD}
        assert (await http.post("/v1/users/register", json=form, headers=evil)).status_code == 201
        token = await link_for(http, person.email)
        [text] = await trio.to_thread.run_sync(letters.texts, service.url, person.email)
        assert f"{BASE}/activate#{token}" in text.splitlines()
        assert "evil" not in text
        opened = await http.get(f"/activate#{token}", headers={"User-Agent": "a scanner of mails"})
        assert (opened.status_code, opened.headers["referrer-policy"]) == (200, "no-referrer")
        assert token not in opened.text
        standing = await http.get("/v1/users/registration", auth=(person.email, PASSWORD))
        assert standing.status_code == 200, "opening it activated nothing"
        assert (await show(person, token=token)).status_code == 200
    assert token not in service.said()
    kept = psql(cluster, "SELECT string_agg(codes::text || outbox::text, ' ') FROM codes, outbox")
    assert token not in kept


async def test_a_token_needs_its_password_and_activates_once(service: Service) -> None:
    async with client(service) as http:
        person, code, token = await registered(http)
        assert error(await show(person, "another password", token=token)) == (401, "InvalidCredentials")
        other, _, others = await registered(http)
        assert error(await show(person, token=others)) == (400, "InvalidActivationCode")
        done = await show(person, token=token)
        assert (done.status_code, done.json()["is_activated"]) == (200, True)
        assert error(await show(person, token=token)) == (409, "UserAlreadyActivated")
        assert error(await show(person, code=code)) == (409, "UserAlreadyActivated")
        assert (await show(other, token=others)).status_code == 200
        assert (await person.try_login()).status_code == 200


async def test_neither_spent_tries_nor_the_limit_of_activations_stop_it_and_wrong_ones_spend_nothing(
    service: Service,
) -> None:
    async with client(service) as http:
        person, code, token = await registered(http)
        for _ in range(8):
            assert error(await show(person, token="A" * 43)) == (400, "InvalidActivationCode")
        missed = await show(person, code=f"{(int(code) + 1) % 10_000:04}")
        assert (missed.status_code, missed.json()["attempts_left"]) == (400, 4)
        assert error(await show(person, code=code)) == (429, "RateLimitExceeded")
        assert (await show(person, token=token)).status_code == 200


async def test_a_newer_mail_replaces_it(service: Service) -> None:
    async with client(service) as http:
        person, _, token = await registered(http)
        assert (await http.post("/v1/users/resend-code", auth=(person.email, PASSWORD))).status_code == 202
        newer = await link_for(http, person.email, 2)
        assert newer[:21] != token[:21]
        assert error(await show(person, token=token)) == (400, "InvalidActivationCode")
        assert (await show(person, token=newer)).status_code == 200


async def test_too_old_it_is_said_to_be(service: Service, cluster: Cluster) -> None:
    async with client(service) as http:
        person, _, token = await registered(http)
        psql(cluster, "UPDATE codes SET expires_at = minted_at WHERE purpose = 'link'")
        late = await show(person, token=token)
        assert error(late) == (410, "ActivationCodeExpired")
        assert "POST /v1/users/resend-code" in late.json()["hint"]
