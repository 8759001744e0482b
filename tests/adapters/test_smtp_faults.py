"""Every way a relay can fail, at every stage, and what becomes of the mail; and that nothing is left behind."""

import errno
import re
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from random import Random
from ssl import SSLContext
from types import FrameType

import pytest
import trio

from regsvc.adapters.mail import Letters, Login, Relay, Smtp, Tls
from regsvc.adapters.mail.letters import Written
from regsvc.domain.delivery import ERROR_MAX, Accepted, Deferred, Outage, Outcome, Rejected
from regsvc.domain.values import Secret
from regsvc.ports import Dispatch
from tests.adapters.writing import dispatch
from tests.smtp_script import Act, Script, Scripted, drip, drop, flood, half_close, hang, open_script, say

Pair = tuple[SSLContext, SSLContext]
PATIENCE = 10.0  # seconds, where the relay answers
TIMEOUT = 1.0  # seconds, where it does not: what each of these tests takes
GRACE = 5.0  # seconds; the machine may be busy, but no stage may have a timeout of its own
AT: dict[str, Callable[[Scripted], bool]] = {
    "greeting": lambda relay: relay.opened == 1,
    "mail": lambda relay: any(line.startswith("mail") for line in relay.heard),
    "dot": lambda relay: bool(relay.letters),
}
dripping = drip("250-" + "x" * 40)
SILENT = (hang, dripping)
BEFORE_THE_DOT = ["greeting", "ehlo", "mail", "rcpt", "data"]


@asynccontextmanager
async def sending(
    port: int, letters: Letters, *, seconds: float = PATIENCE, concurrency: int = 4, login: Login | None = None
) -> AsyncIterator[Smtp]:
    relay = Relay("127.0.0.1", port, Tls.NONE, login, timedelta(seconds=seconds), concurrency=concurrency)
    async with Smtp(relay, letters) as smtp:
        yield smtp


def talking_threads() -> list[int]:
    """The threads that are in a conversation with a relay."""
    talking = []
    for thread, frame in sys._current_frames().items():
        at: FrameType | None = frame
        while at is not None and not at.f_code.co_filename.endswith(("mail/line.py", "mail/conversation.py")):
            at = at.f_back
        if at is not None:
            talking.append(thread)
    return talking


async def one_try(
    script: Script, letters: Letters, to: str = "kim@example.test", *, seconds: float = PATIENCE
) -> Outcome:
    """Send one mail to a relay that does as `script` says; nothing may be left behind, in time."""
    async with open_script(script) as relay:
        with trio.fail_after(seconds + GRACE):
            async with sending(relay.port, letters, seconds=seconds) as smtp:
                outcome = await smtp.send(dispatch(to))
                busy = smtp.statistics().busy
        assert busy == 0
        assert talking_threads() == []
        await relay.wait(lambda relay: relay.connections == 0)
        return outcome


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data", "dot"])
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("450 4.7.1 greylisted", Deferred),
        ("550 5.7.1 never", Rejected),
        ("421 4.3.2 going down", Outage),
        ("530 5.7.0 log in first", Outage),
    ],
)
async def test_an_answer_decides(stage: str, answer: str, kind: type[Outage], letters: Letters) -> None:
    name = {"dot": "final dot"}.get(stage, stage.upper())
    assert await one_try({stage: say(answer)}, letters) == kind(f"{name}: {answer}")


@pytest.mark.parametrize("stage", ["greeting", "ehlo"])
@pytest.mark.parametrize("answer", ["421 4.3.2 busy", "450 later", "554 5.7.1 go away"])
async def test_a_relay_that_does_not_want_to_talk_is_an_outage_whatever_it_says(
    stage: str, answer: str, letters: Letters
) -> None:
    script = {stage: say(answer)} | ({"helo": say(answer)} if stage == "ehlo" else {})
    assert await one_try(script, letters) == Outage(f"{'greeting' if stage == 'greeting' else 'EHLO'}: {answer}")


