"""The search for secrets finds them, in whatever form; what finds nothing would let everything pass."""

import base64
import binascii
import json
import secrets
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.canaries import KNOWN, MAILED, SHORTEST, Canaries
from tests.service import Service

PASSWORD = 'pässwort "of" some/length?'
FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "in JSON": json.dumps,
    "in JSON, readable": lambda text: json.dumps(text, ensure_ascii=False),
    "as Python shows it": repr,
    "as Python shows its octets": lambda text: repr(text.encode()),
    "quoted": quote,
    "quoted for a form": quote_plus,
    "in hex": lambda text: text.encode().hex(),
    "in upper hex": lambda text: text.encode().hex().upper(),
    "in PostgreSQL's hex": lambda text: "\\x" + binascii.hexlify(text.encode()).decode(),
    "in base64": lambda text: base64.b64encode(text.encode()).decode(),
    "in base64url": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "in base64, after one octet": lambda text: base64.b64encode(b":" + text.encode()).decode(),
    "in base64, after two octets": lambda text: base64.b64encode(b"a:" + text.encode() + b"and more").decode(),
    "folded": str.casefold,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("before", range(7))
def test_a_password_is_found_in_every_form_and_place(form: str, before: int) -> None:
    known = Canaries()
    known.add("password", PASSWORD)
    haystack = "\n" * before + f'{{"event": "x", "reason": "{FORMS[form](PASSWORD)}"}}\n'
    [found] = known.found(haystack.encode())
    assert found.canary.text == PASSWORD


def test_a_token_is_found_by_the_octets_that_it_was_made_of() -> None:
    known, octets = Canaries(), secrets.token_bytes(32)
    known.add("refresh_token", base64.urlsafe_b64encode(octets).decode().rstrip("="))
    assert known.found(b"(7,\\\\x" + octets.hex().encode() + b",f)")


@given(st.text(min_size=SHORTEST), st.binary(), st.binary())
def test_every_text_that_is_noted_is_found(text: str, before: bytes, after: bytes) -> None:
    known = Canaries()
    known.add("password", text)
    found = known.found(before + text.encode("utf-8", "surrogatepass") + after)
    assert [one.canary for one in found] == list(known.all.values())


def test_what_is_in_no_haystack_is_not_found() -> None:
    known = Canaries()
    for _ in range(300):
        known.add("token", secrets.token_urlsafe(32))
        known.add_code(f"{secrets.randbelow(10**10):010}")
    haystack = "".join(f'{{"event": "x", "request_id": "{secrets.token_hex(16)}", "n": {n}}}\n' for n in range(5_000))
    assert known.found(haystack.encode()) == []
    needle = known.all[max(known.all)]
    [found] = known.found((haystack * 2 + needle.text + haystack).encode())
    assert found.canary == needle


@pytest.mark.parametrize("before", range(5))
def test_a_code_of_ten_digits_is_found_among_others(before: int) -> None:
    known = Canaries()
    known.add_code("0123456789")
    assert known.found(b"9" * before + b'01234567890123 {"port": 123456789}')
    assert not known.found(b"123456789 0123 456789")


def heard(request: httpx.Request, answer: dict[str, object] | None = None, **headers: str) -> set[tuple[str, str]]:
    """Return what is noted of a request and its answer."""
    known = Canaries()
    known.request(request)
    known.response(httpx.Response(200, json=answer or {}, headers=headers, request=request))
    return {(canary.kind, canary.text) for canary in known.all.values()}


def test_what_is_said_and_heard_in_confidence_is_noted() -> None:
    url = "http://x.test/v1/auth/login"
    form = {"email": "a@example.test", "password": PASSWORD, "nested": [{"new_password": "another of that length"}]}
    said = httpx.Request("POST", url, json=form, headers={"Idempotency-Key": '"a key of some length"'})
    answer: dict[str, object] = {"access_token": "head.payload.and-the-signature", "refresh_token": "r3fresh-me-again"}
    assert heard(said, answer, **{"Set-Cookie": "__Host-x=a-cookie-of-ours; Secure"}) == {
        ("password", PASSWORD),
        ("new_password", "another of that length"),
        ("idempotency key", '"a key of some length"'),
        ("access_token", "and-the-signature"),
        ("refresh_token", "r3fresh-me-again"),
        ("cookie", "a-cookie-of-ours"),
    }
    basic = next(httpx.BasicAuth("a@example.test", PASSWORD).auth_flow(httpx.Request("GET", url)))
    assert ("password", PASSWORD) in heard(basic)
    assert ("bearer", "and-the-signature") in heard(
        httpx.Request("GET", url, headers={"Authorization": "Bearer head.payload.and-the-signature"})
    )


def test_what_a_letter_holds_is_noted() -> None:
    token = secrets.token_urlsafe(32)
    mails: dict[str, object] = {"items": [{"Content": {"Body": f"Open\r\nhttp://x.test/reset-password#{token}\r\n"}}]}
    assert heard(httpx.Request("GET", "http://x.test/api/v2/messages"), mails) == {(MAILED, token)}


@pytest.mark.parametrize(
    "secret", ["a canary that is planted", "t0ld-in-the-environment", "t0ld-in-an-address", "m4de-by-itself"]
)
def test_a_service_is_looked_at_for_what_was_said_to_it_and_what_it_was_told(tmp_path: Path, secret: str) -> None:
    told = {"REGSVC_ADMIN_TOKEN": "t0ld-in-the-environment", "REDIS_URL": "redis://x:t0ld-in-an-address@127.0.0.1:1/0"}
    service = Service(tmp_path, told)
    KNOWN.add("password", "a canary that is planted")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "secret").write_text("m4de-by-itself")
    service.log.write_text('{"event": "x"}\n')
    service.look()
    service.log.write_text(f'{{"event": "x", "reason": "{secret.encode().hex()}"}}\n')
    with pytest.raises(AssertionError, match=r"1 secrets in .*stdout.log"):
        service.look()


def test_a_console_prints_letters_and_nobody_else_does(tmp_path: Path) -> None:
    token = secrets.token_urlsafe(32)
    KNOWN.letter(f"Open\n{token}\n")
    shown, hidden = Service(tmp_path, {}), Service(tmp_path, {"REGSVC_MAIL_CHANNEL": "mailbox"})
    shown.log.write_text(token)
    shown.look()
    with pytest.raises(AssertionError, match="1 secrets in"):
        hidden.look()
