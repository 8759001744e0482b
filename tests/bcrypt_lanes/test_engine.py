"""Which engine is taken, how it is compiled, how many lanes pay."""

import contextlib
import importlib.util
import os
import random
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bcrypt
import pytest

from regsvc.bcrypt_lanes import Engine, Lanes, Package, calibrate, compiling, engine, make_tables, open_engine
from regsvc.bcrypt_lanes.compiling import CannotCompile, compile_lanes, fresh
from tests.bcrypt_lanes.conftest import can_compile

HERE = Path(__file__).parents[2] / "regsvc" / "bcrypt_lanes"
SANITIZED = """
import importlib.util, random, sys
spec = importlib.util.spec_from_file_location("_lanes", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
source = random.Random(1)
for width in range(1, module.LANES_MAX + 1):
    for size in (0, 1, 71, 72):
        module.digest_many(4, tuple(source.randbytes(size) for _ in range(width)), (source.randbytes(16),) * width)
salt = bytes(16)
for wrong in ((4, (b"a" * 73,), (salt,)), (4, (b"",), (b"",)), (99, (b"",), (salt,)), (4, (b"", "a"), (salt,) * 2)):
    try:
        module.digest_many(*wrong)
    except (TypeError, ValueError):
        continue
    raise AssertionError(wrong)
print("clean")
"""


def test_the_tables_are_the_digits_of_pi() -> None:
    assert (HERE / "pi.h").read_text("ascii") == make_tables.header()
    assert make_tables.words()[:2] == [0x243F6A88, 0x85A308D3]
    assert make_tables.words()[-1] == 0x3AC372E6  # the last word of the fourth S-box, as Blowfish's author printed it


class Wrong:
    """A compiled part whose digests are wrong from the second lane on."""

    LANES_MAX = 3

    @staticmethod
    def digest_many(cost: int, passwords: tuple[bytes, ...], salts: tuple[bytes, ...]) -> tuple[bytes, ...]:
        right = Package().digest(cost, passwords, salts)
        return (right[0], *(bytes(23) for _ in right[1:]))


def test_lanes_that_compute_something_else_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "import_module", lambda _: Wrong)
    found, why = open_engine()
    assert found == Package()
    assert why == "the lanes compute something else than bcrypt: with 2 lanes"


def test_without_the_compiled_part_the_package_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(engine, "import_module", missing)
    found, why = open_engine()
    assert found == Package()
    assert why.startswith("the lanes are not compiled: No module named")
    [digest] = found.digest(4, [b"a"], [bytes(16)])
    assert bcrypt.checkpw(b"a", b"$2b$04$" + engine.encoded(bytes(16)) + engine.encoded(digest))


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(CannotCompile, match="no C compiler"):
        compile_lanes(folder)


