"""Compile the lanes, where there is a C compiler; where there is none, the package does the work, and nothing fails.

No build system: it is one file of C that needs libc and Python's stable ABI, so that one compiled file serves Python
3.11 and every later one.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
SOURCES: Final = ("_lanes.c", "pi.h")
NAME: Final = "_lanes.abi3.so"
FLAGS: Final = ("-O2", "-std=c11", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra")
SHARED: Final = ("-bundle", "-undefined", "dynamic_lookup") if sys.platform == "darwin" else ("-shared",)
PATIENCE: Final = 120.0  # seconds


class CannotCompile(Exception):  # noqa: N818 - it says what is the matter
    """There is no compiler here, or it does not take our C; the message says which."""


def compiler() -> list[str]:
    """Return the C compiler's command: CC's, or the first usual one there is. Raises CannotCompile."""
    for words in (shlex.split(os.environ.get("CC", "")), ["cc"], ["gcc"], ["clang"]):
        if words and shutil.which(words[0]):
            return words
    raise CannotCompile("there is no C compiler (cc, gcc or clang) on the PATH")


def compile_lanes(target: Path, *flags: str) -> Path:
    """Compile into the folder `target` and return the file; `flags` come after ours. Raises CannotCompile."""
    include = Path(sysconfig.get_paths()["include"])
    if not (include / "Python.h").exists():
        raise CannotCompile(f"Python's headers are not installed (no {include / 'Python.h'})")
    with tempfile.TemporaryDirectory(prefix="regsvc ", dir=target) as folder:
        made = Path(folder, NAME)
        words = [*compiler(), *FLAGS, *flags, *SHARED, f"-I{include}", str(HERE / "_lanes.c"), "-o", str(made)]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)  # noqa: S603
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CannotCompile(str(error)) from error
        if done.returncode:
            raise CannotCompile(done.stderr.strip() or f"{words[0]} ended with {done.returncode}")
        return made.rename(target / NAME)  # at once, whoever imports it meanwhile


def fresh(made: Path) -> bool:
    """Tell whether `made` is younger than all it is made of."""
    return made.exists() and all(made.stat().st_mtime > (HERE / name).stat().st_mtime for name in SOURCES)
