"""What must never reach a relay is refused at the last door too: by what writes letters, and by what says them."""

import smtplib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from regsvc.adapters.mail import Letters
from regsvc.adapters.mail.letters import Written
from regsvc.domain.delivery import Accepted, Letter, Rejected
from regsvc.domain.values import Email
from regsvc.ports import Dispatch
from tests.adapters.test_smtp import sending
from tests.adapters.writing import dispatch
from tests.domain.decisions import DECISIONS
from tests.smtp_sink import open_sink

ADDRESS = "not said to the relay: an address that is none on the wire"
SUBJECT = "not said to the relay: a subject of more than one line"
LETTER = "not said to the relay: a NUL or a bare line end in the letter"
BREAKS = ("\r\n", "\n", "\r", "\0", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\x7f", " ", "\t")


class Tampered(Letters):
    """Writes letters with something in them that nothing that is written has."""

    def __init__(self, parts: Mapping[str, Any]) -> None:
        super().__init__(sender="no-reply@service.test", public_url="https://service.test", service="regsvc")
        self.parts = parts

    def write(self, dispatch: Dispatch) -> Written | Rejected:
        letter = super().write(dispatch)
        return replace(letter, **self.parts) if isinstance(letter, Written) else letter


TAMPERED: Sequence[tuple[Mapping[str, Any], str]] = [
    *[({"to": f"kim@example.test{c}RCPT TO:<bob@example.test>"}, ADDRESS) for c in BREAKS],
    *[({"sender": f"no-reply@service.test{c}x"}, ADDRESS) for c in BREAKS],
    ({"to": "kim@example.test>,<bob@example.test"}, ADDRESS),
    ({"to": "kim@example.test,bob@example.test"}, ADDRESS),
    ({"to": "kim"}, ADDRESS),
    ({"to": ""}, ADDRESS),
    ({"to": "<kim@example.test>"}, ADDRESS),
    ({"to": '"kim"@example.test'}, ADDRESS),
    ({"subject": "Hello\r\nBcc: bob@example.test"}, SUBJECT),
    ({"subject": "Hello\u2028"}, SUBJECT),
    ({"raw": b"Subject: x\r\n\r\none\n.\nMAIL FROM:<a@b.test>\r\n"}, LETTER),
    ({"raw": b"Subject: x\r\n\r\none\r.\rMAIL FROM:<a@b.test>\r\n"}, LETTER),
    ({"raw": b"Subject: x\r\n\r\none\n.\r\nMAIL FROM:<a@b.test>\r\n"}, LETTER),
    ({"raw": b"Subject: x\r\n\r\none\r\r\n.\r\n"}, LETTER),
    ({"raw": b"Subject: x\r\n\r\n\0\r\n"}, LETTER),
]


async def test_what_would_end_a_line_is_not_said() -> None:
    letters = Tampered({})
    with open_sink() as sink:
        async with sending(sink.port, letters) as smtp:
            for parts, why in TAMPERED:
                letters.parts = parts
                assert await smtp.send(dispatch()) == Rejected(why), parts
                letters.parts = {}
                assert await smtp.send(dispatch()) == Accepted(), "and the line is as good as before"
        assert [mail.to for mail in sink.mails] == [("kim@example.test",)] * len(TAMPERED)


@pytest.mark.parametrize("c", BREAKS)
@pytest.mark.parametrize(
    "where", ["kim{}@example.test", "kim@exam{}ple.test", "kim@example.test{}Bcc: bob@example.test"]
)
def test_a_letter_to_what_is_no_address_is_not_written(where: str, c: str, letters: Letters) -> None:
    assert letters.write(dispatch(where.format(c))) == Rejected("not an e-mail address")


@pytest.mark.parametrize("letter", Letter)
@pytest.mark.parametrize(
    "hostile", ["a\r\nBcc: bob@example.test", "a\n.\n", "a\0b", "\u2028Bcc: b@c.test", "=?utf-8?q?=0A?="]
)
def test_no_words_of_a_user_are_in_a_header(letter: Letter, hostile: str, letters: Letters) -> None:
    sent = dispatch(letter=letter, username=hostile, locale=hostile, data={"device": hostile, "to": hostile})
    written = letters.write(sent)
    usual = letters.write(replace(sent, username=None, locale="en", data={}))
    assert isinstance(written, Written)
    assert isinstance(usual, Written)
    assert written.flaw is None
    assert _head(written) == _head(usual)


def _head(written: Written) -> list[bytes]:
    return [line for line in written.raw.partition(b"\r\n\r\n")[0].split(b"\r\n") if not line.startswith(b"Date: ")]


def test_every_address_that_is_taken_is_said_as_it_is(letters: Letters) -> None:
    """smtplib reads an address before it says it: what it makes of ours has to be the same."""
    taken = [decision.typed for decision in DECISIONS if decision.key is not None]
    assert len(taken) > 100
    for typed in taken:
        read = Email.parse(typed)
        assert isinstance(read, Email)
        written = letters.write(dispatch(typed))
        assert isinstance(written, Written)
        assert written.flaw is None
        local, _, domain = written.to.rpartition("@")
        assert local == read.address.rpartition("@")[0]
        assert domain == read.key.rpartition("@")[2]
        assert written.utf8 is not local.isascii()
        assert smtplib.quoteaddr(written.to) == f"<{written.to}>"
        assert written.raw.startswith(f"To: {written.to}\r\nDate: ".encode())
