"""The table of docs/capacity.md: from what `python -m benchmarks.capacity` measured to machines, step by step.

`python -m benchmarks.plan` prints it. Every assumption is a name here; change one, and put the table between the marks.
"""

import math
from typing import Final

DAY: Final = 86_400.0  # seconds
# Measured (benchmarks/capacity.py), milliseconds of a core.
HASH: Final = 100.0  # bcrypt, 12 rounds, in lanes, where several wait
LIGHT: Final = 1.12
LOGIN: Final = 3.7  # beside its hash
LIGHT_IN_POSTGRES: Final = 0.28
LOGIN_IN_POSTGRES: Final = 1.4
REGISTRATION_IN_POSTGRES: Final = 6.0
# Measured, octets.
ACCOUNT: Final = 919
SESSION: Final = 720  # with its refresh token; the limits' rows go within a minute
# Assumed, of each account and day.
LOGINS: Final = 0.1
REQUESTS: Final = 2.0
NEWCOMERS: Final = 0.002
PEAK: Final = 4.0  # the busiest hour ÷ the mean
KEPT: Final = 37.0  # days that a session's row is there: 7 of its life, 30 after its end
BUSY: Final = 0.6  # of a core, at the peak
ROOM: Final = 1.5  # for rows that were changed, and the log of changes
CONNECTIONS: Final = 11  # of a worker
USERS: Final = (1, 1_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000)


def row(users: int) -> list[str]:
    """Reckon what so many accounts take, at the peak."""
    registrations, logins, requests = (users * each / DAY * PEAK for each in (NEWCOMERS, LOGINS, REQUESTS))
    hashing = (logins + 2 * registrations) * HASH / 1000  # once to register, once to activate
    serving = (requests * LIGHT + logins * LOGIN) / 1000
    cores = max(1, math.ceil((hashing + serving) / BUSY))
    asked = requests * LIGHT_IN_POSTGRES + logins * LOGIN_IN_POSTGRES + registrations * REGISTRATION_IN_POSTGRES
    octets = users * (ACCOUNT + LOGINS * KEPT * SESSION) * ROOM
    return [
        figure(users),
        figure(registrations),
        figure(logins),
        figure(requests),
        f"{cores:,}",
        f"{max(1, math.ceil(asked / 1000 / BUSY)):,}",
        f"{cores * CONNECTIONS:,}",
        sized(octets),
    ]


def figure(value: float) -> str:
    """Write a number with two figures that count."""
    if value >= 10:
        digits = max(0, math.floor(math.log10(value)) - 1)
        return f"{round(value / 10**digits) * 10**digits:,}"
    return f"{value:.2g}" if value >= 0.001 else "0"


def sized(octets: float) -> str:
    """Write so many octets."""
    for unit in ("kB", "MB", "GB"):
        octets /= 1000
        if octets < 1000:
            return f"{octets:.2g} {unit}" if octets < 10 else f"{round(octets, -1 if octets >= 100 else 0):.0f} {unit}"
    return f"{octets / 1000:.2g} TB"


def table() -> str:
    """Return the whole table, as Markdown."""
    heads = [
        "accounts",
        "registrations/s",
        "log-ins/s",
        "light requests/s",
        "cores of the service",
        "cores of PostgreSQL",
        "connections",
        "database",
    ]
    lines = [heads, ["---:"] * len(heads), *(row(users) for users in USERS)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    print(table(), end="")
