"""The ring: whatever is read of it is whole and in order, and whatever is not is counted."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regsvc.observe import emit, open_log
from regsvc.observe.ring import CHUNK_MAX, KEPT, Reader, Ring
from regsvc.observe.shared import RING, Shared, Slab
from tests.lines import Lines

WRITER = """
import sys, time
from regsvc.observe.ring import Ring
from regsvc.observe.shared import Shared
ring = Ring(Shared.attach(int(sys.argv[1])).slabs[0])
number = int(sys.argv[2])
while True:
    lines = [b'{"n":%d,"x":"%b"}\\n' % (number + i, b"x" * (number * 37 % 401)) for i in range(number % 7 + 1)]
    number += len(lines)
    ring.write(b"".join(lines), len(lines))
"""


def slab() -> Slab:
    return Shared.create(1).slabs[0]


def line(number: int, size: int = 0) -> bytes:
    return b'{"n":%d,"x":"%b"}\n' % (number, b"x" * size)


def numbers(block: bytes) -> list[int]:
    """Return the lines' numbers; fails where one is not whole."""
    assert block.endswith(b"\n") or not block
    return [json.loads(text)["n"] for text in block.splitlines()]


def everything(reader: Reader) -> tuple[list[int], int]:
    found, lost = [], 0
    while reader.waiting:
        block, missed = reader.read(RING)
        found += numbers(block)
        lost += missed
    return found, lost


# ----------------------------------------------------------------------------------------------- what is read


def test_a_reader_begins_at_the_end_and_reads_what_comes() -> None:
    memory = slab()
    ring = Ring(memory)
    ring.write(line(0) + line(1), 2)
    reader = Reader(memory)
    assert reader.read(CHUNK_MAX) == (b"", 0)
    ring.write(line(2), 1)
    ring.write(line(3) + line(4), 2)
    assert reader.read(CHUNK_MAX) == (line(2) + line(3) + line(4), 0)
    assert (reader.waiting, reader.read(CHUNK_MAX)) == (0, (b"", 0))


def test_what_is_too_long_for_a_chunk_is_counted_by_who_reads_on() -> None:
    memory = slab()
    ring, reader = Ring(memory), Reader(memory)
    ring.write(line(0, CHUNK_MAX), 1)
    assert reader.waiting == 0
    ring.write(line(1), 1)
    assert reader.read(CHUNK_MAX) == (line(1), 1)


def test_what_is_no_line_is_passed_over_up_to_the_next_mark() -> None:
    memory = slab()
    ring, reader = Ring(memory), Reader(memory)
    memory.ring[:RING] = b"x" * RING
    memory.written = 2 * CHUNK_MAX
    ring.write(line(0), 1)
    found = [reader.read(CHUNK_MAX) for _ in range(3)]
    assert found == [(b"", 0), (b"", 0), (line(0), 0)]


@given(
    st.lists(
        st.one_of(
            st.lists(st.integers(0, 900), min_size=1, max_size=8),  # a chunk of lines of these sizes
            st.integers(CHUNK_MAX, 3 * CHUNK_MAX),  # a look at so many octets
            st.integers(1, 90),  # so many chunks of middle size, at once: enough to overtake
        ),
        max_size=60,
    ),
    st.integers(0, 2 * RING),
)
def test_every_line_is_read_whole_and_in_order_or_counted(doings: list[list[int] | int], before: int) -> None:
    memory = slab()
    memory.written = before  # somewhere in the ring, which others have filled
    ring, reader = Ring(memory), Reader(memory)
    written, read, lost = 0, list[int](), 0
    for doing in [*doings, [1]]:  # at the end a chunk, whose mark tells what was lost before it
        if isinstance(doing, int) and doing >= CHUNK_MAX:
            block, missed = reader.read(doing)
            read += numbers(block)
            lost += missed
            continue
        for sizes in [doing] if isinstance(doing, list) else [[700] * 8] * doing:
            ring.write(b"".join(line(written + i, size) for i, size in enumerate(sizes)), len(sizes))
            written += len(sizes)
    found, missed = everything(reader)
    read, lost = read + found, lost + missed
    assert read == sorted(set(read))
    assert len(read) + lost == written
    assert read[-1:] == [written - 1]