@pytest.mark.parametrize("stage", BEFORE_THE_DOT)
@pytest.mark.parametrize(
    "act", [drop, half_close, hang, dripping, flood, say("what do you want?"), say("199 hm"), say("")]
)
async def test_a_relay_that_fails_before_the_dot_has_delivered_nothing(stage: str, act: Act, letters: Letters) -> None:
    script = {stage: act} | ({"helo": act} if stage == "ehlo" else {})
    outcome = await one_try(script, letters, seconds=TIMEOUT if act in SILENT else PATIENCE)
    assert isinstance(outcome, Outage)
    assert outcome.reason.startswith({"greeting": "greeting: ", "ehlo": "EHLO: "}.get(stage, f"{stage.upper()}: "))


@pytest.mark.parametrize(
    ("act", "why"),
    [
        (drop, "it closed the connection"),
        (half_close, "it closed the connection"),
        (hang, f"nothing within {TIMEOUT:g} s"),
        (dripping, f"nothing within {TIMEOUT:g} s"),
        (flood, "its reply has no end"),
        (say("okay"), "it does not speak SMTP"),
        (say("354 more"), "354 more is no answer to that"),
    ],
)
async def test_nobody_knows_what_became_of_a_mail_whose_dot_was_not_answered(
    act: Act, why: str, letters: Letters
) -> None:
    outcome = await one_try({"dot": act}, letters, seconds=TIMEOUT if act in SILENT else PATIENCE)
    assert outcome == Deferred(f"unknown whether it was delivered, final dot: {why}")


class Long(Letters):
    """Writes letters that are longer than all buffers on the way."""

    def write(self, dispatch: Dispatch) -> Written | Rejected:
        letter = super().write(dispatch)
        return replace(letter, raw=b"and so on\r\n" * 2_000_000) if isinstance(letter, Written) else letter


async def test_a_relay_that_does_not_take_all_of_the_letter_is_an_outage() -> None:
    async def deaf(stream: trio.SocketStream) -> None:
        await stream.send_all(b"354 go on\r\n")
        await trio.sleep_forever()

    letters = Long(sender="a@service.test", public_url="https://service.test", service="regsvc")
    async with open_script({"data": deaf}) as relay, sending(relay.port, letters, seconds=2) as smtp:
        assert await smtp.send(dispatch()) == Outage("the letter itself: nothing within 2 s")
        assert talking_threads() == []


async def test_a_relay_whose_queue_of_connections_is_full_is_an_outage(letters: Letters) -> None:
    with trio.socket.socket() as deaf:
        await deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        async with sending(port, letters, seconds=TIMEOUT, concurrency=3) as smtp:
            outcomes: list[Outcome] = []

            async def send() -> None:
                outcomes.append(await smtp.send(dispatch()))

            with trio.fail_after(TIMEOUT + GRACE):
                async with trio.open_nursery() as nursery:
                    for _ in range(3):
                        nursery.start_soon(send)
    assert {type(outcome) for outcome in outcomes} == {Outage}
    assert Outage(f"connecting: nothing within {TIMEOUT:g} s") in outcomes


async def test_a_connection_that_was_closed_while_it_waited_is_replaced_without_a_word(letters: Letters) -> None:
    async with open_script({"quit": drop, "rset": hang}) as relay, sending(relay.port, letters) as smtp:
        assert await smtp.send(dispatch()) == Accepted()
        ((_, line),) = smtp._waiting
        line.cut()
        line.usable = True  # nobody has noticed yet
        await relay.wait(lambda relay: relay.connections == 0)
        assert await smtp.send(dispatch()) == Accepted()
        assert smtp.statistics().opened == 2
    assert len(relay.letters) == 2


@pytest.mark.parametrize("goodbye", [say("421 4.4.2 idle for too long"), drop])
async def test_a_relay_that_has_had_enough_of_a_connection_gets_a_new_one_once(goodbye: Act, letters: Letters) -> None:
    polite: list[int] = []

    async def once(stream: trio.SocketStream) -> None:
        polite.append(1)
        await (say("250 OK") if len(polite) == 1 else goodbye)(stream)

    async with open_script({"mail": once}, {"mail": say("250 OK")}) as relay, sending(relay.port, letters) as smtp:
        assert await smtp.send(dispatch()) == Accepted()
        assert await smtp.send(dispatch()) == Accepted()
    assert (relay.opened, len(relay.letters)) == (2, 2)
    async with open_script({"mail": once}, {"mail": goodbye}) as relay:
        polite.clear()
        async with sending(relay.port, letters) as smtp:
            assert await smtp.send(dispatch()) == Accepted()
            assert isinstance(await smtp.send(dispatch()), Outage)
    assert (relay.opened, len(relay.letters)) == (2, 1)


