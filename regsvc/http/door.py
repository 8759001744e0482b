"""What the connections of one server share: limits, what is told, what is refused, and the counts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import trio
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from quart_trio import QuartTrio

from regsvc.http.crowd import Crowd

ESCAPES = (trio.Cancelled, KeyboardInterrupt, SystemExit)  # what may leave a connection

Headers = Sequence[tuple[bytes, bytes]]


class Refuse(Protocol):
    """Words the answer to a request that never reached a handler."""

    def __call__(
        self, status: int, name: str, detail: str, path: str, origins: Sequence[bytes], /
    ) -> tuple[Headers, bytes]:
        """Return headers (without Content-Length and Connection) and body.

        `path` and `origins` (the lines of `Origin`) are empty where the request never came to name them.
        """
        ...


class Cut(StrEnum):
    """Why the server ended a connection that its client had not finished with."""

    IDLE = "idle"
    SLOW_HEAD = "slow_head"
    SLOW_BODY = "slow_body"
    SLOW_READER = "slow_reader"
    GRACE_OVER = "grace_over"


class ServerEvents(Protocol):
    """What the server tells; called on the Trio thread, must not block or raise."""

    def connection_contained(self, error: BaseException, /) -> None:
        """An error was kept from ending the process; its connection is closed."""
        ...

    def connection_cut(self, why: Cut, /) -> None:
        """The server ended a connection by one of its deadlines."""
        ...

    def request_refused(self, status: int, name: str, detail: str, /) -> None:
        """A request was answered without reaching a handler."""
        ...

    def handler_failed(self, error: BaseException, /) -> None:
        """An error left the app; the client got a 500 if nothing was on the wire yet."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """How much and how long one client may ask for; times in seconds."""

    connections: int = 4096  # beyond it one may only ask for a probe
    guests: int = 256  # so many at once, beside them
    guest_asks: float = 1.0  # until the end of its request
    silence: float = 0.25  # after which a connection gives way to a new one, when there are too many
    body: int = 16 * 1024  # bytes
    idle: float = 5.0  # until the first byte of the next request
    head: float = 5.0  # from its first byte to the end of its head
    body_arrives: float = 10.0  # from there to the end of its body
    send_stalls: float = 10.0  # an answer that the client does not read
    linger: float = 0.5  # after a refusal, for the client to take the answer
    fresh: float = 0.25  # at shutdown, for a connection on its way, and for one which has not asked anything yet


class Refused(Exception):  # noqa: N818 – it is what happened to a request, not an error of ours
    """A request that is answered here and ends its connection."""

    def __init__(self, status: int, name: str, detail: str) -> None:
        super().__init__(status, name, detail)
        self.status, self.name, self.detail = status, name, detail


def full() -> Refused:
    """What all but probes are told when too many connections are open."""
    return Refused(503, "Overloaded", "Too many connections are open; try again in a moment.")


@dataclass(eq=False, slots=True)
class Door:
    """What the connections of one server share."""

    app: QuartTrio
    config: Config
    limits: Limits
    refuse: Refuse
    observe: ServerEvents
    context: WorkerContext = field(default_factory=lambda: WorkerContext(None))
    probes: frozenset[bytes] = frozenset()  # paths that are answered whatever happens
    crowd: Crowd = field(init=False)
    accepted: int = 0
    answered: int = 0
    refused: int = 0
    contained: int = 0
    cut: int = 0
    grace_over: int = 0
    lost: int = 0  # requests that got no answer because the server ended
    parting: bool = False  # each answer is the last one on its connection
    patient: bool = False  # another server goes on at the same socket: nobody is hurried

    def __post_init__(self) -> None:
        self.crowd = Crowd(self.limits.connections, self.limits.guests, self.limits.silence)

    @property
    def draining(self) -> bool:
        """Whether the server answers what it has begun, and no more."""
        return self.context.terminated.is_set()

    def in_flight(self) -> int:
        """Requests whose head has come and whose answer has not gone."""
        return sum(1 for connection in self.crowd.everybody() if connection.busy)


def escaping(error: BaseException) -> BaseException | None:
    """The part of `error` that must not be contained, if any."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(ESCAPES)
    return error if isinstance(error, ESCAPES) else None
