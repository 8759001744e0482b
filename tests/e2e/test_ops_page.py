"""`/ops` in a real browser on a real service: who gets in, what is shown, what the keyboard and the eye make of it."""

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trio

from regsvc.store.embedded import Cluster
from tests.browser import Page, Program
from tests.e2e.console import CONTRAST, MACHINE, NAMED, Console, new_administrator, open_console, traffic
from tests.e2e.people import ADMIN_TOKEN, client, on_database, somebody
from tests.postgres import temporary_database
from tests.service import Service
from tests.waiting import until

FLOOD = """new Promise(async (done) => {{
  const {{take}} = await import('/assets/ops-log.js');
  const began = performance.now();
  let told = 0;
  const timer = setInterval(() => {{
    const due = Math.floor((performance.now() - began) / 2);
    for (; told < due; told += 1) take(JSON.stringify({{
      ts: new Date().toISOString().replace('Z', '000Z'), level: 'info', event: 'http_request', worker: 1,
      trace_id: 'f'.repeat(32), method: 'GET', route: '/v1/health', status: 200, duration_ms: told}}));
    if (performance.now() - began < {ms}) return;
    clearInterval(timer);
    setTimeout(() => done(told), 200);
  }}, 16);
}})"""
SHIFTS = """new PerformanceObserver((list) => {
  for (const one of list.getEntries()) window.moved = (window.moved ?? 0) + (one.hadRecentInput ? 0 : one.value);
}).observe({type: 'layout-shift', buffered: true})"""
FOCUS = "document.activeElement.id"


@pytest.fixture(scope="module")
def service(postgres: Cluster) -> Iterator[Service]:
    """A service of three workers."""
    with (
        tempfile.TemporaryDirectory() as folder,
        temporary_database(postgres, "console") as dsn,
        on_database(Path(folder), dsn, WORKERS="3", LOG_LEVEL="info") as services,
    ):
        yield services[0]


async def test_only_administrators_get_in(chromium: Program, service: Service) -> None:
    async with client(service) as http:
        root, nobody = await new_administrator(http), await somebody(http)
        async with open_console(chromium, service) as console:
            await console.sign_in(nobody.email, "not the password of anybody")
            await console.told("wrong")
            await console.sign_in(nobody.email)
            await console.told(f"{nobody.email} is no administrator.")
            # The session that was opened for nothing was ended.
            sessions = await http.get(f"/v1/admin/users/{nobody.id}/sessions", headers=MACHINE)
            assert [one["device"] for one in sessions.json()["sessions"] if "Chrome" in one["device"]] == []
            await console.show_token("no token of this service at all")
            await console.told("does not know this token")
            assert await console.page.run("document.getElementById('board').hidden")

            await console.sign_in(root)
            await console.entered()
            stored = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
            assert await console.page.run(stored) == '[{},{},""]'
            await console.page.click("#leave")
            await console.told("You are signed out.")
            assert await console.page.run("document.getElementById('lines').childElementCount") == 0
            assert await console.page.run("document.querySelectorAll('#password, #token, #email').values"
                                          "().every(it => it.value === '')")  # fmt: skip


async def test_a_session_is_renewed_before_its_end_and_its_end_is_told(chromium: Program, service: Service) -> None:
    async with open_console(chromium, service) as console, client(service) as http:
        root = await new_administrator(http)
        # As if access tokens were good for two seconds.
        await console.page.run(
            """(() => { const real = fetch; window.fetch = async (path, ...how) => {
                const answer = await real(path, ...how);
                if (!String(path).startsWith('/v1/auth/') || !answer.ok) return answer;
                return Response.json({...await answer.json(), expires_in: 2}); }; })()"""
        )
        await console.sign_in(root)
        await console.entered()
        await console.page.wait("performance.getEntriesByName(location.origin + '/v1/auth/refresh').length >= 2")
        assert await console.page.text("#live") == "live"
        found = await http.get("/v1/admin/users", params={"query": root}, headers=MACHINE)
        ended = await http.delete(f"/v1/admin/users/{found.json()['users'][0]['id']}/sessions", headers=MACHINE)
        assert ended.status_code == 204
        await console.told("Sign in again.")


async def test_charts_move_under_load(chromium: Program, service: Service) -> None:
    async with open_console(chromium, service) as console, traffic(service):
        page = console.page
        await console.show_token()
        await console.entered()
        await page.wait("document.querySelector('#p-requests .area.t1').getAttribute('d').length > 60")
        before = await page.run("document.querySelector('#p-requests .area.t1').getAttribute('d')")
        await page.wait(f"document.querySelector('#p-requests .area.t1').getAttribute('d') !== {json.dumps(before)}")
        assert await console.figure("p-requests", "2xx") > 0
        assert await console.figure("p-requests", "4xx") > 0
        assert await console.figure("p-requests", "5xx") == 0
        assert await console.figure("p-people", "registered") > 0
        assert await console.figure("p-pool", "idle") > 0
        await page.wait("document.getElementById('vitals').innerText.includes('3 of 3')")
        busiest = await page.text("#routes")
        assert "POST /v1/users/register" in busiest
        assert "GET /v1/health" in busiest
        assert "invalid_credentials" in (await page.text("#refusals")).lower().replace("invalidc", "invalid_c")
        assert await page.text("#alerts") == "All is well."


