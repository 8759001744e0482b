"""What logging and metrics cost: their share of the processor time of a light request, `GET /v1/users/me`.

Two services on one database, as they come and with ENABLE_METRICS=false and LOG_LEVEL=error, take turns. The processor
seconds are those of the supervisor and its worker. So the share has: making and writing the line of each request (to a
file), keeping it for those who follow the log, counting and timing the request, and the gauges of each second. It has
not what both pay: the request's id and its context, the check whether a line would be said at all, what reads the log
afterwards, and what PostgreSQL or a client spend. The share is 1 - off ÷ on of the same round.
"""

import statistics
from typing import Any, Final

from benchmarks.figures import Found, Spread, progress, rotated
from benchmarks.light import side_by_side, turn

ROUNDS: Final = 6
SECONDS: Final = 2.0  # of each turn
WARM_UP: Final = 0.3
PATH: Final = "/v1/users/me"
ON, OFF = "on", "off"
SERVICES: Final = {
    ON: {"ENABLE_METRICS": "true", "LOG_LEVEL": "info"},
    OFF: {"ENABLE_METRICS": "false", "LOG_LEVEL": "error"},
}


def measure(*, quick: bool = False) -> dict[str, Any]:
    """Let both take turns; return microseconds of processor time a request, round by round."""
    rounds, seconds, warm_up = (1, 0.4, 0.1) if quick else (ROUNDS, SECONDS, WARM_UP)
    seen: dict[str, list[float]] = {name: [] for name in SERVICES}
    with side_by_side(SERVICES) as (servers, token):
        for number in range(rounds):
            progress(f"round {number + 1} of {rounds}")
            for name in rotated([*servers], number):
                seen[name].append(turn(servers[name], PATH, token, seconds, warm_up)[1]["cpu_us"])
    return seen


def found(numbers: dict[str, Any]) -> dict[str, Found]:
    """Return the row of the table."""
    pairs = zip(numbers[ON], numbers[OFF], strict=True)
    return {"telling.share": Found(Spread.of(100 * (1 - off / on) for on, off in pairs))}


def table(numbers: dict[str, Any]) -> str:
    """Return the medians as a Markdown table."""
    lines = ["| logging and metrics | CPU µs a request |", "|---|---:|"]
    return "\n".join([*lines, *(f"| {name} | {statistics.median(seen):.0f} |" for name, seen in numbers.items())])