def test_without_python_s_headers_it_says_so(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(compiling, "sysconfig", SimpleNamespace(get_paths=lambda: {"include": str(folder)}))
    with pytest.raises(CannotCompile, match="headers are not installed"):
        compile_lanes(folder)


@pytest.mark.parametrize(("script", "why"), [("echo no >&2; exit 3", "no"), ("exit 4", "ended with 4")])
def test_a_compiler_that_fails_is_believed(
    monkeypatch: pytest.MonkeyPatch, folder: Path, script: str, why: str
) -> None:
    program = folder / "a compiler"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("CC", f"'{program}' -pipe")
    monkeypatch.setattr(compiling, "sysconfig", SimpleNamespace(get_paths=lambda: {"include": str(headers(folder))}))
    with pytest.raises(CannotCompile, match=why):
        compile_lanes(folder)
    assert [path.name for path in folder.iterdir() if path.is_dir()] == ["include"]


def headers(folder: Path) -> Path:
    include = folder / "include"
    include.mkdir(exist_ok=True)
    (include / "Python.h").touch()
    return include


def test_a_compiler_that_cannot_be_run(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    program = folder / "broken"
    program.write_bytes(b"\x7fELF")
    program.chmod(0o755)
    monkeypatch.setenv("CC", str(program))
    monkeypatch.setattr(compiling, "sysconfig", SimpleNamespace(get_paths=lambda: {"include": str(headers(folder))}))
    with pytest.raises(CannotCompile):
        compile_lanes(folder)


def test_what_is_younger_than_its_sources_is_fresh(folder: Path) -> None:
    made = folder / compiling.NAME
    assert not fresh(made)
    made.touch()
    assert fresh(made)
    os.utime(made, (0, 0))
    assert not fresh(made)


@pytest.mark.skipif(not can_compile(), reason="there is no C compiler on this machine")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("level", ["-O0", "-O2"])  # without optimization all of it is C
def test_it_is_clean_under_the_sanitizers(folder: Path, level: str) -> None:
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", level, "-g")
    made = compile_lanes(folder, *flags)
    library = subprocess.run(
        [*compiling.compiler(), "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    environ = {**os.environ, "LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run(
        [sys.executable, "-c", SANITIZED, str(made)], capture_output=True, text=True, check=False, env=environ
    )
    assert (done.stdout, done.returncode) == ("clean\n", 0), done.stderr


@pytest.mark.skipif(not can_compile(), reason="there is no C compiler on this machine")
@pytest.mark.parametrize("flags", [("-DLANES_PLAIN_C",), ("-O0",), ("-O1",), ("-O3",), ("-fno-omit-frame-pointer",)])
def test_it_computes_the_same_however_it_is_compiled(folder: Path, flags: tuple[str, ...], rounds: int | None) -> None:
    """Where there is assembly too: a compiler that runs out of registers for it, or mistakes it, would show here."""
    module = loaded(compile_lanes(folder, *flags))
    source = random.Random(6)
    for width in range(1, module.LANES_MAX + 1):
        for _ in range(rounds or 3):
            passwords = [source.randbytes(source.randint(0, 72)) for _ in range(width)]
            salts = [source.randbytes(16) for _ in range(width)]
            found = module.digest_many(4, tuple(passwords), tuple(salts))
            assert list(found) == Package().digest(4, passwords, salts), f"{width} lanes"


def loaded(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("_lanes", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Paced:
    """An engine that takes a given time for each width, on a clock of its own."""

    name = "paced"

    def __init__(self, *seconds: float) -> None:
        self.seconds, self.lanes, self.now = seconds, len(seconds), 0.0

    def digest(self, cost: int, passwords: Any, salts: Any) -> list[bytes]:
        assert cost == 4
        self.now += self.seconds[len(passwords) - 1]
        return [bytes(23) for _ in salts]

    def clock(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("fifth", "sixth", "middle"), [(0.0025, 0.003, 4), (0.00229, 0.003, 4), (0.00229, 0.00275, 5), (0.0019, 0.003, 5)]
)
def test_the_middle_one_of_the_lanes_that_come_near_the_best_is_taken(fifth: float, sixth: float, middle: int) -> None:
    paced = Paced(0.001, 0.0012, 0.0014, 0.00181, fifth, sixth)
    chosen, paces = calibrate(paced, clock=paced.clock)
    assert chosen == middle
    assert [pace.lanes for pace in paces] == [1, 2, 3, 4, 5, 6]
    assert round(paces[3].per_second) == round(4 / 0.00181)


def test_calibrating_keeps_to_its_time_and_says_something(engine: Engine) -> None:
    chosen, paces = calibrate(engine, seconds=0.02)
    assert 1 <= chosen <= engine.lanes
    assert all(pace.per_second > 1 for pace in paces)


class Shared:
    """A core of two halves: what a thread alone does best with two lanes, two threads do best with one."""

    name = "shared"
    lanes = 2

    def __init__(self) -> None:
        self.running, self.most, self.now = 0, 0, threading.local()
        self.lock, self.both = threading.Lock(), threading.Barrier(2)

    def digest(self, cost: int, passwords: Any, salts: Any) -> list[bytes]:
        with contextlib.suppress(threading.BrokenBarrierError):
            self.both.wait(5)
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        with contextlib.suppress(threading.BrokenBarrierError):
            self.both.wait(5)
        with self.lock:
            alone = self.running == 1
            self.now.time = self.clock() + (0.001 if alone else 0.001 * len(passwords) ** 1.5)
        with contextlib.suppress(threading.BrokenBarrierError):
            self.both.wait(5)
        with self.lock:
            self.running -= 1
        return [bytes(23) for _ in salts]

    def clock(self) -> float:
        return float(getattr(self.now, "time", 0.0))


def test_all_threads_measure_at_once() -> None:
    shared = Shared()
    chosen, paces = calibrate(shared, threads=2, seconds=0.01, clock=shared.clock)
    assert shared.most == 2
    assert chosen == 1
    assert [round(1e3 * pace.seconds, 2) for pace in paces] == [1.0, 2.83]
    shared.both.abort()
    assert calibrate(shared, seconds=0.01, clock=shared.clock)[0] == 2


def test_the_engine_of_this_machine_says_why() -> None:
    found, why = open_engine()
    assert isinstance(found, Lanes) == ("self-test" in why)
