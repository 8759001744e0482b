"""A service whose own wall clock is wrong, and jumps: whether something is still good says the database's.

The clock is that of the service's processes alone: a library preloaded into them (clock_shim.c, compiled here) adds to
each reading what the test has written into a file. PostgreSQL keeps the machine's time.
"""

import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Final

import httpx
import pytest
import trio

from tests.chaos.invariants import hold
from tests.chaos.ledger import PASSWORD, PLAIN, Ledger, wait_carried
from tests.chaos.recording import Counted
from tests.postgres import psql, temporary_cluster
from tests.service import Service, lines_of
from tests.smtp_sink import Sink
from tests.waiting import until, until_more

CLIENTS = 4
JUMPS: Final = (timedelta(hours=1), timedelta(days=-1), timedelta(minutes=-2), timedelta(days=400))
CLOSE: Final = timedelta(seconds=30)  # by how much two readings of one clock may differ on a busy machine
EXPIRE: Final = (
    "UPDATE codes SET expires_at = clock_timestamp() WHERE subject_id = '{subject}' AND purpose = 'activate'"
)
Make = Callable[..., Service]
pytestmark = [
    pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object ByteStream:pytest.PytestWarning"),
]


@dataclass(frozen=True)
class Clock:
    """The wall clock of programs that run in `environ`."""

    offset: Path
    shim: Path

    @property
    def environ(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.shim), "CLOCK_OFFSET": str(self.offset)}

    def set(self, ahead: timedelta) -> None:
        """Have it go wrong by so much, from now on."""
        with self.offset.open("r+b") as file:
            file.write(struct.pack("=q", ahead // timedelta(microseconds=1) * 1000))


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler (cc) to make the clock with")
    made = Clock(tmp_path / "offset", tmp_path / "clock.so")
    source = Path(__file__).with_name("clock_shim.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", source, "-o", made.shim], check=True)
    made.offset.write_bytes(bytes(8))
    return made


async def told(http: httpx.AsyncClient) -> datetime:
    """What the service takes for the time."""
    return datetime.fromisoformat((await http.get("/v1/health")).json()["timestamp"])


@pytest.mark.timeout(180)
async def test_whether_a_code_is_good_is_for_the_database_s_clock_to_say(
    service: Make, ledger: Ledger, sink: Sink, clock: Clock, rounds: int | None, counted: Counted
) -> None:
    number, refused = rounds or 2, 0
    with temporary_cluster() as cluster:
        one = service(DATABASE_URL=cluster.dsn, PROFILE="dev")
        one.environ = {**one.environ, **clock.environ}
        await trio.to_thread.run_sync(one.start)
        async with (
            httpx.AsyncClient(base_url=one.url, timeout=10, verify=PLAIN, limits=lines_of()) as http,
            trio.open_nursery() as nursery,
        ):
            for client in range(CLIENTS):
                nursery.start_soon(ledger.client, one, f"c{client}", name=f"client {client}")
            await until(lambda: bool(ledger.activated))
            person = {"email": ledger.acknowledged[next(iter(ledger.activated))], "password": PASSWORD}
            for turn, jump in enumerate(islice(cycle(JUMPS), number)):
                login = await http.post("/v1/auth/login", json=person)
                claim, email = await _with_code(ledger, http, one, f"expired-{turn}@example.test")
                clock.set(jump)
                wrong_by = await told(http) - datetime.now(UTC)
                assert abs(wrong_by - jump) < CLOSE, "the service's clock is the one that was set"
                # What was made before the jump is as good as it was: a token of half an hour, an hour and days off.
                bearer = {"Authorization": f"Bearer {login.json()['access_token']}"}
                assert (await http.get("/v1/users/me", headers=bearer)).status_code == 200
                again = await http.post("/v1/auth/refresh", json={"refresh_token": login.json()["refresh_token"]})
                assert again.status_code == 200
                # What has expired has, whatever the service's clock says.
                psql(cluster, EXPIRE.format(subject=claim))
                shown = {"code": ledger.codes[email][0]}
                late = await http.post("/v1/users/activate", json=shown, auth=(email, PASSWORD))
                assert late.json()["error"] == "ActivationCodeExpired"
                refused += 1
                await until_more(partial(len, ledger.activated), CLIENTS)
            nursery.cancel_scope.cancel(reason="enough was seen")
        clock.set(timedelta(0))
        for claim, email in tuple(ledger.acknowledged.items()):
            if email.startswith("expired"):  # it was made to expire by hand
                del ledger.acknowledged[claim]
        await wait_carried(cluster.dsn)
        psql(cluster, "UPDATE codes SET expires_at = minted_at + interval '60 s' WHERE used_at IS NULL")
        figures = await hold(ledger, sink.mails, cluster.dsn, one)
        counted(number, figures["activated"] + refused, figures, refused=refused)
        assert await trio.to_thread.run_sync(one.terminate) == 0


async def _with_code(ledger: Ledger, http: httpx.AsyncClient, one: Service, email: str) -> tuple[object, str]:
    claim = await ledger.register(http, one, email)
    assert claim is not None
    await until(lambda: email in ledger.codes)
    return claim, email