def test_a_reader_that_is_overtaken_within_its_copy_throws_away_what_may_be_torn() -> None:
    """The writer comes between the copy and the look at `written`, at each distance from the reader."""

    class Overtaking(Slab):
        """Writes on while it is copied."""

        asked = 9
        by = 0

        @property
        def written(self) -> int:
            self.asked += 1
            if self.asked == 2:  # before the copy the first time, after it now
                fill(self, self.by)
            return super().written

        @written.setter
        def written(self, octets: int) -> None:
            self._head[3] = octets

    def fill(memory: Slab, chunks: int) -> None:
        ring = Ring(memory)
        for _ in range(chunks):
            first = memory.lines
            ring.write(b"".join(line(first + i, 1000) for i in range(7)), 7)

    for by in range(1, 2 * RING // 7000):
        memory = Overtaking(memoryview(bytearray(4096 + 8192 * 8 + RING)), 0)
        reader = Reader(memory)
        fill(memory, KEPT // 7200)
        memory.asked, memory.by = 0, by
        block, lost = reader.read(RING)
        found, more = everything(reader)
        found = numbers(block) + found
        assert found == sorted(set(found))
        assert len(found) + lost + more == memory.lines


# ------------------------------------------------------------------------------------------- other processes


@contextmanager
def writing(shared: Shared) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", WRITER, str(shared.fd), str(shared.slabs[0].lines)]
    with subprocess.Popen(command, pass_fds=[shared.fd]) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)


def test_what_another_process_writes_at_full_speed_is_read_whole(rounds: int | None) -> None:
    """Some readers keep up, some do not; the writer is killed at any moment, and its successor goes on."""
    shared = Shared.create(1)
    memory = shared.slabs[0]
    slow, quick = Reader(memory), Reader(memory)
    read = {slow: list[int](), quick: list[int]()}
    lost = {slow: 0, quick: 0}
    for _ in range(rounds or 3):
        with writing(shared):
            until = memory.written + 8 * RING
            while memory.written < until:
                for reader in (slow, quick) if slow.waiting > RING else (quick,):
                    block, missed = reader.read(CHUNK_MAX if reader is slow else RING)
                    read[reader] += numbers(block)
                    lost[reader] += missed
    Ring(memory).write(line(memory.lines), 1)
    for reader in (slow, quick):
        found, missed = everything(reader)
        seen = read[reader] + found
        assert len(seen) + lost[reader] + missed == memory.lines
        assert seen == sorted(seen)
        assert len(seen) > 1000
    assert lost[slow] > 0


# --------------------------------------------------------------------------------------------------- the log


@pytest.mark.parametrize("fmt", ["json", "pretty"])
def test_what_the_log_writes_is_in_the_ring_as_json(fmt: str) -> None:
    memory = slab()
    reader, lines = Reader(memory), Lines()
    with open_log(lines, fmt="pretty" if fmt == "pretty" else "json", worker=3, slab=memory):
        emit("outbox_reclaimed", mails=1)
        emit("library_message", logger="x", message="two\nlines, ESC \x1b[31m and \u2028", traceback="a\n  b")
    block, lost = reader.read(RING)
    first, second = (json.loads(text) for text in block.splitlines())
    assert lost == 0
    assert (first["event"], first["worker"], first["mails"]) == ("outbox_reclaimed", 3, 1)
    assert (second["message"], second["traceback"]) == ("two\nlines, ESC \x1b[31m and \u2028", "a\n  b")
    if fmt == "json":
        assert lines.getvalue() == block
    else:
        assert b"\n    a\n      b\n" in lines.getvalue()
        assert lines.getvalue().decode().isascii()


def test_a_stream_that_fails_leaves_the_ring_its_lines() -> None:
    class Full(Lines):
        def write(self, _data: object, /) -> int:
            raise OSError(28, os.strerror(28))

    memory = slab()
    reader = Reader(memory)
    with open_log(Full(), slab=memory) as log:
        emit("outbox_reclaimed", mails=1)
    assert log.statistics().dropped == 1
    assert b'"outbox_reclaimed"' in reader.read(RING)[0]
