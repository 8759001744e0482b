"""Dead letters on `/ops`, in production, with a relay that refuses, without metrics; a service that goes and comes."""

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import httpx
import trio

from tests.browser import Program
from tests.chaos.ledger import PASSWORD
from tests.e2e.console import Console, Relay, open_console, traffic
from tests.e2e.people import ADMIN_TOKEN, SECRET, client, command, new_email, on_database
from tests.letters import CODE
from tests.service import LIFTED, Service
from tests.smtp_script import Scripted, open_script

PICTURES = os.environ.get("REGSVC_TEST_PICTURES")  # the folder that the pictures are kept in; `docs`, for the README
PAGE = 10  # letters of a page
DEAD = "[...document.querySelectorAll('#dead tr[data-id]')].map(it => it.dataset.id)"


@dataclass(eq=False, slots=True)
class Office:
    """A service in production, and the relay that it mails by."""

    service: Service
    relay: Relay
    heard: Scripted


@asynccontextmanager
async def open_office(dsn: str, relay: Relay, **environ: str) -> AsyncIterator[Office]:
    """Run a service whose mail goes to the relay of a test."""
    async with open_script(relay.script) as heard:
        told = {
            "PROFILE": "production",
            "DATABASE_URL": dsn,
            "SECRET": SECRET,
            "PUBLIC_URL": "http://accounts.example.test",
            "ADMIN_TOKEN": ADMIN_TOKEN,
            "PASSWORD_ROUNDS": "10",
            "MAIL_CHANNEL": "smtp",
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": str(heard.port),
            "SMTP_TLS": "none",
            "MAIL_FROM": "no-reply@accounts.example.test",
            **environ,
        }
        with tempfile.TemporaryDirectory() as folder:
            service = Service(Path(folder), {**LIFTED, **{f"REGSVC_{name}": value for name, value in told.items()}})
            await trio.to_thread.run_sync(command, service, "migrate")
            try:
                await trio.to_thread.run_sync(service.start)
                yield Office(service, relay, heard)
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 20):
                    await trio.to_thread.run_sync(service.end)


async def register(service: Service, number: int) -> None:
    """Register so many people."""
    async with client(service) as http:
        for _ in range(number):
            answer = await http.post("/v1/users/register", json={"email": new_email(), "password": PASSWORD})
            assert answer.status_code == 201, answer.text


async def test_dead_letters_are_retried_and_discarded(chromium: Program, database: str) -> None:
    async with (
        open_office(database, Relay(), ENABLE_METRICS="false") as office,
        open_console(chromium, office.service) as console,
    ):
        page = console.page
        await console.show_token()
        await console.entered()
        assert "REGSVC_ENABLE_METRICS=false" in await page.wait("document.getElementById('no-figures').innerText")
        assert await page.run("document.getElementById('charted').hidden")
        await page.wait("document.getElementById('dead').innerText === 'No dead letters.'")
        await register(office.service, PAGE + 1)
        await page.wait(f"{DEAD}.length === {PAGE}")  # the log tells that they died, so nobody has to reload
        assert "550 5.1.1 nobody of this name lives here" in await page.text("#dead .why")
        await page.wait("!document.getElementById('older').disabled")
        await page.click("#older")
        await page.wait(f"{DEAD}.length === 1")
        office.relay.bad = 0
        await _settle(console, "retry", "The mail is on its way again.")
        await office.heard.wait(lambda heard: len(heard.letters) == 1)
        await page.wait("document.getElementById('page').innerText === 'page 1'")  # the other one is empty now
        await page.wait("document.getElementById('older').disabled")

        before = await page.run(DEAD)
        await page.click("#dead tr [data-act=discard]")
        await page.wait("document.getElementById('ask').open")
        await page.press("Escape")
        assert await page.run(DEAD) == before
        assert await page.run("document.activeElement.dataset.act") == "discard"
        await _settle(console, "discard", "The mail is gone.")
        await page.wait(f"!{DEAD}.includes('{before[0]}')")
        await page.wait(f"{DEAD}.length === {PAGE - 1}")
        assert len(office.heard.letters) == 1


async def _settle(console: Console, act: str, said: str) -> None:
    await console.page.click(f"#dead tr [data-act={act}]")
    await console.page.wait("document.getElementById('ask').open")
    assert await console.page.run("document.activeElement.id") == "ask-no"  # what does no harm
    await console.page.click("#ask-yes")
    await console.page.wait(f"document.getElementById('letters-said').innerText === '{said}'")