async def test_a_connection_that_fails_after_mail_was_answered_is_not_tried_again(letters: Letters) -> None:
    seen: list[int] = []

    async def once(stream: trio.SocketStream) -> None:
        seen.append(1)
        await (say("250 OK") if len(seen) == 1 else drop)(stream)

    async with open_script({"rcpt": once}) as relay, sending(relay.port, letters) as smtp:
        assert await smtp.send(dispatch()) == Accepted()
        assert await smtp.send(dispatch()) == Outage("RCPT: it closed the connection")
    assert relay.opened == 1


@pytest.mark.parametrize("act", [hang, drop, say("500 what?")])
async def test_a_refusal_stands_whatever_becomes_of_the_connection(act: Act, letters: Letters) -> None:
    seconds = TIMEOUT if act in SILENT else PATIENCE
    assert await one_try({"rcpt": say("550 no"), "rset": act}, letters, seconds=seconds) == Rejected("RCPT: 550 no")


async def test_a_refusal_on_a_connection_that_is_used_again_stands_too(letters: Letters) -> None:
    seen: list[int] = []

    async def once(stream: trio.SocketStream) -> None:
        seen.append(1)
        await say("250 OK" if len(seen) == 1 else "550 no more")(stream)

    async with open_script({"mail": once, "rset": drop}) as relay, sending(relay.port, letters) as smtp:
        assert await smtp.send(dispatch()) == Accepted()
        assert await smtp.send(dispatch()) == Rejected("MAIL: 550 no more")
    assert relay.opened == 1


async def test_a_relay_is_told_goodbye(letters: Letters) -> None:
    async with open_script() as relay:
        async with sending(relay.port, letters) as smtp:
            assert await smtp.send(dispatch()) == Accepted()
            assert "quit" not in relay.heard
        await relay.wait(lambda relay: relay.connections == 0)
    assert relay.heard[-1] == "quit"


