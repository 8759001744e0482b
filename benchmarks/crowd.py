"""A crowd that registers as fast as it is answered, closed loop, with health probes beside it; and the yardstick.

Clients do as the service asks: a 503 is tried again after its Retry-After.
"""

import statistics
import time
from dataclasses import dataclass, field
from secrets import token_hex

import bcrypt
import trio

from benchmarks.client import Client

ROUNDS = 12
PROBES = ("/livez", "/v1/health")
WARM_UP = 1.0  # seconds before the rate is counted: until the first hashes are done nothing can be
PROBE_EVERY = 0.1  # seconds; what asks more often is a load of its own


@dataclass
class Seen:
    """What the clients saw: seconds each."""

    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    other: list[tuple[int, float]] = field(default_factory=list)
    probes: dict[str, list[float]] = field(default_factory=lambda: {path: [] for path in PROBES})
    counted: int = 0  # accepted between the warm-up and the end


def t_bcrypt(times: int = 4, rounds: int = ROUNDS) -> float:
    """Return the median seconds of one hash of the bcrypt package, alone on a core."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        bcrypt.hashpw(b"a password of some length", bcrypt.gensalt(rounds))
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


async def _client(http: Client, name: str, since: float, until: float, seen: Seen) -> None:
    number = 0
    while trio.current_time() < until:
        number += 1
        form = {"email": f"{name}-{number}@example.test", "password": "a password of some length"}
        began = trio.current_time()
        answer = await http.ask("POST", "/v1/users/register", form)
        taken = trio.current_time() - began
        if answer.status == 201:
            seen.accepted.append(taken)
            seen.counted += since < trio.current_time() <= until
        elif answer.status == 503:
            seen.refused.append(taken)
            await trio.sleep(min(float(answer.headers["retry-after"]), max(0.0, until - trio.current_time())))
        else:
            seen.other.append((answer.status, taken))
    await http.close()


async def _probe(http: Client, path: str, until: float, seen: Seen) -> None:
    while trio.current_time() < until:
        began = trio.current_time()
        answer = await http.ask("GET", path)
        seen.probes[path].append(trio.current_time() - began)
        if answer.status != 200:
            seen.other.append((answer.status, trio.current_time() - began))
        await trio.sleep(PROBE_EVERY)
    await http.close()


async def load(port: int, clients: int, seconds: float, warm_up: float = WARM_UP) -> Seen:
    """Have so many clients register as fast as they are answered, and the probes asked beside them."""
    seen = Seen()
    since = trio.current_time() + warm_up
    until = since + seconds
    async with trio.open_nursery() as nursery:
        for number in range(clients):
            name = f"client-{token_hex(4)}-{number}"
            nursery.start_soon(_client, Client(port), name, since, until, seen, name=name)
        for path in PROBES:
            nursery.start_soon(_probe, Client(port), path, until, seen, name=f"probe {path}")
    return seen
