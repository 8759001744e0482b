"""What two servers might read differently, and what no handler should see, is refused before h11's reading counts.

h11 forgives what RFC 9112 lets it forgive: folded lines, bare LF at the end of a chunked body, `5, 5` for a length,
control characters in values. A proxy in front may forgive it otherwise, and where the two disagree on where a request
ends, somebody's next request is not his own (request smuggling). So a request is one that everybody reads alike, or is
refused, and its connection closed.
"""

import re
from typing import Final
from urllib.parse import urlsplit

import h11

from regsvc.http.door import Refused

METHODS: Final = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})
_CONTENT_LENGTH: Final = re.compile(rb"\ncontent-length:([^\r]*)", re.IGNORECASE)
_LENGTH: Final = re.compile(rb"[ \t]*[0-9]{1,20}[ \t]*")
_TEXT: Final = bytes({*range(256)} - {*range(0x20), 0x7F} | {0x09})  # all that is no control character, and the tab
_HOST: Final = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=:%\[\]-]*")  # RFC 3986, 3.2.2 and 3.2.3; may be empty
_CHUNK: Final = rb"(?:\r|\n|\r\n)?(?:[0-9A-Fa-f]+(?:;[\t -~\x80-\xff]*)?\r\n)?"  # end of the last one, head of this
_IN_BODY: Final = re.compile(_CHUNK)
_AT_END: Final = re.compile(_CHUNK + rb"(?:[!#-'*+.0-9A-Z^-z|~-]+:[\t -~\x80-\xff]*\r\n)*\r\n")  # trailers
_SHOWN: Final = re.compile(r":? *bytearray\(.*", re.DOTALL)  # what h11 says back of what it got


def malformed(detail: str) -> Refused:
    """Return the refusal of what is not a request that everybody reads alike."""
    return Refused(400, "MalformedRequest", detail)


def too_large(limit: int) -> Refused:
    """Return the refusal of a body of more than `limit` bytes."""
    return Refused(413, "PayloadTooLarge", f"The body may have {limit} bytes at most.")


def not_http(error: h11.RemoteProtocolError) -> Refused:
    """Word what h11 found, without what it found it in: that may be half of somebody's password."""
    return malformed(f"This is not HTTP/1.1: {_SHOWN.sub('', str(error))}.")


def check_head(unread: bytes, head_max: int) -> None:
    """Refuse a head, whole or not yet, by its bytes. Raises Refused."""
    end = unread.find(b"\r\n\r\n")
    head = unread if end < 0 else unread[: end + 4]
    if len(head) > head_max:  # h11 counts a head only while it is incomplete
        raise Refused(431, "HeadersTooLarge", f"Request line and headers may have {head_max} bytes at most.")
    lines = head.count(b"\r\n")
    controls = head.translate(None, _TEXT)
    if len(controls) != 2 * lines and controls.removesuffix(b"\r") != b"\r\n" * lines:  # its last LF may be on its way
        raise malformed("Lines end with CR LF, and no other control character is in them.")
    if b"\n " in head or b"\n\t" in head:
        raise malformed("A header is one line.")
    lengths = _CONTENT_LENGTH.findall(head)
    if len(lengths) > 1:
        raise malformed("Content-Length is given more than once.")
    if lengths and end >= 0 and not _LENGTH.fullmatch(lengths[0]):
        raise malformed("Content-Length is one number.")


def check_request(request: h11.Request, body_max: int) -> bytes:
    """Refuse a request by what it asks; return its target in origin form. Raises Refused."""
    if request.method not in METHODS:
        raise malformed("The method is unknown here.")
    if request.http_version not in {b"1.0", b"1.1"}:
        raise malformed("The version is neither HTTP/1.0 nor HTTP/1.1.")
    headers = dict(request.headers)
    length = headers.get(b"content-length")
    if b"transfer-encoding" in headers:
        if length is not None:
            raise malformed("Transfer-Encoding and Content-Length exclude each other.")
        if request.http_version == b"1.0":  # RFC 9112, 6.1
            raise malformed("HTTP/1.0 has no Transfer-Encoding.")
    if length is not None and int(length) > body_max:
        raise too_large(body_max)
    if not _HOST.fullmatch(headers.get(b"host", b"")):
        raise malformed("Host is not a host.")
    return request.target if request.target.startswith(b"/") else _origin_form(request.target)


def check_chunk(taken: bytes, event: object) -> None:
    """Refuse what is around the data of a chunk; `taken`: what h11 took for this event. Raises Refused."""
    if isinstance(event, h11.Data):
        taken = taken[: len(taken) - len(event.data)]
    grammar = _AT_END if isinstance(event, h11.EndOfMessage) else _IN_BODY
    if not grammar.fullmatch(taken):
        raise malformed("The chunks of the body are not framed as RFC 9112 has it.")


def _origin_form(target: bytes) -> bytes:
    try:
        parts = urlsplit(target)
    except ValueError:
        raise malformed("The request target cannot be read.") from None
    if parts.scheme not in {b"http", b"https"} or not parts.netloc:
        raise malformed("The request target is neither a path nor an http(s) address.")
    return (parts.path or b"/") + (b"?" + parts.query if parts.query else b"")