@pytest.mark.parametrize("act", [hang, drop, flood])
async def test_a_goodbye_that_is_not_answered_holds_nobody(
    act: Act, letters: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regsvc.adapters.mail.smtp.GOODBYE", 0.1)
    assert await one_try({"quit": act}, letters) == Accepted()


async def test_reasons_show_no_secret_and_no_address_and_end(letters: Letters) -> None:
    to = "kim@example.test"
    said = f"550 5.1.1 <{to.upper()}>: \x1b[31mno\x00 such user; code 0471; " + "x" * 3000
    outcome = await one_try({"rcpt": say(said)}, letters, to)
    assert isinstance(outcome, Rejected)
    assert outcome.reason.startswith("RCPT: 550 5.1.1 <…>:  [31mno  such user; code …; xxx")
    assert len(outcome.reason) <= ERROR_MAX
    login = Login("regsvc", Secret("correct horse"))
    script = {"auth": say("535 bad: AHJlZ3N2YwBjb3JyZWN0IGhvcnNl correct horse")}
    async with open_script(script) as relay, sending(relay.port, letters, login=login) as smtp:
        outcome = await smtp.send(dispatch())
    assert outcome == Outage("AUTH: 535 bad: … …; are SMTP_USERNAME and SMTP_PASSWORD right?")


async def test_a_challenge_that_is_no_base64_is_an_outage(letters: Letters) -> None:
    login = Login("regsvc", Secret("correct horse"))
    script = {"ehlo": say("250-script\r\n250 AUTH CRAM-MD5"), "auth": say("334 Zm9v!")}
    async with open_script(script) as relay, sending(relay.port, letters, login=login) as smtp:
        outcome = await smtp.send(dispatch())
    assert isinstance(outcome, Outage)
    assert outcome.reason.startswith("AUTH: ")


@pytest.mark.parametrize("stage", ["greeting", "mail", "dot"])
async def test_a_cancelled_conversation_ends_at_once(stage: str, letters: Letters) -> None:
    async with open_script({stage: hang}) as relay, sending(relay.port, letters) as smtp:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(smtp.send, dispatch())
            await relay.wait(AT[stage])
            nursery.cancel_scope.cancel(reason="the test hangs up")
            began = trio.current_time()
        assert trio.current_time() - began < GRACE
        assert talking_threads() == []
        assert smtp.statistics().busy == 0
        await relay.wait(lambda relay: relay.connections == 0)


@pytest.mark.timeout(900)  # the large form
async def test_whenever_it_is_cancelled_nothing_is_left_behind(letters: Letters, rounds: int | None) -> None:
    random = Random(4)
    threads = threading.active_count() + 8
    async with open_script() as relay:
        async with sending(relay.port, letters, concurrency=8) as smtp:

            async def send() -> None:
                with trio.move_on_after(random.random() * 0.02):
                    await smtp.send(dispatch())

            for _ in range(rounds or 15):
                async with trio.open_nursery() as nursery:
                    for _ in range(20):
                        nursery.start_soon(send)
                assert talking_threads() == []
                counts = smtp.statistics()
                assert counts.busy == 0
                await relay.wait(lambda relay, idle=counts.idle: relay.connections == idle)  # type: ignore[misc]
            assert smtp.statistics().cut > 0
            assert await smtp.send(dispatch()) == Accepted()
        await relay.wait(lambda relay: relay.connections == 0)
    assert threading.active_count() <= threads
    assert len({re.search(rb"Message-ID: (\S+)", letter)[1] for letter in relay.letters}) == len(relay.letters)  # type: ignore[index]


async def test_a_transport_that_is_cancelled_hangs_up_on_those_that_wait(letters: Letters) -> None:
    async with open_script({"quit": hang}) as relay:
        with trio.fail_after(GRACE):
            with trio.CancelScope() as scope:
                async with sending(relay.port, letters) as smtp:
                    assert await smtp.send(dispatch()) == Accepted()
                    scope.cancel(reason="the test hangs up")
            await relay.wait(lambda relay: relay.connections == 0)
    assert talking_threads() == []


async def test_starttls_that_is_offered_and_refused_is_an_outage(letters: Letters) -> None:
    script = {"ehlo": say("250-script\r\n250 STARTTLS"), "starttls": say("454 4.7.0 not now")}
    async with open_script(script) as relay, Smtp(Relay("127.0.0.1", relay.port), letters) as smtp:
        assert await smtp.send(dispatch()) == Outage("STARTTLS: 454 4.7.0 not now")
    assert relay.heard[-1] == "STARTTLS"


async def test_words_from_before_tls_are_never_taken_for_words_under_it(letters: Letters, tls: Pair) -> None:
    """An attacker in the middle adds answers to the one to STARTTLS (CVE-2011-0411)."""
    server, client = tls

    async def injected(stream: trio.SocketStream) -> None:
        await stream.send_all(b"220 go on\r\n250 forged\r\n")
        secured = trio.SSLStream(stream, server, server_side=True)
        assert await secured.receive_some() != b""
        await secured.send_all(b"550 the real one\r\n")
        assert (await secured.receive_some()).lower().startswith(b"helo")
        await secured.send_all(b"550 still the real one\r\n")
        await hang(stream)

    async with open_script({"ehlo": say("250-script\r\n250 STARTTLS"), "starttls": injected}) as relay:
        there = Relay("127.0.0.1", relay.port, Tls.STARTTLS, context=client)
        async with Smtp(there, letters) as smtp:
            assert await smtp.send(dispatch()) == Outage("EHLO: 550 still the real one")


async def test_no_descriptor_left_is_an_outage_and_leaves_no_socket(
    letters: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_socket: socket.socket) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    async with open_script() as relay, sending(relay.port, letters) as smtp:
        monkeypatch.setattr(socket.socket, "dup", full)
        outcome = await smtp.send(dispatch())
        await relay.wait(lambda relay: relay.opened == 1 and relay.connections == 0)
    assert outcome == Outage(f"connecting: 127.0.0.1 port {relay.port}: Too many open files")
