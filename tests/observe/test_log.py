"""The way of a line to its stream: never in the way of anyone, never torn, never lost silently."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import FileIO

import pytest
import trio

from regsvc import observe
from regsvc.observe import Unfit, emit, log, open_log, run_log_writer
from regsvc.observe.lines import LINE_MAX
from tests.lines import Lines


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - a thread does it, and tells nobody
            await trio.sleep(0.001)


@contextmanager
def pipe() -> Iterator[tuple[FileIO, FileIO]]:
    read, write = os.pipe()
    with FileIO(read, "r") as reader, FileIO(write, "w") as writer:
        yield reader, writer


def numbers(lines: Lines) -> list[int]:
    return [line["mails"] for line in lines.of("outbox_reclaimed")]


# ------------------------------------------------------------------------------------------- what may be said


def test_an_unknown_field_raises_where_it_is_strict_and_is_left_out_elsewhere() -> None:
    lines = Lines()
    with open_log(lines), pytest.raises(Unfit, match="mail_sent has no field colour"):
        emit("mail_sent", colour="red")  # under pytest a log is strict by itself
    with open_log(lines, strict=False) as lax:
        emit("outbox_reclaimed", colour="red", mails=1)
    assert [line["mails"] for line in lines.all] == [1]
    assert lax.statistics().fields == 1


def test_levels_below_the_threshold_are_not_written() -> None:
    lines = Lines()
    with open_log(lines, level="warning"):
        emit("database_recovered", away_s=1)
        emit("database_unavailable", reason="away")
    assert lines.events == ["database_unavailable"]


def test_the_database_is_lost_once_and_found_once() -> None:
    lines = Lines()
    with open_log(lines):
        observe.database_back()
        for _ in range(2):
            for _ in range(5):
                observe.database_away("connection refused")
            for _ in range(5):
                observe.database_back()
    assert lines.events == ["database_unavailable", "database_recovered"] * 2


# --------------------------------------------------------------------------------------------- where it goes


def test_a_log_inside_a_log_ends_with_its_block() -> None:
    outer, inner = Lines(), Lines()
    with open_log(outer):
        with open_log(inner):
            emit("outbox_reclaimed", mails=1)
        emit("outbox_reclaimed", mails=2)
        assert observe.statistics().written == 1
    assert (numbers(inner), numbers(outer)) == ([1], [2])


def test_before_any_log_is_open_lines_go_to_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    emit("outbox_reclaimed", mails=1)
    emit("outbox_reclaimed", mails=2)
    with open_log():
        emit("outbox_reclaimed", mails=3)
    assert [json.loads(line)["mails"] for line in capfd.readouterr().out.splitlines()] == [1, 2, 3]


async def test_the_writer_takes_lines_from_tasks_and_threads_and_those_after_its_end() -> None:
    lines = Lines()
    with open_log(lines):
        emit("outbox_reclaimed", mails=0)
        async with trio.open_nursery() as nursery:
            await nursery.start(run_log_writer)
            emit("outbox_reclaimed", mails=1)
            assert numbers(lines) == [0], "handed over, not written here"
            await until(lambda: numbers(lines) == [0, 1])
            await trio.to_thread.run_sync(partial(emit, "outbox_reclaimed", mails=2))
            await until(lambda: numbers(lines) == [0, 1, 2])
            for n in range(3, 1000):
                emit("outbox_reclaimed", mails=n)
            nursery.cancel_scope.cancel(reason="the end")
        assert numbers(lines) == list(range(1000)), "what waited at the end was written"
        emit("outbox_reclaimed", mails=1000)
    assert numbers(lines)[-1] == 1000


async def test_lines_of_many_threads_at_once_arrive_once_each() -> None:
    lines = Lines()

    def talk(first: int) -> None:
        for n in range(first, first + 500):
            emit("outbox_reclaimed", mails=n)

    with open_log(lines):
        async with trio.open_nursery() as nursery:
            await nursery.start(run_log_writer)
            async with trio.open_nursery() as talkers:
                for n in range(4):
                    talkers.start_soon(trio.to_thread.run_sync, talk, n * 500)
            nursery.cancel_scope.cancel(reason="the end")
        talk(2000)
    assert sorted(numbers(lines)) == list(range(2500))


def test_a_thread_that_outlives_the_loop_still_gets_its_lines_out() -> None:
    lines = Lines()
    go = threading.Event()

    def late() -> None:
        go.wait(10)
        emit("outbox_reclaimed", mails=1)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(run_log_writer)
            nursery.cancel_scope.cancel(reason="the end")

    with open_log(lines):
        thread = threading.Thread(target=late)
        thread.start()
        trio.run(main)
        go.set()
        thread.join(10)
    assert numbers(lines) == [1]


# ------------------------------------------------------------------------------------------ when it goes wrong


class Broken(Lines):
    """A stream that fails while `why` is set."""

    why: OSError | None = None

    def write(self, data: bytes, /) -> int:  # type: ignore[override]  # narrower than BytesIO's buffer
        if self.why is not None:
            raise self.why
        return super().write(data)


async def test_lines_that_a_stream_refuses_are_counted_and_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Broken()
    with open_log(stream) as out:
        async with trio.open_nursery() as nursery:
            await nursery.start(run_log_writer)
            stream.why = OSError(28, "No space left on device")
            for n in range(7):
                emit("outbox_reclaimed", mails=n)
            await until(lambda: out.statistics().dropped == 7)
            stream.why = None
            emit("outbox_reclaimed", mails=7)
            await until(lambda: out.statistics().written == 2)
            nursery.cancel_scope.cancel(reason="the end")
    assert numbers(stream) == [7]
    [told] = stream.of("log_lines_dropped")
    assert told["lines"] == 7


async def test_a_reader_that_is_gone_harms_nobody() -> None:
    with pipe() as (reader, writer), open_log(writer) as out:
        reader.close()
        emit("outbox_reclaimed", mails=1)
        async with trio.open_nursery() as nursery:
            await nursery.start(run_log_writer)
            emit("outbox_reclaimed", mails=2)
            await until(lambda: out.statistics().dropped >= 2)
            nursery.cancel_scope.cancel(reason="the end")


def fill(writer: FileIO) -> None:
    """Write until the pipe takes no more."""
    os.set_blocking(writer.fileno(), False)
    while writer.write(b" " * 4096) is not None:
        pass
    os.set_blocking(writer.fileno(), True)


def writers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "log"]


async def test_a_reader_that_does_not_read_costs_lines_but_blocks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "FAREWELL", 0.05)
    with pipe() as (reader, writer), open_log(writer, room=50) as out:
        fill(writer)
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                await nursery.start(run_log_writer)
                emit("outbox_reclaimed", mails=0)
                await until(lambda: bool(writers()))
                for n in range(100):
                    emit("outbox_reclaimed", mails=n)
                assert out.statistics().dropped >= 49
                nursery.cancel_scope.cancel(reason="the end")
        dropped = out.statistics().dropped
        emit("outbox_reclaimed", mails=1)
        assert out.statistics().dropped == dropped + 1, "nobody waits for a stream that is known to be stuck"
        os.set_blocking(reader.fileno(), False)
        await until(lambda: reader.read(65536) is None and not writers())  # what was left behind ends with a reader


async def test_a_pipe_that_somebody_made_non_blocking_is_waited_for() -> None:
    with pipe() as (reader, writer), open_log(writer) as out:
        os.set_blocking(writer.fileno(), False)
        received = bytearray()
        async with trio.open_nursery() as nursery:
            await nursery.start(run_log_writer)
            for n in range(2000):
                emit("outbox_reclaimed", mails=n)
            while received.count(b"\n") < 2000:
                received += await trio.to_thread.run_sync(reader.read, 65536)
            nursery.cancel_scope.cancel(reason="the end")
        assert out.statistics().dropped == 0
    assert [json.loads(line)["mails"] for line in received.splitlines()] == list(range(2000))


async def test_more_than_there_is_room_for_is_dropped_and_told_of() -> None:
    lines = Lines()
    with open_log(lines, room=10) as out:
        async with trio.open_nursery() as nursery:
            await nursery.start(run_log_writer)
            for n in range(15):
                emit("outbox_reclaimed", mails=n)
            await until(lambda: bool(lines.of("log_lines_dropped")))
            nursery.cancel_scope.cancel(reason="the end")
        assert out.statistics() == observe.LogStatistics(waiting=0, written=11, dropped=5, fields=0)
    assert numbers(lines) == list(range(10))


# -------------------------------------------------------------------------------------------------- in one piece


class Pieces(Lines):
    """Notes what each write carried."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []

    def write(self, data: bytes, /) -> int:  # type: ignore[override]  # narrower than BytesIO's buffer
        self.pieces.append(data)
        return super().write(data)


