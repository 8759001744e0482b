"""Registrations under the policy `uniform`: one answer and one time for all addresses, and a letter to an owner.

Every address is asked about once where time is measured, as somebody does who goes through a list: most of them are
made in the database, in numbers that the API would take too long for.
"""

import http.client
import quopri
import random
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from regsvc.store.embedded import Cluster
from tests.e2e.alike import TRIES, Heard, Question, judge
from tests.e2e.people import client, digits, mail_with, mails, on_database
from tests.postgres import psql, temporary_cluster
from tests.service import Service

KINDS = ("account", "pending", "expired", "unknown", "disabled")
SPARE = 40  # addresses of each kind for all that is not measured
MINE = "a stranger chose this one"
WHOLE = re.compile(r"(?s).+")
REGISTER = Question("/v1/users/register", {"email": "EMAIL", "password": MINE})
MADE = """
INSERT INTO users (id, email, email_key, password_hash, created_at, activated_at, updated_at, disabled_at)
SELECT gen_random_uuid(), made.email, made.email, '!', now(), now(), now(), made.disabled_at FROM (
    SELECT format('accou-%1$s@example.test', to_char(n, 'fm000000')) AS email, NULL::timestamptz AS disabled_at
    FROM generate_series(0, {0}) AS n
    UNION ALL
    SELECT format('disab-%1$s@example.test', to_char(n, 'fm000000')), now() FROM generate_series(0, {0}) AS n
) AS made;
INSERT INTO registrations (id, email, email_key, password_hash, created_at, live_until, expires_at)
SELECT gen_random_uuid(), made.email, made.email, '!', now() - interval '1 day', made.ends, made.ends FROM (
    SELECT format('pendi-%1$s@example.test', to_char(n, 'fm000000')) AS email, now() + interval '1 hour' AS ends
    FROM generate_series(0, {0}) AS n
    UNION ALL
    SELECT format('expir-%1$s@example.test', to_char(n, 'fm000000')), now() - interval '1 second'
    FROM generate_series(0, {0}) AS n
) AS made;
ANALYZE users, registrations;
"""

pytestmark = pytest.mark.timeout(180)  # whose accounts the first test makes: seconds, and many on a busy machine


@dataclass
class Town:
    """A service and its addresses; each is given out once."""

    service: Service
    cluster: Cluster
    given: dict[str, int]

    def one(self, kind: str) -> str:
        """Return an address of this kind that nobody was told of yet."""
        self.given[kind] += 1
        return f"{kind[:5]}-{self.given[kind]:06}@example.test"

    def line(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=10)


@pytest.fixture(scope="module")
def town(rounds: int | None) -> Iterator[Town]:
    cost = "4" if rounds is None else "10"
    with (
        tempfile.TemporaryDirectory(prefix="regsvc ") as folder,
        temporary_cluster() as cluster,
        on_database(
            Path(folder), cluster.dsn, DUPLICATE_POLICY="uniform", LOG_LEVEL="warning", PASSWORD_ROUNDS=cost,
            ENABLE_RATE_LIMITING="true", RATE_LIMIT_STORE="memory", RATE_LIMIT_REGISTRATION_PER_HOUR="1000000",
            RATE_LIMIT_GLOBAL_PER_MINUTE="1000000", RATE_LIMIT_LOGIN_PER_MINUTE="1000000",
            RATE_LIMIT_ACTIVATION_PER_MINUTE="1000000", CODE_TTL="600",
        ) as [one],
    ):  # fmt: skip
        psql(cluster, MADE.format((rounds or TRIES) * 2 + SPARE))
        yield Town(one, cluster, dict.fromkeys(KINDS, 0))


def asked(town: Town, question: Question, emails: dict[str, str]) -> dict[str, Heard]:
    line = town.line()
    heard = {kind: question.ask(line, email) for kind, email in emails.items()}
    line.close()
    return heard


def test_every_address_gets_the_same_bytes(town: Town) -> None:
    emails = {kind: town.one(kind) for kind in KINDS}
    for _ in range(7):  # the last ones find no room any more, which nobody is told either
        heard = asked(town, REGISTER, emails)
        assert {one.status for one in heard.values()} == {202}
        assert len({answer.alike(emails[kind]) for kind, answer in heard.items()}) == 1


