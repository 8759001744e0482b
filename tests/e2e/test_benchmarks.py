"""Every part of the benchmarks works, in its smallest form: real services, next to no load, figures of no meaning.

`--rounds 1`: those too whose ways others have as well, and peers. `nox -s bench -- --quick` tries all of it at once.
"""

from pathlib import Path

import pytest

from benchmarks import apart, beside
from benchmarks.figures import Found
from benchmarks.parts import PARTS, Part
from benchmarks.wanted import rows_of
from tests import redis

ALONE = "left out by the test"
SMALL = {"light", "mail"}  # the others start and ask services in the same ways, and the weekly quick run tries all
NO_PEERS = beside.missing("fastapi", "uvicorn", "celery", "matplotlib")


def measured(part: Part, folder: Path | None = None) -> dict[str, Found]:
    """Measure it as little as can be; draw its picture into `folder`."""
    entry = apart.entry(part, {}, 0.0, quick=True)
    assert not entry["error"]
    assert part.module.table(entry["numbers"]).count("\n") >= 2
    if folder is not None:
        part.draw(entry["numbers"], folder)
    found = {key: Found.from_json(row) for key, row in entry["rows"].items()}
    assert list(found) == [row.key for row in rows_of(part.name)]
    assert all(row.ours or row.note for row in found.values())
    return found


@pytest.mark.timeout(240)  # two or three services each, on however busy a machine
@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_a_part_measures_ours(part: Part, monkeypatch: pytest.MonkeyPatch, rounds: int | None) -> None:
    if not rounds and part.name not in SMALL:
        pytest.skip("tried with --rounds")
    monkeypatch.setattr(beside, "missing", lambda *_: ALONE)
    for row in measured(part).values():
        assert not [name for name in row.peers if "FastAPI" in name], "it is said to be missing"


@pytest.mark.timeout(240)
@pytest.mark.skipif(bool(NO_PEERS), reason=NO_PEERS)
@pytest.mark.parametrize("name", ["light", "mail"])
def test_peers_stand_beside_it(name: str, tmp_path: Path, rounds: int | None) -> None:
    if not rounds:
        pytest.skip("tried with --rounds")
    [part] = [part for part in PARTS if part.name == name]
    if name == "mail" and redis.PROGRAM is None:
        pytest.skip(redis.NO_PROGRAM)
    found = measured(part, tmp_path)
    assert all(row.peers and all(row.peers.values()) for row in found.values())
    assert [path.name for path in tmp_path.iterdir()] == ([part.picture[0]] if part.picture else [])
