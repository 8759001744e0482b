"""An open-loop load generator, to be run in a process of its own: `python -m benchmarks.openloop < PLAN > SEEN`.

Each request has its time before the first one is sent, whether those before it were answered or not, as people have
who know nothing of each other; and it took what passed since that time, so that no wait goes unseen. Whether the
generator kept to its times is told with each request: `late`. By hand, for k6 wants a core to itself, and there are
as few here as the service has.
"""

import gc
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import trio

from benchmarks.client import Client

PATIENCE = 60.0  # seconds, unless the plan says something else
HEAD_START = 0.2  # seconds from the start to the first request


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

    port: int
    patience: float = PATIENCE
    seen: list[Seen] = field(default_factory=list)
    kept: list[Client] = field(default_factory=list)

    async def run(self, streams: list[Stream], seconds: float) -> None:
        due = sorted((at, n, stream) for stream in streams for n, at in enumerate(stream.times(seconds)))
        began = trio.current_time() + HEAD_START
        async with trio.open_nursery() as nursery:
            for at, number, stream in due:
                await trio.sleep_until(began + at)
                nursery.start_soon(self._send, stream, number, began, at, name=stream.kind)

    async def _send(self, stream: Stream, number: int, began: float, due: float) -> None:
        late = trio.current_time() - began - due
        http = Client(self.port) if stream.people or not self.kept else self.kept.pop()
        status, retry_after = 0, None
        with trio.move_on_after(self.patience):
            try:
                answer = await http.ask(stream.method, stream.path, *_said(stream, number))
            except (OSError, trio.BrokenResourceError):
                pass
            else:
                status = answer.status
                retry_after = float(answer.headers["retry-after"]) if "retry-after" in answer.headers else None
        took = trio.current_time() - began - due
        self.seen.append(Seen(stream.kind, due, late, took, status, retry_after))
        if stream.people or not status:
            await http.close()
        else:
            self.kept.append(http)


def _said(stream: Stream, number: int) -> tuple[object, str]:
    """Return the body and the headers of a request."""
    if stream.people is None:
        return None, f"Authorization: Bearer {stream.token}\r\n" if stream.token else ""
    form = {"email": f"{stream.people}-{number}@example.test", "password": "a password of some length"}
    octets = ".".join(str(number >> shift & 255) for shift in (16, 8, 0))
    return form, f"X-Forwarded-For: 10.{octets}\r\n"  # a household each


def main() -> None:
    """Read a plan, do it, write what was seen."""
    plan = json.load(sys.stdin)
    streams = [Stream(**stream) for stream in plan["streams"]]
    generator = Generator(plan["port"], plan.get("patience", PATIENCE))
    gc.disable()
    trio.run(generator.run, streams, plan["seconds"])
    json.dump([vars(one) for one in generator.seen], sys.stdout)


if __name__ == "__main__":
    main()
