"""Spans: when there are some, what they say, and what a collector that is slow or away costs."""

import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import pytest
import trio

from regsvc.observe import NO_SPAN, bind, open_log, open_tracing, request_context, span, traced, tracing
from tests.collector import Collected, Collector, open_collector
from tests.lines import Lines
from tests.waiting import until

UNSAMPLED = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"


@dataclass(frozen=True, slots=True)
class Flow:
    """A flow of one verb."""

    told: list[str]

    async def act(self, what: str, *, fail: bool = False) -> str:
        self.told.append(what)
        with span("statement", "look"):
            await trio.lowlevel.checkpoint()
        if fail:
            raise LookupError(what)
        return self._done(what)

    def _done(self, what: str) -> str:
        return what.upper()


@asynccontextmanager
async def collected() -> AsyncIterator[tuple[Collector, Lines]]:
    """Trace within the block; what was made is collected at its end."""
    lines = Lines()
    with open_collector() as collector, open_log(lines):
        async with open_tracing(collector.url):
            yield collector, lines


def named(collector: Collector, name: str) -> Collected:
    [found] = [one for one in collector.spans if one.name == name]
    return found


async def test_without_a_collector_there_is_no_span(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "regsvc.observe.tracing")
    async with open_tracing(None):
        with request_context("r") as place, span("request", "GET", at=place) as whole, span("flow", "act") as inner:
            assert whole is inner is NO_SPAN
            assert not inner
    assert "regsvc.observe.tracing" not in sys.modules


async def test_spans_are_within_each_other_and_the_log_names_the_outermost() -> None:
    async with collected() as (collector, _):
        with request_context("r") as place, span("request", "GET", at=place) as request:
            assert request
            request.tell("status", 503)
            request.tell("refusal", None)
            made = traced(Flow([]), "room")
            assert (await made.act("yes"), made.told) == ("YES", ["yes"])
            assert isinstance(made, Flow)
            assert request.traceparent == str(place)
            now = perf_counter()
            request.part("hash_wait", now - 2, now - 1)
        with span("flow", "for nobody"):
            pass
    made_all = await trio.to_thread.run_sync(collector.wait, lambda: len(collector.spans) >= 4)
    assert len(made_all) == 4
    outer, flow, inner = (named(collector, name) for name in ("GET", "room.act", "look"))
    assert (outer.trace_id, outer.span_id, outer.parent_id) == (place.trace_id, place.span_id, "")
    assert (flow.parent_id, inner.parent_id) == (outer.span_id, flow.span_id)
    assert outer.facts == {"http.response.status_code": 503, "error.type": "503"}
    assert (outer.failed, flow.failed) == (True, False)
    part = named(collector, "hash wait")
    assert part.ended - part.began == pytest.approx(1e9, rel=1e-6)
    assert part.parent_id == outer.span_id


async def test_what_failed_or_was_cancelled_says_so_and_no_more() -> None:
    async with collected() as (collector, _):
        with request_context("r") as place, span("request", "GET", at=place):
            with pytest.raises(LookupError):
                await traced(Flow([]), "room").act("c4nary-secret", fail=True)
            with trio.move_on_after(0), span("hash", "hash"):
                await trio.sleep_forever()
    assert named(collector, "room.act").facts == {"error.type": "LookupError"}
    assert named(collector, "hash").facts == {"error.type": "Cancelled"}
    assert named(collector, "hash").failed
    assert not named(collector, "GET").failed
    assert b"c4nary" not in collector.raw


async def test_a_client_that_does_not_sample_has_no_spans_and_neither_has_its_mail() -> None:
    async with collected() as (collector, _):
        with request_context("r", UNSAMPLED) as place, span("request", "GET", at=place) as one:
            assert one is NO_SPAN
        with bind(traceparent=UNSAMPLED) as place_of_mail, span("mail", "process outbox", at=place_of_mail) as mail:
            assert mail is NO_SPAN
        with bind(traceparent=None) as nowhere, span("mail", "process outbox", at=nowhere) as mail:
            assert mail is NO_SPAN
    assert collector.spans == []


def fill(number: int) -> None:
    for _ in range(number):
        with request_context("r") as place, span("request", "GET", at=place):
            pass


async def test_a_collector_that_is_away_is_told_of_once_and_so_is_what_it_costs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracing, "LINGER", 0.01)
    monkeypatch.setattr(tracing, "TELL_EVERY", 0.0)
    async with collected() as (collector, lines):
        collector.answer = 400
        for sent in range(1, 4):
            fill(1)
            await trio.to_thread.run_sync(collector.wait, partial(collector.asked, sent))
        collector.answer = 200
        fill(1)
        await until(partial(lines.of, "spans_dropped"))
    assert lines.events == ["trace_collector_down", "trace_collector_up", "spans_dropped"]
    down, _, dropped = lines.all
    assert "400" in down["reason"]
    assert dropped["spans"] == 3


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of somebody who listens and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


async def test_the_end_does_not_wait_for_a_collector_that_hangs(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "PATIENCE", 0.5)
    lines = Lines()
    with open_log(lines):
        began = trio.current_time()
        async with open_tracing(silent, left=lambda: 0.0):
            fill(1)
        assert trio.current_time() - began < 1.9
        await until(partial(lines.of, "spans_dropped"))


async def test_spans_that_find_no_room_are_dropped_and_counted(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "PATIENCE", 0.5)
    monkeypatch.setattr(tracing.Tracing.__init__, "__kwdefaults__", {"queue": 10})
    lines = Lines()
    with open_log(lines):
        async with open_tracing(silent, left=lambda: 0.0):
            fill(30)
        await until(partial(lines.of, "spans_dropped"))
    assert sum(line["spans"] for line in lines.of("spans_dropped")) == 30


async def test_a_span_that_outlives_the_collecting_is_nobodys() -> None:
    with open_collector() as collector, open_log(Lines()), request_context("r") as place:
        async with open_tracing(collector.url):
            late = span("request", "GET", at=place)
        with late:
            assert late
            late.part("hash_work", 1.0, 2.0)
    assert collector.requests == 0
