"""The engines, the compiled one among them wherever it can be."""

from pathlib import Path

import pytest

from regsvc.bcrypt_lanes import Engine, Lanes, open_engine
from regsvc.bcrypt_lanes.compiling import CannotCompile, compiler


def can_compile() -> bool:
    try:
        compiler()
    except CannotCompile:
        return False
    return True


@pytest.fixture(scope="session")
def lanes() -> Lanes:
    engine, why = open_engine()
    if not isinstance(engine, Lanes):
        assert not can_compile(), f"there is a compiler, and yet {why}"
        pytest.skip(f"the package does the work here: {why}")
    return engine


@pytest.fixture(scope="session")
def engine() -> Engine:
    return open_engine()[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
