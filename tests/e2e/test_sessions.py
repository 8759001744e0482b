"""Sessions on two real services that share a database: what one is told, the other knows."""

import re
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio

from tests.chaos.ledger import PLAIN
from tests.e2e.people import (
    ADMIN_TOKEN,
    TOKEN,
    Person,
    client,
    command,
    digits,
    mail_with,
    mails,
    new_email,
    on_database,
    somebody,
)
from tests.e2e.test_main_job import at_once
from tests.forgeries import forgeries
from tests.postgres import temporary_cluster
from tests.service import Service, lines_of
from tests.waiting import until, until_asked

GRACE = 4  # seconds in which a refresh token that was used gives the same answer again, here
REVOKED_WITHIN = 5.0  # seconds; one is promised, where nobody else uses the machine
NEW = "another password of some length"
MACHINE = {"Authorization": f"Bearer {ADMIN_TOKEN}"}


@pytest.fixture(scope="module")
def services() -> Iterator[list[Service]]:
    with (
        tempfile.TemporaryDirectory(prefix="regsvc ") as folder,
        temporary_cluster() as cluster,
        on_database(Path(folder), cluster.dsn, 2, REFRESH_GRACE=str(GRACE)) as both,
    ):
        yield both


@pytest.fixture
async def here(services: list[Service]) -> AsyncIterator[httpx.AsyncClient]:
    async with client(services[0]) as http:
        yield http


@pytest.fixture
async def there(services: list[Service]) -> AsyncIterator[httpx.AsyncClient]:
    async with client(services[1]) as http:
        yield http


async def test_log_in_here_and_be_known_there(here: httpx.AsyncClient, there: httpx.AsyncClient) -> None:
    alice = await Person(here, new_email("alice")).sign_up()
    answer = await alice.try_login("Mozilla/5.0 (X11; Linux x86_64) Firefox/130.0")
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["token_type"], told["expires_in"]) == ("Bearer", 1800)
    assert told["user"]["email"] == alice.email
    alice.keep(told)
    me = await alice.me(there)
    assert me.status_code == 200, me.text
    assert me.json() == told["user"]
    listed = (await there.get("/v1/sessions", headers=alice.bearer)).json()["sessions"]
    assert [(one["device"], one["current"]) for one in listed] == [("Firefox on Linux", True)]
    one = await there.get(f"/v1/sessions/{listed[0]['id']}", headers=alice.bearer)
    assert (one.status_code, one.json()) == (200, listed[0])
    fresh = await there.post("/v1/auth/refresh", json={"refresh_token": alice.refresh})
    assert fresh.status_code == 200, fresh.text
    assert fresh.json()["refresh_token"] != alice.refresh
    alice.keep(fresh.json())
    assert (await alice.me()).status_code == 200
    keys = (await there.get("/.well-known/jwks.json")).json()["keys"]
    assert [key["alg"] for key in keys] == ["EdDSA"]
    assert all("d" not in key for key in keys)
    assert (await here.post("/v1/auth/logout", headers=alice.bearer)).status_code == 204
    assert (await alice.me(there)).status_code == 401
    assert (await alice.again()).json()["error"] == "InvalidRefreshToken"


async def test_a_login_by_name_and_what_is_said_before_the_activation(here: httpx.AsyncClient) -> None:
    email, name = new_email("named"), f"named.{time.monotonic_ns() % 10**9}"
    form = {"email": email, "password": NEW, "username": name.upper()}
    assert (await here.post("/v1/users/register", json=form)).status_code == 201
    login = {"identifier": email, "password": NEW}
    early = await here.post("/v1/auth/login", json=login)
    assert (early.status_code, early.json()["error"]) == (403, "NotActivated")
    wrong = await here.post("/v1/auth/login", json={**login, "password": "not this one at all"})
    assert (wrong.status_code, wrong.json()["error"]) == (401, "InvalidCredentials")
    code = await mail_with(here, email, digits(4))
    assert (await here.post("/v1/users/activate", json={"code": code}, auth=(email, NEW))).status_code == 200
    for identifier in (email, name, name.upper()):
        answer = await here.post("/v1/auth/login", json={"identifier": identifier, "password": NEW})
        assert answer.status_code == 200, answer.text
        assert answer.json()["user"]["username"] == name.upper()


# -------------------------------------------------------------------------------------------------------- refreshing


