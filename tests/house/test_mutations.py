"""A build that is broken on purpose is caught, each time by the check that is named for it.

Each mutation goes into a copy of the service, in which its check is run in a process of its own and has to fail, by its
own name. The same checks pass in a copy without any. The small form tries the three that everybody should know of;
`--rounds N` tries all.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import regsvc
from tests.house.mutations import MUTATIONS, Invariant, Mutation, Test

ROOT = Path(__file__).parents[2]
PARTS = ("regsvc", "sql", "tests", "pyproject.toml", "README.md", ".env.example")
SOUND_SEEDS = 3  # of a sound copy; the suite itself runs many
PATIENCE = 150  # seconds for one check, on a machine that does other things


def copy(folder: Path) -> Path:
    """Copy what the checks need, and nothing that was made of it."""
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
        else:
            shutil.copy(source, folder / part)
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a copy, with the copy's packages, and nothing counted as covered."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYTEST"))}
    environ |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def pytest_in(folder: Path, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return run(folder, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:schemathesis", *tests)


def seeds_in(folder: Path, seeds: int) -> subprocess.CompletedProcess[str]:
    return run(folder, "-m", "tests.simulation", "--seeds", str(seeds), "--processes", "1", "--until-broken")


def caught(folder: Path, check: Invariant | Test) -> tuple[bool, str]:
    """Run a check in a copy; tell whether it failed by its own name, and what was said."""
    if isinstance(check, Test):
        done = pytest_in(folder, [check.id])
        named = re.search(rf"^FAILED {re.escape(check.id)}(\[| |$)", done.stdout, re.MULTILINE)
    else:
        done = seeds_in(folder, check.seeds)
        named = re.search(rf"^seed \d+: {check.name}: ", done.stdout, re.MULTILINE)
    return done.returncode == 1 and named is not None, done.stdout + done.stderr


@pytest.fixture
def tried(rounds: int | None) -> Sequence[Mutation]:
    return [mutation for mutation in MUTATIONS if mutation.quick or rounds is not None]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_checks_pass_where_nothing_is_broken(tmp_path: Path, tried: Sequence[Mutation]) -> None:
    folder = copy(tmp_path)
    where = run(folder, "-c", "import regsvc; print(regsvc.__file__)")
    assert where.stdout.strip() == str(folder / "regsvc" / "__init__.py") != regsvc.__file__
    done = seeds_in(folder, SOUND_SEEDS)
    assert done.returncode == 0, done.stdout + done.stderr
    done = pytest_in(folder, sorted({mutation.check.id for mutation in tried if isinstance(mutation.check, Test)}))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name.replace(" ", "-"))
def test_a_broken_build_is_caught(tmp_path: Path, mutation: Mutation, rounds: int | None) -> None:
    if not mutation.quick and rounds is None:  # a mutation whose text has moved is noticed at once
        (tmp_path / mutation.file).parent.mkdir(parents=True)
        shutil.copy(ROOT / mutation.file, tmp_path / mutation.file)
        mutation.apply(tmp_path)
        return
    folder = copy(tmp_path)
    mutation.apply(folder)
    found, said = caught(folder, mutation.check)
    assert found, f"{mutation.name}: {mutation.check} does not see it\n{said[-4000:]}"


def test_a_mutation_whose_text_has_moved_says_which(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("one\ntwo\ntwo\n", "utf-8")
    for before, times in (("three\n", 0), ("two\n", 2)):
        mutation = Mutation("moved", "code.py", before, "", Invariant("I1"))
        with pytest.raises(LookupError, match=rf"code.py has these lines {times} times, not once:\n{before}"):
            mutation.apply(tmp_path)
