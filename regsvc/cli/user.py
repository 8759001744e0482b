"""`regsvc user`: accounts as an administrator works on them, by the flows of the API, without a running service."""

import json
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar
from uuid import UUID

import click

from regsvc.cli.given import actor, at_staff, say
from regsvc.cli.transfer import export, import_

if TYPE_CHECKING:  # --help must not wait for them
    from regsvc.domain.refusals import Refused
    from regsvc.domain.staff import Entry, Wish
    from regsvc.domain.values import Email, Flaw, Secret, Username
    from regsvc.flows.staff import Staff

T = TypeVar("T")
V = TypeVar("V")
STATES: Final = ("active", "disabled", "admin", "pending")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_WORDS: Final = {  # what a refusal means here, by its value
    "no_such_user": "there is no account {who}",
    "last_admin": "{who} is the last administrator: promote somebody else first",
    "user_already_exists": "{who} has an account already",
    "username_taken": "this username is taken",
}
_WHO: Final = click.argument("who", metavar="WHO")
_JSON: Final = click.option("--json", "as_json", is_flag=True, help="A JSON object a line, for programs.")


@click.group(short_help="Make, list, show, change, delete, export or import accounts.")
def user() -> None:
    """Work on accounts: WHO is an id, an e-mail address or a username.

    Every change is written into the audit trail, as by the command line. The database that the settings name is worked
    on directly; the service may run meanwhile, and need not.

    \b
    Examples:
      regsvc user create ada@example.org --admin
      regsvc user list --query ada@ --json
      regsvc user disable ada@example.org
      regsvc user sessions ada --end

    Exit statuses: 0 done, 1 refused or not found, 2 wrong usage, 75 the database is away: try again, 78 misconfigured.
    """


user.add_command(export)
user.add_command(import_, "import")


@user.command()
@click.argument("email")
@click.option("--username", help="A name to log in with.")
@click.option("--locale", help="The language that mails are written in, such as en or de-AT.")
@click.option("--admin", is_flag=True, help="As an administrator.")
@click.option("--password-stdin", is_flag=True, help="Take the password from standard input.")
@click.option("--no-password", is_flag=True, help="Without one: POST /v1/auth/forgot-password sets the first.")
@_JSON
def create(
    *,
    email: str,
    username: str | None,
    locale: str | None,
    admin: bool,
    password_stdin: bool,
    no_password: bool,
    as_json: bool,
) -> None:
    """Make an account that is active at once, and print its id.

    Nobody proves the address: whoever runs this answers for that. Registrations of it that wait for a code go. The
    password is asked for, unless an option says otherwise.

    \b
    Examples:
      regsvc user create ada@example.org --admin
      pass show ada | regsvc user create ada@example.org --username ada --password-stdin
      regsvc user create bob@example.org --no-password --locale de
    """
    from regsvc.domain.session import Role
    from regsvc.domain.staff import Newcomer
    from regsvc.domain.values import Email, Locale, Username

    if password_stdin and no_password:
        raise click.UsageError("--password-stdin and --no-password contradict each other")
    who = Newcomer(
        _read(Email.parse, email, "EMAIL"),
        _read(Username.parse, username, "--username") if username is not None else None,
        _read(Locale.parse, locale, "--locale") if locale is not None else None,
        Role.ADMIN if admin else Role.USER,
    )
    password = None if no_password else _password(from_stdin=password_stdin)
    made = _done(at_staff(lambda staff: staff.create(actor(), who, password)), email)
    click.echo(json.dumps(_plain(made)) if as_json else str(made.id))


@user.command(short_help="Show one account.")
@_WHO
@_JSON
def show(*, who: str, as_json: bool) -> None:
    """Show one account; by its id, also a registration that waits for its code."""
    named = _named(who)
    entry = _done(at_staff(lambda staff: _find(staff, named)), who)
    if as_json:
        click.echo(json.dumps(_plain(entry)))
        return
    for name, value in _plain(entry).items():
        click.echo(f"{name + ':':<13} {'–' if value is None else value}")


@user.command("list")
@click.option("--query", metavar="TEXT", help="Only those whose address or username begins so, in any case.")
@click.option("--state", type=click.Choice(STATES), help="Only these; pending ones are listed on request only.")
@click.option("--before", type=click.UUID, metavar="ID", help="Only those older than this one: the next page.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many, newest first.")
@_JSON
def list_(*, query: str | None, state: str | None, before: UUID | None, limit: int, as_json: bool) -> None:
    """List accounts, newest first.

    \b
    Examples:
      regsvc user list --state admin
      regsvc user list --query ada@ --json | jq -r .id
    """
    from regsvc.domain.staff import Sought

    sought = Sought(state) if state is not None else None
    page = at_staff(lambda staff: staff.list(query=query, sought=sought, before=before, limit=limit))
    if as_json:
        for entry in page.items:
            click.echo(json.dumps(_plain(entry)))
    else:
        _print_table(
            ("id", "state", "role", "address", "username", "created"),
            [
                (str(one.id), one.state.value, one.role.value, one.email, one.username or "", _time(one.created_at))
                for one in page.items
            ],
        )
    if page.more:
        say(f"there are more: --before {page.items[-1].id}")


@user.command()
@_WHO
def disable(who: str) -> None:
    """Keep an account from logging in, and end its sessions."""
    from regsvc.domain.staff import Wish

    _change(who, Wish(disabled=True))


@user.command()
@_WHO
def enable(who: str) -> None:
    """Let a disabled account log in again."""
    from regsvc.domain.staff import Wish

    _change(who, Wish(disabled=False))


