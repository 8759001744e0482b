"""No connection ends the process, gets a 5xx, or keeps others waiting; a stock Hypercorn shows why there is a guard."""

import math
from itertools import chain, islice

import pytest
import trio

from regsvc.http.server import Limits
from tests.http.hostile import DEADLY, SEEDS, Attack, Step, Then, corpus, play, rapid_reset, storm
from tests.http.tiny import Caller, calling, other_process, serving, until

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def wait_answers(port: int) -> None:
    """Wait until a new process answers on `port`."""
    with trio.fail_after(10):
        async with calling(port) as caller:  # the kernel accepts before the process does
            await caller.say(GET)
            assert (await caller.stream.receive_some(12)) == b"HTTP/1.1 200"


@pytest.mark.parametrize("name", DEADLY)
async def test_a_stock_hypercorn_dies_of(name: str) -> None:
    with other_process("stock") as (process, port):
        await wait_answers(port)
        await play(port, Attack(name, (Step(DEADLY[name], pause=0.05, then=Then.CLOSE),)))
        with trio.fail_after(20):
            await trio.to_thread.run_sync(process.wait, abandon_on_cancel=True)
        assert process.returncode == 1


@pytest.mark.timeout(900)  # the large form
async def test_ours_outlives_them_all_in_one_process(rounds: int | None) -> None:
    ends = [Attack(name, (Step(data, then=then),)) for name, data in SEEDS.items() for then in Then]
    with other_process("guarded") as (process, port):
        await wait_answers(port)
        assert await storm(port, chain(ends, islice(corpus(seed=8), rounds or 300))) == []
        await wait_answers(port)
        assert process.poll() is None, "the same process still serves"
        process.terminate()
        with trio.fail_after(20):
            assert await trio.to_thread.run_sync(process.wait, abandon_on_cancel=True) == 0


@pytest.mark.parametrize(
    ("name", "status"),
    [("K1", 200), ("K2", 400), ("K3", 400), ("K4", 200), ("K5", 400), ("K5 absolute", 400), ("K7", 400)],
)
async def test_http_1_is_never_left(name: str, status: int) -> None:
    async with serving(limits=Limits(idle=0.5, head=0.2)) as house, calling(house.port) as caller:
        await caller.say(SEEDS[name])
        answer = await caller.answer()
        assert answer.status == status
        assert "upgrade" not in answer.headers
        assert b" 101 " not in await caller.rest()
        assert house.told.contained == []


@pytest.mark.timeout(900)  # the large form
@pytest.mark.parametrize("name", ["K5", "K5 absolute"])
async def test_k5_a_bad_target_then_garbage_then_a_close(name: str, rounds: int | None) -> None:
    data = SEEDS[name]
    async with serving() as house:
        for number in range(rounds or 50):
            pause = 0.0 if number % 2 else 0.0005
            then = Then.CLOSE if number % 3 else Then.RESET
            await play(house.port, Attack(name, (Step(data[:30]), Step(data[30:], pause, then))), patience=0.01)
        await wait_answers(house.port)
        assert house.told.contained == []
        assert house.told.failures == []


async def test_k7_a_rapid_reset_starves_nobody() -> None:
    async with serving() as house, calling(house.port) as other:
        await play(house.port, Attack("K7", (Step(rapid_reset(5000)),)))
        await other.say(GET)
        assert (await other.answer()).status == 200
        await until(lambda: house.server.statistics().answered)
        assert house.server.statistics().answered == 1, "not one of its streams reached the app"


@pytest.mark.timeout(900)  # the large form
async def test_a_storm_of_attacks_ends_nothing_and_delays_nobody(rounds: int | None) -> None:
    waits: list[float] = []

    async def probe(port: int, over: trio.CancelScope) -> None:
        with over:
            while True:
                waits.append(await _probe(port))
                await trio.sleep(0.005)

    over = trio.CancelScope()
    async with serving() as house:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(probe, house.port, over, name="probe")
            assert await storm(house.port, islice(corpus(seed=7), rounds or 1500)) == []
            over.cancel(reason="the attacks are over")
        assert house.told.contained == []
        assert house.told.failures == []
        assert (await house.drain()).cut == 0
        assert house.server.statistics().connections == 0
    waits.sort()
    middle, high = waits[len(waits) // 2], waits[math.ceil(len(waits) * 0.99) - 1]
    print(f"{len(waits)} probes meanwhile: p50 {middle * 1e3:.1f} ms, p99 {high * 1e3:.1f} ms")  # noqa: T201 – `pytest -s`


async def _probe(port: int) -> float:
    began = trio.current_time()
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        caller = Caller(stream)
        await caller.say(GET)
        assert (await caller.answer()).status == 200
    return trio.current_time() - began
