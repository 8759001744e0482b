"""Who may know what: addresses with an account, with a registration, with nothing, and disabled ones answer alike.

Alike is: the same bytes but for date and id, and the same time. The time is judged by the area under the curve of each
kind against the others (Mann-Whitney): 0.5 is a coin. Hashes are at their cheapest in the small form, so that a gross
difference does not hide in them, and in the large one at the cheapest that production takes.
"""

import base64
import http.client
import itertools
import json
import random
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.e2e.people import Person, client, command, on_database
from tests.postgres import temporary_cluster
from tests.service import Service

ADDRESSES = 4  # of each kind
ALIKE = 0.02  # how far from 0.5 a kind may be
SIGMAS = 3.5  # of chance, allowed beside it where there are few tries: there are 20 comparisons
TRIES = 125  # of each kind and question in the small form
ENOUGH = 5000  # with so many, chance alone is a fifth of ALIKE
UNLIKE_BY_NATURE = re.compile(rb'"instance":"[0-9a-f]+"')
WRONG = "nobody has this password"
KINDS = ("account", "pending", "unknown", "disabled")


@dataclass(frozen=True)
class Question:
    """A request about an address."""

    path: str
    body: Mapping[str, str]
    basic: bool = False

    def ask(self, line: http.client.HTTPConnection, email: str) -> tuple[float, int, dict[str, str], bytes]:
        """Ask it; return the seconds it took, status, headers and body."""
        body = json.dumps({name: value.replace("EMAIL", email) for name, value in self.body.items()})
        headers = {"Content-Type": "application/json"}
        if self.basic:
            headers["Authorization"] = "Basic " + base64.b64encode(f"{email}:{WRONG}".encode()).decode()
        began = time.perf_counter()
        line.request("POST", self.path, body, headers)
        answer = line.getresponse()
        found = answer.read()
        took = time.perf_counter() - began
        return took, answer.status, {k.lower(): v for k, v in answer.getheaders()}, found


QUESTIONS = {
    "login": Question("/v1/auth/login", {"email": "EMAIL", "password": WRONG}),
    "forgot": Question("/v1/auth/forgot-password", {"email": "EMAIL"}),
    "send-code": Question("/v1/auth/send-code", {"email": "EMAIL"}),
    "resend": Question("/v1/users/resend-code", {}, basic=True),
    "activate": Question("/v1/users/activate", {"code": "0000"}, basic=True),
}


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
    answers = set()
    for kind in KINDS:
        _, status, headers, body = question.ask(line, addresses[kind][0])
        own = {"date", "x-request-id", "traceparent"}
        head = tuple(sorted((name, value) for name, value in headers.items() if name not in own))
        answers.add((status, head, UNLIKE_BY_NATURE.sub(b"", body)))
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
        seconds, *_ = question.ask(line, random.choice(addresses[kind]))
        if n >= 0:
            took[kind].append(seconds)
    line.close()
    curves = {kind: area(took[kind], [s for other in KINDS if other != kind for s in took[other]]) for kind in KINDS}
    told = ", ".join(f"{kind} {curve:.3f}" for kind, curve in curves.items())
    print(f"\n{question.path}, {tries} tries a kind: {told}")  # noqa: T201 - it is the report
    chance = SIGMAS * deviation(tries, 3 * tries) if tries < ENOUGH else 0
    assert all(abs(curve - 0.5) <= ALIKE + chance for curve in curves.values()), curves


def area(ones: list[float], others: list[float]) -> float:
    """Return the probability that one of `ones` is slower than one of `others` (Mann-Whitney U ÷ n·m)."""
    ranked = sorted([(value, True) for value in ones] + [(value, False) for value in others])
    ranks, place = 0.0, 0
    for _, group in itertools.groupby(ranked, key=lambda pair: pair[0]):
        tied = list(group)
        ranks += sum(mine for _, mine in tied) * (place + (len(tied) + 1) / 2)
        place += len(tied)
    return (ranks - len(ones) * (len(ones) + 1) / 2) / (len(ones) * len(others))


def deviation(ones: int, others: int) -> float:
    """Return the standard deviation of the area where there is no difference."""
    return float(((ones + others + 1) / (12 * ones * others)) ** 0.5)


def test_the_measure_finds_a_difference_that_is_there() -> None:
    noise = partial(random.Random(7).gauss, 1.0, 0.1)
    same, slower = [noise() for _ in range(2000)], [noise() + 0.02 for _ in range(2000)]
    assert abs(area(same, [noise() for _ in range(2000)]) - 0.5) < ALIKE
    assert area(slower, same) > 0.5 + ALIKE