def test_a_name_that_is_taken_and_a_password_that_is_weak_come_before_all_that(town: Town) -> None:
    named = "UPDATE users SET username = 'kim', username_key = 'kim' WHERE email = '{}'"
    psql(town.cluster, named.format(town.one("account")))
    emails = {kind: town.one(kind) for kind in KINDS}
    for body, status in (({"username": "Kim", "password": MINE}, 409), ({"password": "short"}, 422)):
        heard = asked(town, Question("/v1/users/register", {"email": "EMAIL", **body}), emails)
        assert {one.status for one in heard.values()} == {status}
        assert len({answer.alike(emails[kind]) for kind, answer in heard.items()}) == 1


async def test_whoever_registered_meets_the_same_at_every_door(town: Town) -> None:
    emails = {kind: town.one(kind) for kind in KINDS}
    asked(town, REGISTER, emails)
    async with client(town.service) as door:
        for email in emails.values():
            found = await door.get("/v1/users/registration", params={"wait": 10}, auth=(email, MINE))
            assert found.status_code == 200
            assert {name: type(value) for name, value in found.json().items()} == dict.fromkeys(found.json(), str)
            assert found.json()["mail"] == "sent"
    for question, status in (
        (Question("/v1/users/activate", {"code": "0000"}, MINE), 400),
        (Question("/v1/auth/login", {"email": "EMAIL", "password": MINE}), 401),
        (Question("/v1/users/resend-code", {}, MINE), 202),
        (Question("/v1/auth/verify", {"email": "EMAIL", "code": "000000"}), 400),
        (Question("/v1/auth/forgot-password", {"email": "EMAIL"}), 202),
    ):
        heard = asked(town, question, emails)
        assert {one.status for one in heard.values()} == {status}, question.path


async def test_an_owner_is_told_and_gets_nothing_to_show(town: Town) -> None:
    owners = [town.one("account"), town.one("disabled")]
    async with client(town.service) as door:
        for owner in owners:
            form = {"email": owner.upper(), "password": MINE, "username": "evil-name", "locale": "de"}
            headers = {"Host": "evil.example", "X-Forwarded-Host": "evil.example"}
            assert (await door.post("/v1/users/register", json=form, headers=headers)).status_code == 202
            text = quopri.decodestring(await mail_with(door, owner, WHOLE)).decode()
            assert "has an account there already" in " ".join(text.split()), (
                "in the owner's language, not in the stranger's"
            )
            assert not digits(4).search(text)
            assert "evil" not in text
            assert "http://accounts.example.test/" in text


async def test_nobody_is_mailed_more_than_a_few_times(town: Town) -> None:
    emails = {kind: town.one(kind) for kind in ("account", "unknown", "disabled")}
    for _ in range(30):
        asked(town, REGISTER, emails)
    async with client(town.service) as door:
        for kind, email in emails.items():
            await door.get("/v1/users/registration", params={"wait": 10}, auth=(email, MINE))
            assert 0 < len(await mails(door, email)) <= 6, kind


@pytest.mark.timeout(0)
def test_the_time_is_the_same(town: Town, rounds: int | None) -> None:
    tries, took = rounds or TRIES, {kind: list[float]() for kind in KINDS}
    line, kinds = town.line(), [*KINDS] * tries
    random.shuffle(kinds)
    for kind in random.sample(KINDS, 5) * 3:  # the first ones warm up
        REGISTER.ask(line, town.one(kind))
    for kind in kinds:
        heard = REGISTER.ask(line, town.one(kind))
        assert heard.status == 202
        took[kind].append(heard.seconds)
    line.close()
    judge(REGISTER.path, took)


@pytest.mark.timeout(0)
def test_a_code_that_is_shown_with_the_registration_s_password_takes_as_long(town: Town, rounds: int | None) -> None:
    tries, took = min(rounds or 50, TRIES), {kind: list[float]() for kind in ("account", "unknown", "disabled")}
    question = Question("/v1/users/activate", {"code": "0000"}, MINE)
    line, kinds = town.line(), [*took] * tries
    random.shuffle(kinds)
    for kind in kinds:
        email = town.one(kind)
        REGISTER.ask(line, email)
        took[kind].append(question.ask(line, email).seconds)
    line.close()
    judge(question.path, took)
