"""`regsvc mail`: the outbox as an operator works on it."""

import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import click

from regsvc.cli.given import actor, at_staff, database, progress, say, settings

if TYPE_CHECKING:  # --help must not wait for them
    from regsvc.domain.refusals import Refused
    from regsvc.flows.staff import Staff
    from regsvc.ports import MailDesk, MailRow

T = TypeVar("T")
STATES = ("ready", "leased", "dead", "sent")
_JSON = click.option("--json", "as_json", is_flag=True, help="A JSON object a line, for programs.")


@click.group(short_help="List, show, retry or discard mails.")
def mail() -> None:
    """Look at mails that wait, were sent, or were given up; retry or discard those.

    \b
    Examples:
      regsvc mail list --state dead
      regsvc mail retry 0192f6c8-4b7e-7c3a-9a53-1d0f2c9e8b11
      regsvc mail retry --all

    What is retried or discarded is written into the audit trail.

    Exit statuses: 0 done, 1 not found or not a dead one, 75 the database is away: try again, 78 misconfigured.
    """


@mail.command("list")
@click.option("--state", type=click.Choice(STATES), help="Only mails in this state.")
@click.option("--before", type=click.UUID, metavar="ID", help="Only mails older than this one: the next page.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many, newest first.")
@_JSON
def list_(*, state: str | None, before: UUID | None, limit: int, as_json: bool) -> None:
    """List mails, newest first."""
    rows = _at_desk(lambda desk: desk.list(state=state, before=before, limit=limit))
    if as_json:
        for row in rows:
            click.echo(json.dumps(_plain(row)))
        return
    _print_table(rows)


@mail.command()
@click.argument("mail_id", metavar="ID", type=click.UUID)
@_JSON
def show(mail_id: UUID, *, as_json: bool) -> None:
    """Show one mail: where it is, how often it was tried, what the relay said."""
    row = _at_desk(lambda desk: desk.show(mail_id))
    if row is None:
        say(f"there is no mail {mail_id}")
        sys.exit(1)
    if as_json:
        click.echo(json.dumps(_plain(row)))
        return
    for name, value in _plain(row).items():
        click.echo(f"{name + ':':<12} {'–' if value is None else value}")


@mail.command()
@click.argument("mail_ids", metavar="ID…", type=click.UUID, nargs=-1)
@click.option("--all", "every", is_flag=True, help="All dead mails.")
def retry(mail_ids: tuple[UUID, ...], *, every: bool) -> None:
    """Make dead mails ready again: with all their tries, and a new code each."""
    _settle(mail_ids, lambda staff, mail_id: staff.retry_mail(actor(), mail_id), "is ready again", every=every)


@mail.command()
@click.argument("mail_ids", metavar="ID…", type=click.UUID, nargs=-1)
@click.option("--all", "every", is_flag=True, help="All dead mails.")
def discard(mail_ids: tuple[UUID, ...], *, every: bool) -> None:
    """Delete dead mails for good."""
    _settle(mail_ids, lambda staff, mail_id: staff.discard_mail(actor(), mail_id), "is deleted", every=every)


def _settle(
    mail_ids: Sequence[UUID], act: Callable[["Staff", UUID], Awaitable["Refused | None"]], done: str, *, every: bool
) -> None:
    if every == bool(mail_ids):
        raise click.UsageError("name mails, or say --all")

    async def work(staff: "Staff") -> list[tuple[UUID, bool]]:
        chosen = [row.id for row in await _all_dead(staff.desk)] if every else mail_ids
        # ASYNC910: there is one, or they were asked for
        return [(one, await act(staff, one) is None) for one in chosen]  # noqa: ASYNC910

    found = at_staff(work)
    for mail_id, acted in found:
        say(f"{mail_id} {done}" if acted else f"{mail_id} is not a dead mail")
    if not every and not all(acted for _, acted in found):
        sys.exit(1)


async def _all_dead(desk: "MailDesk") -> list["MailRow"]:
    rows: list[MailRow] = []
    while page := await desk.list(state="dead", before=rows[-1].id if rows else None, limit=1000):
        rows += page
    return rows


def _at_desk(work: Callable[["MailDesk"], Awaitable[T]]) -> T:
    """Do `work` at the desk of the database that the settings name."""
    import trio

    from regsvc.settings import with_secret
    from regsvc.world import open_desk

    told = with_secret(settings())
    with progress("at the outbox"), database(told) as dsn:

        async def visit() -> T:
            async with open_desk(told, dsn) as desk:
                return await work(desk)

        return trio.run(visit)


def _plain(row: "MailRow") -> dict[str, Any]:
    return {name: _word(value) for name, value in asdict(row).items()}


def _word(value: object) -> object:
    match value:
        case datetime():
            return value.isoformat()
        case UUID():
            return str(value)
        case _:
            return value


def _print_table(rows: "Sequence[MailRow]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("id", "state", "letter", "tries", "created", "error", box=None, pad_edge=False)
    for row in rows:
        created = row.created_at.isoformat(timespec="seconds")
        table.add_row(str(row.id), row.state, row.letter, str(row.attempts), created, row.last_error or "")
    wide = None if sys.stdout.isatty() else 200  # a pipe has no width, and a program wants whole lines
    Console(width=wide, highlight=False, markup=False).print(table)
