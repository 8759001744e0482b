"""The pages for people: they work without a network, and a browser is allowed no more than they need."""

import re
from dataclasses import replace

import pytest

from regsvc.domain.values import PasswordRules
from regsvc.http.pages import ASSETS, OPS
from regsvc.observe import EVENTS
from tests.http.doorstep import URL, Doorstep

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "application/problem+json, application/json"])
async def test_programs_are_told_where_to_go(door: Doorstep, accept: str | None) -> None:
    answer = await door.ask("GET", "/", headers={} if accept is None else {"Accept": accept})
    assert answer.headers["Content-Type"] == "application/json"
    for name in ("documentation", "openapi", "problems", "health", "mailbox"):
        assert (await door.ask("GET", answer.json[name])).status == 200
    assert (await Doorstep(mailbox=None).ask("GET", "/")).json["mailbox"] is None


async def test_a_browser_is_shown_a_page(door: Doorstep) -> None:
    page = (await door.ask("GET", "/", headers=BROWSER)).body.decode()
    assert f"curl -i {URL}/v1/users/register" in page
    assert "/dev/mail" in page
    assert "/dev/mail" not in (await Doorstep(mailbox=None).ask("GET", "/", headers=BROWSER)).body.decode()


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/problems", "/problems/overloaded", "/reset-password", "/activate", "/dev/mail", "/ops"]
)
async def test_what_a_page_loads_is_served_here(door: Doorstep, path: str) -> None:
    page = await door.ask("GET", path, headers=BROWSER)
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert page.headers["Referrer-Policy"] == "no-referrer"
    text = page.body.decode()
    loaded = re.findall(r'(?:src|<link[^>]* href)="([^"]+)"', text)
    assert loaded
    for address in loaded:
        asset = await door.ask("GET", address)
        assert asset.status == 200
        assert asset.headers["Content-Type"] == ASSETS[address.removeprefix("/assets/")][1]
    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on\w+=", text)


async def test_the_documentation_page_has_its_swagger_ui(door: Doorstep) -> None:
    page = (await door.ask("GET", "/docs")).body.decode()
    assert "/assets/swagger-ui-bundle.js" in page
    bundle = await door.ask("GET", "/assets/swagger-ui-bundle.js")
    assert b"SwaggerUIBundle" in bundle.body
    assert b"cdn." not in (await door.ask("GET", "/assets/docs.js")).body


@pytest.mark.parametrize("name", sorted(ASSETS))
async def test_every_asset_is_there(door: Doorstep, name: str) -> None:
    answer = await door.ask("GET", f"/assets/{name}")
    assert (answer.status, answer.headers["X-Content-Type-Options"]) == (200, "nosniff")
    assert len(answer.body) > 100


async def test_the_page_for_a_new_password_tells_its_rules_and_is_told_no_token(door: Doorstep) -> None:
    door.knobs = replace(door.knobs, passwords=PasswordRules(shortest=11, longest=77))
    page = (await door.ask("GET", "/reset-password")).body.decode()
    assert "11 to 77 characters" in page
    assert "<form" in page
    assert " action=" not in page
    assert " name=" not in page[page.index("<form") :]  # without its script it sends nothing anywhere
    script = (await door.ask("GET", "/assets/reset.js")).body.decode()
    assert '"/v1/auth/reset-password"' in script
    assert "location.hash" in script
    assert "location.search" not in script
    assert "innerHTML" not in script


async def test_the_page_that_activates_is_the_same_for_all_and_does_nothing_by_being_opened(door: Doorstep) -> None:
    await door.register()
    token = door.mint_link()
    before = dict(door.shelf.addresses)
    pages = [await door.ask("GET", path, headers=BROWSER) for path in ("/activate", f"/activate?token={token}")]
    assert pages[0].body == pages[1].body
    assert door.shelf.addresses == before
    page = pages[0].body.decode()
    assert " action=" not in page
    assert " name=" not in page[page.index("<form") :]  # without its script it sends nothing anywhere
    script = (await door.ask("GET", "/assets/activate.js")).body.decode()
    assert script.count("fetch(") == 1
    assert 'fetch("/v1/users/activate"' in script
    assert "location.hash" in script
    assert "location.search" not in script
    assert "innerHTML" not in script


@pytest.mark.parametrize("name", OPS)
async def test_a_module_of_the_page_for_operators(door: Doorstep, name: str) -> None:
    script = (await door.ask("GET", f"/assets/{name}")).body.decode()
    assert set(re.findall(r'(?:from|import) "\./([^"]+)"', script)) <= set(OPS)
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(|https?://(?!www\.w3\.org)", script)
    assert "sessionStorage" not in script  # what one signs in with is kept nowhere
    assert re.findall(r"localStorage\.setItem\(([^)]*)\)", script) in ([], ['"regsvc-theme", name'])
    assert len(script.splitlines()) <= 400


async def test_the_page_for_operators_is_the_same_for_all_and_sends_nothing_by_itself(door: Doorstep) -> None:
    page = (await door.ask("GET", "/ops", headers=BROWSER)).body.decode()
    assert page == (await Doorstep(mailbox=None).ask("GET", "/ops?token=x", headers=BROWSER)).body.decode()
    assert " action=" not in page
    assert all(f'<option value="{event}">' in page for event in EVENTS)


@pytest.mark.parametrize("path", ["/reset-password", "/activate", "/ops"])
async def test_a_page_masks_passwords_and_lets_programs_fill_them_in(door: Doorstep, path: str) -> None:
    page = (await door.ask("GET", path)).body.decode()
    fields = [field for field in re.findall(r"<input[^>]*>", page) if "password" in field and "radio" not in field]
    assert fields
    for field in fields:
        assert 'type="password"' in field
        assert re.search(r'autocomplete="(current|new)-password"', field) or 'id="token"' in field
    assert "paste" not in page
