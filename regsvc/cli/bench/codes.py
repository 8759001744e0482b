"""Codes of activation, read from the development mailbox as a test of a client would.

One task asks for all who wait: each asking for his own letter would be more load than what is measured.
"""

import json
import os
import re
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from regsvc.cli.bench.target import Cannot, Target
from regsvc.cli.bench.wire import Line, NotHttp, connect, request

EVERY: Final = 0.1  # seconds between two looks while somebody waits: what a code's time is exact to
PAGE: Final = 25  # letters
PAGES: Final = 40  # looked through at most, each time
LOOKS: Final = 10  # after which nothing older than what was seen then is expected
PATH: Final = "/dev/mail/messages"
_FAILS: Final = (trio.BrokenResourceError, NotHttp, ValueError, KeyError, TypeError)
_CODE: Final = re.compile(r"(?m)^\s*(\d{4,10})\s*$")  # alone on its line


@dataclass(slots=True)
class Codes:
    """The mailbox of a service, read by `hand_out` while somebody waits whose address begins with `ours`."""

    to: Target
    ours: str
    _waiting: dict[str, trio.Event] = field(default_factory=dict)
    _found: dict[str, str] = field(default_factory=dict, repr=False)
    _read: str = ""  # the id up to which everything is read; ids rise
    _newest: deque[str] = field(default_factory=deque)  # of the latest looks
    _known: set[str] = field(default_factory=set)  # ids above `_read` that are read already
    _bell: trio.Event = field(default_factory=trio.Event)
    _line: Line | None = None

    async def wait(self, email: str) -> str:
        """Return the code in the letter to an address, once it is there. Whoever gives up is cancelled."""
        if email not in self._found:
            came = self._waiting[email] = trio.Event()
            self._bell.set()
            try:
                await came.wait()
            finally:
                del self._waiting[email]
        return self._found.pop(email)

    async def begin(self) -> None:
        """Look what is there already, which is passed over. Raises Cannot where there is no mailbox."""
        try:
            status, letters = await self._ask(0, 1)
        except (*_FAILS, OSError) as why:
            self._hang_up()
            raise Cannot(f"the mailbox of {self.to.url} cannot be read: {why!r}", os.EX_TEMPFAIL) from why
        if letters is None:
            self._hang_up()
            raise Cannot(
                f"{self.to.url} has no mailbox ({PATH} answers {status}), where the codes are read. "
                "REGSVC_PROFILE=dev has one; the scenarios register and light do without",
                1,
            )
        self._read = max((letter["id"] for letter in letters), default="")

    async def hand_out(self) -> None:
        """Read the mailbox as long as somebody waits, until cancelled; what goes wrong there is tried again."""
        try:
            while True:
                await self._bell.wait()
                self._bell = trio.Event()
                while self._waiting:
                    try:
                        await self._look()
                    except (*_FAILS, OSError):
                        self._hang_up()  # whoever waits has his own patience
                    await trio.sleep(EVERY)
        finally:
            self._hang_up()

    async def _look(self) -> None:
        """Read what is new, the newest first, and hand out the codes in it."""
        for page in range(PAGES):
            _, letters = await self._ask(page * PAGE, PAGE)
            for letter in letters or ():
                if letter["id"] > self._read and letter["id"] not in self._known:
                    self._known.add(letter["id"])
                    self._take(letter["to"], letter["text"])
            if not letters or len(letters) < PAGE or letters[-1]["id"] <= self._read:
                break
        # An id is made before its letter is there: of two made at once the later may be seen first.
        self._newest.append(max(self._known, default=self._read))
        if len(self._newest) > LOOKS:
            self._read = self._newest.popleft()
            self._known = {known for known in self._known if known > self._read}

    def _take(self, email: str, text: str) -> None:
        """Keep a code, also for somebody who has not asked yet: a letter may be quicker than its 201."""
        code = _CODE.search(text)
        if code is not None and email.startswith(self.ours):
            self._found.setdefault(email, code[1])  # that of his newest letter
            if email in self._waiting:
                self._waiting[email].set()

    async def _ask(self, start: int, limit: int) -> tuple[int, list[dict[str, Any]] | None]:
        if self._line is None:
            self._line = await connect(self.to)
        answer = await self._line.ask(request(self.to, "GET", f"{PATH}?start={start}&limit={limit}"))
        if not self._line.open:
            self._hang_up()
        items = json.loads(answer.body)["items"] if answer.status == 200 else None
        return answer.status, items

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None


NO_LETTER: Final = Cannot(
    "no letter with a code came into the mailbox: is REGSVC_MAIL_CHANNEL=mailbox or console+mailbox, "
    "and does a process with the role mailer run?",
    os.EX_TEMPFAIL,
)
