"""`regsvc serve` and what it starts, `regsvc migrate`."""

import json
import signal
import socket
import sys
import time
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import click

from regsvc.cli import given
from regsvc.cli.given import say


@click.command(short_help="Run the service.")
@click.option("--host", metavar="ADDRESS", help="Where to listen, instead of REGSVC_HOST.")
@click.option("--port", type=click.IntRange(0, 65535), help="The port, instead of REGSVC_PORT; 0: any free one.")
@click.option("--workers", metavar="N|auto", help="How many workers, instead of REGSVC_WORKERS.")
def serve(host: str | None, port: int | None, workers: str | None) -> None:
    """Run the service until SIGTERM or Ctrl-C; a second one forces. SIGHUP: read .env again, and replace the workers.

    Without a database named, PostgreSQL is started in REGSVC_DATA_DIR and stopped at the end. In the dev profile
    migrations are applied and mail is shown at /dev/mail.

    \b
    Examples:
      regsvc serve
      regsvc serve --port 0
      REGSVC_DATABASE_URL=postgresql://regsvc@db/regsvc REGSVC_PROFILE=dev regsvc serve --workers auto

    Exit statuses: 0 told to stop, 75 try again later, 78 misconfigured.
    """
    import os
    import resource

    from regsvc import observe
    from regsvc.observe.shared import Shared
    from regsvc.settings import Settings, load_settings, with_secret
    from regsvc.supervisor import Database, supervise

    asked = {"REGSVC_HOST": host, "REGSVC_PORT": port, "REGSVC_WORKERS": workers}
    environ = {**os.environ, **{name: str(value) for name, value in asked.items() if value is not None}}
    told = with_secret(load_settings(environ, Path(".env")))
    # The memory of a process that crashes is full of secrets; whatever is started from here inherits this.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    shared = Shared.create(1 + 2 * told.workers)

    def read(before: Mapping[str, str], without: Collection[str]) -> Settings:
        return load_settings({**environ, **before}, Path(".env"), without=without)

    instance = socket.gethostname()
    opened = observe.open_log(level=told.log_level, fmt=told.log_format, instance=instance, slab=shared.slabs[0])
    with opened, given.bugs_told():
        if told.enable_metrics:
            observe.start_counting(observe.layout_of())
            observe.gauge("started_at", time.monotonic())

        def open_database() -> AbstractContextManager[Database]:
            from regsvc.store.embedded import open_embedded  # while the workers import theirs

            return open_embedded(told.data_dir, binaries=told.pg_bin, report=say)

        sys.exit(supervise(told, None if told.dsn else open_database, shared=shared, read=read, tell=say))


@click.command(hidden=True)
@click.option("--parent", type=int, required=True)
@click.option("--lifeline", type=int, required=True)
@click.option("--ready", type=int, required=True)
@click.option("--shared", "memory", type=int, required=True)
@click.option("--slab", type=int, required=True)
@click.option("--socket", "sockets", type=int, multiple=True)
def worker(parent: int, lifeline: int, ready: int, memory: int, slab: int, sockets: tuple[int, ...]) -> None:
    """Serve as one of the workers of `regsvc serve`, which starts it."""
    import gc

    gc.disable()  # until it is ready: of what a start makes nearly all stays, and walking it over and over is a tenth
    from regsvc.supervisor import end_with, read_orders

    end_with(parent)
    for meant in (signal.SIGINT, signal.SIGHUP):  # whoever means the service tells its supervisor
        signal.signal(meant, signal.SIG_IGN)
    from regsvc import observe
    from regsvc.observe.shared import Shared
    from regsvc.settings import load_settings
    from regsvc.world import run_worker  # most of the start: while the database starts, or nobody has died yet

    number, variables = read_orders(lifeline)
    told, shared = load_settings(variables), Shared.attach(memory)
    mine, instance = shared.slabs[slab], socket.gethostname()
    form = told.log_format
    opened = observe.open_log(level=told.log_level, fmt=form, instance=instance, worker=number, slab=mine)
    with opened, given.bugs_told():
        sys.exit(run_worker(told, sockets, lifeline=lifeline, ready=ready, shared=shared))


@click.command(short_help="Bring the database to what this version needs.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object for programs.")
def migrate(*, as_json: bool) -> None:
    """Bring the database to what this version needs; does nothing where it is there already.

    Several at once do no harm. `regsvc serve` does it by itself in the dev profile only.

    \b
    Examples:
      REGSVC_DATABASE_URL=postgresql://regsvc@db/regsvc regsvc migrate
      regsvc migrate --json

    Exit statuses: 0 done, 75 the database is away: try again, 78 misconfigured.
    """
    from regsvc.world import apply_migrations

    with given.progress("migrating"), given.database(given.settings()) as dsn:
        applied = apply_migrations(dsn, report=say)
    if as_json:
        click.echo(json.dumps({"applied": applied}))
    elif not applied:
        say("the database is up to date")