async def test_the_log_of_all_workers_is_shown_and_filtered(chromium: Program, service: Service) -> None:
    async with open_console(chromium, service) as console, traffic(service):
        page = console.page
        await console.show_token()
        await console.entered()
        await page.wait("new Set([...document.querySelectorAll('#lines .by')].map(it => it.innerText)).size >= 3")
        assert {"w1", "w2", "w3"} <= set(await console.lines("by"))
        await _filter(console)


async def _filter(console: Console) -> None:
    page = console.page
    await console.filled("#event", "login_refused", only="login_refused")
    await until(lambda: any("event=login_refused" in url for url in page.requests))  # the service leaves out the rest
    await console.filled("#event", "regis", only="regis")  # a part of a name does, too
    await console.filled("#event", "", only="")
    await console.filled("#route", "/v1/health/db", only="GET /v1/health/db", part="what")
    await console.filled("#route", "", only="")
    await console.filled("#text", "guest-", only="")
    await console.filled("#text", "", only="")
    await page.run("(it => { it.value = 'error'; it.dispatchEvent(new Event('input', {bubbles: true})); })(level)")
    await page.wait("document.getElementById('no-lines').innerText === 'No line is like that.'")
    await page.run("(it => { it.value = 'info'; it.dispatchEvent(new Event('input', {bubbles: true})); })(level)")

    await console.filled("#event", "registration_created", only="registration_created")
    await page.click("#pause")
    await page.click("#lines li:last-child .event")
    line = json.loads(await page.run("document.getElementById('json').textContent"))
    assert line["event"] == "registration_created"
    await page.fill("#event", "")
    await page.click("#only-trace")
    await page.wait(f"document.getElementById('trace').innerText === {json.dumps(line['trace_id'][:8])}")
    await page.click("#pause")
    await page.click("#trace-off")
    await page.click("#clear")
    await page.wait("lines.scrollHeight > lines.clientHeight + 200")
    await page.run("lines.scrollTop = 0")
    await page.wait("!jump.hidden")  # whoever reads is not carried away
    await page.resize(700, 900)
    await page.click("#jump")
    await page.resize(1440, 1000)
    await page.wait("jump.hidden && lines.scrollHeight - lines.scrollTop - lines.clientHeight < 30")


async def test_the_keyboard_is_enough(chromium: Program, service: Service) -> None:
    async with open_console(chromium, service) as console, traffic(service):
        page = console.page
        await page.wait("document.activeElement.id === 'email'")
        await page.press("Tab", 1, shift=True)
        assert await page.run(FOCUS) == "by-password"
        await page.press("ArrowRight")
        assert await page.run(FOCUS) == "by-token"
        await page.press("Tab")
        assert await page.run(FOCUS) == "token"
        assert await _ringed(page)
        await page.type(ADMIN_TOKEN)
        await page.press("Enter")
        await console.entered()
        await page.wait("document.getElementById('lines').childElementCount > 2")

        visited = await _tab_to(page, "lines")
        assert {"pause", "clear", "level", "event", "route", "text"} <= set(visited)
        await page.press(" ")
        assert await page.run("document.getElementById('pause').getAttribute('aria-pressed')") == "true"
        await page.press("ArrowUp", 2)
        chosen = await page.run("document.getElementById('lines').getAttribute('aria-activedescendant')")
        assert await page.run(f"document.getElementById('{chosen}').getAttribute('aria-selected')") == "true"
        await page.press("Enter")
        assert json.loads(await page.run("document.getElementById('json').textContent"))["event"]
        await page.press("Escape")
        assert await page.run("document.getElementById('detail').hidden")
        assert await page.run(FOCUS) == "lines"
        await page.press(" ")
        await _tab_to(page, "reload")
        await page.press("Enter")

        await page.run("document.getElementById('main').focus()")
        await page.press("Tab")
        assert "plot" in await page.run("document.activeElement.className")
        await page.press("ArrowLeft")
        await page.wait("document.querySelector('#p-requests .plot').getAttribute('aria-label').includes(', at ')")
        await page.run("document.querySelector('.brand').focus()")
        await page.press("Tab", 1, shift=True)
        assert await page.run("document.activeElement.className") == "skip"
        await page.press("Enter")
        assert await page.run(FOCUS) == "main"
        await page.run("document.querySelector('.brand').focus()")
        await _tab_to(page, "leave")
        await page.press("Enter")
        await console.told("You are signed out.")


