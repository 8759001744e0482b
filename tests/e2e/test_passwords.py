"""Passwords over HTTP: every character of them counts, however it is spelt, and what is refused is told why."""

import tempfile
import unicodedata
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.people import TOKEN, Person, client, command, mail_with, new_email, somebody
from tests.service import Service, running

BATTERY = "\U0001f50b"  # four octets in UTF-8
SPELT = {
    "composed": ("pässwörter für alle", "pa\u0308sswo\u0308rter fu\u0308r alle"),
    "compatible": ("ﬁve ｆｕｌｌ words ①", "five full words 1"),
    "marks in another order": ("q\u0323\u0307 and q\u0323\u0307", "q\u0307\u0323 and q\u0307\u0323"),
}
OTHER = {
    "the 73rd octet": ("x" * 72 + "yz", "x" * 72 + "zz"),
    "the 128th character": (BATTERY * 127 + "!", BATTERY * 127 + "?"),
    "the last of 128 characters of four octets": (BATTERY * 127 + "\U0001f40e", BATTERY * 128),
    "a blank at the end": ("ends in a blank ", "ends in a blank"),
    "a blank at the beginning": (" begins with a blank", "begins with a blank"),
    "capitals": ("Some Capitals Here", "some capitals here"),
    "marks without a letter": (
        "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308",
        "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0309",
    ),
}
WEAK = {
    "too_short": "seven77",
    "too_long": BATTERY * 128 + "!",
    "common": "PassWord1",
    "repeated": "zzzzzzzzzz",
    "context": "RegSvc-2026!",
}
SAID = {
    "too_short": "at least 8 characters",
    "too_long": "at most 128 characters",
    "common": "everybody tries first",
    "repeated": "over and over",
    "context": "the name of this service",
}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    knobs = {"PASSWORD_ROUNDS": "4", "MAIL_CHANNEL": "mailbox", "RESEND_COOLDOWN": "0"}
    with tempfile.TemporaryDirectory(prefix="regsvc ") as folder, running(Path(folder), **knobs) as service:
        yield service


@pytest.fixture
async def http(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with client(service) as http:
        yield http


@pytest.mark.parametrize("name", SPELT)
async def test_spellings_of_one_password_log_in_alike(http: httpx.AsyncClient, name: str) -> None:
    one, other = SPELT[name]
    assert one != other
    person = await Person(http, new_email(), one).sign_up()
    for spelling in (one, other, unicodedata.normalize("NFKC", one), unicodedata.normalize("NFD", other)):
        person.password = spelling
        assert (await person.try_login()).status_code == 200
        again = await http.post("/v1/users/activate", json={"code": "0000"}, auth=(person.email, spelling))
        assert again.json()["error"] == "UserAlreadyActivated"  # the password was right


@pytest.mark.parametrize("name", OTHER)
async def test_every_character_counts(http: httpx.AsyncClient, name: str) -> None:
    right, wrong = OTHER[name]
    person = await Person(http, new_email(), right).sign_up()
    assert (await person.try_login()).status_code == 200
    person.password = wrong
    assert (await person.try_login()).status_code == 401


@pytest.mark.parametrize("reason", WEAK)
async def test_what_is_refused_is_told_why_wherever_a_password_is_chosen(
    service: Service, http: httpx.AsyncClient, reason: str
) -> None:
    weak, person = WEAK[reason], await somebody(http)
    await http.post("/v1/auth/forgot-password", json={"email": person.email})
    token = await mail_with(http, person.email, TOKEN)
    answers = [
        await http.post("/v1/users/register", json={"email": new_email(), "password": weak}),
        await http.post("/v1/auth/reset-password", json={"token": token, "new_password": weak}),
        await http.post(
            "/v1/users/me/password",
            json={"current_password": person.password, "new_password": weak},
            headers=person.bearer,
        ),
    ]
    for answer in answers:
        assert (answer.status_code, answer.json()["error"]) == (422, "WeakPassword")
        assert [fault["code"] for fault in answer.json()["errors"]] == [reason]
        assert SAID[reason] in answer.json()["errors"][0]["message"]
        assert weak not in answer.text
    command(service, "user", "create", new_email(), "--password-stdin", given=f"{weak}\n", status=1)


async def test_the_context_is_whose_password_it_is(http: httpx.AsyncClient) -> None:
    person = await somebody(http, "bartholomew")
    for weak in (person.email, "Bartholomew!!", "bartholomew-1999"):
        body = {"current_password": person.password, "new_password": weak}
        answer = await http.post("/v1/users/me/password", json=body, headers=person.bearer)
        assert [fault["code"] for fault in answer.json()["errors"]] == ["context"], weak
    made = await Person(http, new_email(), "bartholomew-1999").register()
    assert made.status_code == 201
