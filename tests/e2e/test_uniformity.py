"""Who may know what: addresses with an account, with a registration, with nothing, and disabled ones answer alike.

Hashes are at their cheapest in the small form, so that a gross difference does not hide in them, and in the large one
at the cheapest that production takes.
"""

import http.client
import random
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.e2e.alike import ALIKE, TRIES, Question, area, judge
from tests.e2e.people import Person, client, command, on_database
from tests.postgres import temporary_cluster
from tests.service import Service

ADDRESSES = 4  # of each kind
WRONG = "nobody has this password"
KINDS = ("account", "pending", "unknown", "disabled")
QUESTIONS = {
    "login": Question("/v1/auth/login", {"email": "EMAIL", "password": WRONG}),
    "forgot": Question("/v1/auth/forgot-password", {"email": "EMAIL"}),
    "send-code": Question("/v1/auth/send-code", {"email": "EMAIL"}),
    "resend": Question("/v1/users/resend-code", {}, WRONG),
    "activate": Question("/v1/users/activate", {"code": "0000"}, WRONG),
}

pytestmark = pytest.mark.timeout(180)  # whose accounts the first test makes: seconds, and many on a busy machine


@pytest.fixture(scope="module")
def service(rounds: int | None) -> Iterator[Service]:
    cost = "4" if rounds is None else "10"
    with (
        tempfile.TemporaryDirectory(prefix="regsvc ") as folder,
        temporary_cluster() as cluster,
        on_database(
            Path(folder), cluster.dsn, ENABLE_RATE_LIMITING="false", LOG_LEVEL="warning", PASSWORD_ROUNDS=cost
        ) as [one],
    ):
        yield one


@pytest.fixture(scope="module")
def addresses(service: Service) -> dict[str, list[str]]:
    """Return addresses of each kind, all of one length."""
    names = {kind: [f"{kind[:4]}-{n:04}@example.test" for n in range(ADDRESSES)] for kind in KINDS}

    async def make() -> None:
        async with client(service) as http:
            for kind, emails in names.items():
                for email in emails if kind != "unknown" else ():
                    person = Person(http, email)
                    await (person.register() if kind == "pending" else person.sign_up())

    trio.run(make)
    for email in names["disabled"]:
        command(service, "user", "disable", email)
    return names


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS.keys())
def test_the_bytes_are_the_same(service: Service, addresses: dict[str, list[str]], question: Question) -> None:
    line = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
    answers = {question.ask(line, addresses[kind][0]).alike() for kind in KINDS}
    line.close()
    assert len(answers) == 1


@pytest.mark.timeout(0)
@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS.keys())
def test_the_time_is_the_same(
    service: Service, addresses: dict[str, list[str]], question: Question, rounds: int | None
) -> None:
    tries, took = rounds or TRIES, {kind: list[float]() for kind in KINDS}
    line = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
    # Each kind comes as often after each: what one leaves to do, such as a mail, is done while the next is asked.
    for n in range(-10, tries * len(KINDS)):  # the first ones warm up
        kind = random.choice(KINDS)
        heard = question.ask(line, random.choice(addresses[kind]))
        if n >= 0:
            took[kind].append(heard.seconds)
    line.close()
    judge(question.path, took)


def test_the_measure_finds_a_difference_that_is_there() -> None:
    noise = partial(random.Random(7).gauss, 1.0, 0.1)
    same, slower = [noise() for _ in range(2000)], [noise() + 0.02 for _ in range(2000)]
    assert abs(area(same, [noise() for _ in range(2000)]) - 0.5) < ALIKE
    assert area(slower, same) > 0.5 + ALIKE
