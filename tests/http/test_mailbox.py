"""The development mailbox: a page that hears of mail by itself, and MailHog's API for its clients."""

import json
from datetime import timedelta
from email.message import EmailMessage
from uuid import UUID

import pytest
import trio

from regsvc.http import mailbox
from regsvc.ports import BoxedMail
from tests.flows.fakes import START
from tests.http.doorstep import Doorstep, Pigeonhole
from tests.http.tiny import calling, serving

TEXT = "Hello,\n\nthe code is\n\n    0428\n\nfor Zoë.\n"
HTML = "<p>the code is</p><p>0428</p>"


def boxed(door: Doorstep, to: str, *, html: str = HTML, minutes: int = 0) -> BoxedMail:
    """Drop a letter like those that the service writes."""
    assert door.mailbox is not None
    letter = EmailMessage()
    letter["Subject"], letter["To"], letter["From"] = "Your code, Zoë", to, "regsvc <no-reply@example.org>"
    letter.set_content(TEXT)
    if html:
        letter.add_alternative(html, subtype="html")
    raw = letter.as_bytes(policy=letter.policy.clone(linesep="\r\n"))
    at = START + timedelta(minutes=minutes)
    return door.mailbox.drop(to, subject="Your code, Zoë", text=TEXT, html=html, raw=raw, at=at)


@pytest.fixture
def three(door: Doorstep) -> Doorstep:
    """Three mails, the newest to Bob."""
    for minutes, to in enumerate(("alice@example.com", "Alice@Example.com", "bob@example.com")):
        boxed(door, to, minutes=minutes)
    return door


# ------------------------------------------------------------------------------------------------- the page


async def test_the_page_loads_nothing_from_elsewhere(door: Doorstep) -> None:
    page = await door.ask("GET", "/dev/mail")
    assert page.status == 200
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    text = page.body.decode()
    assert "http://" not in text
    assert "https://" not in text
    assert "<iframe" in text
    assert "sandbox>" in text
    for name in ("pages.css", "mailbox.css", "mailbox.js", "icon.svg"):
        assert f"/assets/{name}" in text
        asset = await door.ask("GET", f"/assets/{name}")
        assert asset.status == 200
        assert asset.body


async def test_the_page_gets_its_mails(three: Doorstep) -> None:
    found = (await three.ask("GET", "/dev/mail/messages?limit=2")).json
    assert found["total"] == 3
    assert [mail["to"] for mail in found["items"]] == ["bob@example.com", "Alice@Example.com"]
    assert found["items"][0] == {
        "id": str(UUID(int=3)),
        "at": "2026-11-20T11:02:00.000Z",
        "sender": "regsvc <no-reply@example.org>",
        "to": "bob@example.com",
        "subject": "Your code, Zoë",
        "text": TEXT,
        "has_html": True,
    }
    to_alice = (await three.ask("GET", "/dev/mail/messages?to=alice%40example.com&start=1")).json
    assert (to_alice["total"], len(to_alice["items"])) == (2, 1)


async def test_a_letter_may_run_and_load_nothing(three: Doorstep) -> None:
    letter = await three.ask("GET", f"/dev/mail/messages/{UUID(int=1)}/letter")
    assert letter.body.decode() == HTML
    policy = letter.headers["Content-Security-Policy"]
    assert {"default-src 'none'", "sandbox"} <= set(policy.split("; "))
    source = await three.ask("GET", f"/dev/mail/messages/{UUID(int=1)}/source")
    assert source.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert source.body.startswith(b"Subject: ")


async def test_a_mail_that_is_not_there_is_a_404(three: Doorstep) -> None:
    boxed(three, "plain@example.com", html="")
    for path in (
        f"/dev/mail/messages/{UUID(int=9)}/letter",
        f"/dev/mail/messages/{UUID(int=9)}/source",
        f"/dev/mail/messages/{UUID(int=4)}/letter",
        "/dev/mail/messages/nonsense/source",
        "/api/v1/messages/nonsense",
        f"/api/v1/messages/{UUID(int=9)}",
    ):
        (await three.ask("GET", path)).problem(404, "NotFound")
    (await three.ask("DELETE", "/api/v1/messages/nonsense")).problem(404, "NotFound")


