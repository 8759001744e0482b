"""Requests whose end two servers may see in different places, and what becomes of each of them here.

Each hides `HIDDEN` where one reading takes it for a part of the request, and another for a request of its own.
"""

from dataclasses import dataclass
from typing import Final

HIDDEN: Final = b"GET /echo?hidden HTTP/1.1\r\nHost: x\r\n\r\n"
NEXT: Final = b"GET /echo?next HTTP/1.1\r\nHost: x\r\n\r\n"
_POST: Final = b"POST /echo HTTP/1.1\r\nHost: x\r\n"
_CHUNKED: Final = _POST + b"Transfer-Encoding: chunked\r\n\r\n"
_WHOLE: Final = b"%x\r\n%s\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """A request; `body`: what its handler gets, where it is read at all."""

    data: bytes
    body: bytes | None = None


def _headers(*lines: bytes, then: bytes = HIDDEN) -> Ambiguous:
    return Ambiguous(_POST + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + then)


def _chunks(data: bytes, body: bytes | None = None) -> Ambiguous:
    return Ambiguous(_CHUNKED + data, body)


def _get(line: bytes, *headers: bytes, body: bytes | None = None, then: bytes = b"") -> Ambiguous:
    return Ambiguous(line + b"\r\n" + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + then, body)


TE: Final = b"Transfer-Encoding: chunked"
ZERO: Final = b"0\r\n\r\n"
_AFTER: Final = ZERO + HIDDEN

LENGTHS: Final = {
    f"length {value!r}": _headers(b"Content-Length: " + value)
    for value in (
        b"+5", b"-5", b"-0", b"0x5", b"5.0", b"5e0", b"5 5", b"5,5", b"5, 5", b"5;5", b"'5'", b'"5"', b"", b" ", b"a",
        b"five", b"1_0", b"\xb2", b"\xd9\xa5", b"\x0b5", b"5\x0c", b"5\x00", b"5\x1f", b"5\t5", b"9" * 21, b"9" * 5000,
        b"0" * 30, b"5\r", b"\r5", b"5\n",
    )
}  # fmt: skip

CODINGS: Final = {
    f"coding {line!r}": _headers(line, then=_AFTER)
    for line in (
        b"Transfer-Encoding: identity", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding: chunked;q=1", b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: chunkedx", b"Transfer-Encoding: chunk", b'Transfer-Encoding: "chunked"',
        b"Transfer-Encoding: 'chunked'", b"Transfer-Encoding: ,chunked", b"Transfer-Encoding: chunked,",
        b"Transfer-Encoding:", b"Transfer-Encoding: \x0bchunked", b"Transfer-Encoding:\x0cchunked",
        b"Transfer-Encoding: chunked\x0b", b"Transfer-Encoding: \x00chunked", b"Transfer-Encoding: chunked\x00",
        b"Transfer-Encoding: ch\x01unked", b"Transfer-Encoding: chunked\xff", b"Transfer-Encoding: \xa0chunked",
        b"Transfer-Encoding : chunked", b"Transfer-Encoding\t: chunked", b"Transfer-Encoding\x0b: chunked",
        b" Transfer-Encoding: chunked", b"\tTransfer-Encoding: chunked", b"Transfer-Encoding:\r\n chunked",
        b"Transfer-Encoding:\n chunked", b"Transfer-Encoding\r\n : chunked", b"X: y\nTransfer-Encoding: chunked",
        b"X: y\rTransfer-Encoding: chunked", b"X: y\r\n Transfer-Encoding: chunked", b"\x00Transfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", TE + b"\r\n" + TE,
        b"Transfer-Encoding: identity\r\n" + TE, b"Transfer-Encoding chunked", b"Transfer-Encoding=chunked",
        b": chunked", b"Transfer Encoding: chunked", b"Transfer-Encoding(x): chunked",
    )
}  # fmt: skip

BOTH: Final = {
    "CL.TE": _headers(b"Content-Length: 5", TE, then=_AFTER),
    "TE.CL": _headers(TE, b"Content-Length: 5", then=_WHOLE),
    "CL.TE, nothing": _headers(b"Content-Length: 0", TE, then=_AFTER),
    "CL.TE, folded": _headers(b"Content-Length: 5", b"Transfer-Encoding:\r\n chunked", then=_AFTER),
    "CL.CL": _headers(b"Content-Length: 0", b"Content-Length: %d" % len(HIDDEN)),
    "CL.CL, case": _headers(b"Content-Length: 0", b"CONTENT-LENGTH: 0"),
    "CL.CL, folded": _headers(b"Content-Length: 0", b"X: y\r\n\tContent-Length: 5"),
    "TE of HTTP/1.0": Ambiguous(_CHUNKED.replace(b"1.1", b"1.0") + _AFTER),
    "trailing CL": _chunks(b"0\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN), b""),
}

CHUNKS: Final = {
    "whole": _chunks(_WHOLE, HIDDEN),
    "capitals": _chunks(b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    "leading zeros": _chunks(b"005\r\nhello\r\n000\r\n\r\n", b"hello"),
    "extension": _chunks(b"5;a=b\r\nhello\r\n0;c\r\n\r\n", b"hello"),
    "trailers": _chunks(b"5\r\nhello\r\n0\r\nX: y\r\nZ:\r\n\r\n", b"hello"),
    **{
        f"chunks {data!r}": _chunks(data)
        for data in (
            b"5\r\nhello\r\n0\r\n\n" + HIDDEN, b"0\n\n" + HIDDEN, b"0\r\n\n" + HIDDEN, b"0\n\r\n" + HIDDEN,
            b"0\r\nX: y\n\n" + HIDDEN, b"0\r\nX: y\n\r\n" + HIDDEN, b"0\r\nX: y\r\n\n" + HIDDEN,
            b"0\r\nX: y\r\n folded\r\n\r\n" + HIDDEN, b"0\r\nX : y\r\n\r\n" + HIDDEN, b"0\r\nX\r\n\r\n" + HIDDEN,
            b"0\r\nX: \x00\r\n\r\n" + HIDDEN, b"0\r\nX: a\rb\r\n\r\n" + HIDDEN, b"0\r\n: y\r\n\r\n" + HIDDEN,
            b"5\nhello\r\n" + ZERO, b"5\rhello\r\n" + ZERO, b"5\r\nhello\n" + ZERO, b"5\r\nhello" + ZERO,
            b"5\r\nhelloXX" + ZERO, b"5\r\nhello\r\r\n" + ZERO, b"5 \r\nhello\r\n" + ZERO, b"5\t\r\nhello\r\n" + ZERO,
            b" 5\r\nhello\r\n" + ZERO, b"+5\r\nhello\r\n" + ZERO, b"-5\r\nhello\r\n" + ZERO, b"0x5\r\nhello\r\n" + ZERO,
            b"5;a\nb\r\nhello\r\n" + ZERO, b"5;a\rb\r\nhello\r\n" + ZERO, b"5;a\x00\r\nhello\r\n" + ZERO,
            b"5;\n" + HIDDEN + b"\r\n" + ZERO, b"5 ; a\r\nhello\r\n" + ZERO, b"5,5\r\nhello\r\n" + ZERO,
            b"5x\r\nhello\r\n" + ZERO, b"\r\n" + ZERO, b"g\r\nhello\r\n" + ZERO, b"\xb2\r\nhe\r\n" + ZERO,
            b"00000000000000000000005\r\nhello\r\n" + ZERO, b"10000000000000005\r\nhello\r\n" + ZERO,
            b"FFFFFFFFFFFFFFFF\r\nhello\r\n" + ZERO, b"8000000000000000\r\nhello\r\n" + ZERO,
        )
    },
}  # fmt: skip

TARGETS: Final = {
    f"target {line!r}": _get(line, b"Host: x")
    for line in (
        b"GET  /echo HTTP/1.1", b"GET\t/echo HTTP/1.1", b"GET /echo  HTTP/1.1", b"GET /echo\tHTTP/1.1",
        b" GET /echo HTTP/1.1", b"GET /echo HTTP/1.1 ", b"GET /echo HTTP/1.1\t", b"GET /ec ho HTTP/1.1",
        b"GET /echo HTTP/1.1 HTTP/1.1", b"GET /echo\x00 HTTP/1.1", b"GET /echo\x0b HTTP/1.1", b"GET /\xff HTTP/1.1",
        b"GET /echo HTTP/1.1\r", b"GET /echo\r HTTP/1.1", b"GET /echo\nHTTP/1.1", b"GET HTTP/1.1", b"GET /echo",
        b"GET /echo HTTP/1.2", b"GET /echo HTTP/2", b"GET /echo HTTP/2.0", b"GET /echo HTTP/3.0", b"GET /echo HTTP/0.9",
        b"GET /echo HTTP/11.1", b"GET /echo HTTP/1.01", b"GET /echo HTTP/01.1", b"GET /echo http/1.1",
        b"GET /echo HTTP",
        b"GET /echo HTTP/1.", b"GET /echo HTTP 1.1", b"GET /echo XTTP/1.1", b"GET echo HTTP/1.1", b"GET x:443 HTTP/1.1",
        b"GET * HTTP/1.1", b"OPTIONS * HTTP/1.1", b"CONNECT x:443 HTTP/1.1", b"GET ? HTTP/1.1", b"GET # HTTP/1.1",
        b"GET http:///echo HTTP/1.1", b"GET http:/echo HTTP/1.1", b"GET ftp://x/echo HTTP/1.1",
        b"GET javascript:alert(1) HTTP/1.1", b"GET http://[::1/echo HTTP/1.1", b"get /echo HTTP/1.1",
        b"G\x00T /echo HTTP/1.1", b"GE T /echo HTTP/1.1", b"GET: /echo HTTP/1.1", b"TRACE /echo HTTP/1.1",
        b"PRI * HTTP/2.0", b"\x00GET /echo HTTP/1.1", b"\xef\xbb\xbfGET /echo HTTP/1.1", b"\r\n\r\nGET /echo HTTP/1.1",
    )
}  # fmt: skip

HOSTS: Final = {
    "no host": _get(b"GET /echo HTTP/1.1"),
    "two hosts": _get(b"GET /echo HTTP/1.1", b"Host: x", b"Host: y"),
    "the same host twice": _get(b"GET /echo HTTP/1.1", b"Host: x", b"Host: x"),
    **{
        f"host {host!r}": _get(b"GET /echo HTTP/1.1", b"Host: " + host)
        for host in (b"a b", b"x/y", b"x?y", b"x#y", b"u@x", b"\xff", b"<x>", b"x\\y", b"x\x00", b'"x"', b"x\ty",
                     b"{x}")
    },
    **{
        f"header {line!r}": _get(b"GET /echo HTTP/1.1", b"Host: x", line)
        for line in (
            b"X : y", b"X\t: y", b"X", b" X: y", b": y", b"X\x00: y", b"X: \x00", b"X: a\rb", b"X: a\nY: b",
            b"X: a\r\n b", b"X: a\r\n\tb", b"X: \x01", b"X: \x1b[31m", b"X: \x7f", b"X: \x0b", b"X\xff: y", b"X(): y",
        )
    },
}  # fmt: skip

TAKEN: Final = {
    "plain": Ambiguous(_POST + b"Content-Length: 5\r\n\r\nhello", b"hello"),
    "no body": Ambiguous(_POST + b"\r\n", b""),
    "length of nothing": Ambiguous(_POST + b"Content-Length: 0\r\n\r\n", b""),
    "a request as the body": Ambiguous(_POST + b"Content-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN, HIDDEN),
    "blanks around a length": Ambiguous(_POST + b"Content-Length: \t 5 \t\r\n\r\nhello", b"hello"),
    "zeros before a length": Ambiguous(_POST + b"Content-Length: 0005\r\n\r\nhello", b"hello"),
    "a coding in capitals": Ambiguous(_POST + b"TRANSFER-ENCODING:CHUNKED\r\n\r\n" + _WHOLE, HIDDEN),
    "GET with a body": _get(
        b"GET /echo HTTP/1.1", b"Host: x", b"Content-Length: %d" % len(HIDDEN), body=HIDDEN, then=HIDDEN
    ),
    "no coding at all": Ambiguous(_POST + b"Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "a coding like it": Ambiguous(_POST + b"X-Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "absolute": _get(b"GET http://y/echo?there HTTP/1.1", b"Host: x", body=b"there"),
    "absolute with a user": _get(b"GET http://u:p@y:80/echo?there HTTP/1.1", b"Host: x", body=b"there"),
    "empty host": _get(b"GET /echo?there HTTP/1.1", b"Host:", body=b"there"),
    "host of IPv6": _get(b"GET /echo?there HTTP/1.1", b"Host: [::1]:80", body=b"there"),
    "upgrade": Ambiguous(
        _POST + b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"
        b"Content-Length: 5\r\n\r\nhello",
        b"hello",
    ),
    "latin value": _get(b"GET /echo?there HTTP/1.1", b"Host: x", b"X: \xe9\xff", body=b"there"),
}

REFUSED: Final = {
    name: one
    for corpus in (LENGTHS, CODINGS, BOTH, CHUNKS, TARGETS, HOSTS)
    for name, one in corpus.items()
    if one.body is None
}
READ: Final = {**TAKEN, **{name: one for name, one in {**BOTH, **CHUNKS}.items() if one.body is not None}}
