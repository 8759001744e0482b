"""One mail said to a relay, on a thread: every answer, and every silence, becomes an `Outcome`.

The last dot decides: a conversation that ends before it delivered nothing, for certain (`Outage`); one that ends after
it, without an answer, may have delivered (`Deferred`: the mail is said again, so it can come twice, but is never lost).
An answer is the mail's fault (4xx `Deferred`, 5xx `Rejected`) unless it speaks of the relay itself: 421 anywhere, or
what a relay says that wants a log-in.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from regsvc.adapters.mail.letters import Written
from regsvc.adapters.mail.line import Line, Progress, plain, reason, said
from regsvc.domain.delivery import Accepted, Deferred, Outage, Outcome, Rejected

CLOSING: Final = 421  # may answer anything: "I am going down" (RFC 5321 3.8)
LOGIN_WANTED: Final = frozenset({530, 534, 535, 538})  # RFC 4954 6: none of them is about the mail
_DOTS: Final = re.compile(rb"^\.", re.MULTILINE)
_DOT: Final = "final dot"


@dataclass(slots=True)
class Conversation:
    """Says one mail. `outcome` is None until the relay has answered; `hidden` are words that no reason may show.

    `stale`: a line that had carried mail before was found closed when this mail began, which says nothing of the relay.
    """

    letter: Written
    hidden: tuple[str, ...]
    progress: Progress = field(default_factory=Progress)
    outcome: Outcome | None = None
    stale: bool = False

    def run(self, line: Line) -> None:
        """Say it. Never raises for what a relay does."""
        try:
            self._steps(line)
        except OSError as why:  # smtplib's own are OSErrors too
            line.usable = False
            self.stale = line.carried > 0 and self.progress.stage == "MAIL" and self.outcome is None
            self.progress.lost = reason(why)
        line.carried += 1

    def silence(self, why: str) -> Outcome:
        """Judge a conversation that ended where it is now, without an answer."""
        if self.progress.stage == _DOT:
            return Deferred(self._plain(f"unknown whether it was delivered, {_DOT}: {why}"))
        return Outage(self._plain(f"{self.progress.stage}: {why}"))

    def _steps(self, line: Line) -> None:
        if (flaw := self.letter.flaw) is not None:
            self.outcome = Rejected(f"not said to the relay: {flaw}")
            return
        self.progress.stage = "MAIL"
        if self.letter.utf8 and not line.has_extn("smtputf8"):
            self.outcome = Rejected("the relay takes no addresses outside ASCII (it does not offer SMTPUTF8)")
            return
        options = ("SMTPUTF8", "BODY=8BITMIME") if self.letter.utf8 else ()
        code, reply = line.mail(self.letter.sender, options)
        if code == CLOSING and line.carried:
            self.stale, line.usable = True, False
            return
        if not self._goes_on(line, code, reply, 250):
            return
        self.progress.stage = "RCPT"
        code, reply = line.rcpt(self.letter.to)
        if not self._goes_on(line, code, reply, 250, 251):
            return
        self.progress.stage = "DATA"
        code, reply = line.docmd("DATA")
        if not self._goes_on(line, code, reply, 354):
            return
        self._say(line)

    def _say(self, line: Line) -> None:
        self.progress.stage = "the letter itself"
        line.send(_DOTS.sub(b"..", self.letter.raw))
        # On its own, so that what fails before this line certainly never was a whole letter.
        self.progress.stage = _DOT
        line.send(b".\r\n")
        code, reply = line.getreply()
        if 200 <= code < 300:
            self.outcome = Accepted()
        else:
            self.outcome = self._refused(line, code, reply)

    def _goes_on(self, line: Line, code: int, reply: bytes, *wanted: int) -> bool:
        """Tell whether the relay wants to hear more; if not, judge, and make the line ready for the next mail."""
        if code in wanted:
            return True
        self.outcome = self._refused(line, code, reply)
        if line.usable and line.rset()[0] != 250:
            line.usable = False
        return False

    def _refused(self, line: Line, code: int, reply: bytes) -> Outcome:
        words = self._plain(f"{self.progress.stage}: {said(code, reply)}")
        if code == CLOSING or code in LOGIN_WANTED:
            line.usable = False
            return Outage(words)
        if 400 <= code < 500:
            return Deferred(words)
        if 500 <= code < 600:
            return Rejected(words)
        line.usable = False  # an answer to something else: this conversation is out of step
        return self.silence(f"{said(code, reply)} is no answer to that")

    def _plain(self, text: str) -> str:
        return plain(text, self.hidden)
