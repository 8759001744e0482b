"""Light requests a second and worker: `GET /v1/users/me` and `/livez`, ours beside FastAPI + uvicorn + asyncpg.

One database, one user, one access token; one worker each. They take turns, several rounds, each round beginning with
another one; a ratio is the median of the rounds' own ratios. The peer logs its requests by default, as ours does; it
verifies the token's signature at each request, as PyJWT does, where ours remembers tokens whose signature was right.
"""

import contextlib
import json
import statistics
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from benchmarks import beside
from benchmarks.beside import Server
from benchmarks.figures import Found, Spread, percentile, progress, ratios, rotated
from benchmarks.hammer import CONNECTIONS, Blow, hammer, request
from docs.client import Client
from tests.letters import code_for
from tests.postgres import temporary_cluster, temporary_folder
from tests.service import running

ROUNDS: Final = 4
SECONDS: Final = 2.0  # of each turn
WARM_UP: Final = 0.5
OURS: Final = "regsvc"
PEER: Final = "FastAPI + uvicorn + asyncpg"
SILENT: Final = f"{PEER}, --no-access-log"
PATHS: Final = ("/v1/users/me", "/livez")
PEERS: Final = {PEER: (), SILENT: ("--no-access-log",)}
EMAIL, PASSWORD = "ada@example.org", "analytical engine"


def access_token(url: str) -> str:
    """Make an account and log in, as a client does; the code is read in the mailbox."""
    with Client(url) as client:
        client.register(EMAIL, PASSWORD)
        client.activate(EMAIL, PASSWORD, code_for(url, EMAIL))
        client.login(EMAIL, PASSWORD)
        assert client.bearer is not None
        token: str = client.bearer.tokens["access_token"]
    return token


@contextlib.contextmanager
def side_by_side(
    ours: dict[str, dict[str, str]], peers: tuple[str, ...] = ()
) -> Iterator[tuple[dict[str, Server], str]]:
    """Run services on one database, each with its settings, and peers beside them; yield them and an access token.

    The first service makes the account. All have one secret, so that the token is good at each.
    """
    with contextlib.ExitStack() as open_:
        folder = open_.enter_context(temporary_folder("regsvc-bench-"))
        cluster = open_.enter_context(temporary_cluster())
        settings = {"DATABASE_URL": cluster.dsn, "PROFILE": "dev", "WORKERS": "1", "PASSWORD_ROUNDS": "4"}
        settings |= {"ENABLE_RATE_LIMITING": "false", "SECRET": "s" * 40, "LOG_LEVEL": "info"}  # one client asks all
        settings |= {"JWT_ISSUER": "http://bench.test"}
        servers, token, url = {}, "", ""
        for number, (name, more) in enumerate(ours.items()):
            service = open_.enter_context(running(Path(folder, str(number)), **settings | more))
            assert service.process is not None
            servers[name] = Server(service.port, service.process.pid)
            url, token = (service.url, access_token(service.url)) if not token else (url, token)
        told = {"PEER_DATABASE_URL": cluster.dsn, "PEER_JWKS_URL": f"{url}/.well-known/jwks.json"}
        told["PEER_ISSUER"] = settings["JWT_ISSUER"]
        for name in peers:
            servers[name] = open_.enter_context(beside.uvicorn("fastapi_me:app", *PEERS[name], **told))
        yield servers, token


def measure(*, quick: bool = False) -> dict[str, Any]:
    """Let all take turns; return what each turn saw, medians, and ours ÷ theirs."""
    rounds, seconds, warm_up = (1, 0.2, 0.1) if quick else (ROUNDS, SECONDS, WARM_UP)
    absent = beside.missing("fastapi", "uvicorn", "jwt")
    with side_by_side({OURS: {}}, () if absent else tuple(PEERS)) as (servers, token):
        turns = [(path, who) for path in PATHS for who in servers]
        runs: dict[tuple[str, str], list[dict[str, float]]] = {turn: [] for turn in turns}
        for number in range(rounds):
            progress(f"round {number + 1} of {rounds}: {', '.join(servers)}")
            for path in PATHS:
                said = set()
                for who in rotated([*servers], number):
                    seen, row = turn(servers[who], path, token, seconds, warm_up)
                    runs[path, who].append(row)
                    said.add(_same(seen.body))
                assert len(said) == 1, said
    return {"connections": CONNECTIONS, "seconds": seconds, "rounds": rounds, "absent": absent, "rows": _rows(runs)}


def turn(server: Server, path: str, token: str, seconds: float, warm_up: float) -> tuple[Blow, dict[str, float]]:
    """Ask one server for `seconds`; return what was seen and what it comes to."""
    asked = request(path, token=token)
    hammer(server.port, asked, warm_up)
    spent = server.cpu()
    seen = hammer(server.port, asked, seconds)
    spent = server.cpu() - spent
    return seen, {
        "rate": seen.rate,
        "p50_ms": 1e3 * percentile(seen.times, 0.5),
        "p99_ms": 1e3 * percentile(seen.times, 0.99),
        "cpu_us": 1e6 * spent / len(seen.times),
        "client_busy": seen.busy,
    }


def _same(body: bytes) -> str:
    """What is said, however it is written: the peer writes microseconds where we write milliseconds."""

    def plain(value: object) -> object:
        with contextlib.suppress(TypeError, ValueError):
            return datetime.fromisoformat(str(value)).isoformat(timespec="milliseconds")
        return value

    return json.dumps({name: plain(value) for name, value in json.loads(body).items()}, sort_keys=True)


def _rows(runs: dict[tuple[str, str], list[dict[str, float]]]) -> list[dict[str, Any]]:
    return [
        {
            "path": path,
            "who": who,
            **{name: statistics.median(turn[name] for turn in turns) for name in turns[0]},
            "rates": [turn["rate"] for turn in turns],
        }
        for (path, who), turns in runs.items()
    ]


def found(numbers: dict[str, Any]) -> dict[str, Found]:
    """Return the rows of the table."""
    rates = {(row["path"], row["who"]): row["rates"] for row in numbers["rows"]}
    rows = {}
    for key, path in (("light.me", "/v1/users/me"), ("light.livez", "/livez")):
        theirs = rates.get((path, PEER), [])
        peers = {PEER: Spread.of(theirs)} if theirs else {}
        rows[key] = Found(
            Spread.of(rates[path, OURS]), peers, ratios(rates[path, OURS], theirs), "" if theirs else numbers["absent"]
        )
    return rows


def table(numbers: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    how = f"{numbers['connections']} keep-alive connections of our own client (`benchmarks/hammer.py`)"
    names = ("request", "server", "requests/s (least–most)", "p50 ms", "p99 ms", "CPU µs each", "client busy")
    lines = [
        f"One worker, {how}, medians of {numbers['rounds']} rounds of {numbers['seconds']:g} s:",
        "",
        f"| {' | '.join(names)} |",
        "|---|---|" + "---:|" * (len(names) - 2),
    ]
    for row in numbers["rows"]:
        rate = f"{row['rate']:.0f} ({min(row['rates']):.0f}–{max(row['rates']):.0f})"
        times = f"{row['p50_ms']:.1f} | {row['p99_ms']:.1f} | {row['cpu_us']:.0f} | {row['client_busy']:.2f}"
        lines.append(f"| `{row['path']}` | {row['who']} | {rate} | {times} |")
    return "\n".join(lines)
