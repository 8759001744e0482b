"""Mail through an SMTP relay: smtplib on threads, where each conversation can be ended from the Trio side at once.

smtplib cannot be cancelled, and a timeout of its socket starts anew with each byte. So the socket is connected here,
under Trio's own deadline, the conversation runs on a thread, and a deadline or a cancellation shuts the socket down:
whatever call the thread is in returns at once. No thread is ever left behind. (The one exception is not ours: a look-up
of a host name cannot be ended; Trio abandons that thread to the resolver's own timeout.)
"""

import socket
import ssl
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

import trio

from regsvc import observe
from regsvc.adapters.mail.conversation import Conversation
from regsvc.adapters.mail.letters import Letters
from regsvc.adapters.mail.line import Line, Login, Opening, Progress, Tls, reason
from regsvc.domain.delivery import Outcome, Rejected
from regsvc.ports import Dispatch

GOODBYE: Final = 2.0  # seconds for QUIT; a relay that does not answer it is left without


@dataclass(frozen=True, slots=True)
class Relay:
    """Where mail goes. `timeout` is for a whole conversation, connecting included; `idle` for a line that waits.

    `context` is what TLS trusts; None: the system's authorities, with the host name checked.
    """

    host: str
    port: int = 25
    tls: Tls = Tls.STARTTLS
    login: Login | None = None
    timeout: timedelta = timedelta(seconds=10)
    idle: timedelta = timedelta(seconds=30)
    concurrency: int = 8
    context: ssl.SSLContext | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class SmtpStatistics:
    """Lines that wait and that talk now; connections made, mails that found one waiting, and lines that were cut."""

    idle: int
    busy: int
    opened: int
    reused: int
    cut: int