async def _tab_to(page: Page, wanted: str) -> list[str]:
    """Press Tab until the focus is there; return where it was, each place with a ring around it."""
    visited: list[str] = []
    for _ in range(60):
        await page.press("Tab")
        visited.append(str(await page.run(FOCUS)))
        assert await _ringed(page), visited
        if visited[-1] == wanted:
            return visited
    raise AssertionError(f"{wanted} is not to be reached: {visited}")


async def _ringed(page: Page) -> bool:
    return bool(await page.run("getComputedStyle(document.activeElement).outlineStyle !== 'none'"))


async def test_five_hundred_lines_a_second_leave_the_page_time(
    chromium: Program, service: Service, rounds: int | None
) -> None:
    seconds = min(rounds or 2, 15)
    async with open_console(chromium, service) as console:
        page = console.page
        await console.show_token()
        await console.entered()
        await page.ask("Performance.enable", timeDomain="threadTicks")
        before = await _busy(page)
        told = await page.run(FLOOD.format(ms=seconds * 1000))
        assert told >= 490 * seconds
        rows = await page.run("document.getElementById('lines').childElementCount")
        assert rows >= min(1000, told)
        assert rows <= 1000
        assert (await _busy(page) - before) / seconds < 0.9  # of the thread that draws, whatever else the machine does
        assert await page.run("lines.scrollHeight - lines.scrollTop - lines.clientHeight < 30")  # the newest is seen


async def _busy(page: Page) -> float:
    metrics = (await page.ask("Performance.getMetrics"))["metrics"]
    return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))


async def test_everybody_can_read_it(chromium: Program, service: Service) -> None:
    async with open_console(chromium, service) as console, traffic(service):
        page = console.page
        await _stands_out(page)
        await page.run(SHIFTS)
        await console.show_token()
        await console.entered()
        await page.wait("document.querySelectorAll('#routes tr:not(.none)').length > 3")
        await page.wait("document.getElementById('lines').childElementCount > 2")
        await page.click("#pause")
        await page.click("#lines li:last-child .event")
        await _stands_out(page)
        tree = await page.tree()
        assert [role for role, name in tree if role in NAMED and not name.strip()] == []
        assert {"banner", "main", "navigation", "search", "table", "columnheader", "rowheader", "listbox", "option",
                "alert", "status", "heading"} <= {role for role, _ in tree}  # fmt: skip
        assert await page.run("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
        assert await page.run("window.moved ?? 0") < 0.05
        for wide in (360, 768, 1440, 1920):
            await page.resize(wide, 900)
            assert await page.run("document.documentElement.scrollWidth") <= wide
        await page.click("#theme")
        await page.click("#theme")
        assert await page.text("#theme") == "Theme: dark"
        assert await page.run("getComputedStyle(document.documentElement).colorScheme") == "dark"
        assert await page.run("localStorage.getItem('regsvc-theme')") == "dark"


async def _stands_out(page: Page) -> None:
    """Fail if a text is hard to read, in the light or in the dark."""
    for theme in ("dark", "light"):
        await page.prefer(prefers_color_scheme=theme, prefers_reduced_motion="reduce")
        assert await page.run(CONTRAST) == []


async def test_a_network_that_fails_is_told_and_comes_back(chromium: Program, service: Service) -> None:
    async with open_console(chromium, service) as console:
        page = console.page
        await console.show_token()
        await console.entered()
        await page.wait("document.getElementById('live').innerText === 'live'")
        await page.offline(away=True)
        await page.wait("document.getElementById('live').innerText.startsWith('away since')")
        await page.wait("document.getElementById('alerts').innerText.includes('asking again every second')")
        await page.offline(away=False)
        await page.wait("document.getElementById('alerts').innerText === 'All is well.'")
        await page.wait("document.querySelector('#p-requests .gap').getAttribute('d') !== ''")


async def test_what_it_reads_is_there(service: Service) -> None:
    """The page names fields of an answer; a change of theirs is noticed where no browser is installed, too."""
    async with httpx.AsyncClient(base_url=service.url, headers=MACHINE, timeout=20) as http:
        with trio.fail_after(20):
            answer = (await http.get("/v1/metrics")).json()
    static = Path(__file__).parents[2] / "regsvc/http/static"
    scripts = "".join((static / name).read_text() for name in ("ops.js", "ops-metrics.js", "ops-panels.js"))
    assert set(re.findall(r"\banswer\.(\w+)", scripts)) - {"status", "ok", "json"} <= answer.keys()
    gauges = {*re.findall(r'\bgauge\("(\w+)"\)', scripts), *re.findall(r"\bgauges\.(\w+)", scripts)}
    assert len(gauges) > 10
    assert gauges <= answer["gauges"].keys()
    assert set(re.findall(r'\bpeople\("(\w+)"\)', scripts)) <= answer["business_metrics"].keys()
    assert set(re.findall(r"\bworkers\.(\w+)", scripts)) <= answer["workers"].keys()
