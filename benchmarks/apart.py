"""Runs a part in a process of its own, with a limit of time, so that whatever becomes of it the others go on.

`python -m benchmarks.apart NAME FILE [--quick]` is that process: it measures and writes the part's entry.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Final

from benchmarks import host
from benchmarks.beside import ROOT
from benchmarks.parts import BY_NAME, Part

MARK: Final = "BENCHMARK_RUN"  # a variable that everything a run starts inherits: so nothing of it is left behind
TIDY_SECONDS: Final = 30.0  # for a part to stop what it started, once it is interrupted


def entry(part: Part, about: dict[str, str], load: float, *, quick: bool) -> dict[str, Any]:
    """Measure a part here; return its entry, with the error where it failed."""
    told: dict[str, Any] = {"date": _today(), "quick": quick, "host": about, "disturbed": "", "error": ""}
    try:
        calm = host.Calm(load, quick=quick)
        numbers = part.module.measure(quick=quick)
        told["disturbed"] = calm.disturbed()
        rows = {key: found.as_json() for key, found in part.module.found(numbers).items()}
    except KeyboardInterrupt:
        return {**told, "error": "interrupted: it took too long", "rows": {}, "numbers": {}}
    except Exception as error:  # noqa: BLE001 - whatever it is, it belongs into the part's rows
        traceback.print_exc()
        return {**told, "error": _said(error), "rows": {}, "numbers": {}}
    else:
        return {**told, "rows": rows, "numbers": numbers}


def _said(error: BaseException) -> str:
    """Return what to read in a cell: of several the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    said = error.stderr if isinstance(error, subprocess.CalledProcessError) else None
    return f"{said.decode('utf-8', 'replace') if isinstance(said, bytes) else said or type(error).__name__}: {error}"


def _today() -> str:
    return time.strftime("%Y-%m-%d")


def run(part: Part, about: dict[str, str], load: float, file: Path, *, quick: bool) -> dict[str, Any]:
    """Run it in a process of its own; return its entry, which says so where there is none."""
    file.unlink(missing_ok=True)
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    words = [sys.executable, "-m", "benchmarks.apart", part.name, str(file), json.dumps(about), str(load)]
    process = subprocess.Popen(
        [*words, *(["--quick"] if quick else [])], cwd=ROOT, env={**os.environ, MARK: mark}, start_new_session=True
    )
    why = ""
    try:
        process.wait(part.limit)
    except subprocess.TimeoutExpired:
        why = f"not done after {part.limit:g} s"
    finally:
        _end(process)
        _sweep(mark)
    if file.exists():
        told: dict[str, Any] = json.loads(file.read_text("utf-8"))
        if not told["error"] or not why:
            return told
    why = why or f"it ended with {process.returncode}"
    failed = {"date": _today(), "quick": quick, "host": about, "disturbed": "", "error": why, "rows": {}, "numbers": {}}
    file.write_text(json.dumps(failed), "utf-8")
    return failed


def _end(process: subprocess.Popen[bytes]) -> None:
    """Have it stop what it started, as at a Ctrl-C; kill it if that takes too long."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(TIDY_SECONDS)
    process.kill()
    process.wait()


def _sweep(mark: str) -> None:
    """Kill whatever the part left behind: what has its mark, wherever it is by now."""
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"{MARK}={mark}".encode() in environ.read_bytes().split(b"\0"):
                os.kill(int(environ.parent.name), signal.SIGKILL)


def main(name: str, file: str, about: str, load: str, *words: str) -> None:
    """Be that process."""
    # A shell that starts this in its background has it ignore Ctrl-C, by which the process above ends us.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    told = entry(BY_NAME[name], json.loads(about), float(load), quick="--quick" in words)
    Path(file).write_text(json.dumps(told, indent=1, ensure_ascii=False), "utf-8")
    sys.exit(1 if told["error"] else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
