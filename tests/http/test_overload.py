"""Too many requests, and requests that take too long: a quick 503, and probes are answered whatever happens."""

import gc
from datetime import timedelta

import pytest
import trio
from quart import Response
from trio.testing import MockClock, wait_all_tasks_blocked

from regsvc.http import kinds
from regsvc.http.caller import Asked, asked
from regsvc.http.front import Front
from regsvc.http.overload import Hold, Workload
from regsvc.http.protection import Protection
from regsvc.http.reply import View, written
from regsvc.http.routes import Route, Success, Tag
from tests.http.doorstep import EMAIL, PASSWORD, Doorstep
from tests.http.test_front import OPEN, WORDING
from tests.lines import Lines

MOST = 3
DEADLINE = timedelta(seconds=20)
PROBES = ("/livez", "/readyz", "/v1/health", "/metrics")


class House:
    """A front whose `/it` waits until it is let go, beside probes that answer at once."""

    def __init__(self, *, most: int = MOST) -> None:
        self.go_on = trio.Event()
        self.done = 0
        self.shield = False
        self.workload = Workload(most, DEADLINE)
        self.door = Doorstep()
        names = {"it": "/it", "livez": "/livez", "readyz": "/readyz", "health": "/v1/health", "metrics": "/metrics"}
        table = [Route(name, "GET", path, Tag.OPERATIONS, name, Success(name)) for name, path in names.items()]
        probe: View = self.probe
        views = {**dict.fromkeys(names, probe), "it": self.it}
        self.door._app = Front(table, views, WORDING, (), OPEN, Protection(), self.workload)

    async def probe(self) -> Response:
        await trio.lowlevel.checkpoint()
        return written(b"{}")

    async def it(self) -> Response:
        if "wait" in asked().args:
            asked().caller.wait(timedelta(seconds=30))
        with trio.CancelScope(shield=self.shield):
            await self.go_on.wait()
            self.done += 1
        await trio.lowlevel.checkpoint()
        return written(b"{}")


async def test_one_too_many_is_told_so_at_once_and_probes_are_answered(mock_clock: MockClock) -> None:
    house = House()
    async with trio.open_nursery() as nursery:
        for _ in range(MOST):
            nursery.start_soon(house.door.ask, "GET", "/it")
        await wait_all_tasks_blocked()
        mock_clock.jump(7)
        for path in ("/it", "/nowhere"):
            answer = await house.door.ask("GET", path)
            answer.problem(503, "Overloaded")
            assert answer.headers["Retry-After"] == "7", "as long as those in hand took until now"
        for path in PROBES:
            assert (await house.door.ask("GET", path)).status == 200
        assert house.workload.in_hand == MOST
        house.go_on.set()
    assert (house.done, house.workload.in_hand) == (MOST, 0)
    (await house.door.ask("GET", "/nowhere")).problem(404, "NotFound")


async def test_when_to_come_again_is_what_requests_took_lately(mock_clock: MockClock) -> None:
    await trio.lowlevel.checkpoint()
    workload = Workload(1, DEADLINE)
    for _ in range(100):
        with _taken(workload):
            mock_clock.jump(3)
    with _taken(workload):
        no = workload.enter("it")
        assert not isinstance(no, Hold)
        assert no.retry_after == pytest.approx(timedelta(seconds=3), rel=0.02)
        mock_clock.jump(100)
        assert workload.refusal(kinds.OVERLOADED).retry_after == DEADLINE, "by then it is over, one way or the other"
    assert Workload().refusal(kinds.OVERLOADED).retry_after == timedelta(seconds=1)


async def test_who_takes_too_long_is_told_so_and_makes_room(mock_clock: MockClock, log: Lines) -> None:
    house, answers = House(), list[int]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_ask, house, "/it", answers)
        await wait_all_tasks_blocked()
        mock_clock.jump(DEADLINE.total_seconds() - 0.1)
        await wait_all_tasks_blocked()
        assert answers == []
        mock_clock.jump(0.2)
    assert answers == [503]
    assert (house.done, house.workload.in_hand) == (0, 0)
    [line] = log.of("request_overdue")
    assert (line["level"], line["method"], line["route"], line["deadline_s"]) == ("warning", "GET", "/it", 20)
    [line] = log.of("http_request")
    assert line["refusal"] == "service_unavailable"


async def test_what_is_shielded_is_done_although_it_is_late(mock_clock: MockClock) -> None:
    house, answers = House(), list[int]()
    house.shield = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_ask, house, "/it", answers)
        await wait_all_tasks_blocked()
        mock_clock.jump(DEADLINE.total_seconds() + 1)
        await wait_all_tasks_blocked()
        assert answers == []
        house.go_on.set()
    assert (answers, house.done) == ([503], 1)


async def test_who_asked_to_wait_has_that_much_longer_and_no_place(mock_clock: MockClock, log: Lines) -> None:
    house, answers = House(most=1), list[int]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_ask, house, "/it?wait=30", answers)
        await wait_all_tasks_blocked()
        assert house.workload.in_hand == 0
        (await house.door.ask("GET", "/nowhere")).problem(404, "NotFound")
        mock_clock.jump(45)
        await wait_all_tasks_blocked()
        assert answers == []
        mock_clock.jump(10)
    assert answers == [503]
    assert log.of("request_overdue")[0]["deadline_s"] == 50
    assert house.workload.in_hand == 0


async def test_the_long_poll_asks_to_wait(mock_clock: MockClock) -> None:
    door, answers = Doorstep(), list[int]()
    await door.register()

    async def poll() -> None:
        answers.append((await door.ask("GET", "/v1/users/registration?wait=9", who=f"{EMAIL}:{PASSWORD}")).status)

    workload: Workload = door.app._workload  # type: ignore[attr-defined]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poll)
        await wait_all_tasks_blocked()
        assert (answers, workload.in_hand) == ([], 0)
        mock_clock.jump(9.5)
    assert answers == [200]


async def test_a_refused_request_leaves_nothing_behind() -> None:
    house = House(most=0)

    def requests() -> int:
        gc.collect()
        return sum(isinstance(thing, Asked) for thing in gc.get_objects())

    await house.door.ask("GET", "/it")
    before = requests()
    for _ in range(50):
        (await house.door.ask("GET", "/it")).problem(503, "Overloaded")
    assert requests() <= before


def _taken(workload: Workload) -> Hold:
    hold = workload.enter("it")
    assert isinstance(hold, Hold)
    return hold


async def _ask(house: House, path: str, answers: list[int]) -> None:
    app = house.door.app
    response = await app.test_client().get(path)  # without the patience of `ask`, which the clock would outrun
    answers.append(response.status_code)
