"""What a connection to a relay knows without one."""

import smtplib
import socket
import ssl
from collections.abc import Iterator

import pytest

from regsvc.adapters.mail.line import Line, plain, reason


@pytest.fixture
def line() -> Iterator[Line]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        made = Line(socket.create_connection(listening.getsockname()), "relay.test")
        yield made
        made.hang_up()


@pytest.mark.parametrize(
    ("host", "address", "name"),
    [
        ("mail.service.test", "127.0.0.1", "mail.service.test"),
        ("laptop", "127.0.0.1", "[127.0.0.1]"),
        ("bücher.test", "10.0.0.7", "[10.0.0.7]"),
        ("laptop", "fe80::1%eth0", "[IPv6:fe80::1]"),
    ],
)
def test_a_line_names_itself_without_asking_the_dns(
    host: str, address: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_about: object) -> str:
        raise AssertionError("the DNS was asked")

    monkeypatch.setattr(socket, "gethostname", lambda: host)
    monkeypatch.setattr(socket, "getfqdn", asked)
    monkeypatch.setattr(socket, "gethostbyname", asked)
    monkeypatch.setattr(socket.socket, "getsockname", lambda _socket: (address, 25))
    ours, theirs = socket.socketpair()
    with theirs:
        line = Line(ours, "relay.test")
        assert line.local_hostname == name
        line.hang_up()


def test_a_line_that_was_hung_up_says_so(line: Line) -> None:
    line.hang_up()
    line.cut()  # comes too late, and does no harm
    with pytest.raises(smtplib.SMTPServerDisconnected):
        line.getreply()
    with pytest.raises(smtplib.SMTPServerDisconnected):
        line.secure(ssl.create_default_context())
    assert not line.usable


def test_reasons_are_one_printable_line() -> None:
    assert plain("a\r\nb\x1b[0m\u202ec", ()) == "a  b [0m c"
    assert plain("code 0042, CODE 0042; nothing else", ("0042", "", "code")) == "… …, … …; nothing else"
    assert plain("(a+b)", ("a+b",)) == "(…)"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (smtplib.SMTPDataError(550, b"n\xffo"), "550 n\ufffdo"),
        (ConnectionResetError(104, "Connection reset by peer"), "Connection reset by peer"),
        (smtplib.SMTPServerDisconnected("it closed the connection"), "it closed the connection"),
        (ValueError(), "ValueError"),
    ],
)
def test_an_error_is_said_in_few_words(error: Exception, said: str) -> None:
    assert reason(error) == said