@pytest.mark.timeout(0)
async def test_of_fifty_refreshes_at_once_all_get_one_successor(
    services: list[Service], here: httpx.AsyncClient, rounds: int | None
) -> None:
    limits = lines_of(25)
    async with (
        httpx.AsyncClient(base_url=services[0].url, timeout=30, limits=limits, verify=PLAIN) as one,
        httpx.AsyncClient(base_url=services[1].url, timeout=30, limits=limits, verify=PLAIN) as other,
    ):
        eve, shown = await somebody(here, "eve"), 0
        for _ in range(rounds or 3):
            await eve.log_in()
            form = {"refresh_token": eve.refresh}
            calls = [partial(http.post, "/v1/auth/refresh", json=form) for http in (one, other) for _ in range(25)]
            began = trio.current_time()
            answers = await at_once(calls)
            if trio.current_time() - began >= GRACE:  # on a machine that busy the grace was over for some of them
                continue
            shown += 1
            assert {answer.status_code for answer in answers} == {200}
            successors = {answer.json()["refresh_token"] for answer in answers}
            assert len(successors) == 1, "one successor, whoever asks"
            assert eve.refresh not in successors
        assert shown


async def test_a_retry_within_the_grace_works_and_a_replay_after_it_ends_the_session(
    services: list[Service], here: httpx.AsyncClient, there: httpx.AsyncClient
) -> None:
    bob = await somebody(here, "bob")
    first = await bob.again()
    retried = await there.post("/v1/auth/refresh", json={"refresh_token": bob.refresh})
    assert retried.json()["refresh_token"] == first.json()["refresh_token"]
    stolen, bob.access = bob.refresh, first.json()["access_token"]
    bob.refresh = first.json()["refresh_token"]
    bob.keep((await bob.again()).json())  # the successor was used: its parent is no lost answer any more
    replay = await there.post("/v1/auth/refresh", json={"refresh_token": stolen})
    assert (replay.status_code, replay.json()["error"]) == (401, "InvalidRefreshToken")
    assert (await bob.me()).status_code == 401, "the whole family is dead"
    assert (await bob.again()).status_code == 401
    await until(lambda: any(line["user_id"] == bob.id for line in services[1].lines("refresh_reuse_detected")))


async def test_a_replay_after_the_grace_ends_the_session_even_if_nothing_followed(here: httpx.AsyncClient) -> None:
    bob = await somebody(here, "bob")
    used, admitted = bob.refresh, (await bob.again()).json()
    bob.keep(admitted)
    await trio.sleep(GRACE + 0.2)  # what is shown is that time passes
    assert (await bob.again(used)).status_code == 401
    assert (await bob.me()).status_code == 401
    assert (await bob.again()).status_code == 401


# -------------------------------------------------------------------------------------------------------- revocation


async def _logout_all(bob: Person, _: Service) -> None:
    assert (await bob.http.post("/v1/auth/logout/all", headers=bob.bearer)).status_code == 204


async def _end_all(bob: Person, _: Service) -> None:
    assert (await bob.http.delete("/v1/sessions", headers=bob.bearer)).status_code == 204


async def _delete(bob: Person, _: Service) -> None:
    gone = await bob.http.request("DELETE", "/v1/users/me", json={"password": bob.password}, headers=bob.bearer)
    assert gone.status_code == 204, gone.text


async def _reset(bob: Person, _: Service) -> None:
    assert (await bob.http.post("/v1/auth/forgot-password", json={"email": bob.email})).status_code == 202
    token = await mail_with(bob.http, bob.email, TOKEN)
    form = {"token": token, "new_password": NEW}
    assert (await bob.http.post("/v1/auth/reset-password", json=form)).status_code == 204


async def _disable(bob: Person, _: Service) -> None:
    done = await bob.http.patch(f"/v1/admin/users/{bob.id}", json={"disabled": True}, headers=MACHINE)
    assert done.status_code == 200, done.text


async def _staff_ends(bob: Person, _: Service) -> None:
    done = await bob.http.delete(f"/v1/admin/users/{bob.id}/sessions", headers=MACHINE)
    assert done.status_code in {200, 204}, done.text


async def _disable_by_command(bob: Person, service: Service) -> None:
    await trio.to_thread.run_sync(partial(command, service, "user", "disable", bob.email))


ENDINGS = [_logout_all, _end_all, _delete, _reset, _disable, _staff_ends, _disable_by_command]


@pytest.mark.parametrize("act", ENDINGS, ids=lambda act: act.__name__.strip("_"))
async def test_what_ends_sessions_is_known_to_another_process_within_a_second(
    services: list[Service],
    here: httpx.AsyncClient,
    there: httpx.AsyncClient,
    act: Callable[[Person, Service], Awaitable[None]],
) -> None:
    bob = await somebody(here, "bob")
    second = await Person(here, bob.email).log_in("another device")
    assert (await bob.me(there)).status_code == (await second.me(there)).status_code == 200
    await act(bob, services[0])
    acted = trio.current_time()

    async def refused() -> bool:
        return {(await who.me(there)).status_code for who in (bob, second)} == {401}

    await until_asked(refused)
    assert trio.current_time() - acted < REVOKED_WITHIN
    for who in (bob, second):
        answer = await there.post("/v1/auth/refresh", json={"refresh_token": who.refresh})
        assert (answer.status_code, answer.json()["error"]) == (401, "InvalidRefreshToken")


