"""Rate limits' buckets in Redis: every process that shares it shares them. Needs the extra `redis`.

One connection carries the calls of all requests, one script each. A task of `open_redis` opens it, and another one
whenever it was lost, or refused something, or was late; while there is none, calls fail at once. (The pool of coredis
opens connections in whichever task asks, and loses a place for good where that task is cancelled meanwhile.)

For one server of Redis 6 or later, or what speaks its protocol. Not for a Redis Cluster: the buckets of one request lie
in several of its slots, and no script reaches those.
"""

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from hashlib import sha1
from ssl import create_default_context
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import trio
from coredis.connection import BaseConnectionParams, TCPConnection, TCPLocation
from coredis.exceptions import NoScriptError, RedisError

from regsvc.domain.quota import Level, Take
from regsvc.domain.values import Secret
from regsvc.ports import Unavailable

PATIENCE: Final = timedelta(seconds=0.25)  # whoever asks would rather let a request pass than make it wait
PREFIX: Final = "regsvc:limit:"
RETRY_MIN: Final = 0.05  # seconds between two tries to connect; doubles up to RETRY_MAX
RETRY_MAX: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Script:
    text: str

    @property
    def sha(self) -> str:
        return sha1(self.text.encode(), usedforsecurity=False).hexdigest()


# domain.quota.take, for each key with two arguments; a key outlives its bucket's debt by a second. Numbers of Lua are
# doubles, exact up to 2^53: microseconds since 1970 are until the year 2255.
TAKE: Final = _Script("""\
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local levels = {}
for n, key in ipairs(KEYS) do
    local cost, span = tonumber(ARGV[2 * n - 1]), tonumber(ARGV[2 * n])
    local whole_at = tonumber(redis.call('GET', key) or now)
    local debt = math.min(math.max(whole_at - now, 0), span)
    local allowed = debt + cost <= span
    if allowed then debt = debt + cost end
    redis.call('SET', key, string.format('%.0f', now + debt), 'PX', math.ceil(debt / 1000) + 1000)
    levels[2 * n - 1] = allowed and 1 or 0
    levels[2 * n] = debt
end
return levels
""")
GIVE_BACK: Final = _Script("""\
for n, key in ipairs(KEYS) do
    local whole_at = redis.call('GET', key)
    if whole_at then
        redis.call('SET', key, string.format('%.0f', whole_at - ARGV[n]), 'KEEPTTL')
    end
end
""")


class _Connection(TCPConnection):
    """One that closes its channels where no server took it too: coredis leaves those behind, to be warned of."""

    async def _connect(self) -> Any:  # noqa: ANN401 - a stream of anyio, which lives in coredis alone
        try:
            return await super()._connect()
        except BaseException:
            self._write_buffer_in.close()
            self._write_buffer_out.close()
            self._push_message_buffer_in.close()
            self._push_message_buffer_out.close()
            self._streamed_message_buffer_in.close()
            self._streamed_message_buffer_out.close()
            raise


