"""A load generator for light requests: keep-alive connections over epoll, one request at a time on each.

By hand, for a client in Python spends more on a request than the service: this one takes some 20 µs, all of it but the
bookkeeping in the kernel. `busy` says how much of its core it took: below 0.8 it was the server that was measured.
wrk does the same, but it is on few machines, and it neither looks at what is answered nor says what it spent.
"""

import gc
import re
import select
import socket
import time
from dataclasses import dataclass, field

CONNECTIONS = 16
LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)\r\n")
ANSWER_SECONDS = 5.0


@dataclass(slots=True)
class Blow:
    """What a server did in `seconds`: the time of each answer, what the first said, and the generator's own share."""

    seconds: float
    times: list[float]
    body: bytes
    busy: float

    @property
    def rate(self) -> float:
        return len(self.times) / self.seconds


@dataclass(slots=True)
class _Line:
    sock: socket.socket
    asked: float = 0.0
    data: bytearray = field(default_factory=bytearray)

    def ask(self, request: bytes) -> None:
        self.asked = time.perf_counter()
        self.sock.send(request)

    def answer(self) -> bytes | None:
        """Take what has come; return the body once it is whole. Raises AssertionError for anything but a 200."""
        some = self.sock.recv(65536)
        assert some, "the server hung up"
        self.data += some
        end = self.data.find(b"\r\n\r\n")
        if end < 0:
            return None
        length = LENGTH.search(self.data, 0, end + 2)
        assert self.data.startswith(b"HTTP/1.1 200 "), bytes(self.data)
        assert length, bytes(self.data)
        if len(self.data) < (whole := end + 4 + int(length[1])):
            return None
        body = bytes(self.data[end + 4 : whole])
        del self.data[:whole]
        return body


def request(path: str, *, token: str | None = None) -> bytes:
    """Return a GET as a plain client sends it."""
    who = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: hammer\r\nAccept: */*\r\n{who}\r\n".encode()


def hammer(port: int, asked: bytes, seconds: float, connections: int = CONNECTIONS) -> Blow:
    """Ask again and again for `seconds`; every answer has to be a 200 as long as the first."""
    lines = {}
    watch = select.epoll()
    for _ in range(connections):
        sock = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        lines[sock.fileno()] = _Line(sock)
        watch.register(sock.fileno(), select.EPOLLIN)
    times: list[float] = []
    first = b""
    gc.disable()
    began, spent = time.perf_counter(), time.process_time()
    try:
        for line in lines.values():
            line.ask(asked)
        until = began + seconds
        while (now := time.perf_counter()) < until:
            ready = watch.poll(ANSWER_SECONDS)
            assert ready, "no answer came"
            for number, _ in ready:
                line = lines[number]
                if (body := line.answer()) is not None:
                    now = time.perf_counter()
                    times.append(now - line.asked)
                    first = first or body
                    assert len(body) == len(first), body
                    line.ask(asked)
        taken = time.perf_counter() - began
        busy = (time.process_time() - spent) / taken
    finally:
        gc.enable()
        watch.close()
        for line in lines.values():
            line.sock.close()
    return Blow(taken, times, first, busy)