async def test_a_changed_password_ends_the_other_sessions_and_keeps_this_one(
    here: httpx.AsyncClient, there: httpx.AsyncClient
) -> None:
    bob = await somebody(here, "bob")
    second = await Person(here, bob.email).log_in()
    form = {"current_password": bob.password, "new_password": NEW}
    assert (await here.post("/v1/users/me/password", json=form, headers=bob.bearer)).status_code == 204
    assert (await bob.me(there)).status_code == 200
    assert (await second.me(there)).status_code == 401
    assert (await bob.try_login()).status_code == 401
    assert (await Person(here, bob.email, NEW).try_login()).status_code == 200


# ---------------------------------------------------------------------------------------------------------- forgeries


async def test_no_forged_token_is_taken(here: httpx.AsyncClient) -> None:
    mallory = await somebody(here, "mallory")
    keys = (await here.get("/.well-known/jwks.json")).json()["keys"]
    forged = forgeries(mallory.access, keys)
    assert len(forged) >= 60
    for name, token in forged:
        for path in ("/v1/users/me", "/v1/sessions", "/v1/admin/users"):
            answer = await here.get(path, headers={b"Authorization": b"Bearer " + token.encode()})
            assert answer.status_code in {400, 401, 431}, f"{name}: {answer.status_code} {answer.text}"
    assert (await mallory.me()).status_code == 200


# ----------------------------------------------------------------------------------------------------------- pre-hijack


async def test_who_registers_the_address_of_another_has_nothing_of_it(here: httpx.AsyncClient) -> None:
    email = new_email("victim")
    attacker, victim = Person(here, email, "the attacker's own password"), Person(here, email, NEW)
    assert (await attacker.register()).status_code == 201
    stolen = await mail_with(here, email, digits(4))
    assert (await victim.register()).status_code == 409  # as long as the attacker's code lives
    assert (await here.post("/v1/auth/send-code", json={"email": email})).status_code == 202
    code = await mail_with(here, email, digits(6))
    proved = await here.post("/v1/auth/verify", json={"email": email, "code": code})
    assert proved.status_code == 200, proved.text
    victim.keep(proved.json())
    assert (await victim.me()).status_code == 200
    assert (await attacker.try_login()).json()["error"] == "InvalidCredentials"
    late = await here.post("/v1/users/activate", json={"code": stolen}, auth=(email, attacker.password))
    assert late.status_code == 401
    await here.post("/v1/auth/forgot-password", json={"email": email})
    token = await mail_with(here, email, TOKEN)
    form = {"token": token, "new_password": NEW}
    assert (await here.post("/v1/auth/reset-password", json=form)).status_code == 204
    assert (await victim.try_login()).status_code == 200
    assert (await attacker.try_login()).status_code == 401


# --------------------------------------------------------------------------------------------------- change of address


async def test_the_address_changes_when_the_new_one_is_proved_and_the_old_one_is_told(
    here: httpx.AsyncClient, there: httpx.AsyncClient
) -> None:
    bob, new = await somebody(here, "bob"), new_email("robert")
    form = {"new_email": new, "password": bob.password}
    asked = await here.post("/v1/users/me/email", json=form, headers=bob.bearer)
    assert asked.status_code == 202, asked.text
    code = await mail_with(here, new, digits(6))
    missed = f"{(int(code) + 1) % 10**6:06}"
    wrong = await here.post("/v1/users/me/email/confirm", json={"code": missed}, headers=bob.bearer)
    assert (wrong.status_code, wrong.json()["error"]) == (400, "InvalidCode")
    done = await here.post("/v1/users/me/email/confirm", json={"code": code}, headers=bob.bearer)
    assert (done.status_code, done.json()["email"]) == (200, new)
    assert (await bob.me(there)).json()["email"] == new

    async def told() -> bool:
        return len(await mails(here, bob.email)) >= 2  # the code of the registration, and this

    await until_asked(told)
    assert not re.search(digits(6), (await mails(here, bob.email))[0])
    assert (await Person(here, new).try_login()).status_code == 200
    assert (await bob.try_login()).status_code == 401
    assert (await Person(here, bob.email).register()).status_code == 201, "the old address is free again"
