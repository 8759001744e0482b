"""Connections to a service: as many as are needed, up to a number; whoever finds none free waits in turn."""

from dataclasses import dataclass, field

import trio

from regsvc.cli.bench.record import Recorder
from regsvc.cli.bench.target import Target
from regsvc.cli.bench.wire import IDLE, Answer, Line, connect


@dataclass(slots=True)
class Lines:
    """Connections, the one used last first: so few are kept warm, as with a browser or a proxy."""

    to: Target
    most: int
    recorder: Recorder
    opened: int = 0  # ever
    _used: int = 0
    _idle: list[Line] = field(default_factory=list)
    _turn: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)

    async def ask(self, request: bytes) -> Answer:
        """Send a request over one of them. Raises what `Line.ask` and `connect` raise.

        A request that finds its connection closed by the server, which does so with idle ones, is sent once more.
        """
        if self._used < self.most:
            self._used += 1
        else:
            await self._wait()
        line: Line | None = None
        try:
            line = await self._take()
            try:
                return await line.ask(request)
            except (OSError, trio.BrokenResourceError):
                if not line.used or line.heard:
                    raise
            line.close()
            line = await self._open()
            return await line.ask(request)
        except BaseException:
            if line is not None:
                line.close()
            raise
        finally:
            if line is not None and line.open:
                line.idle_since = trio.current_time()
                self._idle.append(line)
            elif line is not None:
                line.close()
            if self._turn:
                self._turn.unpark()  # the place is his now: a newcomer would take it before he runs
            else:
                self._used -= 1

    async def _wait(self) -> None:
        """Wait in turn for somebody's place, and tell how long it was."""
        since = trio.current_time()
        await self._turn.park()
        self.recorder.queued(since, trio.current_time())

    async def _take(self) -> Line:
        while self._idle:
            line = self._idle.pop()
            if trio.current_time() - line.idle_since < IDLE or not line.is_stale():
                return line
            line.close()
        return await self._open()

    async def _open(self) -> Line:
        line = await connect(self.to)
        self.opened += 1
        return line

    def close(self) -> None:
        """Close those that are idle; the others end with whoever has them."""
        while self._idle:
            self._idle.pop().close()
