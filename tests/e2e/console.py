"""Whoever looks at `/ops`: a browser on the page, and traffic for it to show."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count

import httpx
import trio

from tests.browser import Page, Program, open_page
from tests.chaos.ledger import PASSWORD
from tests.e2e.people import ADMIN_TOKEN, Person, client, new_email
from tests.service import Service
from tests.smtp_script import Act, say

MACHINE = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
LEGEND = (
    "[...document.querySelectorAll('#{} .legend li')].find(li => li.innerText.startsWith('{}')).lastChild.innerText"
)
CONTRAST = """(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = (text) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0);
  const behind = (it) => {
    for (; it; it = it.parentElement) {
      const found = rgb(getComputedStyle(it).backgroundColor);
      if (found[3] === 255) return found;
    }
    return [255, 255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const poor = [];
  while (walker.nextNode()) {
    const it = walker.currentNode.parentElement;
    const box = it.getBoundingClientRect();
    if (!walker.currentNode.data.trim() || box.width < 2 || it.closest('option, :disabled')) continue;
    const [a, b] = [light(rgb(getComputedStyle(it).color)), light(behind(it))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${it.tagName}.${it.className}: ${walker.currentNode.data.trim()}`);
  }
  return poor;
})()"""
"""Texts that stand out from what is behind them less than WCAG 2.2 wants (1.4.3, AA), which takes 4.5 : 1."""

NAMED = {"button", "textbox", "searchbox", "combobox", "listbox", "link", "radio", "img", "image", "region", "dialog"}
_numbers = count(1)


@dataclass(eq=False, slots=True)
class Console:
    """The page of a service, in a browser of its own."""

    page: Page
    service: Service

    async def sign_in(self, email: str, password: str = PASSWORD) -> None:
        """Fill in the form and send it."""
        await self.page.wait("!document.getElementById('gate').hidden")
        await self.page.click("#by-password")
        await self.page.fill("#email", email)
        await self.page.fill("#password", password)
        await self.page.press("Enter")

    async def show_token(self, token: str = ADMIN_TOKEN) -> None:
        """The same with a token."""
        await self.page.wait("!document.getElementById('gate').hidden")
        await self.page.click("#by-token")
        await self.page.fill("#token", token)
        await self.page.press("Enter")

    async def entered(self) -> None:
        """Wait until the board is there, and the log is live."""
        await self.page.wait("!document.getElementById('board').hidden")
        await self.page.wait("document.getElementById('stream').classList.contains('on')")

    async def told(self, words: str) -> None:
        """Wait until the gate says this."""
        await self.page.wait(f"document.getElementById('gate-problem').innerText.includes({json.dumps(words)})")

    async def figure(self, panel: str, name: str) -> float:
        """Return a figure of a chart's legend; 0 where there is none yet."""
        text = str(await self.page.run(LEGEND.format(panel, name)))
        return float(text.split(maxsplit=1)[0]) if text != "–" else 0.0

    async def lines(self, part: str) -> list[str]:
        """Return one part of every line of the log that is shown."""
        found: list[str] = await self.page.run(
            f"[...document.querySelectorAll('#lines li > .{part}')].map(it => it.innerText)"
        )
        return found

    async def filled(self, selector: str, text: str, *, only: str, part: str = "event") -> None:
        """Filter the log; wait until every line that is shown, and there is one, has this in that part."""
        await self.page.fill(selector, text)
        await self.page.wait(
            f"""(() => {{ const it = [...document.querySelectorAll('#lines li > .{part}')].map(it => it.innerText);
                return it.length > 0 && it.every(text => text.includes({json.dumps(only)})); }})()"""
        )

    def harmless(self) -> None:
        """Fail if the page asked another host, or its console has anything to complain of."""
        assert self.page.faults == [], f"the console says {self.page.faults}"
        abroad = {url for url in self.page.requests if not url.startswith((self.service.url, "about:", "data:"))}
        assert abroad == set(), f"it asked {abroad}"


@asynccontextmanager
async def open_console(chromium: Program, service: Service) -> AsyncIterator[Console]:
    """Open the page of a service."""
    async with open_page(chromium) as page:
        await page.go(f"{service.url}/ops")
        console = Console(page, service)
        yield console
        console.harmless()


async def new_administrator(http: httpx.AsyncClient) -> str:
    """Make an account of that role; return its address. Its password is that of everybody here."""
    root = await (await Person(http, new_email("root")).sign_up()).log_in()
    changed = await http.patch(f"/v1/admin/users/{root.id}", json={"role": "admin"}, headers=MACHINE)
    assert changed.status_code == 200, changed.text
    return root.email


@asynccontextmanager
async def traffic(service: Service, pause: float = 0.02) -> AsyncIterator[None]:
    """Ask for this and that, well and badly, for the time of the block, each time by a new connection."""
    enough, left = trio.Event(), [trio.Event(), trio.Event()]
    async with trio.open_nursery() as nursery:
        for asking, done in zip((_well, _badly), left, strict=True):
            nursery.start_soon(_asking, service, asking, pause, enough, done, name=f"traffic {asking.__name__}")
        try:
            yield
        finally:
            enough.set()  # what was asked is answered: httpx leaves generators behind where it is cancelled
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                for done in left:
                    await done.wait()


async def _asking(
    service: Service,
    asking: Callable[[httpx.AsyncClient], Awaitable[None]],
    pause: float,
    enough: trio.Event,
    done: trio.Event,
) -> None:
    try:
        while not enough.is_set():
            async with client(service) as http:
                await asking(http)
            with trio.move_on_after(pause):
                await enough.wait()
    finally:
        done.set()


async def _well(http: httpx.AsyncClient) -> None:
    await http.post("/v1/users/register", json={"email": new_email("guest"), "password": PASSWORD})
    for path in ("/v1/health", "/v1/health/db", "/", "/v1/health"):
        await http.get(path)


async def _badly(http: httpx.AsyncClient) -> None:
    await http.post("/v1/auth/login", json={"identifier": new_email("nobody"), "password": PASSWORD})
    await http.get("/v1/users/me", headers={"Authorization": "Bearer x.y.z"})
    await http.get(f"/nothing/{next(_numbers)}")


@dataclass(slots=True)
class Relay:
    """How a relay takes recipients: each `bad`th is refused for good, each `slow`th is put off."""

    bad: int = 1
    slow: int = 0
    asked: int = 0

    @property
    def script(self) -> dict[str, Act]:
        """What `open_script` wants."""
        return {"rcpt": self._answer}

    async def _answer(self, stream: trio.SocketStream) -> None:
        self.asked += 1
        if self.bad and self.asked % self.bad == 0:
            await say("550 5.1.1 nobody of this name lives here")(stream)
        elif self.slow and self.asked % self.slow == 0:
            await say("451 4.7.1 greylisted, come back later")(stream)
        else:
            await say("250 OK")(stream)