async def test_each_write_carries_whole_lines_that_fit_into_a_pipe_at_once() -> None:
    lines = Pieces()
    with open_log(lines):
        async with trio.open_nursery() as nursery:
            await nursery.start(run_log_writer)
            for n in range(300):
                emit("listener_lost", reason="x" * (n * 3))
            nursery.cancel_scope.cancel(reason="the end")
    assert all(piece.endswith(b"\n") and len(piece) <= LINE_MAX for piece in lines.pieces)
    assert len(lines.all) == 300
    assert len(lines.pieces) < 100, "lines of a moment share a write"


class Dribble(Lines):
    """Takes a few bytes at a time, and lets another thread run in between."""

    def write(self, data: bytes, /) -> int:  # type: ignore[override]  # narrower than BytesIO's buffer
        time.sleep(0)  # gives up the GIL
        return super().write(data[:40])


def test_threads_that_write_directly_do_not_tear_each_others_lines() -> None:
    lines = Dribble()

    def talk() -> None:
        for n in range(50):
            emit("outbox_reclaimed", mails=n)

    with open_log(lines):
        threads = [threading.Thread(target=talk) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert sorted(numbers(lines)) == sorted(list(range(50)) * 4)


TALKER = """
import sys
from regsvc.observe import emit, open_log
with open_log():
    for n in range(int(sys.argv[1])):
        emit("mail_dead", attempts=n, reason="x" * (n * 37 % 1000))
"""


def test_workers_that_share_a_pipe_do_not_tear_each_others_lines() -> None:
    with pipe() as (reader, writer):
        talkers = [
            subprocess.Popen([sys.executable, "-c", TALKER, "500"], stdout=writer, stderr=subprocess.PIPE)
            for _ in range(3)
        ]
        writer.close()
        received = bytearray()
        while piece := reader.read(1000):
            received += piece
        for talker in talkers:
            assert talker.communicate(timeout=10)[1] == b""
    counted = [json.loads(line)["attempts"] for line in received.splitlines()]
    assert sorted(counted) == sorted(list(range(500)) * 3)
