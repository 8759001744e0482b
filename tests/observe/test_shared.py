"""Memory that processes share."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from regsvc.observe.shared import CELLS, RING, SLAB, Shared

OTHER = """
import sys
from regsvc.observe.shared import Shared
shared = Shared.attach(int(sys.argv[1]))
slab = shared.slabs[1]
slab.take(fingerprint=7, worker=1)
for _ in range(1000):
    slab.cells[5] += 1
slab.ring[:5] = b"hello"
slab.written = 5
"""


def count_elsewhere(shared: Shared) -> None:
    subprocess.run([sys.executable, "-c", OTHER, str(shared.fd)], check=True, pass_fds=[shared.fd])


def test_what_one_process_counts_the_others_read_and_its_successor_counts_on() -> None:
    shared = Shared.create(3)
    for times in (1, 2):
        count_elsewhere(shared)
        [slab] = shared.taken(7)
        assert (slab.number, slab.worker, slab.cells[5]) == (1, 1, 1000.0 * times)
        assert bytes(slab.ring[: slab.written]) == b"hello"
        assert slab.pid not in {0, os.getpid()}
        slab.leave()
        assert slab.pid == 0
    assert [slab.pid for slab in shared.slabs] == [0, 0, 0]


def test_numbers_of_another_layout_are_cleared_and_passed_over() -> None:
    shared = Shared.create(2)
    first, second = shared.slabs
    for slab in (first, second):
        slab.take(fingerprint=1, worker=1)
        slab.cells[0] = slab.cells[CELLS - 1] = 3.5
    first.take(fingerprint=2, worker=4)
    assert (first.cells[0], first.cells[CELLS - 1]) == (0.0, 0.0)
    assert [slab.number for slab in shared.taken(1)] == [1]
    assert [slab.number for slab in shared.taken(2)] == [0]


def test_slabs_do_not_touch_each_other() -> None:
    shared = Shared.create(3)
    middle = shared.slabs[1]
    middle.take(fingerprint=2**64 - 1, worker=255)
    middle.cells[:] = memoryview(b"\xff" * CELLS * 8).cast("d")
    middle.ring[:] = b"\xff" * RING
    middle.written = 2**64 - 1
    for slab in (shared.slabs[0], shared.slabs[2]):
        assert (slab.fingerprint, slab.pid, slab.worker, slab.written) == (0, 0, 0, 0)
        assert not any(slab.cells)
        assert not any(slab.ring)


def test_where_there_is_no_memfd_a_file_without_a_name_does_as_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    shared = Shared.create(2)
    assert os.fstat(shared.fd).st_size == 2 * SLAB
    assert list(tmp_path.iterdir()) == []
    count_elsewhere(shared)
    assert shared.slabs[1].cells[5] == 1000.0