async def test_a_service_that_goes_is_missed_until_it_is_back(chromium: Program, database: str, tmp_path: Path) -> None:
    with on_database(tmp_path, database) as [service]:
        await _go_and_come(chromium, service)


async def _go_and_come(chromium: Program, service: Service) -> None:
    async with open_console(chromium, service) as console:
        page = console.page
        await console.show_token()
        await console.entered()
        await page.wait("document.getElementById('live').innerText === 'live'")
        await trio.to_thread.run_sync(service.terminate)
        since = await page.wait("document.getElementById('live').innerText.match(/^away since (.+)$/)?.[1]")
        await page.wait("document.getElementById('stream').innerText.startsWith('away since')")
        assert since in await page.text("#alerts")
        assert await page.run("document.title.startsWith('(away)')")
        await trio.to_thread.run_sync(service.start)
        await page.wait("document.getElementById('live').innerText === 'live'")
        await console.entered()
        await page.wait("document.querySelector('#lines .gapped')?.innerText.startsWith('The stream was cut at')")
        await page.wait("document.getElementById('alerts').innerText === 'All is well.'")


@asynccontextmanager
async def people(office: Office) -> AsyncIterator[None]:
    """Have people register, read their codes, activate, log in and look at themselves, for the time of the block."""
    enough, left = trio.Event(), [trio.Event() for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for number, done in enumerate(left):
            nursery.start_soon(_people, office, enough, done, name=f"people {number}")
        try:
            yield
        finally:
            enough.set()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                for done in left:
                    await done.wait()


async def _people(office: Office, enough: trio.Event, done: trio.Event) -> None:
    try:
        while not enough.is_set():
            async with client(office.service) as http:
                await _person(http, office.heard)
    finally:
        done.set()


async def _person(http: httpx.AsyncClient, heard: Scripted) -> None:
    email = new_email("ada")
    await http.post("/v1/users/register", json={"email": email, "password": PASSWORD})
    with trio.move_on_after(2) as patience:
        await heard.wait(lambda heard: _code(heard, email) is not None)
    if patience.cancelled_caught:  # some letters come late, or never
        return
    await http.post("/v1/users/activate", json={"code": _code(heard, email)}, auth=(email, PASSWORD))
    login = await http.post("/v1/auth/login", json={"identifier": email, "password": PASSWORD})
    bearer = {"Authorization": f"Bearer {login.json().get('access_token', '')}"}
    for _ in range(4):
        await http.get("/v1/users/me", headers=bearer)


def _code(heard: Scripted, email: str) -> str | None:
    """Return the code in the newest letter to somebody."""
    for letter in reversed(heard.letters):
        if email.encode() in letter:
            text = message_from_bytes(letter.removesuffix(b".\r\n"), policy=default).get_body(("plain",))
            found = CODE.search(text.get_content()) if text is not None else None
            return found[1] if found is not None else None
    return None


async def test_pictures_under_load(chromium: Program, database: str, rounds: int | None, tmp_path: Path) -> None:
    """Take pictures in light and in dark after `rounds` seconds; REGSVC_TEST_PICTURES says where they are kept."""
    folder = Path(PICTURES) if PICTURES else tmp_path
    relay = Relay(bad=60, slow=17)
    async with (
        open_office(database, relay, WORKERS="3" if rounds else "1") as office,
        open_console(chromium, office.service) as console,
    ):
        page = console.page
        async with traffic(office.service, pause=0.5), people(office):
            await console.show_token()
            await console.entered()
            await page.wait("document.querySelector('#p-requests .area.t1').getAttribute('d').length > 30")
            await trio.sleep(min(rounds or 0, 180))  # a picture with a past has nothing to wait for but the time
            for theme in ("light", "dark"):
                await page.prefer(prefers_color_scheme=theme)
                picture = folder / f"ops-{theme}.png"
                await page.picture(picture, whole=True)
                assert picture.read_bytes().startswith(b"\x89PNG")
                assert picture.stat().st_size > 50_000  # there is something to be seen
                brightness = int((await page.run("getComputedStyle(document.body).backgroundColor")).split(", ")[1])
                assert (brightness > 127) == (theme == "light")


def test_the_pictures_of_the_handbook_are_small() -> None:
    for theme in ("light", "dark"):
        assert (Path(__file__).parents[2] / "docs" / f"ops-{theme}.png").stat().st_size <= 300_000
