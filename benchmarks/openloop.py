"""An open-loop load generator, to be run in a process of its own: `python -m benchmarks.openloop < PLAN > SEEN`.

It is that of `regsvc bench` (when requests are sent, and how HTTP is spoken), with streams of several kinds beside each
other, and each request told by itself: when it was due, and what passed since then until its answer was there, so that
no wait goes unseen. Whether the generator kept to its times is told with it: `late`.
"""

import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import trio

from regsvc.cli.bench.alarm import open_alarm
from regsvc.cli.bench.generator import come, rare_garbage
from regsvc.cli.bench.lines import Lines
from regsvc.cli.bench.record import Recorder
from regsvc.cli.bench.target import Target, target
from regsvc.cli.bench.wire import Answer, NotHttp, connect, request

PATIENCE = 60.0  # seconds, unless the plan says something else
HEAD_START = 0.2  # seconds from the start to the first request
ANY = 1 << 30  # connections


@dataclass(frozen=True)
class Stream:
    """Requests of a kind, `rate` a second. People come at random times (the same in each run), probes regularly."""

    kind: str
    rate: float
    method: str
    path: str
    token: str | None = None
    people: str | None = None  # of a registration each: what the addresses begin with

    def times(self, seconds: float) -> Iterator[float]:
        """Yield when each is to be sent, in seconds from the start."""
        dice, now = random.Random(self.people), 0.0
        while (now := now + (dice.expovariate(self.rate) if self.people else 1 / self.rate)) < seconds:
            yield now


@dataclass(frozen=True)
class Seen:
    """One request: when it was due, how late it was sent, and how long after it was due its answer was there.

    `status` is 0 where there was none.
    """

    kind: str
    due: float
    late: float
    took: float
    status: int
    retry_after: float | None


@dataclass
class Generator:
    """What sends them. People have a connection each; who asks again and again keeps his."""

    to: Target
    patience: float = PATIENCE
    seen: list[Seen] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.kept = Lines(self.to, ANY, Recorder(1.0))

    async def run(self, streams: list[Stream], seconds: float) -> None:
        plan = sorted((at, n, stream) for stream in streams for n, at in enumerate(stream.times(seconds)))
        arrivals = ((at, (number, stream)) for at, number, stream in plan)
        self.began = trio.current_time() + HEAD_START
        with open_alarm() as wait, rare_garbage():
            await come(arrivals, self._send, began=self.began, wait=wait)
        self.kept.close()

    async def _send(self, who: tuple[int, Stream], due: float) -> None:
        number, stream = who
        late = trio.current_time() - due
        status, retry_after = 0, None
        with trio.move_on_after(self.patience):
            try:
                answer = await self._ask(stream, _written(self.to, stream, number))
            except (OSError, trio.BrokenResourceError, NotHttp):
                pass
            else:
                status, retry_after = answer.status, answer.retry_after
        took = trio.current_time() - due
        self.seen.append(Seen(stream.kind, due - self.began, late, took, status, retry_after))

    async def _ask(self, stream: Stream, written: bytes) -> Answer:
        if not stream.people:
            return await self.kept.ask(written)
        line = await connect(self.to)
        try:
            return await line.ask(written)
        finally:
            line.close()


def _written(to: Target, stream: Stream, number: int) -> bytes:
    """Return a request as it is sent."""
    if stream.people is None:
        who = (("Authorization", f"Bearer {stream.token}"),) if stream.token else ()
        return request(to, stream.method, stream.path, None, *who)
    form = {"email": f"{stream.people}-{number}@example.test", "password": "a password of some length"}
    octets = ".".join(str(number >> shift & 255) for shift in (16, 8, 0))
    household = ("X-Forwarded-For", f"10.{octets}")  # each its own
    return request(to, stream.method, stream.path, json.dumps(form).encode(), household)


def main() -> None:
    """Read a plan, do it, write what was seen."""
    plan = json.load(sys.stdin)
    streams = [Stream(**stream) for stream in plan["streams"]]
    to = target(f"http://127.0.0.1:{plan['port']}", mine=False)
    generator = Generator(to, plan.get("patience", PATIENCE))
    trio.run(generator.run, streams, plan["seconds"])
    json.dump([vars(one) for one in generator.seen], sys.stdout)


if __name__ == "__main__":
    main()
