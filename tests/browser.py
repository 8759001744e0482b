"""A real Chromium without a window, for tests of pages: the machine's program, driven over a pair of pipes.

Its DevTools protocol is JSON with a NUL at the end of each message (https://chromedevtools.github.io/devtools-protocol),
which needs neither a driver's program nor a library.
"""

import base64
import json
import math
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from fcntl import F_DUPFD_CLOEXEC, fcntl
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.waiting import until, until_asked

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PROGRAM = next((path for path in map(shutil.which, NAMES) if path is not None), None)
NO_PROGRAM = f"there is no {NAMES[0]} on this machine"
WORDS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",  # it shows nothing but the page under test, and the sandbox is not to be had everywhere
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-sync",
    "--hide-scrollbars",
    "--mute-audio",
    "--password-store=basic",
    "about:blank",
)
ANSWER_SECONDS = 15.0
KEYS = {  # key: its code, its number, its text
    "Enter": ("Enter", 13, "\r"),
    "Tab": ("Tab", 9, ""),
    "Escape": ("Escape", 27, ""),
    " ": ("Space", 32, " "),
    "ArrowUp": ("ArrowUp", 38, ""),
    "ArrowDown": ("ArrowDown", 40, ""),
    "ArrowLeft": ("ArrowLeft", 37, ""),
    "ArrowRight": ("ArrowRight", 39, ""),
    "End": ("End", 35, ""),
}
SHIFT = 8


@dataclass(eq=False, slots=True)
class Program:
    """The process, and the pipes to it and from it; what was read of it and is no whole message yet."""

    pid: int
    to: int
    of: int
    rest: bytes = b""
    asked: int = 0


