"""More connections than there is room for: who gives way, who is told so, and that probes are answered all the same."""

import gc
import json
import os
import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from regsvc.http.guard import Connection
from regsvc.http.server import Limits
from tests.http.tiny import Caller, House, calling, other_process, serving, tiny_app, until

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
HALF = b"GET / HTTP/1.1\r\nHo"  # the client has begun to speak
PROBES = frozenset({b"/livez"})


@asynccontextmanager
async def full(seats: int = 3, guests: int = 4, **limits: float) -> AsyncIterator[House]:
    """A house whose seats are all taken by who will not give way, with a probe at /livez."""
    app = tiny_app()

    @app.get("/livez")
    async def livez() -> str:
        await trio.lowlevel.checkpoint()
        return "ok"

    some = Limits(**{"connections": seats, "guests": guests, "head": 60, "silence": 0.05, **limits})  # type: ignore[arg-type]
    async with serving(app, some, probes=PROBES, grace=0.1) as house, AsyncExitStack() as stack:
        for caller in [await stack.enter_async_context(calling(house.port)) for _ in range(seats)]:
            await caller.say(HALF)
        await until(lambda: sum(bool(one.protocol.unread) for one in seated(house)) == seats)
        yield house


def seated(house: House) -> list[Connection]:
    found = list(house.server._door.crowd.seated)
    return [one for one in found if isinstance(one, Connection) and hasattr(one, "protocol")]


def guests(house: House) -> int:
    return len(house.server._door.crowd.guests)


async def told(caller: Caller) -> None:
    """Be told that there are too many, and see the connection end."""
    answer = await caller.answer()
    assert (answer.status, json.loads(answer.body)["error"]) == (503, "Overloaded")
    assert answer.headers["connection"] == "close"
    assert await caller.rest() == b""


async def test_a_probe_is_answered_in_a_full_house_and_nothing_else() -> None:
    async with full() as house:
        for probe in (LIVEZ, LIVEZ.replace(b"z ", b"z?now "), LIVEZ.replace(b"GET", b"HEAD")):
            async with calling(house.port) as caller:
                await caller.say(probe)
                answer = await caller.answer(body=b"HEAD" not in probe)
                assert (answer.status, answer.headers["connection"]) == (200, "close")
                assert await caller.rest() == b""
        for other in (GET, LIVEZ.replace(b"GET", b"POST"), LIVEZ.replace(b"livez", b"livez/")):
            async with calling(house.port) as caller:
                await caller.say(other)
                await told(caller)
        assert house.told.refusals == [(503, "Overloaded")] * 3
        assert house.server.statistics().connections == 3
        await until(lambda: guests(house) == 0)


@pytest.mark.parametrize("said", [b"", LIVEZ[:-2]])
async def test_a_guest_has_to_ask_soon(said: bytes) -> None:
    async with full(guest_asks=0.1) as house, calling(house.port) as guest:
        await guest.say(said)
        await told(guest)


async def test_a_guest_who_has_not_asked_gives_way_to_the_next() -> None:
    async with full(guests=2, guest_asks=60, linger=60) as house, AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(calling(house.port)) for _ in range(2)]
        await until(lambda: guests(house) == 2)
        await callers[0].say(GET)  # is told so, and stays all the same
        assert (await callers[0].answer()).status == 503
        for _ in range(2):
            await stack.enter_async_context(calling(house.port))
            async with calling(house.port) as probe:
                await probe.say(LIVEZ)
                assert (await probe.answer()).status == 200
        assert await callers[0].rest() == b""
        await told(callers[1])


async def test_where_all_guests_are_being_answered_one_more_is_told_at_once() -> None:
    began, go_on = trio.Event(), trio.Event()
    app = tiny_app()

    @app.get("/livez")
    async def livez() -> str:
        began.set()
        await go_on.wait()
        return "ok"

    limits = Limits(connections=0, guests=1, guest_asks=60)
    async with serving(app, limits, probes=PROBES) as house, calling(house.port) as guest:
        await guest.say(LIVEZ)
        await began.wait()
        assert house.server.statistics().in_flight == 1
        async with calling(house.port) as late:
            await told(late)
        go_on.set()
        assert (await guest.answer()).status == 200


async def test_the_longest_silent_gives_way() -> None:
    async with serving(limits=Limits(connections=2, silence=0)) as house, AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(calling(house.port)) for _ in range(2)]
        for caller in (first, second, first):
            await caller.say(GET)
            assert (await caller.answer()).status == 200
        async with calling(house.port) as third:
            await third.say(GET)
            assert (await third.answer()).status == 200
        assert await second.rest() == b""
        await first.say(GET)
        assert (await first.answer()).status == 200
        assert house.told.refusals == []


async def test_who_has_just_fallen_silent_stays() -> None:
    async with serving(limits=Limits(connections=1, silence=30)) as house, calling(house.port) as first:
        await first.say(GET)
        assert (await first.answer()).status == 200
        async with calling(house.port) as second:
            await second.say(GET)
            await told(second)
        await first.say(GET)
        assert (await first.answer()).status == 200


async def test_who_has_just_spoken_stays() -> None:
    async with serving(limits=Limits(connections=1, silence=0)) as house, calling(house.port) as first:
        await first.say(GET)
        assert (await first.answer()).status == 200
        [connection] = seated(house)
        os.write(first.stream.socket.fileno(), GET)  # and nobody has looked yet
        assert not connection.give_way()
        assert (await first.answer()).status == 200


async def test_a_drain_waits_for_no_guest() -> None:
    async with full(guest_asks=60) as house, calling(house.port) as guest:
        await until(lambda: guests(house) == 1)
        began = trio.current_time()
        drained = await house.drain()
        assert trio.current_time() - began < 20
        assert drained.cut <= 3  # those of the half heads
        assert await guest.rest() == b""


async def test_the_refused_leave_nothing_behind() -> None:
    def connections() -> int:
        gc.collect()
        return sum(isinstance(thing, Connection) for thing in gc.get_objects())

    async with full(guests=16, linger=0.05) as house:
        before = connections()
        for _ in range(5):
            async with AsyncExitStack() as stack:
                for caller in [await stack.enter_async_context(calling(house.port)) for _ in range(40)]:
                    await caller.say(GET)
        await until(lambda: guests(house) == 0)
        await until(lambda: connections() <= before)


async def test_without_files_it_accepts_nobody_and_waits_for_better_times() -> None:
    with other_process("guarded") as (process, port):
        async with calling(port) as caller:
            await caller.say(GET)
            assert (await caller.answer()).status == 200
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (40, hard))
        async with AsyncExitStack() as stack:
            callers = [await stack.enter_async_context(calling(port)) for _ in range(60)]
            for caller in callers:
                await caller.say(GET)
            assert (await callers[0].answer()).status == 200
            await trio.sleep(1)  # in which those that it has accepted are answered
            spent = _processor_seconds(process.pid)
            await trio.sleep(2)  # what is looked at is what it does while nothing changes
            assert _processor_seconds(process.pid) - spent < 1, "it does not spin"
        async with calling(port) as caller:
            await caller.say(GET)
            assert (await caller.answer()).status == 200
        assert process.poll() is None


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
