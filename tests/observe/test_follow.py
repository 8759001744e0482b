"""Following the log of several processes: one order, what is wanted and nothing else, and every loss counted."""

import json
import time
from collections.abc import Sequence
from itertools import count
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regsvc.observe import EVENTS, LEVELS, Event, Level, emit, follow, open_log
from regsvc.observe.follow import HOLD, LOOK_MAX, RINGS_MAX, Follower, Wanted
from regsvc.observe.lines import Clock
from regsvc.observe.ring import CHUNK_MAX, Ring
from regsvc.observe.shared import RING, Shared, Slab
from tests.lines import Lines

ALL = Wanted()
ROUTE = "/v1/users/register"


def slabs(count: int = 1) -> Sequence[Slab]:
    return Shared.create(count).slabs


def line(at: int, event: str = "mail_sent", level: str = "info", **fields: Any) -> bytes:
    """Return a line that was written so many ns ago."""
    told = {"ts": Clock().stamp(time.time_ns() - at), "level": level, "event": event, **fields}
    return json.dumps(told, separators=(",", ":")).encode() + b"\n"


def write(slab: Slab, *lines: bytes) -> None:
    Ring(slab).write(b"".join(lines), len(lines))


def drawn(follower: Follower, *, last: bool = True) -> list[dict[str, Any]]:
    return [json.loads(text) for text in follower.look(last=last).lines]


def test_lines_of_all_processes_come_in_the_order_they_were_written() -> None:
    memory = slabs(3)
    write(memory[0], line(0, n=0))
    follower = Follower(memory, ALL)
    assert drawn(follower) == []
    write(memory[2], line(9 * HOLD, n=2), line(5 * HOLD, n=5))
    write(memory[0], line(8 * HOLD, n=3), line(7 * HOLD, n=4))
    write(memory[1], line(99 * HOLD, n=1))
    assert [one["n"] for one in drawn(follower, last=False)] == [1, 2, 3, 4, 5]


def test_a_line_that_is_young_waits_for_older_ones_and_no_longer_than_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = slabs(2)
    follower = Follower(memory, ALL)
    monkeypatch.setattr(follow, "HOLD", 10**12)
    write(memory[0], line(0, n=2))
    assert drawn(follower, last=False) == []
    write(memory[1], line(HOLD, n=1), line(0, n=3))
    assert [one["n"] for one in drawn(follower, last=False)] == [1, 2]
    assert [one["n"] for one in drawn(follower, last=False)] == [3]
    write(memory[1], line(0, n=4))
    assert [one["n"] for one in drawn(follower)] == [4]  # the last look keeps nothing back


@pytest.mark.parametrize("least", get_args(Level))
def test_the_least_level(least: Level) -> None:
    memory = slabs()
    follower = Follower(memory, Wanted(least))
    levels = get_args(Level)
    write(memory[0], *(line(HOLD, level=level) for level in levels))
    assert [one["level"] for one in drawn(follower)] == list(levels[levels.index(least) :])


def test_events_are_their_whole_names() -> None:
    memory = slabs()
    follower = Follower(memory, Wanted(events=["mail_dead", "session_ended"]))
    names = ("mail_dead", "mail_deferred", "session_ended", "mail_dead_letter")
    write(memory[0], *(line(HOLD, name, reason='"event":"mail_dead"') for name in names))
    assert [one["event"] for one in drawn(follower)] == ["mail_dead", "session_ended"]


def test_routes_are_whole_and_what_has_none_is_left_out() -> None:
    memory = slabs()
    follower = Follower(memory, Wanted(routes={"/a": None, "/b/{id}": ["GET"]}))
    told: list[dict[str, Any]] = [
        {"method": "PUT", "route": "/a", "n": 1},
        {"method": "GET", "route": "/b/{id}", "n": 2},
        {"method": "PUT", "route": "/b/{id}"},
        {"route": "/b/{id}"},
        {"route": "/a/b"},
        {"reason": '"route":"/a"'},
        {"route": "/a", "n": 3},
    ]
    write(memory[0], *(line(HOLD, **fields) for fields in told))
    assert [one["n"] for one in drawn(follower)] == [1, 2, 3]


ODD = st.text() | st.sampled_from(['"route":"/x"', f'"route":"{ROUTE}"', '","event":"http_bug', '{"ts":"'])


@given(ODD, st.sampled_from(["library_message", "request_unreadable"]))
def test_what_the_log_writes_is_found_by_what_is_in_it(text: str, event: Event) -> None:
    """The first fields are where the follower looks for them, and no value passes for one."""
    memory = slabs()
    wanted = (ALL, Wanted(LEVELS[event], [event]), Wanted(routes={ROUTE: None}))
    others = (Wanted(events=[one for one in EVENTS if one != event]), Wanted(routes={"/x": None}))
    followers = [Follower(memory, one) for one in (*wanted, *others)]
    with open_log(Lines(), level="debug", worker=1, slab=memory[0]):
        if event == "library_message":
            emit(event, logger="x", message=text, traceback=text)
        else:
            emit(event, method="GET", route=ROUTE, status=400, reason=text)
    found = [len(drawn(follower)) for follower in followers]
    assert found == [1, 1, int(event == "request_unreadable"), 0, 0]


def test_a_flood_is_read_in_parts_and_what_is_overwritten_is_counted() -> None:
    memory = slabs()
    follower, asleep = Follower(memory, ALL), Follower(memory, Wanted("error"))
    total = found = lost = 0
    for number in range(3 * RING // 3000):
        write(memory[0], *(line(HOLD, n=total + i, x="x" * 300) for i in range(9)))
        total += 9
        if number % 40 == 0:
            look = follower.look()
            assert sum(map(len, look.lines)) <= LOOK_MAX
            assert look.more == (number > 0)
            found, lost = found + len(look.lines), lost + look.lost
    more = True
    while more:
        look = follower.look()
        found, lost, more = found + len(look.lines), lost + look.lost, look.lines != []
    assert found + lost == total
    assert min(found, lost) > total // 10
    look = asleep.look()
    assert (look.lines, look.more) == ([], True)
    assert look.lost > total // 2


def test_many_full_rings_are_read_in_parts_and_still_in_order() -> None:
    memory = slabs(3 * RINGS_MAX)
    follower = Follower(memory, ALL)
    moments = count(10**18, 1000)
    clock, total = Clock(), 0
    for turn in range(30):
        for number, slab in enumerate(memory):
            if turn % (number + 1) == 0:  # some say much, some little
                stamps = [clock.stamp(next(moments)) for _ in range(7)]
                write(slab, *(line(0, ts=ts, x="x" * 900) for ts in stamps))
                total += 7
    told, more = list[dict[str, Any]](), True
    while more:
        look = follower.look()
        assert look.lost == 0
        told += [json.loads(text) for text in look.lines]
        more = look.more
        held = sum(len(text) for ring in follower._rings for text in ring.lines)
        assert held <= len(memory) * 2 * CHUNK_MAX
    told += drawn(follower)
    stamps = [one["ts"] for one in told]
    assert stamps == sorted(stamps)
    assert len(stamps) == total


def test_a_slab_that_another_takes_over_is_followed_on() -> None:
    memory = slabs(2)
    follower = Follower(memory, ALL)
    memory[1].take(fingerprint=1, worker=1)
    write(memory[1], line(2 * HOLD, n=1))
    memory[1].leave()
    memory[1].take(fingerprint=2, worker=7)
    write(memory[1], line(HOLD, n=2))
    look = follower.look(last=True)
    assert ([json.loads(text)["n"] for text in look.lines], look.lost) == ([1, 2], 0)