@dataclass(eq=False, slots=True)
class Browser:
    """The program as one test sees it: its pages, and who waits for an answer."""

    program: Program
    to: trio.lowlevel.FdStream
    of: trio.lowlevel.FdStream
    pages: dict[str, "Page"] = field(default_factory=dict)
    _answers: dict[int, dict[str, Any]] = field(default_factory=dict)
    _awaited: dict[int, trio.Event] = field(default_factory=dict)
    _speaking: trio.Lock = field(default_factory=trio.Lock)

    async def ask(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Have it do something; return what it answers."""
        self.program.asked += 1
        number = self.program.asked
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        self._awaited[number] = trio.Event()
        async with self._speaking:
            await self.to.send_all(json.dumps(message).encode() + b"\0")
        with trio.fail_after(ANSWER_SECONDS):
            await self._awaited[number].wait()
        del self._awaited[number]
        answer = self._answers.pop(number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    async def listen(self) -> None:
        """Take what it says, until it says no more."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while more := await self.of.receive_some():
                *messages, self.program.rest = (self.program.rest + more).split(b"\0")
                for message in messages:
                    self._take(json.loads(message))

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            if message["id"] in self._awaited:  # else it was another test's
                self._answers[message["id"]] = message
                self._awaited[message["id"]].set()
        elif (page := self.pages.get(message.get("sessionId", ""))) is not None:
            page.hear(message["method"], message["params"])

    async def open_page(self) -> "Page":
        """Open a page in a context of its own: it shares neither cookies nor storage with others."""
        context = (await self.ask("Target.createBrowserContext"))["browserContextId"]
        target = await self.ask("Target.createTarget", url="about:blank", browserContextId=context)
        attached = await self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = self.pages[attached["sessionId"]] = Page(self, attached["sessionId"], context)
        for part in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            await page.ask(f"{part}.enable")
        await page.resize(1440, 1000)
        return page


@dataclass(eq=False, slots=True)
class Page:
    """A tab. `faults`: what its console says of errors, breaches of its policy and exceptions; an answer that says no
    is none of them."""

    browser: Browser
    session: str
    context: str
    faults: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    _loads: int = 0

    def hear(self, event: str, said: dict[str, Any]) -> None:
        """Note what concerns a test."""
        if event == "Page.loadEventFired":
            self._loads += 1
        elif event == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.faults.append(json.dumps(said["exceptionDetails"])[:2000])
        elif event == "Log.entryAdded" and said["entry"]["level"] in {"error", "warning"}:
            if said["entry"]["source"] != "network":
                self.faults.append(f"{said['entry']['text']} {said['entry'].get('url', '')}")
        elif event == "Runtime.consoleAPICalled" and said["type"] in {"error", "warning", "assert"}:
            self.faults.append(json.dumps(said["args"])[:2000])

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Have the tab do something."""
        return await self.browser.ask(method, self.session, **params)

    async def close(self) -> None:
        """Close it, and forget whatever it kept."""
        await self.browser.ask("Target.disposeBrowserContext", browserContextId=self.context)

    async def go(self, url: str) -> None:
        """Open an address; returns when it has loaded."""
        before = self._loads
        await self.ask("Page.navigate", url=url)
        await until(lambda: self._loads > before)

    async def run(self, script: str) -> Any:
        """Return what an expression comes to; a promise is waited for."""
        done = await self.ask(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in done, f"{script}: {json.dumps(done['exceptionDetails'])[:1000]}"
        return done["result"].get("value")

    async def wait(self, script: str, seconds: float = 15) -> Any:
        """Wait until an expression is true; return what it came to."""
        found: list[Any] = []

        async def true() -> bool:
            found[:] = [await self.run(script)]
            return bool(found[0])

        try:
            await until_asked(true, seconds)
        except trio.TooSlowError:
            raise AssertionError(f"never true: {script}; faults: {self.faults}") from None
        return found[0]

    async def text(self, selector: str) -> str:
        """Return what is to be read somewhere."""
        found: str = await self.run(f"document.querySelector({json.dumps(selector)}).innerText")
        return found

    async def click(self, selector: str) -> None:
        """Click in the middle of something, wherever that is: what lies over it is clicked instead."""
        middle = await self.run(
            f"""(() => {{ const it = document.querySelector({json.dumps(selector)});
                it.scrollIntoView({{ block: "center", behavior: "instant" }});
                const box = it.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; }})()"""
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            await self.ask("Input.dispatchMouseEvent", type=kind, x=middle[0], y=middle[1], button="left", clickCount=1)

    async def type(self, text: str) -> None:
        """Type into whatever has the focus."""
        await self.ask("Input.insertText", text=text)

    async def fill(self, selector: str, text: str) -> None:
        """Replace what a field holds."""
        await self.run(f"(it => {{ it.focus(); it.select?.(); }})(document.querySelector({json.dumps(selector)}))")
        await self.type(text)

    async def press(self, key: str, times: int = 1, *, shift: bool = False) -> None:
        """Press a key, and let go."""
        code, number, text = KEYS.get(key, (f"Key{key.upper()}", ord(key[0].upper()), key))
        held = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": SHIFT if shift else 0}
        for _ in range(times):
            await self.ask("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **held)
            await self.ask("Input.dispatchKeyEvent", type="keyUp", **held)

    async def resize(self, wide: int, high: int, *, scale: float = 1) -> None:
        """Give it another size."""
        await self.ask(
            "Emulation.setDeviceMetricsOverride", width=wide, height=high, deviceScaleFactor=scale, mobile=False
        )

    async def prefer(self, **features: str) -> None:
        """Be a browser of somebody who prefers this: `prefers_color_scheme="dark"`."""
        wished = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        await self.ask("Emulation.setEmulatedMedia", features=wished)

    async def offline(self, *, away: bool) -> None:
        """Cut it from the network, or not."""
        await self.ask(
            "Network.emulateNetworkConditions", offline=away, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )

    async def tree(self) -> list[tuple[str, str]]:
        """Return what assistive technology is given: roles and names, of all that is not ignored."""
        nodes = (await self.ask("Accessibility.getFullAXTree"))["nodes"]
        return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]

    async def picture(self, path: Path, *, whole: bool = False) -> None:
        """Write what it looks like as a PNG: of what is in sight, or of the whole page."""
        if whole:
            size = (await self.ask("Page.getLayoutMetrics"))["cssContentSize"]
            await self.resize(math.ceil(size["width"]), math.ceil(size["height"]))
        shot = await self.ask("Page.captureScreenshot", format="png")
        await trio.Path(path).write_bytes(base64.b64decode(shot["data"]))


def _launch(folder: str) -> Program:
    """Start it. It reads of 3 and writes to 4."""
    assert PROGRAM is not None
    its_in, to = os.pipe()
    of, its_out = os.pipe()
    far = [fcntl(fd, F_DUPFD_CLOEXEC, 10) for fd in (its_in, its_out)]  # so that neither lies where the other goes
    pid = os.posix_spawn(
        PROGRAM,
        [PROGRAM, f"--user-data-dir={folder}", *WORDS],
        {"PATH": os.environ["PATH"], "HOME": folder, "TZ": "UTC", "LANG": "C.UTF-8"},
        file_actions=[
            (os.POSIX_SPAWN_DUP2, far[0], 3),
            (os.POSIX_SPAWN_DUP2, far[1], 4),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ],
        setpgroup=0,
    )
    for fd in (its_in, its_out, *far):
        os.close(fd)
    return Program(pid, to, of)


@contextmanager
def running() -> Iterator[Program]:
    """Run it for the time of the block; skips the test where there is none."""
    if PROGRAM is None:
        pytest.skip(NO_PROGRAM)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # its last children may still write there
        program = _launch(folder)
        try:
            yield program
        finally:
            with suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            os.waitpid(program.pid, 0)
            os.close(program.to)
            os.close(program.of)


@asynccontextmanager
async def open_page(program: Program) -> AsyncIterator[Page]:
    """Open a page for the time of the block."""
    to, of = (trio.lowlevel.FdStream(os.dup(fd)) for fd in (program.to, program.of))
    browser = Browser(program, to, of)
    async with to, of, trio.open_nursery() as nursery:
        nursery.start_soon(browser.listen, name="browser")
        page = await browser.open_page()
        yield page
        await page.close()
        nursery.cancel_scope.cancel(reason="the test is over")