class RedisQuotas:
    """Buckets by the clock of Redis; implements ports.Quotas. `open_redis` makes one."""

    name = "redis"

    def __init__(self, new_connection: Callable[[], TCPConnection], timeout: float) -> None:
        self._new_connection = new_connection
        self._timeout = timeout  # seconds
        self._connection: TCPConnection | None = None
        self._why = "not connected yet"
        self._retry = RETRY_MIN

    async def take(self, takes: Sequence[Take]) -> Sequence[Level]:
        """Take from each bucket by one script; return the levels in the same order.

        Raises Unavailable("limits"). Cancelled: nobody knows whether it counted.
        """
        numbers = [number for take in takes for number in (take.policy.interval, take.policy.span)]
        answer = await self._run(TAKE, takes, numbers)
        verdicts = zip(takes, answer[::2], answer[1::2], strict=True)
        return [Level(take.policy, allowed=bool(allowed), debt=debt) for take, allowed, debt in verdicts]

    async def give_back(self, takes: Sequence[Take]) -> None:
        """Undo allowed takes by one script. Raises Unavailable("limits")."""
        await self._run(GIVE_BACK, takes, [take.policy.interval for take in takes])

    async def _run(self, script: _Script, takes: Sequence[Take], numbers: Sequence[int]) -> Any:  # noqa: ANN401 - of Lua
        connection = self._connection
        if connection is None:
            raise Unavailable("limits", self._why)
        arguments: list[str | int] = [len(takes), *(f"{PREFIX}{take.bucket}" for take in takes), *numbers]
        try:
            with trio.fail_after(self._timeout):
                try:
                    answer = await connection.create_request(b"EVALSHA", script.sha, *arguments)
                except NoScriptError:  # a new server, or one that forgot: it knows the script from then on
                    answer = await connection.create_request(b"EVAL", script.text, *arguments)
        except Exception as exc:  # whatever it is, the next request is better served by another connection
            connection.invalidate("a script failed")
            self._why = _line(exc)
            raise Unavailable("limits", self._why) from exc
        self._retry = RETRY_MIN
        return answer

    async def keep(  # noqa: ASYNC114 - started by open_redis alone
        self, nursery: trio.Nursery, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep a connection open in `nursery`, a new one for each that was lost, until cancelled.

        Has started when it tried once, whatever came of it.
        """
        lost = await self._connect(nursery)
        task_status.started()
        while True:
            await lost.wait()
            self._connection = None
            await trio.sleep(self._retry)
            self._retry = min(2 * self._retry, RETRY_MAX)
            lost = await self._connect(nursery)

    async def _connect(self, nursery: trio.Nursery) -> trio.Event:
        lost = trio.Event()
        connection = self._new_connection()
        try:
            with trio.fail_after(self._timeout):
                await nursery.start(_carry, connection, lost, name="redis connection")
        except (RedisError, OSError, trio.TooSlowError) as exc:
            self._why = _line(exc)  # and `lost` was set
        else:
            self._connection, self._why = connection, "the connection was lost"
        return lost


@asynccontextmanager
async def open_redis(url: Secret, *, timeout: timedelta = PATIENCE) -> AsyncIterator[RedisQuotas]:  # noqa: ASYNC109
    """Open the buckets for the time of the block; waits for one try to connect, but not for Redis to be there.

    `url` is redis:// or rediss:// (certificate and host name are verified by the machine's authorities); `timeout` is
    that of each call and of each try. Raises ValueError for a URL that cannot be read; what the block raises is raised
    as it was.
    """
    seconds = timeout.total_seconds()
    new_connection = partial(_Connection, _location(url), **_manners(url, seconds))
    failure: Exception | None = None
    with _quiet():
        async with trio.open_nursery() as nursery:
            quotas = RedisQuotas(new_connection, seconds)
            await nursery.start(quotas.keep, nursery, name="redis keeper")
            try:
                yield quotas
            except Exception as exc:  # noqa: BLE001 - raised again below, outside the nursery, which would wrap it
                failure = exc
            nursery.cancel_scope.cancel(reason="whoever counts in Redis is done")
    if failure is not None:
        raise failure


async def _carry(  # noqa: ASYNC114, ASYNC128 - the connection says when it has started
    connection: TCPConnection, lost: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    try:
        await connection.run(task_status=task_status)
    finally:
        lost.set()


def _location(url: Secret) -> TCPLocation:
    parts = urlsplit(url.reveal())
    return TCPLocation(parts.hostname or "localhost", parts.port or 6379)


def _manners(url: Secret, seconds: float) -> BaseConnectionParams:
    parts = urlsplit(url.reveal())
    return {
        "username": unquote(parts.username or "") or None,
        "password": unquote(parts.password or "") or None,
        "db": int(parts.path.strip("/") or 0),
        "client_name": "regsvc",
        # coredis' own reading of rediss:// would not look at the name in the certificate.
        "ssl_context": create_default_context() if parts.scheme == "rediss" else None,
        "connect_timeout": seconds,
        "stream_timeout": seconds,
    }


def _line(exc: BaseException) -> str:
    words = str(exc).partition("\n")[0]
    return f"{type(exc).__name__}: {words}" if words else type(exc).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Let coredis log nothing: it has a traceback for each try, and callers are told by Unavailable."""
    logger = logging.getLogger("coredis")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
