"""Where a request ends is never a matter of opinion: it is read as everybody reads it, or refused and cut off.

Behind each comes a request that is answered as itself, if at all; what is hidden within is never answered.
"""

import re

import pytest
import trio
import trio.testing

from regsvc.http.server import Limits
from tests.http.smuggling import NEXT, READ, REFUSED, Ambiguous
from tests.http.tiny import House, calling, serving

LIMITS = Limits(idle=2, head=2, body_arrives=2, linger=0.02)
ANSWER = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r]*\r\n(?:[^\r\n]+\r\n)*?content-length: (\d+)\r\n(?:[^\r\n]+\r\n)*\r\n")


async def heard(house: House, data: bytes, *, piecemeal: bool = False) -> list[tuple[int, bytes]]:
    """Return status and body of every answer to what is sent, until there are no more."""
    async with calling(house.port) as caller:
        try:
            for piece in [data[n : n + 1] for n in range(len(data))] if piecemeal else [data]:
                await caller.say(piece)
                if piecemeal:
                    await trio.testing.wait_all_tasks_blocked()
            await caller.stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it has heard enough
        return answers(await caller.rest())


def answers(said: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    while at < len(said):
        one = ANSWER.match(said, at)
        assert one is not None, f"not an answer: {said[at:]!r}"
        at = one.end() + int(one[2])
        found.append((int(one[1]), said[one.end() : at]))
    return found


@pytest.mark.parametrize("piecemeal", [False, True], ids=["at once", "byte by byte"])
async def test_what_may_be_read_in_two_ways_is_refused_and_nothing_after_it_answered(piecemeal: bool) -> None:  # noqa: FBT001
    wrong: dict[str, object] = {}
    async with serving(limits=LIMITS) as house:
        for name, one in REFUSED.items():
            if piecemeal and len(one.data) > 1000:
                continue
            found = await heard(house, one.data + NEXT, piecemeal=piecemeal)
            if [status for status, _ in found] not in ([400], [413], [431]):
                wrong[name] = found
        assert house.told.contained == []
        assert house.told.failures == []
        assert house.server.statistics().answered == 0, "not one of them reached the app"
    assert wrong == {}


@pytest.mark.parametrize("piecemeal", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("one", READ.values(), ids=READ.keys())
async def test_what_everybody_reads_alike_is_read_and_the_next_is_the_next(one: Ambiguous, piecemeal: bool) -> None:  # noqa: FBT001
    async with serving(limits=LIMITS) as house:
        found = await heard(house, one.data + NEXT, piecemeal=piecemeal)
        assert found == [(200, one.body), (200, b"next")]
        assert house.told.contained == []


@pytest.mark.parametrize("name", ["CL.TE", "two hosts", "host 'x'"])
async def test_what_comes_behind_a_refusal_in_a_segment_of_its_own_is_lost_too(name: str) -> None:
    data = REFUSED[name].data if name in REFUSED else b"GET /echo HTTP/1.1\r\nHost: a b\r\n\r\n"
    async with serving(limits=LIMITS) as house, calling(house.port) as caller:
        await caller.say(data)
        assert (await caller.answer()).status == 400
        await caller.say(NEXT)
        assert await caller.rest() == b""


async def test_a_refusal_says_nothing_back_of_what_it_refused() -> None:
    secret = b"hunter2-hunter2"
    post = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with serving(limits=LIMITS) as house:
        for data in (post + secret + b"\r\n", post + b"1\r\n" + secret, b"GET " + secret + b" x\r\n\r\n"):
            [(status, body)] = await heard(house, data)
            assert (status, secret in body) == (400, False), body
