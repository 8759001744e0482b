"""The development mailbox as a way out, and a transport made of two."""

from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Any, Protocol, Self

from regsvc.adapters.mail.letters import Letters
from regsvc.domain.delivery import Accepted, Outage, Outcome, Rejected
from regsvc.ports import Dispatch, Mailbox, Transport, Unavailable


class Boxed:
    """Implements `ports.Transport` by keeping each letter in the development mailbox."""

    def __init__(self, mailbox: Mailbox, letters: Letters) -> None:
        self._mailbox = mailbox
        self._letters = letters

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        return None

    async def send(self, dispatch: Dispatch) -> Outcome:
        """Keep the letter; Outage when the mailbox is away."""
        letter = self._letters.write(dispatch)
        if isinstance(letter, Rejected):
            return letter
        try:
            await self._mailbox.put(
                sender=letter.sender,
                to=dispatch.to,  # as it was typed: whoever looks for it types the same
                subject=letter.subject,
                text=letter.text,
                html=letter.html,
                raw=letter.raw,
            )
        except Unavailable as why:
            return Outage(f"mailbox: {why}")
        return Accepted()


class Channel(Transport, AbstractAsyncContextManager["Channel"], Protocol):
    """A transport to be opened before use."""


class Both:
    """Implements `ports.Transport` by two: what `first` makes of a mail counts, `second` gets a copy of what it took.

    A copy that fails changes nothing: the mail is delivered, and saying it again would deliver it twice (with another
    code, the one delivered first would be worth nothing). So the one that must not lose mail comes first.
    """

    def __init__(self, first: Channel, second: Channel) -> None:
        self._first = first
        self._second = second
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opening:
            await opening.enter_async_context(self._first)
            await opening.enter_async_context(self._second)
            self._open = opening.pop_all()
        return self

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Coroutine[Any, Any, bool | None]:
        return self._open.__aexit__(kind, error, trace)

    async def send(self, dispatch: Dispatch) -> Outcome:
        """Send through the first; if it accepts, through the second too."""
        outcome = await self._first.send(dispatch)
        if isinstance(outcome, Accepted):
            await self._second.send(dispatch)
        return outcome
