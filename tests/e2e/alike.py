"""What tells whether kinds of addresses are answered alike: the same bytes but for date and id, and the same time.

The time is judged by the area under the curve of each kind against the others (Mann-Whitney): 0.5 is a coin.
"""

import base64
import http.client
import itertools
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

ALIKE = 0.02  # how far from 0.5 a kind may be
SIGMAS = 3.5  # of chance, allowed beside it where there are few tries: there are 20 comparisons
TRIES = 125  # of each kind and question in the small form
ENOUGH = 5000  # with so many, chance alone is a fifth of ALIKE
UNLIKE_BY_NATURE = re.compile(rb'"instance":"[0-9a-f]+"')
COUNTED = frozenset(
    {"x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit"}
)  # they count down, whoever is asked for
OWN = frozenset({"date", "x-request-id", "traceparent"})  # headers that each answer has its own of


@dataclass(frozen=True)
class Heard:
    """An answer, and the seconds it took."""

    seconds: float
    status: int
    headers: Mapping[str, str]
    body: bytes

    def alike(self, email: str = "") -> tuple[object, ...]:
        """Return what has to be the same for all; `email` is what stands in it of the address."""
        told = {
            name: re.sub("[0-9]+", "#", value) if name in COUNTED else value for name, value in self.headers.items()
        }
        head = tuple(sorted((name, value) for name, value in told.items() if name not in OWN))
        body = UNLIKE_BY_NATURE.sub(b"", self.body)
        return self.status, head, body.replace(email.encode(), b"EMAIL") if email else body


@dataclass(frozen=True)
class Question:
    """A request about an address; `password` is shown as Basic."""

    path: str
    body: Mapping[str, str]
    password: str | None = None

    def ask(self, line: http.client.HTTPConnection, email: str) -> Heard:
        """Ask it."""
        body = json.dumps({name: value.replace("EMAIL", email) for name, value in self.body.items()})
        headers = {"Content-Type": "application/json"}
        if self.password is not None:
            headers["Authorization"] = "Basic " + base64.b64encode(f"{email}:{self.password}".encode()).decode()
        began = time.perf_counter()
        line.request("POST", self.path, body, headers)
        answer = line.getresponse()
        found = answer.read()
        took = time.perf_counter() - began
        return Heard(took, answer.status, {k.lower(): v for k, v in answer.getheaders()}, found)


def judge(what: str, took: Mapping[str, list[float]]) -> None:
    """Fail if the time tells one kind from the others; report each."""
    curves = {
        kind: area(mine, [s for other in took if other != kind for s in took[other]]) for kind, mine in took.items()
    }
    tries = min(len(mine) for mine in took.values())
    told = ", ".join(f"{kind} {curve:.3f}" for kind, curve in curves.items())
    print(f"\n{what}, {tries} tries a kind: {told}")  # noqa: T201 - it is the report
    chance = SIGMAS * deviation(tries, (len(took) - 1) * tries) if tries < ENOUGH else 0
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
