"""`regsvc keys`: the keys that sign access tokens."""

import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

import click

from regsvc.cli.given import database, progress, say, settings

if TYPE_CHECKING:  # --help must not wait for them
    from regsvc.adapters.crypto import Keyring, Use
    from regsvc.ports import SigningKey

T = TypeVar("T")
LEAD_MAX = 86_400  # seconds; a day is time enough for every cache of a JWK set


@click.group(short_help="List or rotate the keys that sign access tokens.")
def keys() -> None:
    """Look at the keys that sign access tokens, or put a new one in their place.

    \b
    A key is
      next        known to everybody already, it signs when its time comes
      signing     the one that signs now
      verifying   what it signed is good, it signs no more
      retired     what it signed is worth nothing; a day later it is gone
      unreadable  sealed under a secret that is neither SECRET nor SECRET_PREVIOUS

    \b
    Examples:
      regsvc keys list
      regsvc keys list --json | jq -r 'select(.state == "signing").kid'
      regsvc keys rotate
      regsvc keys rotate --lead 3600

    Exit statuses: 0 done, 75 the database is away: try again, 78 misconfigured.
    """


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line, for programs.")
def list_(*, as_json: bool) -> None:
    """List the keys, newest first, and what each is for now."""
    found = _at_ring(lambda ring: ring.uses())
    if as_json:
        for key, use in found:
            click.echo(json.dumps(_plain(key, use)))
        return
    if not found:
        say("there are no keys yet: the service makes the first when it starts")
        return
    _print_table(found)


@keys.command()
@click.option(
    "--lead",
    type=click.IntRange(0, LEAD_MAX),
    default=10,
    show_default=True,
    metavar="SECONDS",
    help="How long everybody has to learn of the new key before it signs. Others who verify tokens and keep the JWK "
    "set for an hour need an hour.",
)
@click.option("--json", "as_json", is_flag=True, help="A JSON object, for programs.")
def rotate(*, lead: int, as_json: bool) -> None:
    """Make a new key. Nobody is logged out.

    The running services hear of it at once and sign with it when the lead is over. The old key verifies until the last
    token that it signed is over (REGSVC_ACCESS_TTL, and a minute to be safe).
    """
    kid, signs_from = _at_ring(lambda ring: ring.rotate(timedelta(seconds=lead)))
    if as_json:
        click.echo(json.dumps({"kid": kid, "signs_from": signs_from.isoformat()}))
        return
    say(f"the key {kid} signs from {signs_from.isoformat(timespec='seconds')}")


def _at_ring(work: Callable[["Keyring"], Awaitable[T]]) -> T:
    """Do `work` on the keys of the database that the settings name."""
    import trio

    from regsvc.settings import with_secret
    from regsvc.world import open_keys

    told = with_secret(settings())
    with progress("at the keys"), database(told) as dsn:

        async def visit() -> T:
            async with open_keys(told, dsn) as ring:
                return await work(ring)

        return trio.run(visit)


def _plain(key: "SigningKey", use: "Use") -> dict[str, str | None]:
    return {
        "kid": key.kid,
        "algorithm": key.algorithm,
        "state": use.value,
        "created_at": key.created_at.isoformat(),
        "not_before": key.not_before.isoformat(),
        "retired_at": None if key.retired_at is None else key.retired_at.isoformat(),
    }


def _print_table(found: "Sequence[tuple[SigningKey, Use]]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("kid", "algorithm", "state", "signs from", "verifies until", box=None, pad_edge=False)
    for key, use in found:
        table.add_row(key.kid, key.algorithm, use.value, _time(key.not_before), _time(key.retired_at))
    wide = None if sys.stdout.isatty() else 200  # a pipe has no width, and a program wants whole lines
    Console(width=wide, highlight=False, markup=False).print(table)


def _time(at: datetime | None) -> str:
    return "" if at is None else at.isoformat(timespec="seconds")