async def test_the_page_hears_of_mail_as_it_comes(door: Doorstep) -> None:
    async with serving(door.app) as house, calling(house.port) as caller:
        await caller.say(b"GET /dev/mail/events HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await caller.until(b"\r\n\r\n")
        assert b"text/event-stream" in head
        await caller.until(b"event: mails\ndata: 0\n\n")
        boxed(door, "alice@example.com")
        await caller.until(b"event: mails\ndata: 1\n\n")
        assert door.mailbox is not None
        await door.mailbox.clear()
        boxed(door, "bob@example.com")
        await caller.until(b"event: mails\ndata: 1\n\n")
        house.stop.set()
        await caller.rest()


async def test_a_page_that_hears_nothing_is_kept_alive(door: Doorstep, autojump_clock: trio.testing.MockClock) -> None:
    assert door.mailbox is not None
    stream = mailbox._events(door.mailbox)
    said = [await anext(stream) for _ in range(4)]
    assert said[1:] == [b"event: mails\ndata: 0\n\n", b": still here\n\n", b": still here\n\n"]
    assert mailbox.HEARTBEAT * 2 <= trio.current_time() < mailbox.HEARTBEAT * 2 + 2
    door.mailbox.away = True
    assert [piece async for piece in stream] == []


async def test_head_of_the_events_ends(door: Doorstep) -> None:
    answer = await door.ask("HEAD", "/dev/mail/events")
    assert (answer.status, answer.body) == (200, b"")


async def test_a_mailbox_that_is_away_is_a_503() -> None:
    door = Doorstep(mailbox=Pigeonhole(away=True))
    for path in ("/dev/mail/messages", "/api/v2/messages", "/api/v2/search?kind=from&query=x", "/api/v1/messages"):
        (await door.ask("GET", path)).problem(503, "ServiceUnavailable")


# ------------------------------------------------------------------------------------------------- MailHog


async def test_a_mail_has_the_shape_of_mailhog(three: Doorstep) -> None:
    found = (await three.ask("GET", f"/api/v1/messages/{UUID(int=1)}")).json
    assert found.keys() == {"ID", "From", "To", "Content", "Created", "MIME", "Raw"}
    assert found["From"] == {"Relays": None, "Mailbox": "no-reply", "Domain": "example.org", "Params": ""}
    assert found["To"] == [{"Relays": None, "Mailbox": "alice", "Domain": "example.com", "Params": ""}]
    assert found["Created"] == "2026-11-20T11:00:00.000Z"
    assert found["Content"].keys() == {"Headers", "Body", "Size", "MIME"}
    assert found["Content"]["Headers"]["To"] == ["alice@example.com"]
    assert found["Content"]["Headers"]["Content-Type"][0].startswith("multipart/alternative")
    assert "0428" in found["Content"]["Body"]
    assert found["Raw"]["Data"].endswith(found["Content"]["Body"])
    assert len(found["Raw"]["Data"].encode()) == found["Content"]["Size"]
    assert (found["Raw"]["From"], found["Raw"]["To"]) == ("no-reply@example.org", ["alice@example.com"])
    plain, html = found["MIME"]["Parts"]
    assert plain["Headers"]["Content-Type"] == ['text/plain; charset="utf-8"']
    assert "0428" in plain["Body"]
    assert html["Body"].strip() == HTML


async def test_a_mail_of_one_part_has_no_parts(door: Doorstep) -> None:
    boxed(door, "alice@example.com", html="")
    (found,) = (await door.ask("GET", "/api/v1/messages")).json
    assert found["MIME"] is None
    assert "0428" in found["Content"]["Body"]


async def test_parts_within_parts(door: Doorstep) -> None:
    assert door.mailbox is not None
    raw = (
        b"Subject: =?utf-8?q?x?=\r\nX-Raw: \xff\r\nX-Raw: 2\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\n"
        b"--a\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\n\r\ninner\r\n--b--\r\n--a--\r\n"
    )
    door.mailbox.drop("alice", subject="x", text="inner", html="", raw=raw, at=START)
    (found,) = (await door.ask("GET", "/api/v1/messages")).json
    assert found["Content"]["Headers"]["X-Raw"] == ["�", "2"]
    assert found["MIME"]["Parts"][0]["MIME"]["Parts"][0]["Body"].strip() == "inner"
    assert found["To"][0] == {"Relays": None, "Mailbox": "", "Domain": "alice", "Params": ""}


@pytest.mark.parametrize(
    ("query", "start", "recipients"),
    [
        ("", 0, ["bob", "Alice", "alice"]),
        ("?start=1", 1, ["Alice", "alice"]),
        ("?start=1&limit=1", 1, ["Alice"]),
        ("?limit=0", 0, ["bob", "Alice", "alice"]),
        ("?start=-1&limit=x", 0, ["bob", "Alice", "alice"]),
        ("?start=99999999999999999999", 0, ["bob", "Alice", "alice"]),
        ("?start=%D9%A3", 0, ["bob", "Alice", "alice"]),
        ("?start=9", 9, []),
    ],
)
async def test_messages_are_paged_as_mailhog_does(
    three: Doorstep, query: str, start: int, recipients: list[str]
) -> None:
    found = (await three.ask("GET", f"/api/v2/messages{query}")).json
    assert (found["total"], found["count"], found["start"]) == (3, len(recipients), start)
    assert [mail["To"][0]["Mailbox"] for mail in found["items"]] == recipients


@pytest.mark.parametrize(
    ("query", "total", "recipients"),
    [
        ("kind=to&query=alice@example.com", 2, ["Alice", "alice"]),
        ("kind=to&query=ALICE@EXAMPLE.COM&limit=1", 2, ["Alice"]),
        ("kind=to&query=carol@example.com", 0, []),
        ("kind=from&query=No-Reply", 3, ["bob", "Alice", "alice"]),
        ("kind=from&query=bob", 0, []),
        ("kind=containing&query=0428&start=1&limit=1", 3, ["Alice"]),
        ("kind=containing&query=9999", 0, []),
    ],
)
async def test_search(three: Doorstep, query: str, total: int, recipients: list[str]) -> None:
    found = (await three.ask("GET", f"/api/v2/search?{query}")).json
    assert (found["total"], [mail["To"][0]["Mailbox"] for mail in found["items"]]) == (total, recipients)


@pytest.mark.parametrize("query", ["", "kind=to", "kind=to&query=", "query=a", "kind=all&query=a", "kind=to&query=%00"])
async def test_a_search_for_nothing_is_malformed(three: Doorstep, query: str) -> None:
    answer = await three.ask("GET", f"/api/v2/search?{query}")
    assert answer.problem(400, "MalformedRequest")["detail"]
    (await three.ask("GET", "/dev/mail/messages?to=%00")).problem(400, "MalformedRequest")


async def test_mails_are_deleted_one_by_one_and_all_at_once(three: Doorstep) -> None:
    one = await three.ask("DELETE", f"/api/v1/messages/{UUID(int=2)}")
    assert (one.status, one.body) == (200, b"")
    (await three.ask("DELETE", f"/api/v1/messages/{UUID(int=2)}")).problem(404, "NotFound")
    assert (await three.ask("GET", "/api/v2/messages")).json["total"] == 2
    assert (await three.ask("DELETE", "/api/v1/messages")).status == 200
    assert json.loads((await three.ask("GET", "/api/v1/messages")).body) == []
