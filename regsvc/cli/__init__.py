"""The command line: one verb a function, each loaded only when it is asked for.

Exit statuses: 0 done, 1 refused or not found, 2 wrong usage, 75 try again later, 78 misconfigured (sysexits.h).
"""

import importlib
import os
import sys
from typing import Any, Final, NoReturn

import click

from regsvc import __version__

_VERBS: Final = {  # name: (its module below this package, the function there)
    "serve": ("serve", "serve"),
    "migrate": ("serve", "migrate"),
    "config": ("told", "config"),
    "openapi": ("told", "openapi"),
    "user": ("user", "user"),
    "mail": ("mail", "mail"),
    "keys": ("keys", "keys"),
    "calibrate": ("calibrate", "calibrate"),
    "events": ("events", "events"),
    "trace": ("trace", "trace"),
    "watch": ("watch", "watch"),
    "bench": ("bench", "bench"),
    "worker": ("serve", "worker"),
}


class Verbs(click.Group):
    """The verbs, imported one by one: a `--help` does not wait for a web framework."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name them in the order in which they are met."""
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one."""
        if cmd_name not in _VERBS:
            return None
        module, function = _VERBS[cmd_name]
        found: click.Command = getattr(importlib.import_module(f"regsvc.cli.{module}"), function)
        return found

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's signature
        """Run the verb; what it cannot help becomes one line and its exit status."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if (status := status_of(error)) is None:
                raise
            _leave(str(error), status)


def status_of(error: Exception) -> int | None:
    """Return what to exit with; None: it is a bug, and shows as one."""
    from regsvc.ports import Unavailable
    from regsvc.settings import SettingsError
    from regsvc.store.embedded import AlreadyOwned, EmbeddedError
    from regsvc.store.migrations import MigrationError
    from regsvc.supervisor import CannotListen

    match error:
        case SettingsError():
            return os.EX_CONFIG
        case Unavailable() | AlreadyOwned():
            return os.EX_TEMPFAIL
        case CannotListen():
            return os.EX_TEMPFAIL if error.again else os.EX_CONFIG
        case EmbeddedError() | MigrationError():
            return os.EX_CONFIG
        case _:
            return None


def _leave(message: str, status: int) -> NoReturn:
    click.echo(f"regsvc: {message}", err=True)
    sys.exit(status)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="regsvc")
def main() -> None:
    """A self-hosted user-registration service.

    \b
    Start it here, with a database of its own and a mailbox to read:  regsvc serve
    See what it is told, and by whom:                                 regsvc config

    Everything is set by variables REGSVC_…, in the environment or in a file .env in the current folder.
    Exit statuses: 0 done, 1 refused or not found, 2 wrong usage, 75 try again later, 78 misconfigured.
    """