class Smtp:
    """Implements `ports.Transport`; a context manager, for its connections wait for the next mail until it ends.

    At most `relay.concurrency` conversations at once, each on a thread and a connection; more `send`s wait their turn,
    and their timeout starts when it comes. A line that waited and is found closed is replaced without a word, once.
    """

    def __init__(self, relay: Relay, letters: Letters) -> None:
        self._relay = relay
        self._letters = letters
        self._context = relay.context or ssl.create_default_context()
        self._turns = trio.Semaphore(relay.concurrency, max_value=relay.concurrency)
        self._waiting: deque[tuple[float, Line]] = deque()  # since when; the longest waiting first
        self._returned = trio.Event()
        self._opened = self._reused = self._cut = 0
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opening:
            opening.push_async_callback(self._close)
            nursery = await opening.enter_async_context(trio.open_nursery())
            opening.callback(nursery.cancel_scope.cancel, reason="the transport is closed")
            nursery.start_soon(self._tidy, name="smtp idle lines")
            self._open = opening.pop_all()
        return self

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Coroutine[Any, Any, bool | None]:
        return self._open.__aexit__(kind, error, trace)

    def statistics(self) -> SmtpStatistics:
        """Count."""
        busy = self._relay.concurrency - self._turns.value
        return SmtpStatistics(len(self._waiting), busy, self._opened, self._reused, self._cut)

    async def send(self, dispatch: Dispatch) -> Outcome:
        """Write the letter and hand it to the relay; see `ports.Transport`."""
        letter = self._letters.write(dispatch)
        if isinstance(letter, Rejected):
            return letter
        hidden = (*(secret.reveal() for secret in dispatch.secrets), dispatch.to, letter.to)
        conversation = Conversation(letter, hidden)
        seconds = self._relay.timeout.total_seconds()
        async with self._turns:
            with observe.span("smtp", "smtp") as span, trio.move_on_after(seconds) as clock:
                if span:
                    span.tell("host", self._relay.host)
                    span.tell("port", self._relay.port)
                await self._converse(conversation)
        if conversation.outcome is not None:
            return conversation.outcome
        return conversation.silence(
            f"nothing within {seconds:g} s" if clock.cancelled_caught else conversation.progress.lost
        )

    async def _converse(self, conversation: Conversation) -> None:
        """Say a mail on a line that waits, or on a new one."""
        if self._waiting:
            _, line = self._waiting.pop()  # the last that came back: the others may grow old and go
            self._reused += 1
            await self._say(line, conversation.run)
            if not conversation.stale:
                return
        fresh = await self._connect(conversation.progress)
        if fresh is not None:
            await self._say(fresh, partial(self._begin, conversation))

    def _begin(self, conversation: Conversation, line: Line) -> None:
        Opening(self._relay.tls, self._context, self._relay.login, conversation.progress).run(line)
        if line.usable:
            conversation.run(line)

    async def _connect(self, progress: Progress) -> Line | None:
        progress.stage = "connecting"
        relay = self._relay
        try:
            stream = await trio.open_tcp_stream(relay.host, relay.port)
            self._opened += 1
            return _line(socket.socket(fileno=stream.socket.detach()), relay.host)
        except (OSError, UnicodeError) as why:  # UnicodeError: no host has such a name
            progress.lost = f"{relay.host} port {relay.port}: {reason(_innermost(why))}"
            return None

    async def _say(self, line: Line, work: Callable[[Line], None]) -> None:
        """Run `work` with the line; then the line waits for the next mail, or is gone."""
        kept = False
        try:
            await self._on_thread(line, work)
            kept = line.usable
        finally:
            if not kept:
                line.hang_up()
        if kept:
            self._waiting.append((trio.current_time(), line))
            self._returned.set()

    async def _on_thread(self, line: Line, work: Callable[[Line], None]) -> None:
        """Run `work` on a thread. Cancelled: the line is cut, and this waits for the thread, which ends at once.

        As `trio.to_thread.run_sync` does it, but for the cut, which would take a nursery with a task of its own there.
        """
        task, token = trio.lowlevel.current_task(), trio.lowlevel.current_trio_token()

        def deliver(result: Any) -> None:  # noqa: ANN401 - an outcome, which goes from one hand of Trio to the other
            with suppress(trio.RunFinishedError):  # nobody waits any more
                token.run_sync_soon(trio.lowlevel.reschedule, task, result)

        def cut(_raise_cancel: object) -> trio.lowlevel.Abort:
            self._cut += 1
            line.cut()
            return trio.lowlevel.Abort.FAILED  # it comes back when the thread does

        await trio.lowlevel.checkpoint_if_cancelled()
        trio.lowlevel.start_thread_soon(partial(work, line), deliver)
        await trio.lowlevel.wait_task_rescheduled(cut)
        await trio.lowlevel.checkpoint_if_cancelled()

    async def _tidy(self) -> None:
        """Say goodbye to lines that have waited long enough, until cancelled."""
        while True:
            if not self._waiting:
                self._returned = trio.Event()
                await self._returned.wait()
                continue
            since, line = self._waiting[0]
            due = since + self._relay.idle.total_seconds()
            if due > trio.current_time():
                await trio.sleep_until(due)
                continue
            self._waiting.popleft()
            await self._goodbye(line)

    async def _goodbye(self, line: Line) -> None:
        try:
            with trio.move_on_after(GOODBYE):
                await self._on_thread(line, _quit)
        finally:
            line.hang_up()

    async def _close(self) -> None:
        """Say goodbye to all lines at once; when cancelled, hang up on them."""
        async with trio.open_nursery() as nursery:
            while self._waiting:
                nursery.start_soon(self._goodbye, self._waiting.pop()[1], name="smtp goodbye")


def _line(connected: socket.socket, host: str) -> Line:
    try:
        connected.setblocking(True)  # noqa: FBT003 - the stdlib's signature
        return Line(connected, host)
    except BaseException:
        connected.close()
        raise


def _quit(line: Line) -> None:
    with suppress(OSError):  # it has gone first
        line.quit()


def _innermost(error: BaseException) -> BaseException:
    """Find what Trio wraps: why the last address could not be connected to."""
    while True:
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[-1]
        elif error.__cause__ is not None:
            error = error.__cause__
        else:
            return error
