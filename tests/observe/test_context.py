"""Request, actor and trace: where they come from and where they go."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from regsvc.observe import Trace, bind, context, request_context, trace

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    "traceparent",
    [
        None,
        "",
        "garbage",
        PARENT[:-1],
        PARENT.upper(),
        PARENT + "-more",
        "ff" + PARENT[2:],
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID}-00f067aa0ba902b7-0g",
        "٠٠" + PARENT[2:],
    ],
)
def test_what_is_no_traceparent_begins_a_new_trace(traceparent: str | None) -> None:
    assert Trace.parse(traceparent) is None
    with request_context("r", traceparent) as span:
        assert span.trace_id != TRACE_ID
        assert trace() == str(span)


@pytest.mark.parametrize(("flags", "ours"), [("01", "01"), ("00", "00"), ("ff", "01"), ("02", "00")])
@pytest.mark.parametrize("version", ["00", "01", "cc"])
def test_a_traceparent_is_continued_with_a_span_of_our_own(version: str, flags: str, ours: str) -> None:
    with request_context("r", f" {version}{PARENT[2:-2]}{flags} ") as span:
        assert span.trace_id == TRACE_ID
        assert span.span_id != "00f067aa0ba902b7"
        assert trace() == f"00-{TRACE_ID}-{span.span_id}-{ours}"


def test_a_later_version_may_say_more() -> None:
    assert Trace.parse("01" + PARENT[2:] + "-what the future brings") is not None


@given(st.text())
def test_reading_a_header_never_fails(text: str) -> None:
    assert Trace.parse(text) is None or text.strip()[3:35].islower() or text.strip()[3:35].isdigit()


def test_a_new_trace_reads_as_what_it_is() -> None:
    new = Trace.new()
    assert Trace.parse(str(new)) == new


def test_contexts_nest_and_end() -> None:
    assert trace() is None
    with bind(actor="mailer"), request_context("outer", PARENT) as outer:
        with bind(request_id="inner"):
            assert context() == {
                "actor": "mailer",
                "request_id": "inner",
                "trace_id": TRACE_ID,
                "span_id": outer.span_id,
            }
            assert trace() == str(outer)
        with request_context("unsampled", PARENT[:-2] + "00"):
            assert str(trace()).endswith("-00")
        assert trace() == str(outer)
        with bind(traceparent="unreadable") as none:
            assert none is None
            assert trace() == str(outer)
        assert context()["request_id"] == "outer"
    assert context() == {}
    assert trace() is None


async def test_tasks_and_threads_take_it_along_and_keep_it_apart() -> None:
    seen: dict[str, str] = {}

    async def request(name: str) -> None:
        with request_context(name):
            await trio.lowlevel.checkpoint()
            seen[name] = context()["request_id"]
            seen[f"{name} on a thread"] = (await trio.to_thread.run_sync(context))["request_id"]

    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(request, name)
    assert all(key.split()[0] == value for key, value in seen.items())
    assert len(seen) == 6
