"""A relay that is sick for some recipients and well for others: each mail has its own fate, and none delays another.

Small here; `--rounds N`: people come for N seconds. Half of those who are asked for beside the healthy ones meet, at
their first try, each way in which a relay can fail; what failed for now is carried later and its code works.
"""

import random
from collections import Counter
from collections.abc import Callable
from typing import Final

import httpx
import pytest
import trio

from tests.chaos.invariants import hold
from tests.chaos.ledger import PLAIN, Ledger, dsn, wait_carried
from tests.chaos.recording import Counted
from tests.service import Service, lines_of
from tests.smtp_script import Act, Script, drip, drop, half_close, hang, open_script, say
from tests.smtp_sink import Received

HEALTHY_EVERY = 0.1  # seconds between two whose mail nothing is wrong with
SICK_EVERY = 3.0  # seconds between two of one sickness: some hold their slots for MAIL_TIMEOUT
SECONDS = 2
PROMPT = 15.0  # seconds from the 201 to the relay's 250 within which 99 of 100 healthy mails are there
PATIENCE = 60.0  # seconds for those that are carried again, later each time
SICK: Final[dict[str, tuple[str, Act]]] = {
    "deferred": ("rcpt", say("450 4.7.1 greylisted, come again")),
    "busy": ("dot", say("451 4.3.0 not now")),
    "closing": ("rcpt", say("421 4.3.2 going down")),
    "never": ("rcpt", say("550 5.1.1 nobody here")),
    "unwanted": ("dot", say("554 5.7.1 not such a letter")),
    "hang": ("rcpt", hang),
    "halfclose": ("data", half_close),
    "dropped": ("dot", drop),
    "dripping": ("rcpt", drip("250-" + "x" * 40, pause=1.0)),
}
NEVER: Final = {"never", "unwanted"}  # 5xx: not tried again
Make = Callable[..., Service]
pytestmark = [
    pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object ByteStream:pytest.PytestWarning"),
]


class Clinic:
    """Which mail met what; everybody but those of NEVER is well at the second try."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.mails: list[Received] = []
        self.tries: Counter[str] = Counter()
        self.registered: dict[str, float] = {}
        self.arrived: dict[str, float] = {}

    def treat(self, email: str) -> Script:
        """Say what becomes of a mail to this address."""
        self.tries[email] += 1
        sickness = email.partition("-")[0]
        if sickness not in SICK or (sickness not in NEVER and self.tries[email] > 1):
            return {}
        stage, act = SICK[sickness]
        return {stage: act}

    def take(self, email: str, letter: bytes) -> None:
        """Note a letter that was read to its dot, unless the answer is that nobody wants it."""
        sickness = email.partition("-")[0]
        if sickness in NEVER or (sickness == "busy" and self.tries[email] == 1):
            return
        mail = Received("", (email,), letter, tls=False, login=None)
        self.mails.append(mail)
        self.arrived.setdefault(email, trio.current_time())
        self.ledger.take(mail)

    def of(self, sickness: str) -> list[str]:
        """Return who registered with a sickness."""
        return [email for email in self.registered if email.startswith(f"{sickness}-")]

    def waits(self, sickness: str) -> list[float]:
        """Return how long their mails took, in order."""
        return sorted(self.arrived[email] - self.registered[email] for email in self.of(sickness))


async def come(clinic: Clinic, one: Service, http: httpx.AsyncClient, kind: str, every: float, until: float) -> None:
    """Have one after the other register until then, each of whom activates as soon as the mail is there."""
    number = 0
    async with trio.open_nursery() as waiting:
        while trio.current_time() < until:
            number += 1
            waiting.start_soon(_one, clinic, one, http, f"{kind}-{number}@example.test", name=f"{kind} {number}")
            await trio.sleep(every * random.uniform(0.8, 1.2))


async def _one(clinic: Clinic, one: Service, http: httpx.AsyncClient, email: str) -> None:
    claim = await clinic.ledger.register(http, one, email)
    assert claim is not None, "nobody who registers waits for the relay"
    clinic.registered[email] = trio.current_time()
    if email.partition("-")[0] in NEVER:
        del clinic.ledger.acknowledged[claim]  # the relay says that there is nobody of this name: nothing is promised
        return
    with trio.fail_after(PATIENCE):
        await clinic.ledger.activate(http, one, claim, email)


@pytest.mark.timeout(240)
async def test_a_relay_that_fails_some_mails_delays_no_other(
    service: Make, ledger: Ledger, rounds: int | None, counted: Counted
) -> None:
    clinic = Clinic(ledger)
    async with open_script(by_recipient=clinic.treat) as relay:
        relay.told = clinic.take
        knobs = {"MAIL_TIMEOUT": "3"} if rounds is None else {}
        one = service(SMTP_PORT=str(relay.port), HASH_QUEUE="1000", **knobs)
        await trio.to_thread.run_sync(one.start)
        async with (
            httpx.AsyncClient(timeout=20, verify=PLAIN, limits=lines_of()) as http,
            trio.open_nursery() as nursery,
        ):
            end = trio.current_time() + (rounds or SECONDS)
            nursery.start_soon(come, clinic, one, http, "healthy", HEALTHY_EVERY, end, name="the healthy")
            for sickness in SICK:
                nursery.start_soon(come, clinic, one, http, sickness, SICK_EVERY, end, name=sickness)
        await wait_carried(dsn(one))
        dropped = len(clinic.of("dropped"))
        figures = await hold(ledger, clinic.mails, dsn(one), one, interruptions=dropped)
        assert await trio.to_thread.run_sync(one.terminate) == 0
    healthy = clinic.waits("healthy")
    p99 = healthy[int(len(healthy) * 0.99)]
    assert p99 <= PROMPT, "healthy mail waits for the sick"
    assert {clinic.tries[email] for sickness in NEVER for email in clinic.of(sickness)} == {1}, "5xx is never retried"
    assert figures["dead"] == sum(len(clinic.of(sickness)) for sickness in NEVER)
    # Who got a letter whose dot was not answered activated with it, and nobody waits for another any more.
    again = [email for sickness in SICK.keys() - NEVER - {"dropped"} for email in clinic.of(sickness)]
    assert {email: clinic.tries[email] for email in again if clinic.tries[email] < 2} == {}, "all were ill at first"
    assert figures["activated"] == figures["acknowledged"] == len(clinic.arrived)
    figures |= {"healthy p99 ms": round(p99 * 1000), "healthy mails": len(healthy)}
    figures |= {f"× {sickness}": len(clinic.of(sickness)) for sickness in SICK}
    counted(rounds or SECONDS, len(clinic.registered), figures)
