"""What every verb begins with: the settings, and a database to work on."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:  # verbs that need neither must not wait for them
    from regsvc.domain.values import Secret
    from regsvc.settings import Settings

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
