"""What the mailer learns of the relay from how its mails fare."""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final, assert_never

import trio

from regsvc import observe
from regsvc.domain.delivery import Accepted, Deferred, Outage, Outcome, Rejected, outage_wait
from regsvc.domain.values import Secret

_ADDRESS: Final = re.compile(r"[^\s<>@,;:]+@[^\s<>@,;:]+")


class Channel:
    """What is known of the relay. An outage counts once, however many mails were in flight when it began."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._since = 0.0
        self._retry_at = 0.0
        self.outages = 0  # tries in a row
        self.era = 0  # a new one begins with each outage; only mails sent in it say something about it
        self.answers = 0

    def answered(self) -> None:
        """The relay spoke."""
        self.answers += 1
        if self.outages > 1:
            down_s = round(trio.current_time() - self._since, 3)
            observe.emit("mail_channel_up", outages=self.outages, down_s=down_s)
        self.outages = 0

    def away(self, era: int, reason: str) -> None:
        """A mail that was sent in `era` met nobody."""
        if era != self.era:
            return
        now = trio.current_time()
        self.era += 1
        self.outages += 1
        self._since = now if self.outages == 1 else self._since
        self._retry_at = now + outage_wait(self.outages, self._jitter()).total_seconds()
        if self.outages == 2:  # one lost connection is no outage; that nobody is there a moment later is one
            observe.emit("mail_channel_down", reason=reason, outages=self.outages)

    def closed_for(self) -> float:
        """Seconds for which nothing should be sent at all."""
        return max(0.0, self._retry_at - trio.current_time()) if self.outages else 0.0


def discreet(outcome: Outcome, secrets: Iterable[Secret]) -> Outcome:
    """Return the outcome without what a relay may quote from the mail: addresses, and what it carries."""
    match outcome:
        case Accepted():
            return outcome
        case Deferred(reason) | Rejected(reason) | Outage(reason):
            for secret in secrets:
                reason = reason.replace(secret.reveal(), "…")
            return replace(outcome, reason=_ADDRESS.sub("…@…", reason))
        case _:
            assert_never(outcome)
