"""Everything a developer runs, each session doing all of its own set-up: `nox -l` lists them."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nox

FLAKE8_ASYNC = (
    "--enable=ASYNC",
    # 127: httpx is what tests and benchmarks speak HTTP with; its fork is no part of the service either way.
    # 900, 910 to 913: a checkpoint in every function is for libraries; ours decide without one on purpose.
    "--disable=ASYNC127,ASYNC900,ASYNC910,ASYNC911,ASYNC912,ASYNC913",
    "--startable-in-context-manager=run,keep,run_log_writer,serve,_watch_signals,sleepy,starts",
)
# Without Python's search for cycles, a sixth of its time: what it makes goes without, and it needs no more memory.
FLAKE8_ASYNC_MAIN = "import gc, sys; gc.disable(); from flake8_async import main; sys.exit(main())"
SERVICES = ("tests/chaos", "tests/e2e")
nox.options.sessions = ["lint", "types", "tests"]
nox.options.error_on_missing_interpreters = True


@nox.session
def serve(session: nox.Session) -> None:
    """Run the service for real: embedded PostgreSQL, mailbox at /dev/mail. Extra words go to `regsvc serve`."""
    session.install("-q", ".")
    # nox gives way to the service instead of standing above it: it would kill what does not end within half a second
    # of a Ctrl-C, and would itself end by a SIGTERM without a word to its child. So signals and exit status are direct.
    regsvc = str(Path(session.bin, "regsvc"))
    sys.stdout.flush()
    os.execv(regsvc, [regsvc, "serve", *session.posargs])  # noqa: S606 - our own words, no shell


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests with branch coverage; extra words go to pytest."""
    session.install("-q", "-e", ".[test]")
    session.env["PYTHONDONTWRITEBYTECODE"] = ""  # else every service of a test compiles its modules at each start
    session.run("coverage", "erase")
    if session.posargs:
        session.run("coverage", "run", "-m", "pytest", *session.posargs)
    else:
        _test_all(session)
    session.run("coverage", "combine", "--quiet", success_codes=[0, 1])
    if not session.posargs:
        session.run("coverage", "report", "--fail-under=97")
        session.run("coverage", "report", "--include=regsvc/domain/*,regsvc/flows/*", "--fail-under=100")


def _test_all(session: nox.Session) -> None:
    """Run those tests that start services beside all the others: they wait for processes more than they compute.

    Without coverage's tracer: what their services run has tests within one process too, among the others.
    """
    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(session.run, "python", "-m", "pytest", *SERVICES, silent=True)
        try:
            session.run("coverage", "run", "-m", "pytest", *(f"--ignore={path}" for path in SERVICES))
        finally:
            session.log("The tests of whole services said:\n%s", beside.result())


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, floors and SQL."""
    session.install("-q", "--no-compile", "-e", ".[lint]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    _lint_async(session)
    session.run("lint-imports")
    session.run("sqlfluff", "lint", "-q", "sql")


def _lint_async(session: nox.Session) -> None:
    """Run flake8-async, a process a core: it takes half a second a file. Files without a coroutine give it nothing."""
    folders = ("regsvc", "tests", "benchmarks", "docs")
    paths = [path for folder in folders for path in Path(folder).rglob("*.py")]
    files = sorted(str(path) for path in paths if "async" in path.read_text("utf-8"))
    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:
        shares = [files[n::cores] for n in range(cores)]
        words = ("python", "-c", FLAKE8_ASYNC_MAIN, *FLAKE8_ASYNC)
        running = [pool.submit(session.run, *words, *share, log=False) for share in shares]
    for one in running:
        one.result()


@nox.session
def types(session: nox.Session) -> None:
    """Check types, tests too."""
    session.install("-q", "--no-compile", "-e", ".[test,types,bench]")
    session.run("mypy")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure beside what people would use instead, in a quarter of an hour; `-- --write` puts it into docs/."""
    session.install("-q", "-e", ".[test,bench]")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def chaos(session: nox.Session) -> None:
    """Do to it what it must survive, in some twenty minutes; `-- --large` in hours, `-- --only TEXT` in part."""
    session.install("-q", "-e", ".[test]")
    session.run("python", "-m", "tests.chaos", *session.posargs)
