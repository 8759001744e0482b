"""What every verb begins with: the settings, a database to work on, and what administrators do on it."""

import io
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import click

if TYPE_CHECKING:  # verbs that need neither must not wait for them
    from regsvc.domain.staff import Actor
    from regsvc.domain.values import Secret
    from regsvc.flows.staff import Staff
    from regsvc.settings import Settings

T = TypeVar("T")
DOTENV: Final = Path(".env")


def settings() -> "Settings":
    """Read the settings of this process. Raises SettingsError."""
    from regsvc.settings import load_settings

    return load_settings(os.environ, DOTENV)


def say(line: str) -> None:
    """Tell a person; programs read standard output."""
    with suppress(OSError):  # nobody listens any more: that stops no service
        click.echo(f"regsvc: {line}", err=True)


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Show a person at a terminal that something is going on."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True, highlight=False, markup=False).status(what):
        yield


@contextmanager
def database(told: "Settings", *, report: Callable[[str], None] = say) -> Iterator["Secret"]:
    """Say where the database is; an embedded one runs meanwhile, if it does not already run under `regsvc serve`.

    Raises EmbeddedError.
    """
    from regsvc.domain.values import Secret
    from regsvc.store.embedded import AlreadyOwned, open_embedded, running_dsn

    if (named := told.dsn) is not None:
        yield named
        return
    try:
        opened = open_embedded(told.data_dir, binaries=told.pg_bin, report=report)
        cluster = opened.__enter__()
    except AlreadyOwned:
        yield Secret(running_dsn(told.data_dir))
        return
    try:
        yield Secret(cluster.dsn)
    finally:
        opened.__exit__(None, None, None)


@contextmanager
def bugs_told() -> Iterator[None]:
    """Log what nobody expected, and end with 70 (EX_SOFTWARE): a traceback on stderr is no line of any log."""
    from regsvc import observe
    from regsvc.cli import status_of

    try:
        yield
    except Exception as error:
        if status_of(error) is not None:
            raise
        observe.exception("process_failed", error)
        sys.exit(os.EX_SOFTWARE)


def actor() -> "Actor":
    """Say who administers here: whoever may run this."""
    from regsvc.domain.staff import Actor, By

    return Actor(By.COMMAND_LINE)


def at_staff(work: Callable[["Staff"], Awaitable[T]], *, quiet: bool = False) -> T:
    """Do an administrator's `work` on the database that the settings name; `quiet` leaves the terminal to it.

    Raises SettingsError, EmbeddedError, and Unavailable, where migrations are missing too.
    """
    import trio

    from regsvc.observe import open_log
    from regsvc.settings import with_secret
    from regsvc.world import apply_migrations, open_staff

    told = with_secret(settings())
    # What the log would say is in the audit trail too, and standard output is for what was asked.
    with open_log(io.FileIO(2, "wb", closefd=False), level="warning"), database(told) as dsn:
        if told.profile == "dev":  # as `serve` does: the first administrator may be made before the first start
            apply_migrations(dsn, report=say)

        async def visit() -> T:
            async with open_staff(told, dsn) as staff:
                return await work(staff)

        with nullcontext() if quiet else progress("at the accounts"):
            return trio.run(visit)
