"""Hears what other processes tell through the database: rings the mailer's bell and the locksmith's, and tells those
who wait for a mail.

Word may be lost (the connection was away, nobody listened yet): everyone who waits polls as well, and after each new
connection everyone is woken once.
"""

from collections.abc import Callable
from typing import Final, assert_never
from uuid import UUID

import trio

from regsvc import observe
from regsvc.ports import Notice, NoticeKind, Notices, Unavailable

FIRST_WAIT: Final = 0.1  # seconds before a new connection; doubled up to LONGEST_WAIT
LONGEST_WAIT: Final = 5.0


class Newsroom:
    """ports.News: wakes those who wait for word of a subject."""

    def __init__(self) -> None:
        self._waiting: dict[UUID, trio.Event] = {}

    async def wait(self, subject: UUID, seconds: float) -> None:
        """Return when there is word of `subject`, or after `seconds`."""
        event = self._waiting.setdefault(subject, trio.Event())
        try:
            with trio.move_on_after(seconds):
                await event.wait()
        finally:
            # The last to leave takes the event away; those who waited on an older one of the subject do not.
            if self._waiting.get(subject) is event and event.statistics().tasks_waiting == 0:
                del self._waiting[subject]

    def tell(self, subject: UUID) -> None:
        """Wake those who wait for `subject`."""
        if (event := self._waiting.pop(subject, None)) is not None:
            event.set()

    def tell_all(self) -> None:
        """Wake everyone: something may have been missed."""
        for subject in list(self._waiting):
            self.tell(subject)

    def waiting(self) -> int:
        """Count the subjects that somebody waits for."""
        return len(self._waiting)


async def run(
    notices: Notices,
    newsroom: Newsroom,
    ring: Callable[[], None],
    keys: Callable[[], None],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen until cancelled; `ring` wakes the mailer of this process, `keys` its locksmith: neither blocks or raises.

    Cancellation: leaves nothing behind. Errors: none; a lost connection is made again, with backoff.
    """
    ear = _Ear(notices, newsroom, ring, keys)
    task_status.started()
    wait = FIRST_WAIT
    while True:
        try:
            await ear.listen()
        except Unavailable as away:
            wait = FIRST_WAIT if ear.heard else min(wait * 2, LONGEST_WAIT)
            ear.lose(str(away))
        await trio.sleep(wait)


class _Ear:
    """One subscription after the other."""

    def __init__(
        self, notices: Notices, newsroom: Newsroom, ring: Callable[[], None], keys: Callable[[], None]
    ) -> None:
        self._notices = notices
        self._newsroom = newsroom
        self._ring = ring
        self._keys = keys
        self._lost: float | None = None  # since when
        self.heard = False  # whether the latest subscription came about

    async def listen(self) -> None:
        """Subscribe, and pass on what is heard. Raises Unavailable when the connection is lost."""
        self.heard = False
        async with self._notices.listen() as heard:
            self._restore()
            async for notice in heard:
                self._pass_on(notice)
        raise Unavailable("database", "the subscription ended")

    def lose(self, reason: str) -> None:
        """Say so, once until it is back."""
        if self._lost is None:
            self._lost = trio.current_time()
            observe.emit("listener_lost", reason=reason)

    def _restore(self) -> None:
        self.heard = True
        if self._lost is not None:
            observe.emit("listener_restored", away_s=round(trio.current_time() - self._lost, 3))
            self._lost = None
        self._ring()
        self._keys()
        self._newsroom.tell_all()

    def _pass_on(self, notice: Notice) -> None:
        match notice.kind:
            case NoticeKind.OUTBOX:
                self._ring()
            case NoticeKind.SETTLED:
                self._newsroom.tell_all() if notice.subject is None else self._newsroom.tell(notice.subject)
            case NoticeKind.KEYS:
                self._keys()
            case _:
                assert_never(notice.kind)
