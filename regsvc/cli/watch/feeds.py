"""Where lines come from, each on a thread of its own: a service that is asked, or standard input.

What comes is put into one bounded queue. Where the console does not keep up, the thread waits, and the service is told
by its connection: it leaves out lines, and says how many.
"""

import json
import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from regsvc.cli.watch.remote import Away, Denied, Remote, Stale

ROOM: Final = 10_000  # things that wait for the console
FIRST_WAIT: Final = 1.0  # seconds before the service is asked again, doubled up to LAST_WAIT
LAST_WAIT: Final = 15.0
_OURS: Final = b'{"ts":'  # what a line begins with; a container's log may have put something in front


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the log."""

    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Other:
    """A line of somebody else."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Lines that were left out."""

    lines: int


@dataclass(frozen=True, slots=True)
class Connected:
    """The service is there, and this is it."""

    hello: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Waiting:
    """The service is away; it will be asked again."""

    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the service counts, or None: it does not show it, or is away."""

    metrics: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class End:
    """Nothing more comes; `error`: why, if it is no good end."""

    error: Denied | Away | None = None


News = Line | Other | Lost | Connected | Waiting | Numbers | End
Inbox = queue.Queue[News]


@dataclass(frozen=True, slots=True)
class Feed:
    """Threads that put news into `inbox` until `stop`."""

    inbox: Inbox
    stop: threading.Event

    @classmethod
    def of(cls, *sources: Callable[["Feed"], None]) -> "Feed":
        """Start a thread for each source."""
        feed = cls(queue.Queue(ROOM), threading.Event())
        for source in sources:
            threading.Thread(target=source, args=(feed,), name="watch", daemon=True).start()
        return feed

    def put(self, news: News) -> None:
        """Hand over; waits for room, but not beyond the end."""
        while not self.stop.is_set():
            with suppress(queue.Full):
                self.inbox.put(news, timeout=0.5)
                return


def follow(remote: Remote, level: str, feed: Feed) -> None:
    """Follow the log of a service; once it was there, it is waited for whenever it goes."""
    wait, known, renewed = FIRST_WAIT, False, False
    while not feed.stop.is_set():
        reason = "the stream ended"
        try:
            for message in remote.messages(level):
                if message.event == "hello":
                    wait, known, renewed = FIRST_WAIT, True, False
                _hand_over(message.event, message.data, feed)
        except Stale as no:
            if not renewed and remote.renew():
                renewed = True
                continue
            return feed.put(End(no))
        except Denied as no:
            return feed.put(End(no))
        except Away as away:
            if not known:
                return feed.put(End(away))
            reason = str(away)
        feed.put(Waiting(reason, wait))
        feed.stop.wait(wait)
        wait = min(wait * 2, LAST_WAIT)
    return None


def _hand_over(event: str, data: Mapping[str, Any], feed: Feed) -> None:
    match event:
        case "hello":
            feed.put(Connected(data))
        case "line":
            feed.put(Line(data))
        case "lost" if isinstance(lines := data.get("lines"), int):
            feed.put(Lost(lines))


def poll(remote: Remote, every: float, feed: Feed) -> None:
    """Ask for the numbers now and again; that the service is away, the other thread tells."""
    while not feed.stop.is_set():
        try:
            found = remote.metrics()
        except Away:
            found = None
        feed.put(Numbers(found))
        feed.stop.wait(every)


def read(lines: Iterable[bytes], feed: Feed) -> None:
    """Read lines until their end."""
    for octets in lines:
        if feed.stop.is_set():
            return
        feed.put(_read(octets))
    feed.put(End())


def _read(octets: bytes) -> Line | Other:
    begin = octets.find(_OURS)
    if begin < 0:
        return Other()
    try:
        found = json.loads(octets[begin:])
    except ValueError:
        return Other()
    return Line(found) if found.get("service") == "regsvc" else Other()
