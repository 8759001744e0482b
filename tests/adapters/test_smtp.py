"""Mail through a real server: TLS, log-in, what arrives, and how connections are kept."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from ssl import SSLContext, create_default_context
from typing import Any

import pytest
import trio

from regsvc.adapters.mail import Letters, Login, Relay, Smtp, Tls
from regsvc.adapters.mail.letters import Written
from regsvc.domain.delivery import Accepted, Outage, Rejected
from regsvc.domain.values import Secret
from regsvc.ports import Dispatch
from tests.adapters.writing import dispatch
from tests.smtp_sink import HOST, Sink, open_sink, tls_pair

PASSWORDS = {"regsvc": "correct horse"}
LOGIN = Login("regsvc", Secret("correct horse"))
Pair = tuple[SSLContext, SSLContext]


@asynccontextmanager
async def sending(port: int, letters: Letters, **knobs: Any) -> AsyncIterator[Smtp]:
    defaults: dict[str, Any] = {"tls": Tls.NONE, "timeout": timedelta(seconds=5)}
    async with Smtp(Relay(HOST, port, **defaults | knobs), letters) as smtp:
        yield smtp


async def arrived(sink: Sink, count: int = 1) -> None:
    await trio.to_thread.run_sync(sink.wait, count)


@pytest.mark.parametrize("login", [None, LOGIN], ids=["open", "login"])
@pytest.mark.parametrize("mode", list(Tls))
async def test_each_kind_of_relay_gets_the_letter_as_it_was_written(
    mode: Tls, login: Login | None, letters: Letters, tls: Pair
) -> None:
    server, client = tls
    at: Mapping[Tls, dict[str, Any]] = {
        Tls.NONE: {},
        Tls.STARTTLS: {"starttls": server},
        Tls.IMPLICIT: {"implicit": server},
    }
    with open_sink(**at[mode], logins=PASSWORDS if login else None) as sink:
        async with sending(sink.port, letters, tls=mode, context=client, login=login) as smtp:
            sent = dispatch("Kim@Bücher.test", code="0042")
            assert await smtp.send(sent) == Accepted()
        [mail] = sink.mails
    assert (mail.sender, mail.to) == ("no-reply@service.test", ("Kim@xn--bcher-kva.test",))
    assert mail.tls is (mode is not Tls.NONE)
    assert mail.login == (login.username if login else None)
    assert mail.code == "0042"
    assert mail.message["Message-ID"] == f"<{sent.id}@service.test>"
    assert mail.raw.endswith(b"\r\n")


@pytest.mark.parametrize("mode", [Tls.STARTTLS, Tls.IMPLICIT])
@pytest.mark.parametrize("fault", ["stranger", "other name"])
async def test_a_certificate_that_is_not_good_is_an_outage_and_nothing_is_said(
    mode: Tls, fault: str, letters: Letters, tls: Pair
) -> None:
    server, client = tls_pair("other.test") if fault == "other name" else (tls[0], create_default_context())
    knobs: dict[str, Any] = {"starttls" if mode is Tls.STARTTLS else "implicit": server}
    with open_sink(**knobs, logins=PASSWORDS) as sink:
        async with sending(sink.port, letters, tls=mode, context=client, login=LOGIN) as smtp:
            outcome = await smtp.send(dispatch())
        await trio.to_thread.run_sync(sink.wait_quiet)
    assert isinstance(outcome, Outage)
    assert outcome.reason.startswith("TLS handshake: the certificate is not good for 127.0.0.1")
    assert sink.mails == []


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        (Tls.STARTTLS, "STARTTLS: the relay does not offer it; is SMTP_TLS=starttls right for this port?"),
        (Tls.IMPLICIT, "TLS handshake: TLS failed (WRONG_VERSION_NUMBER); is SMTP_TLS=implicit right for this port?"),
    ],
)
async def test_tls_where_there_is_none_is_never_done_without(mode: Tls, why: str, letters: Letters) -> None:
    with open_sink() as sink:
        async with sending(sink.port, letters, tls=mode) as smtp:
            assert await smtp.send(dispatch()) == Outage(why)
        assert sink.mails == []


async def test_a_port_that_wants_tls_at_once_says_nothing_and_the_reason_names_the_greeting(
    letters: Letters, tls: Pair
) -> None:
    with open_sink(implicit=tls[0]) as sink:
        async with sending(sink.port, letters, timeout=timedelta(seconds=1)) as smtp:
            assert await smtp.send(dispatch()) == Outage("greeting: nothing within 1 s")


@pytest.mark.parametrize(
    ("login", "why"),
    [
        (Login("regsvc", Secret("wrong pony")), "are SMTP_USERNAME and SMTP_PASSWORD right?"),
        (Login("regsvc", Secret("schön")), "ASCII"),
        (None, "MAIL: 530"),
    ],
)
async def test_a_log_in_that_fails_is_an_outage_without_the_password(
    login: Login | None, why: str, letters: Letters
) -> None:
    with open_sink(logins=PASSWORDS) as sink:
        async with sending(sink.port, letters, login=login) as smtp:
            outcome = await smtp.send(dispatch())
    assert isinstance(outcome, Outage)
    assert why in outcome.reason
    assert login is None or login.password.reveal() not in outcome.reason


async def test_a_connection_that_waits_does_not_hold_the_password(letters: Letters) -> None:
    with open_sink(logins=PASSWORDS) as sink:
        async with sending(sink.port, letters, login=LOGIN) as smtp:
            assert await smtp.send(dispatch()) == Accepted()
            [(_, line)] = smtp._waiting
            assert LOGIN.password.reveal() not in repr(vars(line))


async def test_a_log_in_that_nobody_asked_for_is_an_outage_that_says_so(letters: Letters) -> None:
    with open_sink() as sink:
        async with sending(sink.port, letters, login=LOGIN) as smtp:
            outcome = await smtp.send(dispatch())
    assert outcome == Outage("AUTH: the relay takes no log-in here; with SMTP_TLS=none most do not")


@pytest.mark.parametrize("utf8", [True, False])
async def test_an_address_outside_ascii_goes_only_where_it_is_understood(utf8: bool, letters: Letters) -> None:  # noqa: FBT001 - a parameter of the test
    with open_sink(utf8=utf8) as sink:
        async with sending(sink.port, letters) as smtp:
            outcome = await smtp.send(dispatch("jürgen@bücher.test"))
            plain = await smtp.send(dispatch())
    assert plain == Accepted()
    if not utf8:
        assert outcome == Rejected("the relay takes no addresses outside ASCII (it does not offer SMTPUTF8)")
        assert len(sink.mails) == 1
        return
    assert outcome == Accepted()
    assert sink.mails[0].to == ("jürgen@xn--bcher-kva.test",)
    assert sink.mails[0].message["To"] == "jürgen@xn--bcher-kva.test"


async def test_a_connection_is_used_again_and_left_politely(letters: Letters) -> None:
    with open_sink() as sink:
        sink.refusals["nobody@example.test"] = "550 5.1.1 no such user"
        async with sending(sink.port, letters) as smtp:
            assert await smtp.send(dispatch()) == Accepted()
            refused = await smtp.send(dispatch("nobody@example.test"))
            assert await smtp.send(dispatch()) == Accepted()
            assert (smtp.statistics().idle, smtp.statistics().opened, smtp.statistics().reused) == (1, 1, 2)
        await trio.to_thread.run_sync(sink.wait_quiet)
        assert smtp.statistics().idle == 0
    assert refused == Rejected("RCPT: 550 5.1.1 no such user")
    assert (sink.opened, len(sink.mails)) == (1, 2)


async def test_a_connection_that_waited_long_enough_is_left(letters: Letters) -> None:
    with open_sink() as sink:
        async with sending(sink.port, letters, idle=timedelta(seconds=0.05)) as smtp:
            assert await smtp.send(dispatch()) == Accepted()
            await trio.to_thread.run_sync(sink.wait_quiet)
            assert smtp.statistics().idle == 0
            assert await smtp.send(dispatch()) == Accepted()
    assert sink.opened == 2


async def test_there_are_never_more_conversations_than_agreed(letters: Letters) -> None:
    with open_sink() as sink:
        async with sending(sink.port, letters, concurrency=3) as smtp:
            async with trio.open_nursery() as nursery:
                for number in range(30):
                    nursery.start_soon(smtp.send, dispatch(f"kim{number}@example.test"))
            assert smtp.statistics().opened <= 3
            assert smtp.statistics().busy == 0
    assert sorted(mail.to[0] for mail in sink.mails) == sorted(f"kim{n}@example.test" for n in range(30))
    assert sink.opened <= 3


async def test_what_is_no_address_is_rejected_before_anything_is_said(letters: Letters) -> None:
    async with sending(1, letters) as smtp:
        assert await smtp.send(dispatch("kim@example.test>\r\nBcc: all")) == Rejected("not an e-mail address")


async def test_a_relay_that_is_not_there_is_an_outage(letters: Letters) -> None:
    with open_sink() as sink:
        gone = sink.port
    async with sending(gone, letters) as smtp:
        refused = await smtp.send(dispatch())
    async with Smtp(Relay("no-such-host.invalid"), letters) as smtp:
        unknown = await smtp.send(dispatch())
    async with Smtp(Relay("a..b"), letters) as smtp:
        senseless = await smtp.send(dispatch())
    assert isinstance(refused, Outage)
    assert refused.reason.startswith(f"connecting: 127.0.0.1 port {gone}: ")
    assert refused.reason.endswith("Connection refused")
    assert isinstance(unknown, Outage)
    assert unknown.reason.startswith("connecting: no-such-host.invalid port 25: ")
    assert isinstance(senseless, Outage)


class Dotted(Letters):
    """Writes letters with lines that begin with a dot, one of them what would end the letter and begin another."""

    BODY = b"Subject: dots\r\n\r\n.\r\n..\r\n.dot\r\nMAIL FROM:<forged@example.test>\r\n"

    def write(self, dispatch: Dispatch) -> Written | Rejected:
        letter = super().write(dispatch)
        return replace(letter, raw=self.BODY) if isinstance(letter, Written) else letter


async def test_a_line_that_begins_with_a_dot_arrives_as_it_was() -> None:
    letters = Dotted(sender="a@service.test", public_url="https://service.test", service="regsvc")
    with open_sink() as sink:
        async with sending(sink.port, letters) as smtp:
            assert await smtp.send(dispatch()) == Accepted()
    assert [mail.raw for mail in sink.mails] == [Dotted.BODY]
