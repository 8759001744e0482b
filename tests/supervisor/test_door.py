"""The listening socket: whose address, which port, what is said of it."""

import errno
import os
import signal
import socket
import sys

import pytest

from regsvc.supervisor import CannotListen, listening
from regsvc.supervisor.door import addresses, shut
from tests.supervisor.stage import QUICK, Scene, tell, until


def test_a_port_that_is_taken_is_said_with_what_to_do(scene: Scene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen, match=rf"127.0.0.1:{port}: another program .* REGSVC_PORT") as refused:
            scene.run("ready(); wait()", PORT=str(port))
    assert refused.value.again
    assert scene.pids() == []


@pytest.mark.parametrize(
    ("host", "said"), [("192.0.2.1", "this machine has no such address"), ("not a name", "REGSVC_HOST: cannot listen")]
)
def test_an_address_that_is_not_ours_is_refused_for_good(scene: Scene, host: str, said: str) -> None:
    with pytest.raises(CannotListen, match=said) as refused, listening(scene.settings(HOST=host)):
        pass
    assert not refused.value.again


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_the_socket_takes_connections_at_once(scene: Scene, host: str) -> None:
    with listening(scene.settings(HOST=host)) as door:
        assert door is not None
        assert door.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        with socket.create_connection(door.getsockname()[:2], timeout=QUICK):
            pass


@pytest.mark.skipif(sys.platform != "linux", reason="packets are passed over by a filter of Linux")
def test_a_door_that_is_shut_lets_in_who_has_begun_and_resets_nobody(scene: Scene) -> None:
    """The supervisor shuts it; `worker` is what a worker has of it."""
    with listening(scene.settings()) as door:
        assert door is not None
        address, worker = door.getsockname(), door.dup()
        with socket.create_connection(address, timeout=QUICK) as begun, worker:
            shut(door)
            assert door.fileno() == -1
            with pytest.raises(TimeoutError):
                socket.create_connection(address, timeout=0.2)
            begun.sendall(b"asked")
            taken, _ = worker.accept()
            with taken:
                assert taken.recv(9) == b"asked"
                taken.sendall(b"answered")
                assert begun.recv(9) == b"answered"
                newcomer = socket.socket()
                newcomer.settimeout(0)
                with newcomer:
                    newcomer.connect_ex(address)
                    worker.close()
                    # The kernel asks once more after a second, and is refused: with nothing sent, it was no reset.
                    assert newcomer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
                    until(lambda: newcomer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED)


def test_who_serves_no_http_does_not_listen(scene: Scene) -> None:
    with listening(scene.settings(ROLES="mailer")) as door:
        assert door is None

    def actor() -> None:
        until(lambda: scene.lines.of("service_started"))
        tell(signal.SIGTERM)

    assert scene.run("ready(); wait()", actor, ROLES="mailer,sweeper") == os.EX_OK
    assert scene.told == []
    assert scene.lines.of("service_started")[0]["roles"] == ["mailer", "sweeper"]


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("0.0.0.0", "http://127.0.0.1:7"),  # noqa: S104 - nothing is bound
        ("::", "http://[::1]:7"),
        ("10.1.2.3", "http://10.1.2.3:7"),
    ],
)
def test_addresses_are_ones_that_a_person_can_open(scene: Scene, host: str, shown: str) -> None:
    found = addresses(scene.settings(HOST=host, PROFILE="dev"), 7)
    assert found == {"service": shown, "docs": f"{shown}/docs", "mailbox": f"{shown}/dev/mail"}