@user.command()
@_WHO
def promote(who: str) -> None:
    """Make an account an administrator."""
    from regsvc.domain.session import Role
    from regsvc.domain.staff import Wish

    _change(who, Wish(role=Role.ADMIN))


@user.command()
@_WHO
def demote(who: str) -> None:
    """Make an administrator a user again; not the last one."""
    from regsvc.domain.session import Role
    from regsvc.domain.staff import Wish

    _change(who, Wish(role=Role.USER))


@user.command(short_help="Delete an account.")
@_WHO
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(who: str, *, yes: bool) -> None:
    """Delete an account with its sessions, codes and unsent mails; the address is free again."""

    from regsvc.domain.refusals import Refused

    named = _named(who)

    async def work(staff: "Staff") -> "bool | Refused":
        entry = await _find(staff, named)
        if isinstance(entry, Refused):
            return entry
        if not yes and not _sure(f"Delete {entry.email} ({entry.id}) for good?"):
            return False
        return await staff.remove(actor(), entry.id) or True

    if not _done(at_staff(work, quiet=not yes), who):
        _refuse("nothing is deleted")
    say(f"{who} is deleted")


@user.command(short_help="List the sessions of an account, or end them.")
@_WHO
@click.option("--end", is_flag=True, help="End all of them.")
@_JSON
def sessions(who: str, *, end: bool, as_json: bool) -> None:
    """List the sessions of an account that are alive, newest first; or end them."""

    if end:
        ended = _on(who, lambda staff, one: staff.end_sessions(actor(), one))
        say(f"{ended} sessions of {who} ended")
        return
    found = _on(who, lambda staff, one: staff.sessions(one))
    if as_json:
        for one in found:
            times = {"created_at": one.created_at, "last_used_at": one.last_used_at, "expires_at": one.expires_at}
            told = {name: at.isoformat() for name, at in times.items()}
            click.echo(json.dumps({"id": str(one.id), "device": one.device, "ip": one.ip, **told}))
        return
    _print_table(
        ("id", "device", "ip", "created", "last used"),
        [(str(one.id), one.device, one.ip or "", _time(one.created_at), _time(one.last_used_at)) for one in found],
    )


# ------------------------------------------------------------------------------------------------- the work


def _change(who: str, wish: "Wish") -> None:
    entry = _on(who, lambda staff, one: staff.change(actor(), one, wish))
    say(f"{entry.email} is {entry.state.value}, and {'an administrator' if entry.role.value == 'admin' else 'a user'}")


def _on(who: str, act: Callable[["Staff", UUID], Awaitable["T | Refused"]]) -> T:
    """Do something to an account; return what came of it."""
    from regsvc.domain.refusals import Refused

    named = _named(who)

    async def work(staff: "Staff") -> "T | Refused":
        found = await _find(staff, named)
        return found if isinstance(found, Refused) else await act(staff, found.id)

    return _done(at_staff(work), who)


def _named(who: str) -> "UUID | Email | Username":
    """Read what somebody calls an account."""
    from regsvc.domain.values import Email, Username

    try:
        return UUID(who)
    except ValueError:
        return _read(Email.parse, who, "WHO") if "@" in who else _read(Username.parse, who, "WHO")


async def _find(staff: "Staff", named: "UUID | Email | Username") -> "Entry | Refused":
    return await staff.show(named) if isinstance(named, UUID) else await staff.find(named)


def _done(outcome: "T | Refused", who: str) -> T:
    """Return what came of it; a refusal is told, and ends the verb."""
    from regsvc.domain.refusals import Refused

    if isinstance(outcome, Refused):
        _refuse(outcome.flaw.message if outcome.flaw is not None else _WORDS[outcome.why.value].format(who=who))
    return outcome


def _refuse(why: str) -> NoReturn:
    say(why)
    sys.exit(1)


def _sure(question: str) -> bool:
    try:
        return click.confirm(question, err=True)
    except click.Abort:  # nobody is there to answer
        return False


def _read(parse: "Callable[[str], V | Flaw]", text: str, name: str) -> V:
    from regsvc.domain.values import Flaw

    found = parse(text)
    if isinstance(found, Flaw):
        raise click.BadParameter(found.message, param_hint=name)
    return found


def _password(*, from_stdin: bool) -> "Secret":
    """Ask for a password, or read it. It is never an argument: everybody on the machine sees those."""
    from regsvc.domain.values import Secret

    if from_stdin:
        try:
            text = sys.stdin.buffer.read().decode()
        except UnicodeDecodeError:
            _refuse("the password is not UTF-8")
        text = text.removesuffix("\n").removesuffix("\r")
    elif sys.stdin.isatty():
        text = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        raise click.UsageError("there is nobody to ask for a password: say --password-stdin or --no-password")
    if _CONTROL.search(text):
        _refuse("A password has no control characters.")
    return Secret(text)


# ------------------------------------------------------------------------------------------------- showing


def _plain(entry: "Entry") -> dict[str, Any]:
    return {
        "id": str(entry.id),
        "email": entry.email,
        "username": entry.username,
        "locale": entry.locale,
        "state": entry.state.value,
        "role": entry.role.value,
        "created_at": _iso(entry.created_at),
        "activated_at": _iso(entry.activated_at),
        "disabled_at": _iso(entry.disabled_at),
    }


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at is not None else None


def _time(at: datetime) -> str:
    return at.isoformat(timespec="seconds")


def _print_table(names: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*names, box=None, pad_edge=False)
    for line in lines:
        table.add_row(*line)
    wide = None if sys.stdout.isatty() else 200  # a pipe has no width, and a program wants whole lines
    Console(width=wide, highlight=False, markup=False).print(table)
