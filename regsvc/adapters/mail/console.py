"""Mail printed for whoever develops: the letter, with its code."""

from typing import Self, TextIO

import trio

from regsvc.adapters.mail.letters import Letters
from regsvc.domain.delivery import Accepted, Outage, Outcome, Rejected
from regsvc.ports import Dispatch

RULE = "─" * 72


class Console:
    """Implements `ports.Transport` by printing; for development only, the code is readable by all who see the stream.

    A stream that blocks (a terminal that was stopped) holds its mail, and a cancellation, until it goes on.
    """

    def __init__(self, stream: TextIO, letters: Letters) -> None:
        self._stream = stream
        self._letters = letters
        self._one = trio.CapacityLimiter(1)  # letter after letter, each whole

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        return None

    async def send(self, dispatch: Dispatch) -> Outcome:
        """Print the letter; Outage when the stream takes nothing any more."""
        letter = self._letters.write(dispatch)
        if isinstance(letter, Rejected):
            return letter
        head = f"{RULE}\nTo: {letter.to}\nSubject: {letter.subject}\n"
        try:
            await trio.to_thread.run_sync(self._print, f"{head}\n{letter.text.rstrip()}\n{RULE}\n", limiter=self._one)
        except OSError as why:
            return Outage(f"console: {why.strerror}")
        return Accepted()

    def _print(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
