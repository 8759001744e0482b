"""The ways out for development: terminal, mailbox, both."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import SMTP
from errno import EPIPE
from io import StringIO
from typing import Self
from uuid import UUID

import pytest

from regsvc.adapters.mail import Both, Boxed, Console, Letters
from regsvc.domain.delivery import Accepted, Letter, Outage, Outcome, Rejected
from regsvc.ports import BoxedMail, Dispatch, Unavailable
from tests.adapters.writing import TOKEN, dispatch


@dataclass(slots=True)
class Box:
    """The port of the development mailbox, kept in memory; `away` is what keeping a mail raises then."""

    mails: list[BoxedMail] = field(default_factory=list)
    away: Unavailable | None = None

    async def put(self, *, sender: str, to: str, subject: str, text: str, html: str, raw: bytes) -> None:
        if self.away is not None:
            raise self.away
        now = datetime(2026, 11, 20, tzinfo=UTC)
        self.mails.insert(0, BoxedMail(UUID(int=len(self.mails)), now, sender, to, subject, text, html, raw))

    async def list(self, *, to: str | None, start: int, limit: int) -> tuple[int, Sequence[BoxedMail]]:
        found = [mail for mail in self.mails if to is None or mail.to.lower() == to.lower()]
        return len(found), found[start : start + limit]

    async def show(self, mail: UUID) -> BoxedMail | None:
        return next((kept for kept in self.mails if kept.id == mail), None)

    async def remove(self, mail: UUID) -> bool:
        before, self.mails = len(self.mails), [kept for kept in self.mails if kept.id != mail]
        return len(self.mails) < before

    async def clear(self) -> int:
        count, self.mails = len(self.mails), []
        return count


class Way:
    """A transport that has one outcome, and notes what happens to it in `story`."""

    def __init__(self, name: str, outcome: Outcome, story: list[str]) -> None:
        self.name, self.outcome, self.story = name, outcome, story

    async def __aenter__(self) -> Self:
        self.story.append(f"open {self.name}")
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.story.append(f"close {self.name}")

    async def send(self, dispatch: Dispatch) -> Outcome:
        self.story.append(f"send {self.name}")
        return self.outcome


async def test_a_terminal_shows_the_letter_with_its_code(letters: Letters) -> None:
    stream = StringIO()
    async with Console(stream, letters) as console:
        assert await console.send(dispatch(code="0042")) == Accepted()
        assert await console.send(dispatch("no address")) == Rejected("not an e-mail address")
    lines = stream.getvalue().splitlines()
    assert "To: kim@example.test" in lines
    assert "Subject: Your activation code for regsvc" in lines
    assert lines.count("0042") == 1


async def test_a_terminal_shows_a_token_and_what_a_notice_is_about(letters: Letters) -> None:
    stream = StringIO()
    async with Console(stream, letters) as console:
        assert await console.send(dispatch(letter=Letter.RESET)) == Accepted()
        assert await console.send(dispatch(letter=Letter.PASSWORD_CHANGED)) == Accepted()
    lines = stream.getvalue().splitlines()
    assert lines.count(TOKEN) == 1
    assert "Subject: Your password at regsvc was changed" in lines


class Gone(StringIO):
    """A stream whose reader has gone."""

    def flush(self) -> None:
        raise BrokenPipeError(EPIPE, "Broken pipe")


async def test_a_terminal_that_went_away_is_an_outage(letters: Letters) -> None:
    async with Console(Gone(), letters) as console:
        assert await console.send(dispatch()) == Outage("console: Broken pipe")


async def test_the_mailbox_keeps_the_letter_whole(letters: Letters) -> None:
    box = Box()
    async with Boxed(box, letters) as boxed:
        assert await boxed.send(dispatch("Kim@Bücher.test", code="0042")) == Accepted()
        assert await boxed.send(dispatch("no address")) == Rejected("not an e-mail address")
    count, [mail] = await box.list(to="kim@bücher.test", start=0, limit=9)
    assert count == 1
    assert (mail.sender, mail.to) == ("no-reply@service.test", "Kim@Bücher.test")
    assert mail.subject == "Your activation code for regsvc"
    assert "\n0042\n" in mail.text
    assert "\n0042\n" in mail.html
    assert message_from_bytes(mail.raw, policy=SMTP)["To"] == "Kim@xn--bcher-kva.test"


@pytest.mark.parametrize("letter", Letter)
async def test_the_mailbox_keeps_every_letter(letters: Letters, letter: Letter) -> None:
    box = Box()
    async with Boxed(box, letters) as boxed:
        assert await boxed.send(dispatch(letter=letter)) == Accepted()
    [mail] = box.mails
    carried = {Letter.RESET: TOKEN}.get(letter, "0471")
    assert (f"\n{carried}\n" in mail.text) is (f"\n{carried}\n" in mail.html) is not letter.notice


async def test_a_mailbox_that_is_away_is_an_outage(letters: Letters) -> None:
    async with Boxed(Box(away=Unavailable("database", "gone")), letters) as boxed:
        assert await boxed.send(dispatch()) == Outage("mailbox: database: gone")


@pytest.mark.parametrize("second", [Accepted(), Outage("away"), Rejected("no")])
async def test_of_both_the_first_decides_and_the_second_gets_a_copy_of_what_it_took(second: Outcome) -> None:
    story: list[str] = []
    async with Both(Way("first", Accepted(), story), Way("second", second, story)) as both:
        assert await both.send(dispatch()) == Accepted()
    assert story == ["open first", "open second", "send first", "send second", "close second", "close first"]


async def test_of_both_the_second_gets_nothing_that_the_first_did_not_take() -> None:
    story: list[str] = []
    async with Both(Way("first", Outage("away"), story), Way("second", Accepted(), story)) as both:
        assert await both.send(dispatch()) == Outage("away")
    assert "send second" not in story
